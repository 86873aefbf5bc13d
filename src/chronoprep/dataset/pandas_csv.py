"""metadata.csv as the trainers read it: `pandas.read_csv(path)` with its defaults, without pandas.

What pandas makes of a cell depends on its column: one of nothing but numbers becomes numbers, and
the words for nothing become NaN in every column. A row that is wider than the rows before it stops
the reader; a first row that is wider than the header shifts every column by one, silently. (Seen
with pandas 2.2 to 3.1; `tests/test_pandas_csv.py` holds this against the real one.)
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from chronoprep.data import Flaw
from chronoprep.keys import PANDAS_NA

Kind = Literal["missing", "number", "bool", "text"]

_NUMBER = re.compile(
    r"\s*[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf(?:inity)?)\s*",
    re.ASCII | re.IGNORECASE,
)
_END = "\ue000"  # a private character, as a line of its own: where it is no row, a quote is open


class Row(NamedTuple):
    """A row, and the line of the file that it ends in.

    Attributes:
        cells: By column; "" where pandas gives NaN for want of a cell.
    """

    line: int
    cells: dict[str, str]


def kind_of(cell: str) -> Kind:
    """What a cell is to pandas, before it looks at the rest of the column."""
    if not cell or cell in PANDAS_NA:
        return "missing"
    if cell.casefold() in ("true", "false"):
        return "bool"
    return "number" if _NUMBER.fullmatch(cell) else "text"


class PandasTable:
    """A CSV file, read once, a row at a time.

    Attributes:
        flaws: What is wrong with the file as a whole; complete when the rows were read.
        names: Its columns, once the rows are being read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flaws: list[Flaw] = []
        self.names: list[str] = []
        self._kinds: dict[str, set[Kind]] = {}

    def column_kind(self, name: str) -> Kind:
        """What pandas makes of a column, once the rows were read: "text" where kinds are mixed."""
        kinds = self._kinds.get(name, set()) - {"missing"}
        return kinds.pop() if len(kinds) == 1 else "text"

    def rows(self) -> Iterator[Row]:
        """The rows that can be read, whatever stands before and after them."""
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
                raise OSError("not a regular file")
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield from self._parsed(_lines(file))
        except FileNotFoundError:
            self._flaw("table-missing", "there is no such file")
        except OSError as error:
            self._flaw("table-unreadable", f"can't be read: {error.strerror or error}")
        except UnicodeDecodeError as error:
            self._flaw("table-encoding", f"is not UTF-8 (byte {error.object[error.start]:#04x})")
        except csv.Error as error:
            self._flaw("table-broken", f"is no CSV: {error}")

    def _parsed(self, lines: Iterator[str]) -> Iterator[Row]:
        reader = csv.reader(lines)
        rows = (row for row in reader if len(row) > 1 or (row and row[0].strip(" \t")))
        header = next(rows)
        if header == [_END]:
            self._flaw("table-empty", "holds nothing")
            return
        self.names = [name for name in dict.fromkeys(header) if name]
        for name in self.names:
            if header.count(name) > 1:
                self._flaw("column-twice", f"has {header.count(name)} columns called {name!r}")
        self._kinds = {name: set() for name in self.names}
        width, last = 0, header
        for last in rows:
            if last[-1].endswith(_END):
                break
            line = reader.line_num
            if not width:
                width = max(len(last), len(header))
                if shift := width - len(header):
                    self._flaw(
                        "columns-shifted",
                        f"line {line} has {shift} more cells than there are columns: to pandas, "
                        f"{header[0]!r} holds what stands in column {shift + 1}, and so on",
                    )
            if len(last) > width:
                what = f"line {line} has {len(last)} cells and not {width}: pandas reads no row"
                self._flaw("row-wide", what)
            if len(last) < width:
                self._flaw("row-short", f"line {line} has {len(last)} cells and not {width}")
            shifted = last[width - len(header) :]
            cells = dict.fromkeys(self.names, "") | dict(
                reversed([*zip(header, shifted, strict=False)])
            )
            for name in self.names:
                self._kinds[name].add(kind_of(cells[name]))
            yield Row(line, cells)
        if last != [_END]:
            self._flaw("table-broken", "a quote is opened and never closed")
        elif not width:
            self._flaw("table-empty", "has no rows")

    def _flaw(self, code: str, what: str) -> None:
        self.flaws.append(Flaw(code, f"{self.path}: {what}."))


def _lines(file: Iterator[str]) -> Iterator[str]:
    for line in file:
        # Python 3.10's parser refuses the character that pandas reads.
        yield line.replace("\0", "\ufffe")
    yield _END
