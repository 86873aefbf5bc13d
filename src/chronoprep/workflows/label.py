"""From pairs to labels in the journal: what is stale, then only that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chronoprep import vlm
from chronoprep.config import Settings
from chronoprep.data import Label, Outcome, Pair
from chronoprep.dataset import Dataset
from chronoprep.dataset.journal import Labels
from chronoprep.engine import batched, cores, gathered, mapped
from chronoprep.errors import ConfigError, PairError
from chronoprep.labels import captioning
from chronoprep.labels.captioning import Answer, View
from chronoprep.labels.prompts import load_prompts
from chronoprep.labels.recipe import (
    Captions,
    Recipe,
    Seen,
    Task,
    look,
    looked_up,
    next_task,
    normal_caption,
)
from chronoprep.rows import Rows
from chronoprep.vlm import VLM
from chronoprep.workflows.progress import Reporter, Summary


class Loaded(NamedTuple):
    """A task's images, ready for the model, and what was done to them."""

    view: View
    seen: Seen
    notes: tuple[str, ...]


def record(
    task: Task,
    loaded: Loaded,
    answer: Answer,
    recipe: Recipe,
    *,
    before: Label | None,
    seconds: float,
) -> Label:
    """The journal's record of what the model answered.

    Args:
        before: The record until now, whose caption may be the one at hand.
    """
    stage1_ran = task.caption is None
    kept = before if before is not None and before.caption == task.caption else None
    images, files = loaded.seen
    caption_made_here = stage1_ran and answer.caption is not None
    faults = answer.faults
    if kept is not None and "caption" in (kept.faults or {}):
        faults = {"caption": (kept.faults or {})["caption"]} | faults
    entry = Label(
        key=task.key,
        status="failed" if answer.error else "no_change" if answer.no_change else "ok",
        caption=answer.caption,
        caption_cot=answer.cot,
        images=images,
        files=files,
        error=answer.error,
        refused=answer.refused,
        retried=answer.retried or None,
        faults=faults or None,
        generation=recipe.generation,
        notes=loaded.notes,
        seconds=round(seconds, 3),
        time=_now(),
    )
    changes: dict[str, Any] = {}
    if stage1_ran:
        changes |= {
            "model": recipe.model.name,
            "revision": recipe.model.checkpoint.revision,
            "caption_prompt": recipe.prompts.caption.version,
            "caption_id": recipe.caption_id(images) if caption_made_here else None,
        }
    elif kept is not None:
        # Stage 2 alone: where the caption came from stays on record.
        fields = ("model", "revision", "caption_prompt", "caption_id", "origin", "edited_by_human")
        changes |= {name: getattr(kept, name) for name in fields}
    else:
        changes |= {"origin": "brought"}
    if answer.cot is not None:
        changes |= {
            "cot_model": recipe.model.name,
            "cot_revision": recipe.model.checkpoint.revision,
            "cot_prompt": recipe.prompts.cot.version,
            "cot_id": recipe.cot_id(images, answer.caption or ""),
        }
    return entry.model_copy(update=changes)


