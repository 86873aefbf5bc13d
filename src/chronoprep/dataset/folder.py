"""A dataset folder: where its files lie, who may write, and what its parts say together.

DATASET/
  pairs.parquet      its pairs, and how their files looked
  labels.jsonl       append-only journal of what happened to them
  metadata.csv       key,video,prompt,umt5: what the trainer reads; follows from the others
  videos/KEY.mp4     frame 1 source, frame 2 target, 1 fps
  umt5/KEY.pkl       bfloat16 tensor [n_tokens, 4096]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from chronoprep import digest
from chronoprep.data import LOCK
from chronoprep.dataset.events import Artefact, Event, Table
from chronoprep.dataset.index import Index
from chronoprep.dataset.journal import Journal
from chronoprep.dataset.table import find_edits, own_columns, write_rows
from chronoprep.errors import BackendError, ConfigError
from chronoprep.files import TEMPORARY, file_names, locked, make_folder, replacing, unwritable

JOURNAL = "labels.jsonl"
CSV = "metadata.csv"


class Dataset:
    """A dataset folder.

    Args:
        folder: Created when the first file is written; reading an absent one gives nothing.

    Raises:
        ConfigError: It is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: not a folder.", hint="Give --dataset a folder.")
        self.folder = folder
        self.csv = folder / CSV
        self._held: tuple[int, int] | None = None  # what is locked, wherever it may be moved

    @cached_property
    def journal(self) -> Journal:
        """What happened. Appending keeps it up to date."""
        return Journal(self.folder / JOURNAL)

    @cached_property
    def index(self) -> Index:
        """Its pairs."""
        return Index(self.folder)

    def video(self, key: str) -> Path:
        """Where a pair's video lies, if there is one."""
        return self.folder / "videos" / f"{key}.mp4"

    def embedding(self, key: str) -> Path:
        """Where a pair's embedding lies, if there is one: a bfloat16 tensor [tokens, 4096]."""
        return self.folder / "umt5" / f"{key}.pkl"

    def make(self, name: str) -> None:
        """Make a folder of files, `videos` or `umt5`.

        Raises:
            BackendError: It can't be made, or the dataset was moved under the run.
        """
        self._require_place()
        make_folder(self.folder / name)

    def append(self, events: Iterable[Event], only_if: Callable[[], bool] | None = None) -> bool:
        """Add events to the journal, with the time: on disk when this returns.

        Args:
            only_if: As in `Journal.append`.

        Returns:
            Whether they were added.

        Raises:
            BackendError: When the disk is full or the folder can't be written.
        """
        now = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        return self.append_known((event.model_copy(update=now) for event in events), only_if)

    def append_known(
        self, events: Iterable[Event], only_if: Callable[[], bool] | None = None
    ) -> bool:
        """As `append`, of events that another journal holds: their time is that of there."""
        self._require_place()
        return self.journal.append(events, only_if)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of the folder, and clear what a killed one left half written.

        Raises:
            BackendError: When another run holds the folder, or it can't be written.
        """
        lock = self.folder / LOCK
        busy = BackendError(
            f"{self.folder}: another chronoprep run is writing to this dataset.",
            hint="Wait until it ends, or give this run another --dataset.",
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(lock, error) from None
        with locked(lock, busy):
            try:
                self._held = _identity(self.folder)
            except OSError as error:
                raise unwritable(lock, error) from None
            try:
                self._clear()
                yield
                self._require_place()
            finally:
                self._held = None

    def _require_place(self) -> None:
        """Make the folder where there is none; under a lock it has to be the one that is locked.

        Raises:
            BackendError: It was moved or removed under the run, or can't be made.
        """
        if self._held is None:
            make_folder(self.folder)
            return
        try:
            if _identity(self.folder) == self._held:
                return
        except OSError:
            pass
        raise BackendError(
            f"{self.folder}: the dataset was moved or removed while this run was at work on it.",
            hint="Put it back, or name its new place: what was written down until then is in it. "
            "Then run it again to go on.",
        )

    def _clear(self) -> None:
        # Of tables only in the folder itself, which may hold other programs' files.
        for folder, kinds in (
            (self.folder, (".csv", ".parquet")),
            (self.folder / "videos", ("",)),
            (self.folder / "umt5", ("",)),
        ):
            for name in file_names(folder):
                if name.startswith(".") and name.endswith(tuple(k + TEMPORARY for k in kinds)):
                    try:
                        (folder / name).unlink(missing_ok=True)
                    except OSError as error:
                        raise unwritable(folder / name, error) from None

    def take_over_edits(self) -> list[str]:
        """Write into the journal what a human has changed in metadata.csv since it was written.

        Returns:
            What was taken over, readable.

        Raises:
            ConfigError: The table can't be read, or holds what can't be taken over.
        """
        if not self.index.exists or not self.csv.is_file():
            return []
        made = _described(self.csv)
        if made.content in self.journal.tables:
            return []
        edits = find_edits(self.csv, self.index.entries(), self.journal)
        self.append([*edits.reviews, made])
        return edits.notes

    def write_csv(self, rows: Callable[[], Iterable[tuple[str, ...]]]) -> list[str]:
        """Write metadata.csv; a user's own columns stay.

        Args:
            rows: (key, video, prompt, umt5), as often as it is asked: what a human changes in the
                table until it is replaced is taken over, and may change them.

        Returns:
            What was taken over, readable.

        Raises:
            BackendError: It can't be written, or was moved under the run.
            ConfigError: As `take_over_edits`.
        """
        self._require_place()
        notes: list[str] = []
        keys: list[str] = []

        def seen() -> Iterator[tuple[str, ...]]:
            keys.clear()
            for row in rows():
                keys.append(row[0])
                yield row

        with replacing(self.csv) as temporary:
            while True:
                notes += self.take_over_edits()
                before = _stamp(self.csv)
                write_rows(seen(), temporary, own_columns(self.csv))
                if _stamp(self.csv) == before:
                    break
            # First what it holds, then the file: one that a crash keeps from its place is known.
            self.index.list_rows(keys)
            self.index.save()
            table = _described(temporary)
            if table.content not in self.journal.tables:
                self.append([table])
        return notes


A = TypeVar("A", bound=Artefact)


class Files:
    """The artefacts of one kind that a dataset has, and whether each is still what was written.

    Args:
        folder: `videos` or `umt5` of a dataset.
        suffix: Theirs.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self._names = file_names(folder)

    def __contains__(self, key: str) -> bool:
        return f"{key}{self._suffix}" in self._names

    def untouched(self, event: Artefact) -> bool | None:
        """Whether a file is the one that an event tells of, by size and time of change; None where
        the time is another, as in a copied dataset, so that its content has to tell."""
        try:
            file = os.stat(f"{self._folder}/{event.key}{self._suffix}")  # noqa: PTH116 - quicker
        except OSError:
            return False
        if file.st_size != event.bytes:
            return False
        return True if file.st_mtime_ns == event.mtime else None

    def described_anew(self, event: A) -> A | None:
        """The event with the file's time of change, if its content is what was written."""
        path = self._folder / f"{event.key}{self._suffix}"
        try:
            if digest.of_file(path) != event.content:
                return None
            return event.model_copy(update={"mtime": path.stat().st_mtime_ns})
        except OSError:
            return None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """How a file looks from outside; None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _described(path: Path) -> Table:
    """A table as an event."""
    status = path.stat()
    return Table(bytes=status.st_size, mtime=status.st_mtime_ns, content=digest.of_file(path))
