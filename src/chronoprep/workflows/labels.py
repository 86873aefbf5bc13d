"""From pairs to labels in the journal: what is stale, then only that."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chronoprep import captioning, guard, vlm
from chronoprep.captioning import Answer, View
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import ImageSettings, Settings
from chronoprep.data import ImagePair, Label, Outcome
from chronoprep.dataset import Dataset
from chronoprep.engine import batched, cores, gathered, mapped
from chronoprep.errors import ConfigError, PairError
from chronoprep.pairs import PairRow, Pairs
from chronoprep.prompts import Prompts, load_prompts
from chronoprep.vlm import VLM
from chronoprep.workflows.report import Reporter, Summary

Captions = Literal["model", "brought", "existing"]
"""Where stage 1 comes from: the model for every pair; the data where it brings a caption, else the
model; or only captions that exist, in the data or the journal."""


def digest(*parts: object) -> str:
    """A short stable digest of JSON values."""
    return _digest_of(json.dumps(parts, sort_keys=True, ensure_ascii=False))


_READ_TOGETHER = 1000
# `json.dumps` would make an encoder at each call.
_encode = json.JSONEncoder(ensure_ascii=False).encode


def _digest_of(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def view_settings(images: ImageSettings) -> dict[str, Any]:
    """The settings that change what the model sees."""
    return images.model_dump(include={"max_resolution", "max_long_edge", "background", "fit"})


@dataclass(frozen=True)
class Recipe:
    """Everything but the images that decides a label's text."""

    checkpoint: Checkpoint
    prompts: Prompts
    settings: Settings

    @property
    def generation(self) -> dict[str, object]:
        vlm_settings = self.settings.vlm
        return {
            "do_sample": False,
            "max_new_tokens": vlm_settings.max_new_tokens,
            "dtype": vlm_settings.dtype,
            "max_resolution": self.settings.images.max_resolution,
        }

    @cached_property
    def _tails(self) -> tuple[str, str]:
        """What the digests hold beside the images, as JSON: made once for a million pairs."""
        parts = (
            view_settings(self.settings.images),
            self.checkpoint.name,
            self.checkpoint.revision,
            self.generation,
        )
        common = json.dumps(parts, sort_keys=True, ensure_ascii=False)[1:-1]
        stages = (self.prompts.caption, self.prompts.cot)
        caption, cot = (f", {common}, {json.dumps(stage.version)}" for stage in stages)
        return caption, cot

    def caption_id(self, images: str) -> str:
        return _digest_of(f'["{images}"{self._tails[0]}]')

    def cot_id(self, images: str, caption: str) -> str:
        return _digest_of(f'["{images}"{self._tails[1]}, {_encode(caption)}]')


@dataclass(frozen=True)
class Task:
    """A pair that needs the model; with a caption, stage 2 alone.

    `before` is the journal's record, whose caption may be the one at hand; `files` says how the
    pair's files looked when `images` was made of them.
    """

    row: PairRow
    images: str
    caption: str | None
    before: Label | None
    files: str | None = None

    @property
    def pair(self) -> ImagePair:
        return self.row.pair()


class Seen(NamedTuple):
    """A pair's images as they are now: the digest of their bytes, and the stamp of their files."""

    images: str
    files: str | None


def normal_caption(text: str | None) -> str | None:
    """A caption in its stored spelling; None where there is none."""
    if text is None or not guard.clean(text):
        return None
    return "no change" if guard.is_no_change(text) else guard.clean(text)


