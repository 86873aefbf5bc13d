"""The 2-frame videos of a dataset: the missing and the stale ones are written."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chronoprep import digest
from chronoprep.config import Settings
from chronoprep.data import Frame, Outcome, Pair
from chronoprep.dataset import Entry, Event, Files, State, Video
from chronoprep.engine import Needs
from chronoprep.errors import BackendError, PairError
from chronoprep.files import replacing
from chronoprep.images.refs import parse
from chronoprep.images.room import room
from chronoprep.labels.recipe import view_settings
from chronoprep.mp4 import Sample
from chronoprep.rows import Rows
from chronoprep.workflows.progress import Summary
from chronoprep.workflows.stage import Run, failure

SURE = 16  # videos after which their mean size is ground enough to stop a run


class VideoTask(NamedTuple):
    """A pair whose video is to be written.

    Attributes:
        path: Where it goes.
        old: What the video that is there shows, if there is one.
    """

    key: str
    source: str
    target: str
    path: str
    old: str | None = None


@dataclass(frozen=True)
class VideoWriter:
    """Writes the video of a pair.

    Attributes:
        sample: Which videos are decoded back.
    """

    settings: Settings
    sample: Sample

    def __call__(self, task: VideoTask) -> Video:
        path = Path(task.path)
        try:
            return write_one(Pair(*task[:3]), path, self.settings, self.sample)
        except PairError:
            with suppress(PairError, OSError):
                from chronoprep.images.load import content_hash

                now = shown(content_hash(Pair(*task[:3])), look_of(self.settings))
                if task.old and task.old != now:  # it shows other images than the pair does
                    path.unlink(missing_ok=True)
            raise


def write_videos(run: Run, wanted: Callable[[Entry, State], bool] = lambda *_: True) -> Summary:
    """Write the missing and the stale videos, of the pairs that are wanted."""
    summary = Summary("videos")
    settings, dataset = run.settings, run.dataset
    files = Files(dataset.folder / "videos", ".mp4")
    tasks = Rows(VideoTask)
    touched: list[tuple[Video, VideoTask]] = []
    look, how, again, left_out = look_of(settings), _how(settings), 0, 0
    for entry, state, images in run.with_images():
        if not wanted(entry, state):
            left_out += 1
            continue
        if isinstance(images, PairError):
            summary.fail(entry.key, images.reason)
            continue
        video = state.video if entry.key in files else None
        same = video is not None and video.images == images
        untouched: bool | None = False
        if video is not None and same:
            if (video.shows, video.how) == (shown(video.images, look), how):
                untouched = files.untouched(video)
            else:
                again += 1
        if untouched:
            summary.skipped += 1
            continue
        old = video.shows if video is not None else None
        task = VideoTask(*entry[:3], str(dataset.video(entry.key)), old)
        if video is not None and untouched is None:
            touched.append((video, task))
        else:
            tasks.append(task)
    changed = list(run.still_stale(files, touched))
    summary.skipped += len(touched) - len(changed)
    tasks.extend(changed)
    if left_out:
        summary.notes.append(f"left out: {left_out} without a prompt to train on")
    if again:
        summary.notes.append(f"{again} video(s) are in other settings than asked for: written anew")
    encoded: Counter[str] = Counter()
    budget = _DiskBudget(dataset.folder, len(tasks))

    def record(outcome: Outcome[Video]) -> Iterator[Event]:
        if outcome.value is None:
            yield failure(outcome, "video")
            return
        yield outcome.value
        if outcome.value.not_copied:
            encoded[outcome.value.not_copied] += 1
        if warning := budget.wrote(outcome.value.bytes):
            run.reporter.say(warning)
            summary.notes.append(warning)

    if not run.dry_run:
        run.dataset.make("videos")
    ends = frozenset(task.key for task in (*tasks[:1], *tasks[-1:]))
    worker = VideoWriter(settings, Sample(settings.video.check, ends))
    needs: Needs = "disk" if settings.video.codec == "copy" else "cpu"
    run.stage("videos", tasks, worker, record, summary=summary, needs=needs)
    if encoded:
        reasons = ", ".join(f"{count} {reason}" for reason, count in encoded.most_common())
        summary.notes.append(f"not copied but encoded lossless: {encoded.total()} ({reasons})")
    return summary


@room()
def write_one(pair: Pair, path: Path, settings: Settings, sample: Sample) -> Video:
    """Write a pair's video.

    Args:
        sample: Says whether it is decoded back.

    Returns:
        What was written; its notes tell what was done to the images.

    Raises:
        PairError: When an image can't be used or the video can't be read back.
        BackendError: When the disk is full or the folder can't be written.
    """
    from chronoprep.images.decode import says_srgb
    from chronoprep.images.load import content_hash, load_pair, of_both
    from chronoprep.images.sources import files_stamp, read_source
    from chronoprep.video import copy_video, write_video

    source, target = parse(pair.source), parse(pair.target)
    kind = tuple((type(ref).__name__, str(ref).rpartition(".")[2][:8]) for ref in (source, target))
    files = files_stamp(pair.source, pair.target)
    not_copied: str | None = None
    if settings.video.keep_clip and isinstance(source, Frame):
        from chronoprep.images.clips import keep_clip

        if target != Frame(source.clip, "last") or source.at != "first":
            raise PairError(
                "--keep-clip: the video would show other times than the label tells of.",
                hint="Let the manifest name #t=first and #t=last of one clip, or leave it out.",
            )
        with replacing(path) as temporary:
            decoded = sample.holds(pair.key, "clip", kind)
            keep_clip(source.clip, temporary, settings.images, check=decoded)
        return _video(pair.key, path, content_hash(pair), files, settings)
    if settings.video.codec == "copy":
        not_copied = "no files of their own"
        if settings.images.align:
            not_copied = "to be aligned"
        elif isinstance(source, Path) and isinstance(target, Path):
            contents = [read_source(source), read_source(target)]
            if settings.images.colour_management and not all(
                says_srgb(data, str(ref))
                for data, ref in zip(contents, (source, target), strict=True)
            ):
                not_copied = "other colours than sRGB"
            else:
                not_copied = copy_video(contents, path, settings.video, sample)
            if not_copied is None:
                images = of_both(*map(digest.of_bytes, contents))
                return _video(pair.key, path, images, files, settings)
    loaded = load_pair(pair, settings.images)
    notes = write_video(loaded.source, loaded.target, path, settings.video, sample, kind)
    video = _video(pair.key, path, loaded.images, loaded.files, settings)
    return video.model_copy(update={"notes": (*loaded.notes, *notes), "not_copied": not_copied})


def _video(key: str, path: Path, images: str, files: str | None, settings: Settings) -> Video:
    status = path.stat()
    return Video(
        key=key,
        shows=shown(images, look_of(settings)),
        how=_how(settings),
        images=images,
        files=files,
        bytes=status.st_size,
        mtime=status.st_mtime_ns,
        content=digest.of_file(path),
    )


def shown(images: str, look: str) -> str:
    """What a video shows: its images, and how they were brought to one frame."""
    return digest.of_text(images + look)


def look_of(settings: Settings) -> str:
    """How images are brought to one frame."""
    look = view_settings(settings.images)
    aligned = ["align"] if "align" in look else []
    return digest.of_values(look["background"], look["fit"], look["colour_management"], *aligned)


def _how(settings: Settings) -> str:
    """How a video is written. A pair that can't be copied has that of `copy`, too: the next run
    finds it up to date."""
    video = settings.video
    how: list[object] = [video.codec]
    if video.codec == "h264":
        how += [video.chroma, video.crf]
    return digest.of_values(*how, video.keep_clip, video.max_pixels)


class _DiskBudget:
    """Judges whether what is still to be written will fit, by the mean size of what was.

    Args:
        folder: On the disk in question.
        waiting: How many videos are to be written.
    """

    def __init__(self, folder: Path, waiting: int) -> None:
        self._folder, self._waiting = folder, waiting
        self._bytes = self._count = 0
        self._warned = False

    def wrote(self, size: int) -> str | None:
        """Count a video of so many bytes.

        Returns:
            A warning, once, when the disk is about to be filled.

        Raises:
            BackendError: The same after `SURE` videos: better now than with a full disk.
        """
        self._bytes += size
        self._count += 1
        doubled = self._count & (self._count - 1) == 0
        if not doubled and self._count % 256:
            return None
        left = self._waiting - self._count
        needed, free = left * self._bytes // self._count, shutil.disk_usage(self._folder).free
        if needed <= free:
            return None
        message = (
            f"{self._folder}: the {left} videos still to be written need about "
            f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free."
        )
        if self._count >= SURE:
            raise BackendError(
                message,
                hint="Free some space, choose another --dataset, or --codec copy or h264, which "
                "are smaller; what was done so far is kept.",
            )
        if self._warned:
            return None
        self._warned = True
        return message
