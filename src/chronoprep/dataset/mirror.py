"""A dataset in an object store, and the copy on this machine's disk that is worked on.

ADDRESS/
  labels/000000000001234-5f….jsonl   parts of the journal; all others are as on a disk
  pairs.parquet, metadata.csv, videos/…, umt5/…, shards/…

Object stores know no appending: a writer puts what it has added into an object of its own. A part's
name begins with how much of the journal its writer had seen, so that what was known to a writer
comes before what it wrote. Whoever reads puts the parts behind each other.

An object is there as a whole or not at all, and is put in this order: files, the journal that tells
of them, the index, the table.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from chronoprep import digest
from chronoprep.data import LOCK
from chronoprep.dataset.folder import CSV, JOURNAL
from chronoprep.dataset.index import FILE as INDEX
from chronoprep.dataset.journal import append_lines
from chronoprep.errors import BackendError
from chronoprep.files import TEMPORARY, cache, locked, make_folder, replacing
from chronoprep.images.remote import fetch, objects, put

_PARTS = "labels"  # beside a journal in a store, where the journal itself would be
_SECONDS = 60.0  # between two pushes
_LAST = (INDEX, "shard.json", CSV)  # written last, in this order


@dataclass
class _Known:
    """What is equal here and there.

    Attributes:
        parts: Names of the parts that are in the journals here.
        sent: By journal, how many of its bytes are in parts.
        files: By name, how a file looked here and there.
        pulling: Whether parts are being added to the journals here, which held nothing else then.
    """

    parts: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    pulling: bool = False


class Mirror:
    """A dataset in an object store. What is looked for here is the sum of what all writers put
    there; of an index and a table, the last one's.

    Attributes:
        folder: Its copy here.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        place = cache() / "datasets" / digest.of_text(self.address, 8)
        self.folder = place / PurePosixPath(self.address).name
        self._note = place / "known.json"
        self._known = _Known()
        self._due = time.monotonic() + _SECONDS
        make_folder(self.folder)
        with suppress(OSError, ValueError, TypeError, RecursionError):  # else all is looked at anew
            self._known = _Known(**json.loads(self._note.read_text(encoding="utf-8")))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a second run on this machine out of the copy.

        Raises:
            BackendError: Another one has it, or it can't be locked.
        """
        busy = BackendError(
            f"{self.address}: another chronoprep run on this machine works on this dataset.",
            hint="Wait until it ends, or give each a shard of its own.",
        )
        with locked(self._note.with_name(LOCK), busy):
            yield

    def pull(self) -> None:
        """Bring what is there and not here. What was removed there is put there again.

        Raises:
            ConfigError: The store can't be reached.
            BackendError: It can't be read, or the disk can't be written.
        """
        if self._known.pulling:  # a run was killed in its midst: what it added is fetched again
            for journal in self._journals():
                os.truncate(journal, self._known.sent.get(self._name(journal), 0))
            self._known.pulling = False
        self._send_journals()  # what a run that was killed has left
        there = objects(self.address, missing_ok=True)
        parts = [name for name in there if PurePosixPath(name).parent.name == _PARTS]
        self._forget_removed(there)
        new = sorted(set(parts) - set(self._known.parts), key=lambda name: name.rpartition("/")[2])
        if new:
            self._known.pulling = True
            self._save()
            for name, data in zip(new, fetch([self._at(name) for name in new]), strict=True):
                journal = self.folder / PurePosixPath(name).parent.parent / JOURNAL
                make_folder(journal.parent)
                append_lines(journal, data)
                self._known.sent[self._name(journal)] = journal.stat().st_size
            self._known.parts += new
            self._known.pulling = False
            self._save()
        names = [
            name
            for name, look in there.items()
            if name not in parts and look != self._known.files.get(name, ("", ""))[1]
        ]
        for name, data in zip(names, fetch([self._at(name) for name in names]), strict=True):
            path = self.folder / name
            make_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(data)
            self._known.files[name] = (_look(path), there[name])
        self._save()

    def _forget_removed(self, there: Collection[str]) -> None:
        """Of what somebody removed in the store, nothing counts as put there: a file; a journal of
        which no part is left."""
        for name in self._known.files.keys() - set(there):
            del self._known.files[name]
        folders = {PurePosixPath(name).parent for name in there}
        for journal in [*self._known.sent]:
            parts = PurePosixPath(journal).parent / _PARTS
            if parts not in folders:
                del self._known.sent[journal]
                self._known.parts = [
                    part for part in self._known.parts if PurePosixPath(part).parent != parts
                ]

    def push(self) -> None:
        """Put what is here and not there.

        Raises:
            BackendError: It can't be put.
        """
        new = {path: _look(path) for path in self._files() if self._changed(path)}
        self._put([path for path in new if path.name not in _LAST])
        self._send_journals()
        for last in _LAST:
            self._put([path for path in new if path.name == last])
        if new:
            there = objects(self.address)
            for path, look in new.items():
                self._known.files[self._name(path)] = (look, there.get(self._name(path), ""))
            self._save()

    def push_if_due(self) -> None:
        """Push once a minute; where the store is slow or large, so rarely that it takes a tenth of
        the time at most.

        Raises:
            BackendError: It can't be put.
        """
        began = time.monotonic()
        if began < self._due:
            return
        self.push()
        ended = time.monotonic()
        self._due = ended + max(_SECONDS, 9 * (ended - began))

    def _files(self) -> list[Path]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [
            path
            for path in found
            if path.name != JOURNAL and not path.name.startswith(".") and path.suffix != TEMPORARY
        ]

    def _journals(self) -> list[Path]:
        return [*self.folder.rglob(JOURNAL)]

    def _changed(self, path: Path) -> bool:
        return self._known.files.get(self._name(path), ("", ""))[0] != _look(path)

    def _put(self, paths: list[Path]) -> None:
        put({self._at(self._name(path)): path for path in paths})

    def _send_journals(self) -> None:
        """Put what was added to each journal, as far as its lines are whole."""
        for journal in self._journals():
            name = self._name(journal)
            sent = self._known.sent.get(name, 0)
            with journal.open("rb") as file:
                file.seek(sent)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                continue
            part = f"{sent:015}-{digest.of_bytes(data, 8)}.jsonl"
            part = str(PurePosixPath(name).parent / _PARTS / part)
            put({self._at(part): data})
            self._known.parts.append(part)
            self._known.sent[name] = sent + len(data)
            self._save()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _at(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _save(self) -> None:
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(asdict(self._known)), encoding="utf-8")


def _look(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror}.", hint="Run it again.") from None
    return f"{status.st_size}-{status.st_mtime_ns}"
