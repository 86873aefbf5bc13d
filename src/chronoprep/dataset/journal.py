"""The journal as a mapping: a million records in the room of their keys.

When the file is read, each line is checked for what makes it a record, its key and its status; the
record is made when it is asked for, which pydantic does from its line in some microseconds. (A
polars scan stops at the first torn line.)
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chronoprep.data import Label, Standing, Status

S = TypeVar("S", bound=Standing)

_BUFFER = 1 << 15  # some thirty records


class _Head(TypedDict):
    """What makes a line a record."""

    key: str
    status: Status


# The validators themselves: what pydantic wraps them in would take a third of the time.
_head = TypeAdapter(_Head).validator.validate_json


class Labels(Mapping[str, Label]):
    """The last record of each key, in the order of first appearance, as the file was when opened.

    Args:
        path: A JSON Lines file; an absent one has no records.

    Attributes:
        skipped_lines: Lines that are no record: torn by a crash, say.
    """

    def __init__(self, path: Path) -> None:
        self.skipped_lines = 0
        self._path, self._stamp = path, _stamp(path)
        self._starts: dict[str, int] = {}
        self._lock = threading.Lock()
        if not self._stamp[0]:
            return
        self._file = path.open("rb", buffering=_BUFFER)
        weakref.finalize(self, self._file.close)
        start = 0
        for line in self._file:
            try:
                self._starts[_head(line)["key"]] = start
            except ValidationError:
                self.skipped_lines += not line.isspace()
            start += len(line)

    def current(self) -> bool:
        """Whether the file is still as it was when opened."""
        return self._stamp == _stamp(self._path)

    def __getitem__(self, key: str) -> Label:
        return self._read(self._starts[key], Label)

    def standing(self, key: str) -> Standing | None:
        """What of a key's record decides; for most of what a run asks, and half the time."""
        start = self._starts.get(key)
        return None if start is None else self._read(start, Standing)

    def _read(self, start: int, kind: type[S]) -> S:
        with self._lock:
            self._file.seek(start)
            line = self._file.readline()
        try:
            record: S = kind.__pydantic_validator__.validate_json(line)
        except ValidationError as error:
            # A hand wrote a field that is none: it counts as absent.
            fields = json.loads(line)
            for problem in error.errors():
                fields.pop(problem["loc"][0], None)
            record = kind.model_validate(fields)
        return record

    def __contains__(self, key: object) -> bool:
        return key in self._starts

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change; a journal only grows."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
