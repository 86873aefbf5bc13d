"""Labels: what is stale, then only that, then what came of it as events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chronoprep import vlm
from chronoprep.config import Settings
from chronoprep.data import Frame, Outcome
from chronoprep.dataset import Entry, Event, Failure, Journal, Label, State
from chronoprep.engine import Needs, Working, batched
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.refs import of_path, parse
from chronoprep.labels.labeller import Labelled, Labeller
from chronoprep.labels.labeller import label_one as ask_one
from chronoprep.labels.prompts import load_prompts
from chronoprep.labels.recipe import Captions, LabelTask, Recipe, normal_caption, plan
from chronoprep.rows import Rows
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, failure
from chronoprep.workflows.watch import Watch

_WRITTEN_TOGETHER = 10_000
SLOT = "{caption}"
"""In a fixed prompt, where a pair's own caption goes."""
_NO_CAPTION = (
    "There is no caption for the {caption} of the prompt. Run `chronoprep caption` first, or bring "
    "a caption column."
)


def make_labels(run: Run, captions: Captions, *, with_cot: bool) -> list[Summary]:
    """Labels by the cheapest way: a fixed text, one that the data brings, else the model.

    `caption` and `cot` ask for the model by name; a fixed prompt in the configuration does not
    concern them.
    """
    if captions != "brought":
        return [label_by_model(run, run.entries, captions, with_cot=with_cot)]
    if (fixed := run.settings.labels.prompt) is not None:
        done = []
        if SLOT in fixed:
            rest = run.entries.where(lambda entry: normal_caption(entry.caption) is None)
            done += [label_by_model(run, rest, captions, with_cot=False)] if rest else []
        return [*done, label_by_text(run, run.entries)]

    def finished(entry: Entry) -> bool:
        return bool(entry.prompt) or normal_caption(entry.caption) == "no change"

    whole = run.entries.where(finished)
    rest = run.entries.where(lambda entry: not finished(entry)) if whole else run.entries
    done = [label_by_text(run, whole)] if whole else []
    if rest:
        done.append(label_by_model(run, rest, captions, with_cot=with_cot))
    return done


def recipe_of(settings: Settings, *, clips: bool = False) -> Recipe:
    """What a model is asked, and how.

    Args:
        clips: Whether the pairs are frames of clips, which are asked about as such unless the user
            or the model has prompts of its own.

    Raises:
        ConfigError: The model is not to be had, or the templates are none.
    """
    preset = vlm.preset(settings.vlm)
    preset = "video" if clips and preset == "default" else preset
    prompts = load_prompts(settings.labels, preset)  # a mistake there shows at once
    return Recipe(vlm.resolve(settings.vlm), prompts, settings)


def label_by_model(
    run: Run, entries: Rows[Entry], captions: Captions, *, with_cot: bool
) -> Summary:
    """Bring the labels of pairs up to date, and load the model only if one is stale."""
    summary = Summary("labels")
    clips = len(entries) > 0 and isinstance(parse(entries[0].source), Frame)
    recipe = recipe_of(run.settings, clips=clips)
    tasks, sizes = Rows(LabelTask), list[int]()
    at_once: list[Event] = []
    for entry, state, images in run.with_images(entries, files=False):
        try:
            if isinstance(images, PairError):
                raise images
            task = plan(entry.pair, state, images, recipe, with_cot=with_cot, captions=captions)
        except PairError as error:
            summary.fail(entry.key, error.reason)
            at_once += [Failure(key=entry.key, stage="images", error=error.reason)]
            continue
        if isinstance(task, LabelTask):
            tasks.append(task)
            sizes.append(_bytes(entry))
        else:
            summary.skipped += 1
            at_once += [task] if task is not None else []
    if not run.dry_run:
        run.dataset.append(at_once)
        if tasks:
            if run.settings.run.engine == "local":  # other machines have other memory
                recipe.model.check_fits()
            run.reporter.say(recipe.model.loading)
    if recipe.model.in_flight == 1:
        # Largest pictures first: batches are level, and if memory is short it shows at once.
        tasks = tasks.ordered(sizes)

    watch = Watch(recipe)

    def record(outcome: Outcome[Labelled]) -> Iterator[Event]:
        if outcome.value is not None:
            for finding in watch.see(outcome.value):
                run.reporter.say(f"{finding.message} {finding.remedy or ''}")
                summary.findings.append(finding)
        return events_of(outcome, recipe, run.dataset.journal.state(outcome.key, files=False))

    def of_tool(outcome: Outcome[Labelled]) -> bool:
        return outcome.value is not None and outcome.value.answer.tool

    worker = Labeller(recipe, with_cot)
    return run.stage(
        "labels", tasks, worker, record, summary=summary, of_tool=of_tool, needs=needs_of(recipe)
    )


