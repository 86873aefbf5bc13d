"""Tables with a row a pair: CSV, JSON, Parquet and Arrow files, and folders of `datasets`.

Knows rows and their images; which column is which is decided in `columns`. Images that lie in the
table as bytes are named by their cell and not read.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from chronoprep.config import PairSettings
from chronoprep.data import Cell
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.cells import EMBEDDED, open_table
from chronoprep.images.refs import file_of, of_path
from chronoprep.pairs.columns import Roles, roles_of
from chronoprep.pairs.scan import Candidate, Scan

_JSON = (".jsonl", ".ndjson", ".json")
COLUMNAR = (".parquet", ".arrow", ".feather")
SUFFIXES = (".csv", *_JSON, *COLUMNAR)
_CSV = "Save it as UTF-8, with commas between cells and quotes around text with commas."
_WEB = ("http://", "https://")
_LONGEST = 1 << 30  # characters of a CSV's cell: it may hold a whole image in base64
_SHOWN = 200  # of them in a message


class _Row(NamedTuple):
    """A row: where it is, for messages; its cells or why it has none."""

    where: str
    number: int
    cells: dict[str, Any]
    error: str | None = None

    def wrong(self, what: str, hint: str = "Correct or remove the row.") -> PairError:
        return PairError(f"{self.where}: {what}", hint=hint)


def find_in_tables(tables: Sequence[Path], settings: PairSettings) -> Scan:
    """The pairs of one table, or of several that are parts of one; relative paths start at its
    folder.

    Raises:
        ConfigError: A table can't be read, or its columns don't tell source from target.
    """
    names = ", ".join(table.name for table in tables[:3]) + (", …" if len(tables) > 3 else "")
    found = Scan(layouts={f"table: {names}"}, ordered=True)
    found.candidates = (row for table in tables for row in _candidates(found, table, settings))
    return found


def _candidates(found: Scan, table: Path, settings: PairSettings) -> Iterator[Candidate]:
    base = os.path.abspath(table.parent)
    known: dict[tuple[str, ...], Roles] = {}
    refused: ConfigError | None = None
    rows = _rows(table)
    head = list(islice(rows, 2))
    for row in chain(head, rows):
        name = f"row-{row.number + 1}"
        columns = tuple(row.cells)
        try:
            if row.error is not None:
                raise row.wrong(row.error)
            if columns not in known:
                examples = map(_shown, head if row in head else [row])
                known[columns] = roles_of(columns, settings.columns, table, examples)
            texts = _Texts(row, known[columns], table, base, settings.allow_urls)
            named, wider = texts.name()
            name = named or name
            for candidate in texts.candidates(name, wider):
                found.seen += 1
                yield candidate
        except PairError as wrong:
            found.seen += 1
            found.refuse(name, wrong)
        except ConfigError as caught:
            # One odd row among good ones is that row's error; a table of them is not.
            if table.suffix.lower() not in _JSON:
                raise
            refused = refused or caught
            found.seen += 1
            found.refuse(name, row.wrong(caught.message.partition("\n")[0].partition(": ")[2]))
    if refused and not known:
        raise refused


def _shown(row: _Row) -> str:
    return ", ".join(f"{name}={value!r:.60}" for name, value in row.cells.items())


@dataclass(slots=True)
class _Texts:
    """A row's cells by role, as text."""

    row: _Row
    roles: Roles
    table: Path
    base: str
    allow_urls: bool

    def name(self) -> tuple[str, str | None]:
        """The name of the row: its key, its source's, or the table's and the row's; and one with
        folders, for sources whose stem is not unique."""
        cells = [self.row.cells[column] for column in self.roles.get("key", ())]
        parts = ["" if cell is None else str(cell).strip() for cell in cells]
        if parts and all(parts):
            return "_".join(parts), None
        for value in self._items("source"):
            path = value.get("path") if isinstance(value, dict) else value
            if isinstance(path, str) and path.strip():
                full = os.path.join(self.base, file_of(path.strip()))
                below = Path(os.path.relpath(full, self.base)).with_suffix("").parts
                return Path(full).stem, "/".join(part for part in below if part != "..")
            if value is EMBEDDED:
                return f"{self.table.stem}-{self.row.number:06}", None
        return "", None

    def candidates(self, name: str, wider: str | None) -> Iterator[Candidate]:
        """The row's pairs: one, or one a target.

        Raises:
            PairError: An image is missing, or there is more than one source.
        """
        sources, targets = self._images("source"), self._images("target")
        if len(sources) > 1:
            raise self.row.wrong(
                f"{len(sources)} source images: a pair has one.",
                "Remove the row, or give each source image a row of its own.",
            )
        captions, prompts = (self._texts(role, len(targets)) for role in ("caption", "prompt"))
        for number, texts in enumerate(zip(targets, captions, prompts, strict=True), 1):
            if sources[0] == texts[0]:
                raise self.row.wrong(
                    f"source and target are the same file, {texts[0]}.",
                    "Name the image after the edit as target.",
                )
            end = f"_{number}" if len(targets) > 1 else ""
            yield Candidate(name + end, sources[0], *texts, wider and wider + end)

    def _items(self, role: str) -> list[Any]:
        """The values of a role's cell: a list's, also of one of images that a CSV holds as JSON."""
        value = self.row.cells[self.roles[role][0]] if role in self.roles else None
        images = role in ("source", "target") and self.table.suffix.lower() == ".csv"
        if images and isinstance(value, str) and value.lstrip().startswith("["):
            with suppress(ValueError):
                value = json.loads(value)
        return value if isinstance(value, list) else [value]

    def _images(self, role: str) -> list[str]:
        """References to a role's images.

        Raises:
            PairError: There is none, or one is no file.
        """
        listed = isinstance(self.row.cells[self.roles[role][0]], list)
        images = [
            self._image(role, item, number if listed else None)
            for number, item in enumerate(self._items(role))
        ]
        refs = [image for image in images if image is not None]
        if not refs:
            raise self.row.wrong(f"no {role} image.", "Fill in or remove the row.")
        return refs

    def _image(self, role: str, value: Any, item: int | None) -> str | None:
        if isinstance(value, dict):
            value = value.get("path") or value.get("bytes")
        if value is EMBEDDED:
            table = Path(of_path(str(self.table.absolute())))
            return str(Cell(table, self.row.number, self.roles[role][0], item))
        text = self._text(role, value)
        if text is None or (self.allow_urls and text.startswith(_WEB)):
            return text
        # A cell may hold a whole image in base64.
        short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
        if text.startswith((*_WEB, "s3://", "hf://", "gs://")):
            raise self.row.wrong(
                f"{role} {short} is an address, not a file.",
                "--allow-urls downloads such images."
                if text.startswith(_WEB)
                else "Download the images first and name the local files.",
            )
        for name in (value, text):  # a file's name may begin or end with a space
            # A reference, or a path as it is.
            plain = of_path(os.path.join(self.base, name))
            for ref in (os.path.join(of_path(self.base), name), plain):
                if "\0" not in ref and os.path.exists(file_of(ref)):
                    return ref
        raise self.row.wrong(
            f"{role} image {short} does not exist.", f"Paths are relative to {self.base}."
        )

    def _texts(self, role: str, targets: int) -> list[str | None]:
        """A text for each target: the one of its own, or the first that is not empty."""
        texts = [self._text(role, value) for value in self._items(role)]
        return texts if len(texts) == targets else [next(filter(None, texts), None)] * targets

    def _text(self, role: str, value: object) -> str | None:
        if value is not None and not isinstance(value, str):
            column = self.roles[role][0]
            raise self.row.wrong(f"`{column}` is {type(value).__name__}, not text.")
        return (value or "").strip() or None


