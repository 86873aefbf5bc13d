"""Tables with a row a pair: which images and which texts a row names.

How a table is read is known in `readers`, which column is which in `columns`. Images that lie in
the table as bytes are named by their cell and not read.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from chronoprep.config import PairSettings
from chronoprep.data import Cell, Member
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.cells import EMBEDDED
from chronoprep.images.refs import file_of, is_address, of_path, parse
from chronoprep.pairs.columns import Roles, place_of, roles_of
from chronoprep.pairs.readers import COLUMNAR, JSON, Row, rows_of
from chronoprep.pairs.scan import Candidate, Scan
from chronoprep.pairs.spelling import Spelling
from chronoprep.pairs.words import stands_for_nothing, text_of

_SHOWN = 200  # characters of a text in a message


def find_in_tables(
    tables: Sequence[Path], settings: PairSettings, address: str | None = None
) -> Scan:
    """The pairs of one table, or of several that are parts of one; relative paths start at its
    folder.

    Args:
        address: Of that folder in an object store, from which the table was fetched.

    Raises:
        ConfigError: A table can't be read, or its columns don't tell source from target.
    """
    names = ", ".join(table.name for table in tables[:3]) + (", …" if len(tables) > 3 else "")
    found = Scan(layouts={f"table: {names}"}, ordered=True)
    found.candidates = (
        row for table in tables for row in _candidates(found, table, settings, address)
    )
    return found


def _candidates(
    found: Scan, table: Path, settings: PairSettings, address: str | None
) -> Iterator[Candidate]:
    base = address or os.path.abspath(table.parent)
    known: dict[tuple[str, ...], Roles] = {}
    refused: ConfigError | None = None
    rows = rows_of(table, found.remarks.append)
    spelling = Spelling(base)
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
            texts = _Texts(row, known[columns], table, base, settings.allow_urls, found, spelling)
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
            if table.suffix.lower() not in JSON:
                raise
            refused = refused or caught
            found.seen += 1
            found.refuse(name, row.wrong(caught.message.partition("\n")[0].partition(": ")[2]))
    if refused and not known:
        raise refused


def _shown(row: Row) -> str:
    return ", ".join(f"{name}={value!r:.60}" for name, value in row.cells.items())


def _is_usable(path: str) -> bool | None:
    """Whether a path may be read: no FIFO and no device. None where there is nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


@dataclass(slots=True)
class _Texts:
    """A row's cells by role, as text."""

    row: Row
    roles: Roles
    table: Path
    base: str
    allow_urls: bool
    found: Scan
    spelling: Spelling

    def name(self) -> tuple[str, str | None]:
        """The name of the row: its key, its source's, or the table's and the row's; and one with
        folders, for sources whose stem is not unique."""
        cells = [self.row.cells[column] for column in self.roles.get("key", ())]
        parts = ["" if cell is None or cell != cell else str(cell).strip() for cell in cells]
        if parts and all(parts):
            return "_".join(parts), None
        for _, value in self._items("source"):
            path = value.get("path") if isinstance(value, dict) else value
            if isinstance(path, str) and path.strip():
                ref = parse(path.strip())
                file = ref.name if isinstance(ref, Member) else file_of(path.strip())
                full = os.path.join(self.base, file.replace("\\", "/") if os.sep == "/" else file)
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
            roles = {**self.roles, "source": [f"{self.roles['source'][0]}[0]"]}
            wish = ",".join(f"{role}={'+'.join(names)}" for role, names in roles.items())
            raise self.row.wrong(
                f"{len(sources)} source images: a pair has one.",
                f"If the first is the image before the edit: --columns {wish}",
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

    def _items(self, role: str) -> list[tuple[int | None, Any]]:
        """The values of a role's cell: a list's with their places, also of one of images that a CSV
        holds as JSON."""
        column, place = (
            place_of(self.roles[role][0], self.row.cells) if role in self.roles else ("", None)
        )
        value = self.row.cells.get(column)
        images = role in ("source", "target")
        if images and isinstance(value, str) and value.lstrip().startswith("["):
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if not isinstance(value, list):
            return [(None, value)]
        listed: list[tuple[int | None, Any]] = list(enumerate(value))
        return listed if place is None else [*listed[place : place + 1]] or [(None, None)]

    def _images(self, role: str) -> list[str]:
        """References to a role's images.

        Raises:
            PairError: There is none, or one is no file.
        """
        images = [self._image(role, item, place) for place, item in self._items(role)]
        refs = [image for image in images if image is not None]
        if not refs:
            raise self.row.wrong(f"no {role} image.", "Fill in or remove the row.")
        return refs

    def _image(self, role: str, value: Any, item: int | None) -> str | None:
        if isinstance(value, dict):
            value = value.get("path") or value.get("bytes")
        if value is EMBEDDED:
            table = Path(of_path(str(self.table.absolute())))
            column, _ = place_of(self.roles[role][0], self.row.cells)
            return str(Cell(table, self.row.number, column, item))
        text = self._text(role, value)
        if text is None or (self.allow_urls and is_address(text)):
            return text
        # A cell may hold a whole image in base64.
        short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
        if is_address(text):
            raise self.row.wrong(
                f"{role} {short} is an address, not a file.",
                "--allow-urls downloads such images.",
            )
        if is_address(self.base):
            return None if stands_for_nothing(text) else f"{self.base}/{text.lstrip('/')}"
        for name in (value, text):  # a file's name may begin or end with a space
            # A reference, or a path as it is.
            plain = of_path(os.path.join(self.base, name))
            for ref in (os.path.join(of_path(self.base), name), plain):
                if (known := _is_usable(file_of(ref))) is not None:
                    if not known:
                        raise self.row.wrong(f"{role} {short} is a special file, not an image.")
                    return ref
        if stands_for_nothing(text):
            return None
        if len(text) <= _SHOWN:
            if (other := self.spelling.found(text)) is not None:
                self.found.respell(short, other)
                return other
            if (near := self.spelling.near(text)) is not None:
                raise self.row.wrong(
                    f"{role} image {short} does not exist.",
                    f"Is it {near}? Paths are relative to {self.base}.",
                )
        raise self.row.wrong(
            f"{role} image {short} does not exist.", f"Paths are relative to {self.base}."
        )

    def _texts(self, role: str, targets: int) -> list[str | None]:
        """A text for each target: the one of its own, or the first that is not empty."""
        texts = [self._text(role, value) for _, value in self._items(role)]
        # Where there is a value for nothing, a finished prompt is meant as it is written.
        if role == "caption" or not self.table.name.lower().endswith((*JSON, *COLUMNAR)):
            texts = [text_of(text, self.found.nothings) for text in texts]
        return texts if len(texts) == targets else [next(filter(None, texts), None)] * targets

    def _text(self, role: str, value: object) -> str | None:
        if value is None or value != value:  # a number that is none
            return None
        if not isinstance(value, str):
            column = self.roles[role][0]
            raise self.row.wrong(f"`{column}` is {type(value).__name__}, not text.")
        return value.strip() or None
