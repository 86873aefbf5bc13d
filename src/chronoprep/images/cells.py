"""Images that lie as bytes in tables: Parquet and Arrow files, and folders of `datasets`.

Rows are listed without reading an image, and images are read when they are asked for, some tens of
megabytes of the table at a time: neither a table nor a copy of its images ever lies in memory or
on the disk.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chronoprep.data import Cell
from chronoprep.errors import ChronoprepError, ConfigError, PairError
from chronoprep.images.reading import read_file, reason, require_file

if TYPE_CHECKING:
    import polars

# Bytes of a table that are read ahead: pairs come in its order. To read any part of a column,
# polars reads all of it that lies in the same row group.
_AHEAD = 1 << 26


_LONGEST_TRIAL = 600.0  # seconds


class _Embedded:
    """Stands in a listed row where the table holds an image's bytes."""

    def __repr__(self) -> str:
        return "<image>"


EMBEDDED: Final = _Embedded()


@dataclass(frozen=True)
class Table:
    """Rows of a table, without the bytes of their images; and these.

    Attributes:
        count: Rows in all.
        ahead: Rows whose images are read at once.
        part: The rows from one on, so many.
    """

    path: Path
    count: int
    ahead: int
    part: Callable[[int, int], polars.LazyFrame]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row by column name, `EMBEDDED` in place of the bytes of an image.

        Raises:
            ConfigError: The table is damaged.
        """
        with readable(self.path):
            with hushed():
                columns, embedded, mixed = self._light()
            # Telling rows apart may take their bytes through memory.
            step = 1000 if mixed else 50_000
            for first in range(0, self.count, step):
                with hushed():
                    rows = self._read(first, step, columns)
                for row in rows.iter_rows(named=True):
                    for name in embedded:
                        value = row[name]
                        row[name] = EMBEDDED if value is None else [EMBEDDED] * value
                    for name in mixed:
                        row[name] = _bytes_or_path(row[name])
                    yield row

    def images(self, column: str, first: int) -> list[Any]:
        """What `ahead` rows hold there: bytes, `{"bytes", "path"}`, or lists of these.

        Raises:
            ConfigError: The table is damaged.
        """
        with readable(self.path):
            return self._read(first, self.ahead, [column])[column].to_list()

    def _read(
        self, first: int, rows: int, columns: Sequence[str | polars.Expr]
    ) -> polars.DataFrame:
        return self.part(first, rows).select(columns).collect()

    def _light(self) -> tuple[list[polars.Expr], set[str], set[str]]:
        """Columns without the bytes of images, and the names of those that hold some: where the
        first row does, and where each row has to tell whether it holds bytes or a path.

        A list of images is listed as its length.
        """
        import polars as pl

        columns: list[pl.Expr] = []
        embedded, mixed = set(), set()
        head = self._read(0, 1, [pl.all()])
        for name, kind in head.schema.items():
            lists = isinstance(kind, pl.List)
            inner = kind.inner if isinstance(kind, pl.List) else kind
            fields = {field.name for field in inner.fields} if isinstance(inner, pl.Struct) else ()
            if "bytes" not in fields and inner != pl.Binary:
                columns.append(pl.col(name))
                continue
            value = head[name].to_list()[0] if head.height else None
            first = (value or [None])[0] if isinstance(value, list) else value
            if {"bytes", "path"} <= set(fields) and (first is None or first["bytes"] is None):
                at = pl.element() if lists else pl.col(name)
                either = pl.struct(
                    at.struct.field("bytes").is_not_null(), at.struct.field("path")
                ).alias(name)
                columns.append(pl.col(name).list.eval(either) if lists else either)
                mixed.add(name)
                continue
            embedded.add(name)
            nothing = pl.repeat(None, pl.len(), dtype=pl.UInt32).alias(name)
            columns.append(pl.col(name).list.len() if lists else nothing)
        return columns, embedded, mixed


@lru_cache(maxsize=16)
def open_table(path: Path) -> Table:
    """A Parquet or Arrow file, or a folder that `datasets` saved.

    Raises:
        ConfigError: It can't be read, or takes the `datasets` extra.
    """
    if not path.is_dir():
        try:
            require_file(path)
        except PairError as error:
            raise ConfigError(error.message, hint=error.hint) from None
    stream = path.suffix.lower() in (".arrow", ".feather") and not _is_arrow_file(path)
    return _saved(path) if path.is_dir() or stream else _columnar(path)


def read_cell(cell: Cell) -> bytes:
    """The bytes of an image in a table.

    Raises:
        PairError: The table, the row or the file that it names is gone, or there is no image in
            the cell.
    """
    try:
        # One thread reads, the others find what it has read.
        with _lock:
            ahead = open_table(cell.table).ahead
            value = _images(cell.table, cell.column, cell.row // ahead)[cell.row % ahead]
    except (ConfigError, OSError, IndexError, KeyError) as error:
        raise PairError(
            f"{cell}: can't read the table: {error}.", hint="Was it moved or changed?"
        ) from None
    if cell.item is not None and isinstance(value, list):
        value = value[cell.item] if cell.item < len(value) else None
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
        if value is None and path:
            return read_file(cell.table.parent / path)
    if not isinstance(value, bytes):
        raise PairError(f"{cell}: there is no image.", hint="Remove the row.")
    return value


_lock = threading.Lock()


# The part that is being read and the one before it, of two columns.
@lru_cache(maxsize=4)
def _images(table: Path, column: str, part: int) -> list[Any]:
    opened = open_table(table)
    return opened.images(column, part * opened.ahead)


def _is_arrow_file(path: Path) -> bool:
    """Whether an Arrow file is of the kind with random access; `datasets` writes streams."""
    try:
        with path.open("rb") as file:
            return file.read(6) == b"ARROW1"
    except OSError:
        return True


def _bytes_or_path(value: Any) -> Any:
    """What a row holds, of whose image is known whether it has bytes: `EMBEDDED` or a path."""
    if isinstance(value, list):
        return [_bytes_or_path(item) for item in value]
    return EMBEDDED if value and value["bytes"] else value and value["path"]


def _columnar(path: Path) -> Table:
    """A Parquet or an Arrow IPC file, by polars."""
    import polars

    with readable(path), hushed():
        if path.suffix.lower() == ".parquet":
            frame = polars.scan_parquet(path, glob=False)
        else:
            _try_arrow(path)
            frame = polars.scan_ipc(glob.escape(str(path)))
        count: int = frame.select(polars.len()).collect().item()
        return Table(path, count, max(1, _AHEAD * count // path.stat().st_size), frame.slice)


def _saved(path: Path) -> Table:
    """What the `datasets` library saved: a folder, or an Arrow stream of its cache."""
    import polars

    datasets = import_datasets()
    load = datasets.load_from_disk if path.is_dir() else datasets.Dataset.from_file
    with readable(path):
        loaded = load(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        splits = list(loaded)
        if len(splits) > 1:
            raise ConfigError(
                f"{path}: has the splits {', '.join(splits)}.",
                hint=f"Give one of their folders: {path / splits[0]}",
            )
        loaded = loaded[splits[0]]

    def part(first: int, rows: int) -> polars.LazyFrame:
        piece = loaded.data.slice(first, rows).table
        # Damaged offsets would be followed out of the file, which ends the process.
        piece.validate(full=True)
        frame = polars.from_arrow(piece)
        assert isinstance(frame, polars.DataFrame)
        return frame.lazy()

    # It is mapped into memory: any row is as near as another.
    return Table(path, len(loaded.data), 16, part)


def import_datasets() -> Any:
    """The `datasets` library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            "This takes the `datasets` library.", hint="pip install 'chronoprep[datasets]'"
        ) from None
    return datasets


