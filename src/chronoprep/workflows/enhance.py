"""Prompts for using the editor: from one image and a wish to the text that it was trained on.

It is stage 2 of labelling with one image in place of two: the same guard, backends and retries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chronoprep import engine
from chronoprep.config import Settings
from chronoprep.dataset import Event, Failure
from chronoprep.errors import ConfigError, PairError, ToolError
from chronoprep.files import make_folder, replacing, unwritable
from chronoprep.images.refs import of_path, parse
from chronoprep.labels.labeller import Labeller, label_one
from chronoprep.labels.prompts import Prompts, enhance_prompt
from chronoprep.labels.recipe import LabelTask, Recipe, normal_caption
from chronoprep.pairs.readers import rows_of
from chronoprep.rows import Rows
from chronoprep.workflows.label import recipe_of
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.streak import Streak

IMAGES = ("image", "input_image", "source")
WISHES = ("prompt", "input_prompt", "instruction", "caption")


def enhance_one(
    image: Path, wish: str, settings: Settings, *, reporter: Reporter | None = None
) -> str:
    """The editor's prompt for one image and a wish.

    Args:
        reporter: Is told which model is loaded.

    Raises:
        ConfigError: The wish says nothing, or the model is not to be had.
        PairError: The image can't be used, or the model's answer is refused.
        BackendError: The model can't be loaded, or can't go on.
    """
    if normal_caption(wish) is None:
        raise ConfigError("--prompt is empty.", hint="Say what is to be done to the image.")
    recipe = _recipe(settings)
    recipe.model.check_fits()
    (reporter or Silent()).say(recipe.model.loading)
    ref = of_path(str(image))
    text = label_one(recipe, LabelTask(image.stem, ref, ref, wish), with_cot=True).answer.cot
    if text is None:
        raise PairError(f"{image}: no edit is wished for.", hint="Say what is to be changed.")
    return text


def enhance_table(
    table: Path,
    output: Path,
    settings: Settings,
    *,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> Summary:
    """The editor's prompts for a table of images and wishes, as JSON lines; resumable.

    Each line of `output` has `image`, `prompt` (the wish) and `enhanced`, or `error` in its place;
    `id` names the image's content, the wish and all else that decides the text. Rows whose id is
    there are not asked about again.

    Raises:
        ConfigError: The table can't be read, or has no columns of images and wishes.
        BackendError: The model can't be loaded, or can't go on, or the same cause makes one row
            after the other fail; what was done is kept.
    """
    reporter, summary = reporter or Silent(), Summary("prompts")
    recipe = _recipe(settings)
    before = {line["id"]: line for line in _lines(output) if "enhanced" in line}
    done: dict[str, dict[str, Any]] = {}
    tasks = Rows(LabelTask)
    for image, wish, ident, error in _wishes(table, recipe, reporter):
        line = {"image": image, "prompt": wish, "id": ident}
        if ident in done:  # a row that stands there twice
            continue
        if error is not None:
            summary.fail(ident, error)
            done[ident] = line | {"error": error}
        elif ident in before:
            summary.skipped += 1
            done[ident] = before[ident] | line
        else:
            ref = of_path(str(table.parent / image))
            tasks.append(LabelTask(ident, ref, ref, wish))
            done[ident] = line
    if dry_run:
        summary.todo = len(tasks)
        return summary.finish()
    make_folder(output.parent)
    if tasks:
        recipe.model.check_fits()
        reporter.say(recipe.model.loading)
        _write(output, before.values())
        _ask(recipe, tasks, output, done, summary, reporter)
    _write(output, done.values())
    return summary.finish()


def _write(output: Path, lines: Iterable[dict[str, Any]]) -> None:
    with replacing(output) as temporary:
        temporary.write_text("".join(map(_line, lines)), encoding="utf-8")


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _ask(
    recipe: Recipe,
    tasks: Rows[LabelTask],
    output: Path,
    done: dict[str, dict[str, Any]],
    summary: Summary,
    reporter: Reporter,
) -> None:
    """Ask the model; each answer is written down as it comes."""
    reporter.start("prompts", len(tasks))
    streak = Streak("prompts")
    try:
        with output.open("a", encoding="utf-8", buffering=1) as file:  # a line at a time
            for outcomes in engine.run(Labeller(recipe, with_cot=True), tasks):
                for outcome in outcomes:
                    answer = outcome.value.answer if outcome.value is not None else None
                    error = answer.error if answer is not None else None
                    if outcome.error is not None:
                        error = outcome.error.reason
                    if answer is not None and answer.cot is not None:
                        done[outcome.key]["enhanced"] = answer.cot
                        summary.done += 1
                    else:
                        error = error or "no edit is wished for"
                        done[outcome.key]["error"] = error
                        summary.fail(outcome.key, error)
                    reporter.advance("failed" if error else "ok")
                    file.write(_line(done[outcome.key]))
                    failures = [Failure(key=outcome.key, stage="cot", error=error)] if error else []
                    tool = (
                        answer.tool if answer is not None else isinstance(outcome.error, ToolError)
                    )
                    streak.taken(outcome.key, list[Event](failures), own=not tool)
                    streak.check()
    except OSError as error:
        raise unwritable(output, error) from None
    engine.check_stopped()


def _recipe(settings: Settings) -> Recipe:
    template = enhance_prompt()
    return replace(recipe_of(settings), prompts=Prompts(template, template))


def _wishes(
    table: Path, recipe: Recipe, reporter: Reporter
) -> Iterator[tuple[str, str, str, str | None]]:
    """Image, wish and id of each row, and why it can't be used, if so."""
    from chronoprep.images.sources import content_digest

    image_column = wish_column = ""
    for row in rows_of(table, reporter.say):
        if not image_column:
            image_column = next((name for name in IMAGES if name in row.cells), "")
            wish_column = next((name for name in WISHES if name in row.cells), "")
            if not (image_column and wish_column):
                raise ConfigError(
                    f"{table}: needs the columns image and prompt; it has {', '.join(row.cells)}.",
                    hint="Name the image's file, and say what is to be done to it.",
                )
        image, wish = str(row.cells.get(image_column) or ""), row.cells.get(wish_column)
        if row.error is not None or not image or not isinstance(wish, str) or not wish.strip():
            yield image, str(wish or ""), row.where, row.error or "no image or no prompt"
            continue
        try:
            content = content_digest(parse(of_path(str(table.parent / image))))
        except PairError as error:
            yield image, wish, row.where, error.reason
            continue
        yield image, wish, recipe.cot_id(content, wish), None


def _lines(output: Path) -> Iterator[dict[str, Any]]:
    """The lines of an earlier run; the last one may have been cut short."""
    try:
        text = output.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"{output}: can't be read.", hint="Give --output-file another name."
        ) from None
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("id"), str):
            yield found
