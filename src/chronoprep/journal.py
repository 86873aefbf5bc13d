"""The journal as a mapping: a million records in the room of their keys.

A record is checked when the file is read and made again when it is asked for, which pydantic does
from its line in some microseconds. (A polars scan was slower, and stops at the first torn line.)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from chronoprep.data import Label


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
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        start = 0
        for line in self._file:
            if not line.isspace():
                try:
                    self._starts[Label.model_validate_json(line).key] = start
                except ValidationError:
                    self.skipped_lines += 1
            start += len(line)

    def current(self) -> bool:
        """Whether the file is still as it was when opened."""
        return self._stamp == _stamp(self._path)

    def __getitem__(self, key: str) -> Label:
        start = self._starts[key]
        with self._lock:
            self._file.seek(start)
            line = self._file.readline()
        return Label.model_validate_json(line)

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