def needs_of(recipe: Recipe) -> Needs:
    """What the model of a recipe wants of a machine."""
    elsewhere = recipe.model.backend == "openai" or recipe.model.settings.device == "cpu"
    return "cpu" if elsewhere else "gpu"


def _bytes(entry: Entry) -> int:
    """Of the source's file, by the index."""
    size = (entry.files or "").partition("-")[0]
    return int(size) if size.isdigit() else 0


def events_of(outcome: Outcome[Labelled], recipe: Recipe, state: State) -> Iterator[Event]:
    """What the model's answer is on record.

    Args:
        state: Until now. A caption whose CoT failed is worth a label only where none with a CoT
            stands.
    """
    done = outcome.value
    if done is None:
        yield failure(outcome, "images")
        return
    answer = done.answer
    finished = answer.cot is not None or answer.error is None
    if answer.caption is not None and (finished or state.text.cot is None):
        yield _label(outcome.key, done, recipe, state)
    if answer.error is not None:
        stage: Literal["caption", "cot"] = "caption" if answer.caption is None else "cot"
        yield Failure(key=outcome.key, stage=stage, error=answer.error, refused=answer.refused)


def _label(key: str, done: Labelled, recipe: Recipe, state: State) -> Label:
    answer, checkpoint = done.answer, recipe.model.checkpoint
    served = list(answer.served.values())
    dropped = sorted({name for said in served for name in said.without})
    fields: dict[str, Any] = {
        "key": key,
        "caption": answer.caption,
        "caption_cot": answer.cot,
        "images": done.images,
        "files": done.files,
        "faults": answer.faults or None,
        "retried": answer.retried or None,
        "generation": recipe.generation | ({"without": dropped} if dropped else {}),
        "notes": done.notes,
        "seconds": done.seconds,
        "answered_by": next((said.model for said in served if said.model), None),
        "likelihood": answer.likelihood or None,
    }
    if done.given is None:
        fields |= {
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "caption_prompt": recipe.prompts.caption.version,
            "caption_id": recipe.caption_id(done.images),
        }
    else:
        # Stage 2 alone: where the caption came from stays on record.
        fields |= _provenance(done, state)
    if answer.cot is not None:
        fields |= {
            "cot_model": checkpoint.name,
            "cot_revision": checkpoint.revision,
            "cot_prompt": recipe.prompts.cot.version,
            "cot_id": recipe.cot_id(done.images, answer.caption or ""),
        }
    return Label(**fields)


def _provenance(done: Labelled, state: State) -> dict[str, Any]:
    """Where the caption that stage 2 started from came from."""
    reviewed = state.reviewed(done.images)
    if reviewed is not None and reviewed[1].caption == done.given:
        return {"origin": "human"}
    kept = next((label for label in state.labels if label.caption == done.given), None)
    if kept is None:
        return {"origin": "brought"}
    names = ("model", "revision", "caption_prompt", "caption_id", "origin")
    fields = {name: getattr(kept, name) for name in names}
    if "caption" in (kept.faults or {}):
        fault = {"caption": (kept.faults or {})["caption"]}
        fields["faults"] = fault | (done.answer.faults or {})
    return fields


class _TextTask(NamedTuple):
    """What a label without a model says."""

    key: str
    origin: str
    caption: str | None
    caption_cot: str | None