def label_by_model(
    pairs: Rows[Pair],
    dataset: Dataset,
    settings: Settings,
    *,
    with_cot: bool,
    captions: Captions,
    reporter: Reporter,
    dry_run: bool = False,
) -> Summary:
    """Bring the labels of pairs up to date, and load the model only if one is stale."""
    summary = Summary("labels")
    prompts = load_prompts(settings.labels, vlm.preset(settings.vlm))
    recipe = Recipe(vlm.resolve(settings.vlm), prompts, settings)

    journal = dataset.labels()
    _mention_torn_lines(dataset, summary)
    tasks = Rows(Task)
    unreadable: list[Label] = []
    for row, before, seen in looked_up(pairs, journal, read_new=False):
        try:
            if isinstance(seen, PairError):
                raise seen
            task = next_task(row, before, seen, recipe, with_cot=with_cot, captions=captions)
        except PairError as error:
            summary.fail(row.key, error.reason)
            # A file that is away for a moment is no reason to forget a good label.
            if error is seen and (before is None or before.status == "failed"):
                unreadable.append(_failed(row.key, None, error))
            continue
        if task is None:
            summary.skipped += 1
        else:
            tasks.append(task)
    if dry_run:
        summary.todo = len(tasks)
        return summary.finish()
    dataset.append(_worth_recording(unreadable, journal))
    if not tasks:
        return summary.finish()

    recipe.model.check_fits()
    reporter.say(f"Loading {recipe.model.name} …")
    reporter.start("labels", len(tasks))
    with closing(recipe.model.load()) as model:
        for entries in _run(model, tasks, recipe, journal, with_cot=with_cot):
            dataset.append(_worth_recording(entries, journal))
            for entry in entries:
                reporter.advance(entry.status)
                summary.adjusted(entry.key, entry.notes)
                if entry.status == "failed":
                    summary.fail(entry.key, entry.error or "failed")
                elif entry.status == "no_change":
                    summary.no_change += 1
                else:
                    summary.done += 1
    return summary.finish()


def _run(
    model: VLM, tasks: Rows[Task], recipe: Recipe, journal: Labels, *, with_cot: bool
) -> Iterator[list[Label]]:
    """Label tasks, in batches or with many in flight; images load in threads ahead of the model."""
    from chronoprep.images.load import load_pair, pictures

    settings = recipe.settings
    batches_of = model if isinstance(model, vlm.BatchVLM) else None
    if batches_of is not None:
        tasks = _by_size(tasks)

    def load(task: Task) -> Loaded:
        pair = task.pair
        seen = task.seen if task.images else look(Pair(*task[:3]))
        loaded = load_pair(pair, settings.images)
        source, target = pictures(loaded, settings.images)
        if batches_of is not None:
            batches_of.prepare(source)
            batches_of.prepare(target)
        return Loaded(View(source, target, task.caption), seen, loaded.notes)

    def answer(batch: Sequence[tuple[Task, Outcome[Loaded]]]) -> list[Label]:
        began = time.monotonic()
        entries = [
            _failed(task.key, task.images or None, outcome.error)
            for task, outcome in batch
            if isinstance(outcome.error, PairError)
        ]
        good = [(task, outcome.value) for task, outcome in batch if outcome.value is not None]
        answers = captioning.label(
            model,
            recipe.prompts,
            [loaded.view for _, loaded in good],
            with_cot=with_cot,
            guard=settings.labels.guard,
            retries=settings.labels.retries,
        )
        seconds = (time.monotonic() - began) / max(len(good), 1)
        entries += [
            record(task, loaded, answer, recipe, before=journal.get(task.key), seconds=seconds)
            for (task, loaded), answer in zip(good, answers, strict=True)
        ]
        return sorted(entries, key=lambda entry: entry.key)

    def size() -> int:
        if batches_of is not None:
            return batches_of.batch_size  # less, once memory ran out
        return 1

    views = mapped(load, tasks, key=lambda task: task.key, ahead=max(2 * size(), cores()))
    batches = batched(zip(tasks, views, strict=True), size)
    if recipe.model.in_flight == 1:
        yield from map(answer, batches)
    else:
        # Stage 2 of a pair follows its stage 1 at once: the server's caches still hold the images.
        for ready in gathered(answer, batches, workers=recipe.model.in_flight, stop=model.close):
            yield [entry for entries in ready for entry in entries]


def _by_size(tasks: Rows[Task]) -> Rows[Task]:
    """Largest pictures first: batches are level, and if memory is short it shows at once."""
    from chronoprep.images.load import frame_size
    from chronoprep.images.refs import parse

    def pixels(task: Task) -> int:
        width, height = frame_size(parse(task.source))
        return width * height

    sizes = mapped(pixels, tasks, key=lambda task: task.key)
    return tasks.ordered(outcome.value or 0 for outcome in sizes)