def next_task(
    row: PairRow,
    before: Label | None,
    images: str,
    recipe: Recipe,
    *,
    with_cot: bool,
    captions: Captions,
) -> Task | None:
    """What is left to do for a pair, or None when its label is up to date.

    Raises:
        PairError: With `captions="existing"`, when there is no caption, or one of other images, or
            one that the guard refuses.
    """
    if before is not None and before.edited_by_human:
        # A human's words are never overwritten; a missing CoT may still be added to them.
        if before.status == "ok" and before.caption and not before.caption_cot and with_cot:
            return Task(row, images, before.caption, before)
        return None

    # Texts that were kept while the guard was off.
    refused = (before.faults or {}) if before is not None and recipe.settings.labels.guard else {}
    given = normal_caption(row.caption) if captions != "model" else None
    if given is None and captions == "existing":
        if before is None or before.caption is None:
            raise PairError(
                "there is no caption to start from",
                hint="Run `chronoprep caption` first, or bring a caption column.",
            )
        if before.images not in (None, images):
            raise PairError(
                "the images changed after the caption was written",
                hint="Run `chronoprep caption` again.",
            )
        if "caption" in refused:
            raise PairError(
                f"the caption is not to be used: {refused['caption']}",
                hint="Run `chronoprep caption` again, or pass --no-guard.",
            )
        given = before.caption

    if before is None or before.caption is None:
        return Task(row, images, given, before)
    if given is not None:
        current = before.caption == given and before.images == images
    else:
        current = before.caption_id == recipe.caption_id(images) and "caption" not in refused
    if not current:
        return Task(row, images, given, before)
    if before.status in ("no_change", "rejected"):
        return None
    cot_current = before.cot_id == recipe.cot_id(images, before.caption) and "cot" not in refused
    if before.status == "ok" and (not with_cot or cot_current):
        return None
    return Task(row, images, before.caption, before)


def record(
    task: Task, answer: Answer, recipe: Recipe, *, seconds: float, notes: Sequence[str]
) -> Label:
    """The journal's record of what the model answered."""
    stage1_ran = task.caption is None
    kept = task.before if task.before is not None and task.before.caption == task.caption else None
    caption_made_here = stage1_ran and answer.caption is not None
    faults = answer.faults
    if kept is not None and "caption" in (kept.faults or {}):
        faults = {"caption": (kept.faults or {})["caption"]} | faults
    entry = Label(
        key=task.row.key,
        status="failed" if answer.error else "no_change" if answer.no_change else "ok",
        caption=answer.caption,
        caption_cot=answer.cot,
        images=task.images,
        files=task.files,
        error=answer.error,
        refused=answer.refused,
        retried=answer.retried or None,
        faults=faults or None,
        generation=recipe.generation,
        notes=tuple(notes),
        seconds=round(seconds, 3),
        time=_now(),
    )
    changes: dict[str, Any] = {}
    if stage1_ran:
        changes |= {
            "model": recipe.checkpoint.name,
            "revision": recipe.checkpoint.revision,
            "caption_prompt": recipe.prompts.caption.version,
            "caption_id": recipe.caption_id(task.images) if caption_made_here else None,
        }
    elif kept is not None:
        # Stage 2 alone: where the caption came from stays on record.
        fields = ("model", "revision", "caption_prompt", "caption_id", "origin", "edited_by_human")
        changes |= {name: getattr(kept, name) for name in fields}
    else:
        changes |= {"origin": "brought"}
    if answer.cot is not None:
        changes |= {
            "cot_model": recipe.checkpoint.name,
            "cot_revision": recipe.checkpoint.revision,
            "cot_prompt": recipe.prompts.cot.version,
            "cot_id": recipe.cot_id(task.images, answer.caption or ""),
        }
    return entry.model_copy(update=changes)


