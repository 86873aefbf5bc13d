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
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from chronoprep.config import PairSettings
from chronoprep.data import Cell, Outcome
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.cells import EMBEDDED, open_table
from chronoprep.images.refs import file_of, of_path
from chronoprep.pairs.columns import Roles, roles_of
from chronoprep.pairs.scan import Candidate, Scan

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather")
COLUMNAR = (".parquet", ".arrow", ".feather")
_CSV = "Save it as UTF-8, with commas between cells and quotes around text with commas."
_SHOWN = 200  # characters of a cell in a message


class _Row(NamedTuple):
    """A row: where it is, for messages; its cells or why it has none."""

    where: str
    number: int
    cells: dict[str, Any]
    error: str | None = None


def find_in_tables(tables: Sequence[Path], settings: PairSettings) -> Scan:
    """The pairs of one table, or of several that are parts of one; relative paths start at its
    folder.

    Raises:
        ConfigError: A table can't be read, or its columns don't tell source from target.
    """
    names = ", ".join(table.name for table in tables[:3]) + (", …" if len(tables) > 3 else "")
    found = Scan(layouts={f"table: {names}"}, ordered=True, sidecars=False)
    found.candidates = (row for table in tables for row in _candidates(found, table, settings))
    return found


def _candidates(found: Scan, table: Path, settings: PairSettings) -> Iterator[Candidate]:
    base = os.path.abspath(table.parent)
    known: dict[tuple[str, ...], Roles] = {}
    refused: ConfigError | None = None
    rows = _rows(table)
    head = list(islice(rows, 2))
    for row in chain(head, rows):
        error = row.error
        columns = tuple(row.cells)
        if error is None and columns not in known:
            examples = [_shown(some) for some in (head if row in head else [row])]
            try:
                known[columns] = roles_of(columns, settings.columns, table, examples)
            except ConfigError as caught:
                # One odd row among good ones is that row's error; a table of them is not.
                if table.suffix.lower() not in (".jsonl", ".ndjson", ".json"):
                    raise
                refused = refused or caught
                error = caught.message.partition("\n")[0].partition(": ")[2]
        name = f"row-{row.number + 1}"
        try:
            if error is not None:
                raise PairError(f"{row.where}: {error}", hint="Correct or remove the row.")
            texts = _Texts(row, known[columns], base, table, settings)
            name = texts.name or name
            yield from texts.candidates()
        except PairError as wrong:
            found.bad.append(Outcome(name.replace("/", "__"), error=wrong))
    if refused and not known:
        raise refused


def _shown(row: _Row) -> str:
    return ", ".join(f"{name}={value!r:.60}" for name, value in row.cells.items())


