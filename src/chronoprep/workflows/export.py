"""A dataset for another trainer: images in their final frame, texts and settings as it reads them.

What was written stands in the export's own record, so that the next run writes only what is new or
has changed, and takes away what is no longer wanted. The dataset itself is only read.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chronoprep import engine
from chronoprep.config import Settings
from chronoprep.data import Pair
from chronoprep.dataset import Entry, State, same_images
from chronoprep.errors import ConfigError, PairError
from chronoprep.export import (
    CONTROL,
    TABLE,
    TARGET,
    Place,
    Sample,
    Trainer,
    file_name,
    readme,
    start_of,
    trainer_of,
)
from chronoprep.files import linked, make_folder, replacing
from chronoprep.images.refs import parse
from chronoprep.images.room import room
from chronoprep.keys import is_unicode
from chronoprep.rows import Rows
from chronoprep.workflows.exported import Exported, Origin, Written
from chronoprep.workflows.label import SLOT
from chronoprep.workflows.progress import Reporter, Summary
from chronoprep.workflows.splits import Splits
from chronoprep.workflows.stage import Run, opened
from chronoprep.workflows.verify import trusted
from chronoprep.workflows.videos import look_of


@dataclass
class Export:
    """What an export came to.

    Attributes:
        summaries: Of the pairs, and of the export.
        start: The commands that start the training; None where there is nothing to train on.
    """

    summaries: list[Summary]
    start: str | None


class ExportTask(NamedTuple):
    """A pair whose images are to be written.

    Attributes:
        place: The folder that holds `target` and `control`.
        images: The digest of its images, where they were decoded before and so are known to be
            whole.
    """

    key: str
    source: str
    target: str
    place: str
    split: str
    files: str | None
    images: str | None


class _Wanted(NamedTuple):
    """A pair that belongs into the export."""

    entry: Entry
    text: str
    images: str | None
    whole: bool


@dataclass(frozen=True)
class Exporter:
    """Writes the images of a pair: links where a file may stay as it is, else PNG.

    Attributes:
        same_suffix: Whether both have to be of one format.
    """

    settings: Settings
    same_suffix: bool

    @room()
    def __call__(self, task: ExportTask) -> tuple[Written, tuple[str, ...]]:
        from chronoprep.images.kept import kept_files
        from chronoprep.images.load import load_pair

        pair, place = Pair(*task[:3]), Path(task.place)
        kept = kept_files(pair, self.settings.images)
        if self.same_suffix and len({file and file.suffix for file in kept}) > 1:
            kept = None, None
        images, notes = task.images, tuple[str, ...]()
        pixels = None
        if images is None or None in kept:
            loaded = load_pair(pair, self.settings.images)
            images, notes, pixels = loaded.images, loaded.notes, (loaded.source, loaded.target)
        names, sizes = list[str](), list[int]()
        for at, folder in enumerate((CONTROL, TARGET)):
            file = kept[at]
            name = f"{file_name(task.key)}{file.suffix if file is not None else '.png'}"
            path = place / folder / name
            path.unlink(missing_ok=True)  # it may be another name of a file that is read-only
            if file is not None:
                _link(file.path, path)
            elif pixels is not None:
                with replacing(path, sync=False) as temporary:
                    pixels[at].save(temporary, "PNG", compress_level=1)
            names.append(name)
            sizes.append(path.stat().st_size)
        written = Written(
            key=task.key,
            split=task.split,
            source=names[0],
            target=names[1],
            sizes=(sizes[0], sizes[1]),
            images=images,
            files=task.files,
            look=look_of(self.settings),
        )
        return written, notes


def _link(file: Path, path: Path) -> None:
    """Another name for a file where the file system lets, else a copy."""
    file = Path(os.path.realpath(file)) if file.is_symlink() else file
    if not linked(file, path):
        with replacing(path, sync=False) as temporary:
            shutil.copyfile(file, temporary)


def export_dataset(
    dataset: Path,
    settings: Settings,
    *,
    to: str,
    output: Path,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> Export:
    """Write a dataset's pairs into a folder as a trainer reads them; resumable.

    Raises:
        ConfigError: The trainer or a setting is none, `output` holds something else, or the dataset
            knows no pairs.
        BackendError: Another run holds the dataset, or the folder can't be written.
    """
    trainer, splits = trainer_of(to), Splits.of(settings.export.split)
    trigger = settings.export.trigger
    if trigger is not None and SLOT not in trigger:
        raise ConfigError(
            f"--trigger {trigger!r} has no place for the text.",
            hint=f"Write {SLOT} where it goes: --trigger 'ohwx style: {SLOT}'",
        )
    folder = Path(os.path.abspath(output))  # noqa: PTH100 - keeps links
    _require_place(folder, dataset)
    with opened(dataset, settings, reporter=reporter, dry_run=dry_run) as run:
        done = Exported(Place(folder), trainer.name, dataset)
        summary = _export(run, trainer, splits, done)
        trained = any(pair.split == done.place.trained for pair in done.written.values())
        start = start_of(trainer, done.place) if trained or dry_run else None
        return Export([run.summary, summary], start)


def _require_place(folder: Path, dataset: Path) -> None:
    """
    Raises:
        ConfigError: Trainers could not be told of the folder, or the dataset keeps it for itself.
    """
    if not is_unicode(str(folder)):
        raise ConfigError(
            f"{folder}: the name is not valid UTF-8, and settings could not name it.",
            hint="Give --output a folder of another name.",
        )
    for name in ("videos", "umt5"):
        if folder.resolve().is_relative_to((dataset / name).resolve()):
            raise ConfigError(
                f"{folder}: the dataset keeps this folder for its own {name}.",
                hint="Give --output a folder of its own.",
            )


def _export(run: Run, trainer: Trainer, splits: Splits, done: Exported) -> Summary:
    summary = Summary("export")
    left_out: Counter[str] = Counter()
    wanted = list(_wanted(run, summary, left_out))
    summary.notes += [f"left out: {count} {reason}" for reason, count in sorted(left_out.items())]
    texts, tasks = dict[str, str](), Rows(ExportTask)
    look = look_of(run.settings)
    origins = _origins(run, [one.entry for one in wanted], done) if splits.shares else {}
    where = splits.chosen(origins)
    # A split of no pairs is none: readers stumble over it. But no other one is trained on for it.
    used = (*splits.names[:1], *(name for name in splits.names[1:] if name in where.values()))
    done.place = place = Place(done.place.folder, used)
    for entry, text, images, whole in wanted:
        split = where.get(entry.key, "")
        texts[entry.key] = text
        if done.holds(entry, images, split, look):
            summary.skipped += 1
            continue
        known = images if whole else None
        folder = str(place.of(split))
        tasks.append(ExportTask(*entry[:3], folder, split, entry.files, known))
    if run.dry_run:
        summary.todo = len(tasks)
        return summary.finish()
    for split in place.splits or ("",):
        for name in (CONTROL, TARGET):
            make_folder(place.of(split) / name)
    gone = done.drop(set(done.written).difference(texts))
    done.leave_splits()
    _write_images(run, tasks, origins, done, summary, trainer.same_suffix)
    written = _write_texts(trainer, done, texts)
    settings = {**trainer.configs(place), "README.md": readme(trainer, place)}
    summary.notes += done.keep_settings(settings)
    done.save()
    if gone:
        summary.notes.append(f"taken out: {gone} that do not belong here any more")
    if written and not len(tasks):
        summary.notes.append(f"{written} text(s) written anew")
    for split in splits.names:
        count = sum(pair.split == split for pair in done.written.values())
        summary.notes.append(f"{split}: {count}")
    return summary.finish()


def _origins(run: Run, entries: list[Entry], done: Exported) -> dict[str, Origin]:
    """What the source of each pair is, which decides on its split."""
    from chronoprep.images.likeness import thumbnail
    from chronoprep.images.load import load_image

    @room()
    def look_at(entry: Entry) -> Origin:
        loaded = load_image(parse(entry.source), run.settings.images, at_least=(128, 128))
        return Origin(loaded.digest, base64.b64encode(thumbnail(loaded.image)).decode())

    known = {
        entry.key: written.origin
        for entry in entries
        if (written := done.written.get(entry.key)) is not None
        and written.origin is not None
        and entry.files is not None
        and written.files == entry.files
    }
    unread = [entry for entry in entries if entry.key not in known]
    if unread:
        run.reporter.start("sources", len(unread))
    for outcome in engine.mapped(look_at, unread, key=lambda entry: entry.key):
        # One that can't be read fails by and by, as any pair does.
        known[outcome.key] = outcome.value or Origin("", "")
        run.reporter.advance("ok")
    return known


def _write_images(
    run: Run,
    tasks: Rows[ExportTask],
    origins: dict[str, Origin],
    done: Exported,
    summary: Summary,
    same_suffix: bool,
) -> None:
    """Write the images of pairs, and write down which are there."""
    if not len(tasks):
        return
    run.reporter.start("export", len(tasks))
    done.drop([task.key for task in tasks])
    coming = [
        Written(task.key, task.split, files=task.files, origin=origins.get(task.key))
        for task in tasks
    ]
    worker = Exporter(run.settings, same_suffix)
    with done.adding(coming) as add:
        for outcomes in engine.run(worker, tasks):
            for outcome in outcomes:
                if outcome.value is None:
                    summary.fail(outcome.key, outcome.error.reason if outcome.error else "")
                    run.reporter.advance("failed")
                    continue
                written, notes = outcome.value
                add(written._replace(origin=origins.get(written.key)))
                summary.done += 1
                summary.adjusted(written.key, notes)
                run.reporter.advance("ok")
    engine.check_stopped()
    done.drop([key for key, _ in summary.failures])


def _wanted(run: Run, summary: Summary, left_out: Counter[str]) -> Iterator[_Wanted]:
    """The pairs that belong into the export, each with its text; the others are counted."""
    settings = run.settings
    trust = trusted(run) if settings.verify.min_score is not None else None
    for entry, state, images in run.with_images():
        if isinstance(images, PairError):
            summary.fail(entry.key, images.reason)
            continue
        text = text_of(state, settings)
        reason = _why_not(entry, state, images, text, settings, trust)
        if reason is not None or text is None:
            left_out[reason or ""] += 1
            continue
        trigger = settings.export.trigger
        if trigger is not None:
            text = trigger.replace(SLOT, text)
        yield _Wanted(entry, text, images, state.images_of(entry.files) is not None)


def text_of(state: State, settings: Settings) -> str | None:
    """What another trainer trains on. A label of one text alone, as a fixed prompt, is that one."""
    caption, cot = state.text
    text = cot if settings.export.text == "cot" or caption is None else caption
    return text if text and text.strip() else None


def _why_not(
    entry: Entry,
    state: State,
    images: str | None,
    text: str | None,
    settings: Settings,
    trust: dict[str, bool] | None,
) -> str | None:
    """Why a pair is not exported, if so."""
    if state.status is None:
        return "without a label (`chronoprep caption` writes one)"
    if state.status != "ok":
        return state.status.replace("_", " ")
    if settings.export.only == "accepted" and state.verdict is None:
        return "not accepted by a human"
    if text is None:
        return "without a CoT (`chronoprep cot` writes one)"
    if not same_images(state.images, images):
        return "labelled for other images (`chronoprep caption` renews them)"
    if trust is not None and not trust.get(entry.key):
        doubted = entry.key in trust
        return "doubted by verify" if doubted else "not judged by `chronoprep verify`"
    return None


def _write_texts(trainer: Trainer, done: Exported, texts: dict[str, str]) -> int:
    """Write the texts of all that is exported, where they are not there already.

    Returns:
        How many texts were written.
    """
    place, changed = done.place, 0
    tables: dict[str, list[str]] = {split: [] for split in place.splits or ("",)}
    for key, written in sorted(done.written.items()):
        source, target = f"{CONTROL}/{written.source}", f"{TARGET}/{written.target}"
        sample = Sample(key, source, target, texts[key])
        if (caption := trainer.caption(sample.text)) is not None:
            changed += _put(place.of(written.split) / TARGET / f"{file_name(key)}.txt", caption)
        if (row := trainer.row(sample)) is not None:
            # In ASCII: some open it in whatever encoding their machine has.
            tables[written.split].append(json.dumps(row) + "\n")
    for split, lines in tables.items():
        table = place.of(split) / TABLE
        if lines and _put(table, "".join(lines)):
            changed += len(lines)
        elif not lines:
            table.unlink(missing_ok=True)
    return changed


def _put(path: Path, text: str) -> bool:
    """Write a text file, unless it is there and says that; whether it was written."""
    content = text.encode()
    try:
        if path.read_bytes() == content:
            return False
    except OSError:
        pass
    with replacing(path, sync=False) as temporary:
        temporary.write_bytes(content)
    return True
