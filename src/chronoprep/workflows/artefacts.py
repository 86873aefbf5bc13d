"""From pairs and labels to what the trainer reads: videos and metadata.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chronoprep.config import Settings
from chronoprep.data import Frame, Pair, Standing
from chronoprep.dataset import Dataset
from chronoprep.engine import mapped
from chronoprep.errors import PairError
from chronoprep.files import file_names, replacing
from chronoprep.images.refs import parse
from chronoprep.keys import pandas_reads_as_text
from chronoprep.labels.recipe import digest, looked_up, view_settings
from chronoprep.rows import Rows
from chronoprep.workflows.progress import Reporter, Summary
from chronoprep.workflows.space import Room


def write_videos(
    pairs: Rows[Pair],
    dataset: Dataset,
    settings: Settings,
    *,
    reporter: Reporter,
    dry_run: bool = False,
) -> Summary:
    """Write the missing and the stale videos; each carries a stamp of what it was made from."""
    summary = Summary("videos")
    todo = Rows(_Stale)
    again = 0
    for row, _, seen in looked_up(pairs, dataset.labels(), read_new=True):
        if isinstance(seen, PairError):
            summary.fail(row.key, seen.reason)
            continue
        stamp = video_stamp(seen.images, settings)
        there = _stamp_on(dataset.video(row.key), settings)
        if there == stamp:
            summary.skipped += 1
        else:
            again += _shows_same(there, stamp)
            todo.append(_Stale(row.key, row.source, row.target, stamp))
    if again:
        summary.notes.append(f"{again} video(s) are in other settings than asked for: written anew")
    if dry_run:
        summary.todo = len(todo)
        return summary.finish()

    def write(stale: _Stale) -> Written:
        pair, path = Pair(*stale[:3]), dataset.video(stale.key)
        try:
            return write_one(pair, path, settings, stale.stamp)
        except PairError:
            if not _shows_same(_stamp_on(path, settings), stale.stamp):
                path.unlink(missing_ok=True)  # it shows other images than the pair does now
            raise

    if todo:
        reporter.start("videos", len(todo))
    room = Room(dataset.folder, len(todo))
    encoded: Counter[str] = Counter()
    for written in mapped(write, todo, key=lambda stale: stale.key):
        if written.value is None:
            summary.fail(written.key, written.error.reason if written.error else "")
            reporter.advance("failed")
            continue
        summary.adjusted(written.key, written.value.notes)
        if written.value.not_copied:
            encoded[written.value.not_copied] += 1
        summary.done += 1
        reporter.advance("ok")
        if warning := room.wrote(dataset.video(written.key).stat().st_size):
            reporter.say(warning)
            summary.notes.append(warning)
    if encoded:
        reasons = ", ".join(f"{count} {reason}" for reason, count in encoded.most_common())
        summary.notes.append(f"not copied but encoded lossless: {encoded.total()} ({reasons})")
    return summary.finish()


class _Stale(NamedTuple):
    """A pair whose video is to be written, and the stamp that it will carry."""

    key: str
    source: str
    target: str
    stamp: str


class Written(NamedTuple):
    """How a video came to be.

    Attributes:
        notes: What was done to the images.
        not_copied: With the codec `copy`: why the pair was encoded all the same, if it was.
    """

    notes: tuple[str, ...] = ()
    not_copied: str | None = None


def write_one(pair: Pair, path: Path, settings: Settings, stamp: str) -> Written:
    """Write a pair's video.

    Raises:
        PairError: When an image can't be used or the video can't be read back.
        BackendError: When the disk is full or the folder can't be written.
    """
    from chronoprep.images.load import load_pair
    from chronoprep.video import copy_video, write_video

    not_copied: str | None = None
    source, target = parse(pair.source), parse(pair.target)
    if settings.video.keep_clip and isinstance(source, Frame):
        from chronoprep.images.clips import keep_clip

        if target != Frame(source.clip, "last") or source.at != "first":
            raise PairError(
                "--keep-clip: the video would show other times than the label tells of.",
                hint="Let the manifest name #t=first and #t=last of one clip, or leave it out.",
            )
        with replacing(path) as temporary:
            keep_clip(source.clip, temporary, stamp, check=settings.video.check)
        return Written()
    if settings.video.codec == "copy":
        not_copied = "no files of their own"
        if isinstance(source, Path) and isinstance(target, Path):
            not_copied = copy_video(source, target, path, settings.video, stamp=stamp)
        if not_copied is None:
            return Written()
    loaded = load_pair(pair, settings.images)
    notes = write_video(loaded.source, loaded.target, path, settings.video, stamp=stamp)
    return Written((*loaded.notes, *notes), not_copied)


def video_stamp(images: str, settings: Settings) -> str:
    """What a video is made from: what it shows (its images, and how they were brought together),
    and how that is written. `_shows_same` compares the former.

    A pair that can't be copied has the stamp of `copy`, too: the next run finds it up to date.
    """
    look, video = view_settings(settings.images), settings.video
    how: list[object] = [video.codec]
    if video.codec == "h264":
        how += [video.chroma, video.crf]
    if video.keep_clip:
        how.append("keep-clip")
    if video.max_pixels is not None:
        how.append({"max_pixels": video.max_pixels})
    return f"chronoprep:{digest(images, look['background'], look['fit'])}:{digest(*how)}"


def _shows_same(one: str | None, other: str) -> bool:
    return one is not None and one.rpartition(":")[0] == other.rpartition(":")[0]


def _stamp_on(path: Path, settings: Settings) -> str | None:
    """The stamp of a video that is there."""
    from chronoprep.video import read_stamp

    stamp = read_stamp(path)
    if stamp is None and settings.video.keep_clip:
        from chronoprep.images.clips import read_comment

        return read_comment(path)
    return stamp


def prompt_of(label: Standing, settings: Settings) -> str | None:
    """The text that the editor trains on, or None when the label has none."""
    prompt = label.caption_cot
    if prompt is None and settings.labels.allow_caption_as_prompt:
        prompt = label.caption
    return prompt if prompt and prompt.strip() else None


def build_csv(dataset: Dataset, settings: Settings, *, wanted: set[str] | None = None) -> Summary:
    """Write metadata.csv from the journal and the files.

    Labels that are not `ok`, have no prompt or whose video is missing are left out and counted.
    A prompt that `pandas.read_csv` would not give back as this text (`NA`, `0001`) is put in
    double quotes, since CSV quoting alone does not help there.

    Args:
        wanted: The keys of the pairs at hand, whose videos are fresh: their labels have to be of
            the same images. What else the journal holds is kept, and counted.
    """
    summary = Summary("metadata.csv")
    videos, pickles = (
        file_names(dataset.video("x").parent),
        file_names(dataset.embedding("x").parent),
    )
    embedded = dataset.embeddings()
    labels = dataset.labels()
    left_out: Counter[str] = Counter()
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, str]]:
        for key in sorted(labels):
            label = labels.standing(key)
            assert label is not None
            prompt = prompt_of(label, settings)
            reason = _why_not(label, prompt, f"{key}.mp4" in videos)
            checked = reason is None and wanted is not None and key in wanted
            if checked and label.images is not None and _shows_others(dataset, label, settings):
                # A prompt beside images that it was not written for would poison the training.
                reason = "labelled for other images (`chronoprep caption` renews them)"
            if reason or prompt is None:
                left_out[reason or ""] += 1
                continue
            if not pandas_reads_as_text(prompt):
                prompt = f'"{prompt}"'
                counts["repaired"] += 1
            counts["others"] += wanted is not None and key not in wanted
            counts["rows"] += 1
            pickle = f"{key}.pkl"
            record = embedded.get(key)
            fresh = pickle in pickles and record is not None and record.prompt == digest(prompt)
            umt5 = f"umt5/{pickle}" if fresh else ""
            yield {"key": key, "video": f"videos/{key}.mp4", "prompt": prompt, "umt5": umt5}

    dataset.write_csv(rows())
    summary.done, repaired, others = counts["rows"], counts["repaired"], counts["others"]
    summary.notes += [f"left out: {count} {reason}" for reason, count in sorted(left_out.items())]
    if repaired:
        summary.notes.append(f"{repaired} prompt(s) put in quotes: pandas reads them as no text")
    if others:
        summary.notes.append(f"{others} row(s) of earlier pairs in this dataset were kept")
    return summary.finish()


def _why_not(label: Standing, prompt: str | None, has_video: bool) -> str | None:
    """Why a label stands in no row, if so."""
    if label.status != "ok":
        return label.status.replace("_", " ")
    if prompt is None:
        return "without a prompt (no CoT; --allow-caption-as-prompt takes the caption)"
    return None if has_video else "without a video"


def _shows_others(dataset: Dataset, label: Standing, settings: Settings) -> bool:
    """Whether a label's video shows other images than those that were labelled."""
    stamp = video_stamp(label.images or "", settings)
    return not _shows_same(_stamp_on(dataset.video(label.key), settings), stamp)
