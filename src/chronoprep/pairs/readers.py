"""Rows of tables as people and programs save them: CSV in its dialects, JSON, spreadsheets, Parquet
and Arrow.

Each row is a row or says what is wrong with it; what is wrong with a whole table is one error with
its name, whatever a library makes of the damage.
"""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from chronoprep.dialect import CSV, UTF8, dialect_of, encoding_of
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.cells import hushed, open_table, readable
from chronoprep.keys import is_unicode

JSON = (".jsonl", ".ndjson", ".json")
COLUMNAR = (".parquet", ".arrow", ".feather")
_TEXT = (".csv", ".tsv", ".tab")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
SUFFIXES = (*_TEXT, *JSON, *COLUMNAR, *_SHEETS)

_LONGEST = 1 << 30  # characters of a CSV's cell: it may hold a whole image in base64
_MOST_JSON = 1 << 30  # bytes of a list of rows, which lies in memory
_MOST_UNPACKED = 1 << 30  # bytes of a spreadsheet, which is a zip archive of XML


class Row(NamedTuple):
    """A row: where it is, for messages; its cells or why it has none."""

    where: str
    number: int
    cells: dict[str, Any]
    error: str | None = None

    def wrong(self, what: str, hint: str = "Correct or remove the row.") -> PairError:
        return PairError(f"{self.where}: {what}", hint=hint)


def rows_of(table: Path, note: Callable[[str], None]) -> Iterator[Row]:
    """The rows of a table.

    Args:
        note: Told how a table was saved, if in a way of its own.

    Raises:
        ConfigError: It can't be read.
    """
    suffix = table.suffix.lower()
    if suffix in COLUMNAR or table.is_dir():
        for number, cells in enumerate(open_table(table).rows()):
            yield Row(f"{table}: row {number + 1}", number, cells)
        return
    try:
        if suffix in JSON:
            yield from (_read_json if suffix == ".json" else _read_jsonl)(table)
        else:
            yield from (_read_sheet if suffix in _SHEETS else _read_csv)(table, note)
    except OSError as error:
        raise ConfigError(
            f"{table}: can't read it: {error.strerror or error}.", hint="Check its permissions."
        ) from None


def _read_csv(path: Path, note: Callable[[str], None]) -> Iterator[Row]:
    with path.open("rb") as opened:
        dialect = dialect_of(opened, path)
    usual = dialect.separator == "\t" and path.suffix.lower() != ".csv"
    if dialect.odd and not (usual and dialect.encoding == UTF8):
        note(f"{path.name}: read as saved by a spreadsheet ({dialect.odd})")
    csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding=dialect.encoding, newline="") as file:
            # Strict: a quote that is never closed would swallow the rows after it.
            reader = csv.reader(file, strict=True, delimiter=dialect.separator)
            yield from _table(path, filter(None, islice(reader, dialect.skip, None)))
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: not a readable CSV table: {error}.", hint=CSV) from None


def _table(path: Path, lines: Iterator[list[Any]]) -> Iterator[Row]:
    """Rows below a header."""
    right = 0
    head = [(name or "").strip() for name in next(lines, [])]
    if len(set(head)) < len(head):
        raise ValueError("two columns have one name")
    for number, line in enumerate(lines):
        error = None
        if len(line) > len(head):
            error = (
                f"{len(line)} cells for {len(head)} columns: does a text with commas lack quotes?"
            )
        cells = dict(zip_longest(head, [cell or None for cell in line[: len(head)]]))
        right += error is None
        yield Row(f"{path}: row {number + 1}", number, cells, error)
    if not right:
        raise ConfigError(f"{path}: no rows, or none with as many cells as columns.", hint=CSV)


def _read_sheet(path: Path, note: Callable[[str], None]) -> Iterator[Row]:
    """The first sheet with rows of a spreadsheet, every cell as text."""
    try:
        import fastexcel
    except ImportError:
        raise ConfigError(
            f"{path}: spreadsheets take the `fastexcel` library.",
            hint="pip install 'chronoprep[xlsx]', or save the table as CSV.",
        ) from None
    with readable(path), hushed():
        if zipfile.is_zipfile(path):
            _require_bounded(path)
        book = fastexcel.read_excel(str(path))
        names = list(book.sheet_names)
        frames = (
            book.load_sheet(name, header_row=None, dtypes="string").to_polars() for name in names
        )
        frame = next((frame for frame in frames if frame.height > 1), None)
    if frame is None:
        raise ConfigError(f"{path}: no sheet with rows below a header.", hint=CSV)
    if len(names) > 1:
        note(f"{path.name}: only one of its {len(names)} sheets is read: the first with rows")
    with readable(path):
        lines = [list(line) for line in frame.iter_rows()]
    while lines and not any(lines[0]):
        del lines[0]
    wide = max((n for n, name in enumerate(lines[0], 1) if name), default=0) if lines else 0
    if lines:
        lines[0] = [name or f"column {n}" for n, name in enumerate(lines[0], 1)]
    filled = (line[:wide] for line in lines if any(line))
    try:
        yield from _table(path, filled)
    except ValueError as error:
        raise ConfigError(f"{path}: not a readable table: {error}.", hint=CSV) from None


def _require_bounded(path: Path) -> None:
    """Refuse a spreadsheet that unpacks to more than it may; what it says of itself is not
    believed.

    Raises:
        ConfigError: It does.
    """
    room = _MOST_UNPACKED
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            file.seek(entry.header_offset)
            header = file.read(30)
            file.seek(
                int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1
            )
            left, unpack = entry.compress_size, zlib.decompressobj(-zlib.MAX_WBITS)
            while entry.compress_type == zipfile.ZIP_DEFLATED and left > 0:
                data = file.read(min(left, 1 << 16))
                left -= len(data) or left
                while data:
                    room -= len(unpack.decompress(data, 1 << 20))
                    data = unpack.unconsumed_tail
                    if room < 0:
                        raise ConfigError(
                            f"{path}: unpacks to more than {_MOST_UNPACKED >> 20:,} MB.",
                            hint="Save the table as CSV.",
                        )


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as opened:
        encoding = encoding_of(opened) or "utf-8"
    # What is no Unicode is its line's fault.
    odd = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    with path.open(encoding=encoding, errors=odd, newline="\n") as file:
        for number, line in enumerate(file):
            text, where = line.removeprefix("\ufeff").strip(), f"{path}:{number + 1}"
            try:
                if text and is_unicode(text):
                    yield _record(where, number, json.loads(text))
                elif text:
                    yield Row(where, number, {}, "not valid UTF-8.")
            except (ValueError, RecursionError) as error:
                yield Row(where, number, {}, f"not valid JSON: {error}.")


def _read_json(path: Path) -> Iterator[Row]:
    if path.stat().st_size > _MOST_JSON:
        raise ConfigError(
            f"{path}: larger than {_MOST_JSON >> 20:,} MB.", hint="Save a row a line, as .jsonl."
        )
    try:
        with path.open("rb") as opened:
            encoding = encoding_of(opened) or "utf-8"
        records = json.loads(path.read_text(encoding=encoding))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: can't read it as JSON: {error}.", hint='Write [{"source": …}, …].'
        ) from None
    if not isinstance(records, list):
        raise ConfigError(f"{path}: not a JSON list of rows.", hint='Write [{"source": …}, …].')
    for number, record in enumerate(records):
        yield _record(f"{path}: item {number + 1}", number, record)


def _record(where: str, number: int, record: object) -> Row:
    if not isinstance(record, dict):
        return Row(where, number, {}, "not a JSON object.")
    return Row(where, number, record)
