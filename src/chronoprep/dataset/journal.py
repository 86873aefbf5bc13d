"""The journal: an append-only file of events, a line each, and the state of every key.

Several processes may append at the same time (a review while a run is on): lines are written whole,
under a short lock. Reading takes no lock.

When the file is read, each line is checked for what makes it an event, its key and its kind; the
event is made when its key is asked for. So the state of a million pairs takes the room of their
keys, and a decision some microseconds. (A polars scan stops at the first torn line.)

A line that is no event costs only itself: it is remembered with its number, and what stood before
it stands. The last line is torn when a crash cut it short; whoever appends next makes it whole.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chronoprep.data import Finding
from chronoprep.dataset.events import KINDS, Event, Roles, State, Table, Torn, read_event
from chronoprep.errors import BackendError
from chronoprep.files import locked, unwritable
from chronoprep.keys import safe_key

LOCK_SECONDS = 60.0  # an append takes milliseconds: who waits longer waits for a dead file system
SHOWN = 5  # damaged lines that are named
_BUFFER = 1 << 16
_BOM = b"\xef\xbb\xbf"
_PLAIN = re.compile(r"[A-Za-z][\w-]{0,100}")  # a safe key, seen at a glance

Kind = Literal["label", "failure", "review", "undo", "roles", "score", "video", "embedding"]
# An event's place holds its kind, too, as the remainder: what need not be read is passed over.
_CODES: dict[str, int] = {kind: code for code, kind in enumerate(get_args(Kind))}
_READERS = [TypeAdapter[Any](KINDS[kind]).validator.validate_json for kind in _CODES]
_OF_FILES = _CODES["video"]  # from here on, kinds tell of files and not of the text
_KINDS = 8


class _Head(TypedDict):
    """What makes a line an event."""

    key: str
    kind: Kind


# The validators themselves: what pydantic wraps them in would take a third of the time.
_head = TypeAdapter(_Head).validator.validate_json


class Journal:
    """The events of a dataset, as far as they were written when last looked at.

    Args:
        path: A JSON Lines file; an absent one has no events.

    Attributes:
        tables: Digests of the tables that were written or taken over.
        turned: The keys whose images' roles a human gave.
        fresh: Where somebody waits for them, the keys of which something was read since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: set[str] = set()
        self.turned: set[str] = set()
        self.fresh: set[str] | None = None
        self._places: dict[str, int | list[int]] = {}
        self._damaged: dict[int, str] = {}
        self._read, self._lines = 0, 0
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since; all of it where it is another file than it was.

        Raises:
            BackendError: The file can't be read.
        """
        with self._lock:
            if self._replaced():
                self._forget()
            if self._file is None:
                if not os.path.lexists(self.path):
                    return
                self._file = _opened(self.path)
                weakref.finalize(self, self._file.close)
            self._file.seek(self._read)
            for line in self._file:
                whole = line if line.endswith(b"\n") else self._last_line()
                if whole is None:
                    break
                self._lines += 1
                self._take(whole, self._read)
                self._read += len(whole)

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        here = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except OSError:
            return True
        return (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev) or (
            there.st_size < self._read
        )

    def _forget(self) -> None:
        if self.fresh is not None:
            self.fresh.update(self._places)
        for part in (self.tables, self.turned, self._places, self._damaged):
            part.clear()
        self._read, self._lines, self._file = 0, 0, None

    def _last_line(self) -> bytes | None:
        """The last line, which has no end: once no other process can be in the middle of writing
        it. None where it is torn: then it is left for the next look, which may find it mended."""
        assert self._file is not None
        with suppress(BackendError), append_lock(self.path):
            pass  # where a folder can't be written, nobody is writing
        self._file.seek(self._read)
        line = self._file.readline()
        if line.endswith(b"\n") or _is_event(line):
            return line
        self._damaged[self._lines + 1] = "it was cut short"
        return None

    def _take(self, line: bytes, start: int) -> None:
        if start == 0:
            line = line.removeprefix(_BOM)
        if not line.strip():
            return
        try:
            head = _head(line)
        except ValidationError:
            self._take_other(line)
            return
        key = head["key"]
        if key not in self._places and not _is_safe(key):
            self._damaged[self._lines] = f"{key[:80]!r} is no key"
            return
        if self.fresh is not None:
            self.fresh.add(key)
        if head["kind"] == "roles":
            self.turned.add(key)
        place = start * _KINDS + _CODES[head["kind"]]
        before = self._places.get(key)
        if before is None:
            self._places[key] = place
        elif isinstance(before, int):
            self._places[key] = [before, place]
        else:
            before.append(place)

    def _take_other(self, line: bytes) -> None:
        """A line that is no event of a pair."""
        try:
            event = read_event(line)
        except ValidationError as error:
            self._damaged[self._lines] = _reason(error)
            return
        if isinstance(event, Table):
            self.tables.add(event.content)
        elif not isinstance(event, Torn):
            self._damaged[self._lines] = "it names no key"

    def events(self, key: str, *, files: bool = True) -> list[Event]:
        """The events of a key, in order; those that are damaged are passed over.

        Args:
            files: Those of videos and embeddings, too: to pass them over saves half of the time.
        """
        places = self._places.get(key)
        if places is None:
            return []
        events = []
        for place in (places,) if isinstance(places, int) else places:
            start, code = divmod(place, _KINDS)
            if code >= _OF_FILES and not files:
                continue
            try:
                events.append(_READERS[code](self._line(start)))
            except ValidationError as error:
                self._damaged[self._number(start)] = _reason(error)
        return events

    def state(self, key: str, *, files: bool = True) -> State:
        """What a key's events come to, of which those of `files` may be left out."""
        return State(self.events(key, files=files))

    def roles(self) -> dict[str, Roles]:
        """What humans said of which image is which, by key."""
        said = {key: self.state(key, files=False).roles for key in self.turned}
        return {key: roles for key, roles in said.items() if roles is not None}

    def _line(self, start: int) -> bytes:
        assert self._file is not None
        with self._lock:
            self._file.seek(start)
            line = self._file.readline()
        return line.removeprefix(_BOM) if start == 0 else line

    def _number(self, start: int) -> int:
        """The number of the line that begins at a place, from 1."""
        with self.path.open("rb") as file:
            return file.read(start).count(b"\n") + 1

    def damage(self) -> list[Finding]:
        """What is wrong with the lines that were met, the first ones by number."""
        lines = sorted(self._damaged.items())
        found = [
            Finding(
                "damaged-line",
                "error",
                None,
                f"{self.path}:{number}: this line is no event, and is passed over: {reason}.",
                "Mend or remove the line; what stood before it stands.",
            )
            for number, reason in lines[:SHOWN]
        ]
        if len(lines) > SHOWN:
            what = f"{self.path}: {len(lines) - SHOWN} more lines are no events."
            found.append(Finding("damaged-line", "error", None, what))
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def append(self, events: Iterable[Event], only_if: Callable[[], bool] | None = None) -> bool:
        """Add events: on disk when this returns.

        Args:
            only_if: Asked once no other process can write and all that was written is read.

        Returns:
            Whether they were added.

        Raises:
            BackendError: When the disk is full or the file can't be written.
        """
        text = b"".join(
            event.model_dump_json(exclude_none=True).encode() + b"\n" for event in events
        )
        if not text:
            return True

        def still() -> bool:
            self.refresh()  # every line has its end now: nobody has to be waited for
            return only_if is None or only_if()

        if not append_lines(self.path, text, still if only_if else None):
            return False
        self.refresh()
        return True