def label_by_text(run: Run, entries: Rows[Entry]) -> Summary:
    """Label without a model: one fixed prompt for all, or the texts that pairs bring.

    Raises:
        ConfigError: When the fixed prompt is empty.
    """
    fixed = run.settings.labels.prompt
    if fixed is not None and not fixed.strip("\0 \t\r\n"):
        raise ConfigError("--prompt is empty.", hint="Give the sentence that every pair trains on.")
    summary = Summary("labels")
    tasks = Rows(_TextTask)
    for entry in entries:
        state = run.dataset.journal.state(entry.key, files=False)
        prompt = ((entry.prompt if fixed is None else fixed) or "").strip() or None
        caption = normal_caption(entry.caption) if fixed is None else None
        if fixed is not None and SLOT in fixed:
            caption = state.text.caption or normal_caption(entry.caption)
            if caption is None and not run.dry_run:
                summary.fail(entry.key, _NO_CAPTION)
                continue
            changed = caption != "no change"
            prompt = fixed.strip().replace(SLOT, caption or "") if changed else None
        if "\0" in f"{prompt}{caption}":
            summary.fail(entry.key, "Its text holds a NUL character. Remove it from the data.")
            continue
        task = _TextTask(entry.key, "brought" if fixed is None else "fixed", caption, prompt)
        label = state.label
        same = label is not None and task[1:] == (label.origin, label.caption, label.caption_cot)
        if state.verdict is not None or same:
            summary.skipped += 1
        else:
            tasks.append(task)

    def record(outcome: Outcome[Label]) -> list[Event]:
        assert outcome.value is not None
        label = run.dataset.journal.state(outcome.key, files=False).label
        return [_with_provenance(outcome.value, label)]

    return run.stage("labels", tasks, _Sayer(), record, summary=summary, needs="nothing")


class _Sayer:
    """Labels without a model: nothing to wait for, so many at a time."""

    def opened(self) -> AbstractContextManager[Working[_TextTask, Label]]:
        return nullcontext(self._labels)

    def _labels(self, tasks: Iterable[_TextTask]) -> Iterator[list[Outcome[Label]]]:
        for batch in batched(tasks, _WRITTEN_TOGETHER):
            yield [Outcome(task.key, Label.model_validate(task._asdict())) for task in batch]


def _with_provenance(said: Label, label: Label | None) -> Label:
    """A fixed prompt around a caption: what is known of that caption stays known."""
    if said.origin != "fixed" or label is None or label.caption != said.caption:
        return said
    return said.model_copy(
        update={
            name: getattr(label, name)
            for name in ("images", "files", "model", "revision", "caption_prompt", "caption_id")
        }
    )


def label_one(
    source: Path,
    target: Path,
    settings: Settings,
    *,
    with_cot: bool,
    caption: str | None = None,
    reporter: Reporter | None = None,
) -> Label:
    """Label a single pair without a dataset.

    Args:
        caption: A caption that exists: stage 2 alone.
        reporter: Is told which model is loaded.

    Raises:
        PairError: When an image can't be used or the model's answer is refused.
        ConfigError: When the caption says nothing.
    """
    if caption is not None and normal_caption(caption) is None:
        raise ConfigError("--caption is empty.", hint="Give the edit instruction of the pair.")
    if settings.vlm.backend == "auto" and not settings.vlm.endpoint:
        # vLLM takes a minute to start: more than it saves.
        chosen = settings.vlm.model_copy(update={"backend": "transformers"})
        settings = settings.model_copy(update={"vlm": chosen})
    recipe = recipe_of(settings)
    recipe.model.check_fits()
    (reporter or Silent()).say(recipe.model.loading)
    task = LabelTask(source.stem, of_path(str(source)), of_path(str(target)), caption)
    done = ask_one(recipe, task, with_cot=with_cot)
    return _label(task.key, done, recipe, State())


def brings_label(entry: Entry, journal: Journal) -> bool:
    """Whether a pair's own text is its label: the journal's comes first, unless it is that text's
    earlier state or there is none."""
    if not (entry.prompt or entry.caption):
        return False
    label = journal.state(entry.key, files=False).label
    return label is None or (label.origin == "brought" and label.cot_model is None)
