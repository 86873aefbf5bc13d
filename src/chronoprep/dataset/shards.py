"""Shards: a dataset's pairs in n parts, each a dataset of its own, made anywhere and alone.

DATASET/shards/00002-of-00004/
  pairs.parquet, labels.jsonl, …   as in every dataset, of the shard's own pairs
  shard.json                       what all pairs were, and whether the last run came to its end

Which shard a pair is in follows from its key. So no shard knows of the others, nothing is written
by two of them, and any scheduler will do.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from chronoprep import digest
from chronoprep.data import LOCK
from chronoprep.dataset.events import Artefact, Embedding, Event, Video
from chronoprep.dataset.folder import Dataset
from chronoprep.dataset.index import Entry
from chronoprep.errors import ConfigError
from chronoprep.files import linked, make_folder, replacing, unwritable

FOLDER = "shards"
_NOTE = "shard.json"
_TOGETHER = 10_000  # events between two entries into the journal
_NAME = re.compile(r"(\d{5,6})-of-(\d{5,6})")


@dataclass(frozen=True, order=True)
class Shard:
    """One part of `count`, by its number from 0."""

    count: int
    number: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """As the setting says it: i/n."""
        number, count = text.split("/")
        return cls(int(count), int(number))

    @classmethod
    def at(cls, folder: Path) -> Shard | None:
        """The shard that a folder is called after; None where it is called otherwise."""
        name = _NAME.fullmatch(folder.name)
        return cls(int(name[2]), int(name[1])) if name else None

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def place(self, dataset: Path) -> Path:
        return dataset / FOLDER / f"{self.number:05}-of-{self.count:05}"

    def holds(self, key: str) -> bool:
        return int(digest.of_text(key, 8), 16) % self.count == self.number


@dataclass(frozen=True)
class Note:
    """What a shard tells of itself.

    Attributes:
        pairs: How many pairs there are in all shards; None where it does not know.
        keys: The digest of all their keys: shards of the same pairs have the same.
        finished: Whether its last run came to its end.
    """

    pairs: int | None = None
    keys: str | None = None
    finished: bool = False

    @classmethod
    def read(cls, folder: Path) -> Note:
        """Of a shard's folder.

        Raises:
            ConfigError: It can't be read.
        """
        path = folder / _NOTE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path}: can't read it: {error}.", hint="Remove it, and run that shard again."
            ) from None

    def write(self, folder: Path) -> None:
        with replacing(folder / _NOTE) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def digest_of_keys(keys: Iterable[str]) -> str:
    """Names a set of keys."""
    return digest.of_text("\n".join(sorted(keys)))


def make_place(folder: Path, dataset: Path) -> None:
    """Make the folder of a shard, and mark the one that it is in as a dataset.

    Raises:
        BackendError: They can't be made.
    """
    make_folder(folder)
    try:
        (dataset / LOCK).touch()
    except OSError as error:
        raise unwritable(dataset / LOCK, error) from None


@contextmanager
def noted(folder: Path, keys: Iterable[str] | None) -> Iterator[None]:
    """Write down beside a shard that a run is at work, and in the end that it came to its end.

    Args:
        keys: Of the pairs of all shards, if the run has looked for them.
    """
    note = Note.read(folder)
    if keys is not None:
        every = list(keys)
        note = Note(len(every), digest_of_keys(every))
    replace(note, finished=False).write(folder)
    yield
    replace(note, finished=True).write(folder)


def take_over(source: Dataset, target: Dataset, entries: Iterable[Entry]) -> int:
    """Bring what happened to pairs of a dataset, and what was made of them, to another one that is
    locked; the pairs themselves are for its index to take.

    What is there already is not brought again. Files are linked where the file system lets, else
    copied.

    Returns:
        How many pairs something was brought of.

    Raises:
        BackendError: It can't be written.
    """
    brought = 0
    waiting: list[Event] = []
    for entry in entries:
        known, there = source.journal.events(entry.key), target.journal.events(entry.key)
        new = known[len(there) :]
        if known[: len(there)] != there:
            new = [event for event in known if event not in there]
        for event in _last_of_kinds(known):
            _bring(event, source, target, again=event in new)
        # First the file, then the event: what is on record is there.
        waiting += new
        brought += bool(new)
        if len(waiting) > _TOGETHER:
            target.append_known(waiting)
            waiting = []
    target.append_known(waiting)
    return brought


def _last_of_kinds(events: Iterable[Event]) -> list[Artefact]:
    """What is on record of a pair's files now."""
    last = {type(event): event for event in events if isinstance(event, Video | Embedding)}
    return list(last.values())


def _bring(event: Artefact, source: Dataset, target: Dataset, *, again: bool) -> None:
    """Bring a file that an event tells of.

    Args:
        again: Also where there is one.
    """
    place = Dataset.video if isinstance(event, Video) else Dataset.embedding
    here, there = place(source, event.key), place(target, event.key)
    if not here.is_file() or (there.is_file() and not again):
        return
    target.make(there.parent.name)
    if not linked(here, there):
        with replacing(there) as temporary:
            shutil.copy2(here, temporary)