def _short(text: str) -> str:
    """A cell for a message: it may hold a whole image in base64."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


class _Texts:
    """A row's cells by role, as text."""

    def __init__(
        self, row: _Row, roles: Roles, base: str, table: Path, settings: PairSettings
    ) -> None:
        self._row, self._roles, self._base, self._table = row, roles, base, table
        self._urls = settings.allow_urls
        self._lists_as_json = table.suffix.lower() == ".csv"
        cells = [row.cells[column] for column in roles.get("key", ())]
        parts = ["" if cell is None else str(cell).strip() for cell in cells]
        keyed = bool(parts) and all(parts)
        self.name, self._wider = ("_".join(parts), None) if keyed else self._named()

    def candidates(self) -> Iterator[Candidate]:
        """The row's pairs: one, or one a target.

        Raises:
            PairError: An image is missing, or there is more than one source.
        """
        sources, targets = self._images("source"), self._images("target")
        if len(sources) > 1:
            raise PairError(
                f"{self._row.where}: {len(sources)} source images: a pair has one.",
                hint="Remove the row, or give each source image a row of its own.",
            )
        captions, prompts = (self._texts(role, len(targets)) for role in ("caption", "prompt"))
        for number, target in enumerate(targets):
            if sources[0] == target:
                raise PairError(
                    f"{self._row.where}: source and target are the same file, {target}.",
                    hint="Name the image after the edit as target.",
                )
            end = f"_{number + 1}" if len(targets) > 1 else ""
            yield Candidate(
                self.name + end,
                sources[0],
                target,
                captions[number],
                prompts[number],
                self._wider + end if self._wider else None,
            )

    def _named(self) -> tuple[str, str | None]:
        """The name of a row without a key, its source's or the table's and the row's; and one with
        folders, for sources whose stem is not unique."""
        for value in self._items("source"):
            path = value.get("path") if isinstance(value, dict) else value
            if isinstance(path, str) and path.strip():
                full = os.path.join(self._base, file_of(path.strip()))
                parts = Path(os.path.relpath(full, self._base)).with_suffix("").parts
                return Path(full).stem, "/".join(part for part in parts if part != "..")
            if value is EMBEDDED:
                return f"{self._table.stem}-{self._row.number:06}", None
        return "", None

    def _images(self, role: str) -> list[str]:
        items = self._items(role)
        listed = isinstance(self._row.cells[self._roles[role][0]], list)
        texts = [
            self._image(role, item, number if listed else None)
            for number, item in enumerate(items)
            if item is not None or len(items) == 1
        ]
        if not texts:
            raise PairError(
                f"{self._row.where}: no {role} image.", hint="Fill in or remove the row."
            )
        return texts

    def _items(self, role: str) -> list[Any]:
        """The values of a role's cell: a list's, also of one of images that a CSV holds as JSON."""
        value = self._row.cells[self._roles[role][0]]
        images = role in ("source", "target")
        if images and self._lists_as_json and isinstance(value, str) and value.lstrip()[:1] == "[":
            with suppress(ValueError):
                value = json.loads(value)
        return value if isinstance(value, list) else [value]

    def _image(self, role: str, value: object, item: int | None) -> str:
        where, column = self._row.where, self._roles[role][0]
        if isinstance(value, dict):
            value = value.get("path") or value.get("bytes")
        if value is EMBEDDED:
            table = Path(of_path(str(self._table.absolute())))
            return str(Cell(table, self._row.number, column, item))
        if value is None or (isinstance(value, str) and not value.strip()):
            raise PairError(f"{where}: no {role} image.", hint="Fill in or remove the row.")
        if not isinstance(value, str):
            raise PairError(
                f"{where}: `{column}` is {type(value).__name__}, not text.",
                hint="Correct or remove the row.",
            )
        text = value.strip()
        if text.startswith(("http://", "https://")) and self._urls:
            return text
        if text.startswith(("http://", "https://", "s3://", "hf://", "gs://")):
            web = text.startswith("http")
            raise PairError(
                f"{where}: {role} {_short(text)} is an address, not a file.",
                hint="--allow-urls downloads such images."
                if web
                else "Download the images first and name the local files.",
            )
        for name in (value, text):  # a file's name may begin or end with a space
            # A reference, or a path as it is.
            for ref in (
                os.path.join(of_path(self._base), name),
                of_path(os.path.join(self._base, name)),
            ):
                if "\0" not in ref and os.path.exists(file_of(ref)):
                    return ref
        raise PairError(
            f"{where}: {role} image {_short(text)} does not exist.",
            hint=f"Paths are relative to {self._base}.",
        )

    def _texts(self, role: str, targets: int) -> list[str | None]:
        """A text for each target: the one of its own, or the first that is not empty."""
        if role not in self._roles:
            return [None] * targets
        column = self._roles[role][0]
        texts = []
        for value in self._items(role):
            if value is not None and not isinstance(value, str):
                raise PairError(
                    f"{self._row.where}: `{column}` is {type(value).__name__}, not text.",
                    hint="Correct or remove the row.",
                )
            texts.append((value or "").strip() or None)
        if len(texts) == targets:
            return texts
        return [next((text for text in texts if text), None)] * targets


def _rows(table: Path) -> Iterator[_Row]:
    suffix = table.suffix.lower()
    if suffix in COLUMNAR or table.is_dir():
        for number, cells in enumerate(open_table(table).rows()):
            yield _Row(f"{table}: row {number + 1}", number, cells)
    elif suffix == ".csv":
        yield from _read_csv(table)
    elif suffix == ".json":
        yield from _read_json(table)
    else:
        yield from _read_jsonl(table)


def _read_csv(path: Path) -> Iterator[_Row]:
    right = 0
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
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: not a readable CSV table: {error}.", hint=_CSV) from None
    if not right:
        raise ConfigError(f"{path}: no rows, or none with as many cells as columns.", hint=_CSV)


def _read_jsonl(path: Path) -> Iterator[_Row]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: can't read it: {error.strerror}.") from None
    with file:
        for number, line in enumerate(file):
            where = f"{path}:{number + 1}"
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not line:
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _Row(where, number, {}, f"not valid JSON: {error}.")
                continue
            yield _record(where, number, record)


def _read_json(path: Path) -> Iterator[_Row]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: can't read it as JSON: {error}.") from None
    if not isinstance(records, list):
        raise ConfigError(f"{path}: not a JSON list of rows.", hint='Write [{"source": …}, …].')
    for number, record in enumerate(records):
        yield _record(f"{path}: item {number + 1}", number, record)


def _record(where: str, number: int, record: object) -> _Row:
    if not isinstance(record, dict):
        return _Row(where, number, {}, "not a JSON object.")
    return _Row(where, number, record)