# Reads all of an Arrow file, or what holds no bytes of images where it is large.
_TRIAL = """
import glob, os, sys, polars
frame = polars.scan_ipc(glob.escape(sys.argv[1]))
if os.stat(sys.argv[1]).st_size > 1 << 30:
    kinds = frame.collect_schema().items()
    frame = frame.select(name for name, kind in kinds if "Binary" not in str(kind))
for first in range(0, frame.select(polars.len()).collect().item(), 10_000):
    frame.slice(first, 10_000).collect()
"""


def _try_arrow(path: Path) -> None:
    """Try a file in a process of its own: polars believes lengths that damage has made, and a
    memory that can't be had ends its process.

    Raises:
        OSError: It can't be read.
    """
    path_of_modules = os.pathsep.join(filter(None, sys.path))
    tried = subprocess.run(
        [sys.executable, "-c", _TRIAL, str(path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_LONGEST_TRIAL,
        env={**os.environ, "PYTHONPATH": path_of_modules}, errors="replace", check=False,
    )  # fmt: skip
    if tried.returncode:
        said = [line for line in tried.stderr.splitlines() if line.startswith("polars.exceptions")]
        raise OSError(said[-1].partition(": ")[2] if said else "it is damaged")


@contextmanager
def hushed() -> Iterator[None]:
    """What a library writes to stderr by itself, as Rust does of a panic, is not shown: an error
    tells of it."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no stderr
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever a library makes of a damaged table, also where its Rust panics, which is no
    `Exception`, is one error.

    Raises:
        ConfigError: Naming the file.
    """
    try:
        yield
    except (ChronoprepError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        why = reason(error)
        raise ConfigError(
            f"{path}: can't read the table: {why}.", hint="Copy or download it again."
        ) from None