def looked_up(
    pairs: Pairs, journal: Mapping[str, Label]
) -> Iterator[tuple[PairRow, Label | None, Seen | PairError]]:
    """Each pair, its record, and how its images look now.

    The bytes of images are read only where the files look other than the record says.
    """
    from chronoprep.pairs.images import content_hash
    from chronoprep.pairs.sources import files_stamp

    def read(row: PairRow) -> Seen:
        stamp = files_stamp(row.source, row.target)
        return Seen(content_hash(row.pair()), stamp)

    # From the first pair on whose images have to be read: they are read side by side.
    waiting: list[tuple[PairRow, Label | None, Seen | None]] = []

    def settle() -> Iterator[tuple[PairRow, Label | None, Seen | PairError]]:
        unknown = [row for row, _, seen in waiting if seen is None]
        fresh = mapped(read, unknown, key=lambda row: row.key)
        for row, before, seen in waiting:
            if seen is None:
                outcome = next(fresh)
                seen = outcome.value
                if seen is None:
                    assert isinstance(outcome.error, PairError)
                    yield row, before, outcome.error
                    continue
            yield row, before, seen
        waiting.clear()

    for row in pairs.rows():
        before = journal.get(row.key)
        seen = None
        if before is not None and before.images is not None and before.files is not None:
            same = files_stamp(row.source, row.target) == before.files
            seen = Seen(before.images, before.files) if same else None
        if seen is not None and not waiting:
            yield row, before, seen
            continue
        waiting.append((row, before, seen))
        if len(waiting) == _READ_TOGETHER:
            yield from settle()
    if waiting:
        yield from settle()


def label_by_model(
    pairs: Pairs,
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
    recipe = Recipe(vlm.find(settings.vlm), prompts, settings)

    journal = dataset.labels()
    _mention_torn_lines(dataset, summary)
    tasks: list[Task] = []
    unreadable: list[Label] = []
    for row, before, seen in looked_up(pairs, journal):
        try:
            if isinstance(seen, PairError):
                raise seen
            images, files = seen
            task = next_task(row, before, images, recipe, with_cot=with_cot, captions=captions)
        except PairError as error:
            summary.fail(row.key, error.reason)
            if error is seen:
                unreadable.append(_failed(row.key, None, error))
            continue
        if task is None:
            summary.skipped += 1
        else:
            tasks.append(replace(task, files=files))
    if dry_run:
        summary.todo = len(tasks)
        return summary.finish()
    dataset.append(_worth_recording(unreadable, journal))
    if not tasks:
        return summary.finish()

    vlm.check_fits(settings.vlm, recipe.checkpoint)
    reporter.say(f"Loading {settings.vlm.model} …")
    reporter.start("labels", len(tasks))
    with open_model(settings, recipe.checkpoint) as model:
        for entries in _run(model, tasks, recipe, with_cot=with_cot):
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
    model: VLM, tasks: Sequence[Task], recipe: Recipe, *, with_cot: bool
) -> Iterator[list[Label]]:
    """Label tasks, in batches or with many in flight; images load in threads ahead of the model."""
    from chronoprep.pairs.images import bounded, load_pair

    settings = recipe.settings
    batches_of = model if isinstance(model, vlm.BatchVLM) else None
    if batches_of is not None:
        tasks = _by_size(tasks)

    def load(task: Task) -> tuple[View, tuple[str, ...]]:
        loaded = load_pair(task.pair, settings.images)
        source, target = (bounded(i, settings.images) for i in (loaded.source, loaded.target))
        if batches_of is not None:
            batches_of.prepare(source)
            batches_of.prepare(target)
        return View(source, target, task.caption), loaded.notes

    def answer(batch: Sequence[tuple[Task, Outcome[tuple[View, tuple[str, ...]]]]]) -> list[Label]:
        began = time.monotonic()
        entries = [
            _failed(task.row.key, task.images, outcome.error)
            for task, outcome in batch
            if isinstance(outcome.error, PairError)
        ]
        good = [(task, *outcome.value) for task, outcome in batch if outcome.value is not None]
        answers = captioning.label(
            model,
            recipe.prompts,
            [view for _, view, _ in good],
            with_cot=with_cot,
            guard=settings.labels.guard,
            retries=settings.labels.retries,
        )
        seconds = (time.monotonic() - began) / max(len(good), 1)
        entries += [
            record(task, answer, recipe, seconds=seconds, notes=notes)
            for (task, _, notes), answer in zip(good, answers, strict=True)
        ]
        return sorted(entries, key=lambda entry: entry.key)

    in_flight = vlm.concurrency(settings.vlm)

    def size() -> int:
        if batches_of is not None:
            return batches_of.batch_size  # less, once memory ran out
        return (settings.vlm.batch_size or 1) if in_flight == 1 else 1

    views = mapped(load, tasks, key=lambda task: task.row.key, ahead=max(2 * size(), cores()))
    batches = batched(zip(tasks, views, strict=True), size)
    if in_flight == 1:
        yield from map(answer, batches)
    else:
        # Stage 2 of a pair follows its stage 1 at once: the server's caches still hold the images.
        for ready in gathered(answer, batches, workers=in_flight, stop=model.close):
            yield [entry for entries in ready for entry in entries]


