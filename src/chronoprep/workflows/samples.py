"""The files of a sample, and whether a trainer could read each."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chronoprep import digest
from chronoprep.data import Flaw
from chronoprep.dataset import Dataset, same_images
from chronoprep.dataset.pandas_csv import kind_of
from chronoprep.files import file_names
from chronoprep.umt5 import MAX_TOKENS
from chronoprep.umt5.inspection import flaws_of_embedding

VIDEOS = (".mp4", ".avi", ".mov", ".wmv", ".mkv", ".flv", ".webm", ".gif")
PICKLES = (".pkl",)
_PLAIN = 3  # levels of a channel by which a frame of one colour may vary, however it is coded


class Sample(NamedTuple):
    """A row of a table, as a task.

    Attributes:
        key: As findings name it.
        split: What it is trained or tested with: the cell of a `split` column, or its table; ""
            where there is one of all.
    """

    key: str
    where: str
    folder: str
    split: str
    prompt: str
    video: str
    umt5: str | None


@dataclass
class Seen:
    """What was found about a sample.

    Attributes:
        frames: How many its video shows.
        first: Its first frame as a small picture.
        files: The files that it names, as far as they are there.
    """

    flaws: list[Flaw] = field(default_factory=list)
    frames: int | None = None
    first: bytes | None = None
    files: list[str] = field(default_factory=list)


class Look:
    """Looks at the files of a sample: a function of it alone, so that many run side by side.

    Args:
        own: The dataset whose journal tells of the files, if it is one of chronoprep's.
    """

    def __init__(self, own: Dataset | None, quick: bool) -> None:
        self.own, self.quick = own, quick
        self._names: dict[Path, dict[str, str]] = {}
        self._pickles: dict[tuple[int, int], list[Flaw]] = {}  # of files with several names

    def __call__(self, sample: Sample) -> Seen:
        seen = Seen()
        video = self._file(sample, sample.video, "video", VIDEOS, seen)
        if video is not None:
            seen.flaws += self._of_video(video, seen)
        pickle = None
        if sample.umt5 is not None:
            pickle = self._file(sample, sample.umt5, "umt5", PICKLES, seen)
        if pickle is not None:
            seen.flaws += self._of_pickle(pickle)
        seen.flaws += self._of_journal(sample, video, pickle, well=not seen.flaws)
        return seen

    def _file(
        self, sample: Sample, cell: str, column: str, suffixes: tuple[str, ...], seen: Seen
    ) -> Path | None:
        """The file that a cell leads to; None where the trainer finds none that it reads."""

        def say(code: str, what: str) -> None:
            seen.flaws.append(Flaw(code, f"{sample.where}: {column}: {what}."))

        if kind_of(cell) == "missing":
            code = "embedding-missing" if column == "umt5" else "path-empty"
            say(code, "the cell is empty, so the trainer passes over the row")
            return None
        path = Path(sample.folder, cell)
        if path.suffix.lower() not in suffixes:
            say(
                "path-suffix",
                f"{cell}: no trainer reads {path.suffix or 'a file without a suffix'}",
            )
            return None
        if Path(cell).is_absolute():
            say("path-absolute", f"{cell}: an absolute path")
        elif ".." in PurePosixPath(os.path.normpath(cell)).parts:
            say("path-outside", f"{cell}: leads out of the folder")
        try:
            if path.is_file():
                seen.files.append(os.path.normpath(path))
                return path
            other = self._spelled(path)
        except OSError as error:  # a name that is too long, a folder that may not be entered
            say("file-missing", f"{cell[:99]}: {error.strerror or error}")
            return None
        if "\\" in cell:
            say("path-backslash", f"{cell}: a name with back-slashes, and no path")
        elif os.path.lexists(path):
            say("file-unreadable", f"{cell}: no regular file")
        elif other:
            say("path-case", f"{cell}: on the disk, it is {other}")
        else:
            say("file-missing", f"{cell}: there is no such file")
        return None

    def _spelled(self, path: Path) -> str | None:
        """How the disk spells a path that it has in another case or Unicode form."""
        folder = path.parent
        if folder not in self._names:
            names = file_names(folder) if folder.is_dir() else ()
            self._names[folder] = {_folded(name): name for name in names}
        return self._names[folder].get(_folded(path.name))

    def _of_video(self, path: Path, seen: Seen) -> list[Flaw]:
        from chronoprep.playback import examine

        try:
            footage = examine(path, decode=not self.quick)
        except OSError as error:
            return [Flaw("file-unreadable", f"{path}: {error.strerror or error}.")]
        seen.frames, seen.first = footage.frames, footage.first
        if footage.pair:
            from chronoprep.images.alignment import GROSS, flaws_of, measure

            source, target = footage.pair
            for number, frame in enumerate(footage.pair, 1):
                if (frame.max((0, 1)).astype(int) - frame.min((0, 1))).max() <= _PLAIN:
                    say = f"{path}: frame {number} is of one colour."
                    return [*footage.flaws, Flaw("plain-frame", say)]
            if (source == target).all():
                say = f"{path}: both frames are the same picture."
                return [*footage.flaws, Flaw("same-frames", say)]
            size = (source.shape[1], source.shape[0])
            lies = flaws_of(measure(source, target), size, GROSS)  # `pairs` tells more
            footage.flaws += [Flaw(code, f"{path}: {what}.") for code, what in lies]
        return footage.flaws

    def _of_pickle(self, path: Path) -> list[Flaw]:
        try:
            status = path.stat()
            same = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
            if same is not None and same in self._pickles:
                return self._pickles[same]
            flaws = flaws_of_embedding(path)
        except OSError as error:
            return [Flaw("file-unreadable", f"{path}: {error.strerror or error}.")]
        if same is not None:
            self._pickles[same] = flaws
        return flaws

    def _of_journal(
        self, sample: Sample, video: Path | None, pickle: Path | None, *, well: bool
    ) -> Iterator[Flaw]:
        """What the files are not, though the dataset says so.

        Args:
            well: Whether nothing is wrong with the files in themselves.
        """
        if self.own is None or sample.key not in self.own.journal:
            return
        state = self.own.journal.state(sample.key)
        made = state.video
        if made is not None and video is not None and video == self.own.video(sample.key):
            if not same_images(state.images, made.images):
                yield Flaw("other-images", f"{video}: shows other images than its label is of.")
            yield from (Flaw(f.code, f"{video}: {f.message}.") for f in _not_aligned(made.notes))
            if well and digest.of_file(video) != made.content:
                yield Flaw("video-changed", f"{video}: not what was written for this pair.")
        embedded = state.embedding
        if embedded is not None and pickle == self.own.embedding(sample.key):
            if sample.prompt.strip() and embedded.prompt != digest.of_text(sample.prompt):
                yield Flaw("embedding-stale", f"{pickle}: of another prompt than the row's.")
            elif well and digest.of_file(pickle) != embedded.content:
                yield Flaw("embedding-changed", f"{pickle}: not what was written for this prompt.")
            if embedded.tokens > MAX_TOKENS:
                what = f"{sample.where}: {embedded.tokens} tokens, {MAX_TOKENS} are read."
                yield Flaw("prompt-tokens", what)


def _not_aligned(notes: tuple[str, ...]) -> list[Flaw]:
    from chronoprep.images.alignment import flaws_in_notes

    return flaws_in_notes(notes)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
