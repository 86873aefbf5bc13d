"""The table as pandas reads it, held against the real pandas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas
import pytest

from chronoprep.dataset.pandas_csv import PandasTable, kind_of

HEAD = "key,video,prompt\n"
WORDS = (
    "NA nan NaN null NULL None n/a N/A <NA> #N/A -nan 1.#IND none nil TRUE tRue false yes 0 007 -5 "
    "+5 +-5 1e5 1e 1.5E+3 .5 5. . 1_000 1,5 0x10 inf -inf Infinity infinit 1j 1d5 1e400 １２ ١٢ "
    "123456789012345678901234567890 9223372036854775808 a 1a - +"
)
NEWER = ("1e400", "123456789012345678901234567890", "x\0y")  # which pandas 2 reads otherwise
SPACED = (" 12 ", "nan ", " NA", " ", "1 2", "x\0y")


def as_pandas(path: Path) -> list[dict[str, Any]]:
    return pandas.read_csv(path).to_dict("records")


@pytest.mark.parametrize("word", [*WORDS.split(), *SPACED])
def test_a_cell_is_what_pandas_makes_of_it(word: str, tmp_path: Path) -> None:
    """Alone in its column, and beside text."""
    if word in NEWER and pandas.__version__.startswith("2."):
        pytest.skip("what the newest pandas can't read as text is found with any")
    path = tmp_path / "t.csv"
    for others in ([], ["Add a hat"]):
        path.write_text(HEAD + "".join(f'k,v,"{text}"\n' for text in [word, *others]))
        seen = as_pandas(path)[0]["prompt"]
        table = PandasTable(path)
        (row, *_) = table.rows()
        kind, column = kind_of(row.cells["prompt"]), table.column_kind("prompt")
        assert (kind == "missing") == (isinstance(seen, float) and math.isnan(seen))
        if kind != "missing":
            read = (
                "bool" if isinstance(seen, bool) else "text" if isinstance(seen, str) else "number"
            )
            assert column == read
            assert read != "text" or seen.replace("\0", "\ufffe") == row.cells["prompt"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("a,b,c\nd,e,f\n", []),
        ("a,b,c\rd,e,f\r", []),
        ("\n   \n\na,b,c\n\n  \nd,e,f", []),
        ('a,b,"x\ny, ""z"""\n', []),
        ('a,b,"x"y\nd,e,f"g\n', []),
        ("a,b\nd,e,f\n", ["row-short"]),
        (",,\n", []),
        ("a,b,c,d\ne,f,g,h\n", ["columns-shifted"]),
        ("a,b,c,\n", ["columns-shifted"]),
        ("", ["table-empty"]),
    ],
)
def test_rows_are_those_that_pandas_gives(text: str, codes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for head in (HEAD, "\ufeff" + HEAD, "\n \n" + HEAD):
        path.write_text(head + text, "utf-8", newline="")
        table = PandasTable(path)
        rows = [row.cells for row in table.rows()]
        wanted = [
            {name: "" if pandas.isna(cell) else cell for name, cell in row.items()}
            for row in as_pandas(path)
        ]
        assert rows == wanted
        assert [flaw.code for flaw in table.flaws] == codes


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "table-empty"),
        (b" \n\n", "table-empty"),
        (HEAD.encode("utf-16"), "table-encoding"),
        (HEAD.encode() + b"a,b,caf\xe9\n", "table-encoding"),
        (HEAD.encode() + b"a,b,c\nd,e,f,g\n", "row-wide"),
        (HEAD.encode() + b'a,b,"c\nd,e,f\n', "table-broken"),
    ],
)
def test_what_stops_pandas_is_named(data: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(
        (ValueError, pandas.errors.ParserError), match=r"No columns|utf-8|tokenizing"
    ):
        as_pandas(path)
    table = PandasTable(path)
    assert len(list(table.rows())) <= 2
    assert [flaw.code for flaw in table.flaws] == [code]


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "no.csv", "table-missing"), (tmp_path, "table-unreadable")):
        table = PandasTable(path)
        assert list(table.rows()) == []
        assert [flaw.code for flaw in table.flaws] == [code]


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("key,prompt,prompt\na,b,c\n")
    table = PandasTable(path)
    assert [row.cells["prompt"] for row in table.rows()] == [as_pandas(path)[0]["prompt"]]
    assert [flaw.code for flaw in table.flaws] == ["column-twice"]