def _by_size(tasks: Sequence[Task]) -> list[Task]:
    """Largest pictures first: batches are level, and if memory is short it shows at once."""
    from chronoprep.pairs.images import frame_size

    def pixels(task: Task) -> int:
        width, height = frame_size(task.pair.source)
        return width * height

    sizes = [o.value or 0 for o in mapped(pixels, tasks, key=lambda task: task.row.key)]
    order = sorted(range(len(tasks)), key=lambda i: -sizes[i])
    return [tasks[i] for i in order]


def label_by_text(
    pairs: Iterable[ImagePair],
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
    entries: list[Label] = []
    for pair in pairs:
        text = fixed if fixed is not None else pair.prompt
        prompt = (text or "").strip() or None
        caption = normal_caption(pair.caption) if fixed is None else None
        no_change = prompt is None and caption == "no change"
        entry = Label(
            key=pair.key,
            status="no_change" if no_change else "ok",
            caption=caption,
            caption_cot=prompt,
            origin="fixed" if fixed is not None else "brought",
            time=_now(),
        )
        before = journal.get(pair.key)
        if before is not None and (before.edited_by_human or _same_text(before, entry)):
            summary.skipped += 1
        else:
            entries.append(entry)
    if dry_run:
        summary.todo = len(entries)
        return summary.finish()
    reporter.start("labels", len(entries))
    for batch in batched(entries, 10_000):
        dataset.append(batch)
        for entry in batch:
            summary.done += entry.status == "ok"
            summary.no_change += entry.status == "no_change"
            reporter.advance(entry.status)
    return summary.finish()


def _same_text(one: Label, other: Label) -> bool:
    fields = ("status", "origin", "caption", "caption_cot")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


@contextmanager
def open_model(settings: Settings, checkpoint: Checkpoint) -> Iterator[VLM]:
    """The model, and its memory given back at the end."""
    model = vlm.load(settings.vlm, checkpoint)
    try:
        yield model
    finally:
        model.close()


def _worth_recording(entries: Iterable[Label], journal: Mapping[str, Label]) -> list[Label]:
    """A failure must not bury a human's record."""

    def human(key: str) -> bool:
        return key in journal and journal[key].edited_by_human

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
    """
    from chronoprep.pairs.images import bounded, content_hash, load_pair

    prompts = load_prompts(settings.labels, vlm.preset(settings.vlm))
    pair = ImagePair(source.stem, source, target, caption)
    loaded = load_pair(pair, settings.images)
    view = View(
        bounded(loaded.source, settings.images), bounded(loaded.target, settings.images), caption
    )
    recipe = Recipe(vlm.find(settings.vlm), prompts, settings)
    vlm.check_fits(settings.vlm, recipe.checkpoint)
    began = time.monotonic()
    with open_model(settings, recipe.checkpoint) as model:
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
    row = PairRow(pair.key, str(source), str(target), caption, None)
    task = Task(row, content_hash(pair), caption, None)
    return record(task, answer, recipe, seconds=time.monotonic() - began, notes=loaded.notes)
