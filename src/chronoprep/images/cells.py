"""Images that lie as bytes in tables: Parquet and Arrow files, and folders of `datasets`.

Rows are listed without reading an image, and images are read when they are asked for, some tens of
megabytes of the table at a time: neither a table nor a copy of its images ever lies in memory or
on the disk.
"""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from chronoprep.data import Cell
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.sources import read_file, reason

if TYPE_CHECKING:
    import polars

# Bytes of a table that are read ahead: pairs come in its order. To read any part of a column,
# polars reads all of it that lies in the same row group.
_AHEAD = 1 << 26


class _Embedded:
    """Stands in a listed row where the table holds an image's bytes."""

    def __repr__(self) -> str:
        return "<image>"


EMBEDDED: Final = _Embedded()


class Table(Protocol):
    ahead: int
    """Rows that are read at once."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row by column name, `EMBEDDED` in place of the bytes of an image."""

    def images(self, column: str, first: int) -> list[Any]:
        """What `ahead` rows hold there: bytes, `{"bytes", "path"}`, or lists of these."""


@lru_cache(maxsize=16)
def open_table(path: Path) -> Table:
    """A Parquet or Arrow file, or a folder that `datasets` saved.

    Raises:
        ConfigError: It can't be read, or takes the `datasets` extra.
    """
    if path.is_dir():
        return _Saved(path)
    if path.suffix.lower() in (".arrow", ".feather") and not _is_arrow_file(path):
        return _Saved(path)
    return _Columnar(path)


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


class _Columnar:
    """A Parquet or an Arrow IPC file, by polars."""

    def __init__(self, path: Path) -> None:
        import polars

        self._path = path
        try:
            if path.suffix.lower() == ".parquet":
                self._frame = polars.scan_parquet(path, glob=False)
            else:
                self._frame = polars.scan_ipc(glob.escape(str(path)))
            self._schema = self._frame.collect_schema()
            self._count: int = self._frame.select(polars.len()).collect().item()
            self.ahead = max(1, _AHEAD * self._count // path.stat().st_size)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, error) from None

    def rows(self) -> Iterator[dict[str, Any]]:
        import polars

        columns, embedded, mixed = self._light()
        # Telling rows apart may take their bytes through memory.
        step = 1000 if mixed else 50_000
        for first in range(0, self._count, step):
            try:
                part = self._frame.slice(first, step).select(columns).collect()
            except polars.exceptions.PolarsError as error:
                raise _unreadable(self._path, error) from None
            for row in part.iter_rows(named=True):
                for name in embedded:
                    value = row[name]
                    row[name] = EMBEDDED if value is None else [EMBEDDED] * value
                for name in mixed:
                    row[name] = _bytes_or_path(row[name])
                yield row

    def images(self, column: str, first: int) -> list[Any]:
        import polars

        try:
            return self._frame.slice(first, self.ahead).select(column).collect()[column].to_list()
        except polars.exceptions.PolarsError as error:
            raise _unreadable(self._path, error) from None

    def _light(self) -> tuple[list[polars.Expr], set[str], set[str]]:
        """Columns without the bytes of images, and the names of those that hold some: where the
        first row does, and where each row has to tell whether it holds bytes or a path.

        A list of images is listed as its length.
        """
        import polars as pl

        columns: list[pl.Expr] = []
        embedded, mixed = set(), set()
        head = self._frame.head(1).collect()
        for name, kind in self._schema.items():
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


def _bytes_or_path(value: Any) -> Any:
    """What a row holds, of whose image is known whether it has bytes: `EMBEDDED` or a path."""
    if isinstance(value, list):
        return [_bytes_or_path(item) for item in value]
    return EMBEDDED if value and value["bytes"] else value and value["path"]


class _Saved:
    """What the `datasets` library saved: a folder, or an Arrow stream of its cache."""

    ahead = 16  # it is mapped into memory: any row is as near as another

    def __init__(self, path: Path) -> None:
        datasets = import_datasets()
        try:
            loaded = (
                datasets.load_from_disk(str(path))
                if path.is_dir()
                else datasets.Dataset.from_file(str(path))
            )
        except Exception as error:  # whatever Arrow makes of it
            raise _unreadable(path, error) from None
        if isinstance(loaded, datasets.DatasetDict):
            splits = list(loaded)
            if len(splits) > 1:
                raise ConfigError(
                    f"{path}: has the splits {', '.join(splits)}.",
                    hint=f"Give one of their folders: {path / splits[0]}",
                )
            loaded = loaded[splits[0]]
        self._embedded = [name for name, kind in loaded.features.items() if "Image(" in repr(kind)]
        self._lists = {
            name for name in self._embedded if not isinstance(loaded.features[name], datasets.Image)
        }
        self._raw: Any = loaded.data

    def rows(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self._raw), 1000):
            part = self._raw.slice(first, 1000)
            light = part.select([n for n in part.column_names if n not in self._embedded])
            lengths = {name: part.column(name).to_pylist() for name in self._lists}
            for number, row in enumerate(light.to_pylist() or [{}] * len(part)):
                for name in self._embedded:
                    lists = lengths.get(name)
                    row[name] = EMBEDDED if lists is None else [EMBEDDED] * len(lists[number] or ())
                yield row

    def images(self, column: str, first: int) -> list[Any]:
        values: list[Any] = self._raw.column(column).slice(first, self.ahead).to_pylist()
        return values


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


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: can't read the table: {reason(error)}.", hint="Copy or download it again."
    )