def label_by_text(
    pairs: Rows[Pair],
    dataset: Dataset,
    *,
    fixed: str | None = None,
    reporter: Reporter,
    dry_run: bool = False,
) -> Summary:
    """Label without a model: one fixed prompt for all, or the texts that pairs bring.

    Raises:
        ConfigError: When the fixed prompt is empty.
    """
    if fixed is not None and not fixed.strip():
        raise ConfigError("--prompt is empty.", hint="Give the sentence that every pair trains on.")
    summary = Summary("labels")
    journal = dataset.labels()
    _mention_torn_lines(dataset, summary)
    texts = Rows(_Text)
    origin: Literal["fixed", "brought"] = "brought" if fixed is None else "fixed"
    for row in pairs:
        prompt = ((row.prompt if fixed is None else fixed) or "").strip() or None
        caption = normal_caption(row.caption) if fixed is None else None
        no_change = prompt is None and caption == "no change"
        new = _Text(row.key, "no_change" if no_change else "ok", origin, caption, prompt)
        before = journal.standing(row.key)
        if before is not None and (
            before.edited_by_human
            or new == (row.key, before.status, before.origin, before.caption, before.caption_cot)
        ):
            summary.skipped += 1
        else:
            texts.append(new)
    if dry_run:
        summary.todo = len(texts)
        return summary.finish()
    reporter.start("labels", len(texts))
    for batch in batched(texts, 10_000):
        now = _now()
        dataset.append(Label.model_validate({**text._asdict(), "time": now}) for text in batch)
        for text in batch:
            summary.done += text.status == "ok"
            summary.no_change += text.status == "no_change"
            reporter.advance(text.status)
    return summary.finish()


class _Text(NamedTuple):
    """What a label without a model says."""

    key: str
    status: Literal["ok", "no_change"]
    origin: Literal["fixed", "brought"]
    caption: str | None
    caption_cot: str | None


def _worth_recording(entries: Iterable[Label], journal: Labels) -> list[Label]:
    """A failure must not bury a human's record."""

    def human(key: str) -> bool:
        before = journal.standing(key)
        return before is not None and before.edited_by_human

    return [e for e in entries if e.status != "failed" or not human(e.key)]


def _failed(key: str, images: str | None, error: PairError) -> Label:
    return Label(key=key, status="failed", images=images, error=error.reason, time=_now())


def _mention_torn_lines(dataset: Dataset, summary: Summary) -> None:
    if dataset.skipped_lines:
        summary.notes.append(
            f"{dataset.journal}: {dataset.skipped_lines} unreadable line(s) passed over"
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def label_one(
    source: Path, target: Path, settings: Settings, *, with_cot: bool, caption: str | None = None
) -> Label:
    """Label a single pair without a dataset.

    Args:
        caption: A caption that exists: stage 2 alone.

    Raises:
        PairError: When an image can't be used or the model's answer is refused.
        ConfigError: When the caption says nothing.
    """
    from chronoprep.images.load import load_pair, pictures

    if caption is not None and normal_caption(caption) is None:
        raise ConfigError("--caption is empty.", hint="Give the edit instruction of the pair.")
    prompts = load_prompts(settings.labels, vlm.preset(settings.vlm))
    pair = Pair(source.stem, str(source), str(target), caption)
    seen = look(pair)
    loaded = load_pair(pair, settings.images)
    view = View(*pictures(loaded, settings.images), caption)
    recipe = Recipe(vlm.resolve(settings.vlm), prompts, settings)
    recipe.model.check_fits()
    began = time.monotonic()
    with closing(recipe.model.load()) as model:
        (answer,) = captioning.label(
            model,
            prompts,
            [view],
            with_cot=with_cot,
            guard=settings.labels.guard,
            retries=settings.labels.retries,
        )
    if answer.error is not None:
        raise PairError(f"{source}: {answer.error}")
    task = Task(pair.key, str(source), str(target), caption, *seen)
    seconds = time.monotonic() - began
    return record(
        task, Loaded(view, seen, loaded.notes), answer, recipe, before=None, seconds=seconds
    )