def append_lines(path: Path, lines: bytes, only_if: Callable[[], bool] | None = None) -> bool:
    """Add whole lines to a journal: on disk when this returns.

    Args:
        only_if: Asked under the lock, where it may keep the lines from being written.

    Returns:
        Whether they were written.

    Raises:
        BackendError: When the disk is full or the file can't be written.
    """
    try:
        with append_lock(path), path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if closing := _closed(file, end):
                _write(file, closing)
            if only_if is not None and not only_if():
                return False
            _write(file, lines)
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from None
    return True


def _write(file: FileIO, data: bytes) -> None:
    """Add all, or, on a disk that is full, nothing: no line is cut short by that."""
    end, rest = file.seek(0, os.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


@contextmanager
def append_lock(path: Path) -> Iterator[None]:
    """The lock under which lines are written, held for one append.

    Raises:
        BackendError: Its folder can't be written, or another process never lets go.
    """
    place = path.with_name(f".{path.name}.lock")
    busy = BackendError(
        f"{place}: another process has held this lock for {LOCK_SECONDS:.0f} s.",
        hint="Stop that process, and run it again to go on.",
    )
    with locked(place, busy, seconds=LOCK_SECONDS):
        yield


def _closed(file: BinaryIO, end: int) -> bytes:
    """What has to be written first, so that a new line begins a line: where the last one was cut
    short, it is taken back and becomes part of a whole one."""
    start = end
    while start > 0:
        step = min(start, _BUFFER)
        file.seek(start - step)
        part = file.read(step)
        if (at := part.rfind(b"\n")) >= 0:
            start += at + 1 - step
            break
        start -= step
    file.seek(start)
    torn = file.read(end - start)
    if not torn:
        return b""
    if _is_event(torn):
        return b"\n"
    file.truncate(start)
    event = Torn(text=torn.decode("utf-8", "replace"))
    return event.model_dump_json(exclude_none=True).encode() + b"\n"


def _is_event(line: bytes) -> bool:
    try:
        read_event(line)
    except ValidationError:
        return False
    return True


def _is_safe(key: str) -> bool:
    """Whether a key may name files: no separators, no `..`, no line breaks, …"""
    return bool(_PLAIN.fullmatch(key)) or safe_key(key) == key


def _reason(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"][-2:])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _opened(path: Path) -> BinaryIO:
    reason = "not a regular file"
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.open("rb", buffering=_BUFFER)
    except OSError as error:
        reason = error.strerror or str(error)
    raise BackendError(
        f"{path}: can't read the journal: {reason}.",
        hint="Put the file right; it holds the dataset's labels.",
    )