def _rows(table: Path) -> Iterator[_Row]:
    suffix = table.suffix.lower()
    if suffix in COLUMNAR or table.is_dir():
        for number, cells in enumerate(open_table(table).rows()):
            yield _Row(f"{table}: row {number + 1}", number, cells)
        return
    read = {".csv": _read_csv, ".json": _read_json}.get(suffix, _read_jsonl)
    try:
        yield from read(table)
    except OSError as error:
        raise ConfigError(
            f"{table}: can't read it: {error.strerror}.", hint="Look at its permissions."
        ) from None


def _read_csv(path: Path) -> Iterator[_Row]:
    right = 0
    csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict: a quote that is never closed would swallow the rows after it.
            lines = filter(None, csv.reader(file, strict=True))
            head = next(lines, [])
            if len(set(head)) < len(head):
                raise ValueError("two columns have one name")
            for number, line in enumerate(lines):
                error = None
                if len(line) > len(head):
                    error = (
                        f"{len(line)} cells for {len(head)} columns: does a text with commas lack "
                        "quotes?"
                    )
                cells = dict(zip_longest(head, [cell or None for cell in line[: len(head)]]))
                right += error is None
                yield _Row(f"{path}: row {number + 1}", number, cells, error)
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: not a readable CSV table: {error}.", hint=_CSV) from None
    if not right:
        raise ConfigError(f"{path}: no rows, or none with as many cells as columns.", hint=_CSV)


def _read_jsonl(path: Path) -> Iterator[_Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            where = f"{path}:{number + 1}"
            try:
                if line:
                    yield _record(where, number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield _Row(where, number, {}, f"not valid JSON: {error}.")


def _read_json(path: Path) -> Iterator[_Row]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: can't read it as JSON: {error}.",
            hint="Rows of one object each belong into a .jsonl file.",
        ) from None
    if not isinstance(records, list):
        raise ConfigError(f"{path}: not a JSON list of rows.", hint='Write [{"source": …}, …].')
    for number, record in enumerate(records):
        yield _record(f"{path}: item {number + 1}", number, record)


def _record(where: str, number: int, record: object) -> _Row:
    if not isinstance(record, dict):
        return _Row(where, number, {}, "not a JSON object.")
    return _Row(where, number, record)
