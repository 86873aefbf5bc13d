"""Tables as people save them: every dialect gives the same pairs, and damage is one clear error."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sys
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import openpyxl
import polars as pl
import pytest

from chronoprep.config import ImageSettings
from chronoprep.data import Member
from chronoprep.dialect import encoding_of
from chronoprep.errors import ChronoprepError, ConfigError, PairError
from chronoprep.images.load import load_image
from chronoprep.images.refs import file_of, of_member, parse
from chronoprep.images.sources import read_source
from conftest import write_pairs
from test_cli import Run
from test_pairs import find, make

ROWS = [
    ["key", "source", "target", "caption"],
    ["k1", "a.png", "b.png", "Füge für den Höfer – „schön“ – 2 € hinzu"],
    ["k2", "b.png", "a.png", "plain, with commas; and others"],
]


def as_csv(separator: str, end: str = "\n") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator=end).writerows(ROWS)
    return buffer.getvalue()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
     ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32"), ("cp1252", "cp1252")],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_in_any_dialect(
    separator: str, encoding: str, said: str | None, end: str, tmp_path: Path
) -> None:
    make(tmp_path, "a.png", "b.png")
    table = tmp_path / f"t.{'tsv' if separator == chr(9) else 'csv'}"
    table.write_bytes(as_csv(separator, end).encode(encoding))
    found = find(table)
    assert [[pair.key, pair.caption] for pair in found.pairs] == [[r[0], r[3]] for r in ROWS[1:]]
    assert (found.bad, str(found.tally)) == ((), "2 rows: 2 in pairs")
    odd = [said] * bool(said) + [f"{separator!r} between cells"] * (separator != ",")
    odd = odd if said or separator != "\t" else []  # as a .tsv is
    assert list(found.notes) == (
        [f"{table.name}: read as saved by a spreadsheet ({', '.join(odd)})"] if odd else []
    )


def test_excels_own_first_line(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("sep=;\n" + as_csv(";"))
    assert [pair.key for pair in find(tmp_path / "t.csv").pairs] == ["k1", "k2"]


@pytest.mark.parametrize(
    ("text", "encoding", "known"),
    [
        ("Éléphant créée à l’œil ; « École » – £3 m² 3×4 ¿sí? España", "cp1252", "cp1252"),
        ("Größe der Straße: Süß", "cp1252", "cp1252"),
        ("Добавь шляпу", "cp1251", None),
        ("Да он", "koi8-r", None),
        ("zażółć gęślą jaźń", "cp1250", None),
        ("給貓加一頂帽子", "big5", None),
        ("好", "gbk", None),
        ("帽子を追加する", "shift-jis", None),
        ("모자를 추가", "euc-kr", None),
        ("καπέλο στη γάτα", "cp1253", None),
        ("הוסף כובע", "cp1255", None),
        ("café für Größe", "cp850", None),
        ("un café à côté", "mac-roman", None),
    ],
)
def test_an_encoding_is_recognised_or_not_guessed(
    text: str, encoding: str, known: str | None, tmp_path: Path
) -> None:
    assert encoding_of(io.BytesIO(text.encode(encoding))) == known
    make(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_bytes(
        f"source,target,caption\na.png,b.png,{text}\n".encode(encoding)
    )
    if known:
        assert find(tmp_path / "t.csv").pairs[0].caption == text
    else:
        with pytest.raises(ConfigError, match="neither UTF-8 nor UTF-16, nor clearly Windows-1252"):
            find(tmp_path / "t.csv")


def as_sheet(path: Path, rows: list[list[object]], *more: list[list[object]]) -> None:
    book = openpyxl.Workbook()
    for number, lines in enumerate((rows, *more)):
        sheet = book.active if not number else book.create_sheet()
        for line in lines:
            sheet.append(line)
    book.save(path)


def test_a_spreadsheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "b.png", "1.png", "2.png")
    table = tmp_path / "t.xlsx"
    rows: list[list[object]] = [*ROWS, [7, "1.png", "2.png", None], [None] * 4, ["k9", "1.png"]]
    as_sheet(table, [["notes only"]], [[None]], rows)
    found = find(table)
    assert [(p.key, p.caption) for p in found.pairs] == [
        ("k1", ROWS[1][3]), ("k2", ROWS[2][3]), ("pair-7", None)
    ]  # fmt: skip
    assert ["no target image" in str(bad.error) for bad in found.bad] == [True]
    assert str(found.tally) == "4 rows: 3 in pairs, 1 unusable"
    assert "only one of its 3 sheets" in found.notes[0]
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(ConfigError) as caught:
        find(table)
    assert "pip install 'chronoprep[xlsx]'" in str(caught.value.hint)


def test_a_spreadsheet_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronoprep.pairs.readers._MOST_UNPACKED", 1 << 20)
    as_sheet(tmp_path / "t.xlsx", ROWS)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/zeros.bin", bytes(3 << 20))
    with pytest.raises(ConfigError, match=r"t\.xlsx: unpacks to more than 1 MB"):
        find(tmp_path / "t.xlsx")


NOTHINGS = ["nan", "NaN", "None", "none", "N/A", "n/a", "null", "NULL", "-", "--", "—", "NA", "nil",
            "#N/A", "<NA>", "(none)", "[null]", "?", "...", "undefined", "n.a."]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx", "folder"])
def test_words_for_nothing_are_no_captions(kind: str, tmp_path: Path) -> None:
    texts = [*NOTHINGS, "", "nan bread instead of toast", "None of the cups", "no change", "-5 °C"]
    names = [f"x{number:02}" for number in range(len(texts))]
    sides = ("input", "output")
    make(tmp_path, *(f"{side}/{name}.png" for name in names for side in sides))
    rows = [
        {"key": name, "source": f"input/{name}.png", "target": f"output/{name}.png",
         "caption": text} for name, text in zip(names, texts, strict=True)
    ]  # fmt: skip
    table = tmp_path / f"t.{kind}"
    if kind == "csv":
        pl.DataFrame(rows).write_csv(table)
    elif kind == "jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pl.DataFrame(rows).write_parquet(table)
    elif kind == "xlsx":
        as_sheet(table, [list(rows[0]), *(list(row.values()) for row in rows)])
    else:
        table = tmp_path
        for name, text in zip(names, texts, strict=True):
            (tmp_path / f"input/{name}.txt").write_text(text)
    found = find(table)
    assert [pair.caption for pair in found.pairs] == [None] * (len(NOTHINGS) + 1) + texts[-4:]
    (note,) = found.notes
    assert note.startswith("words that stand for no text, taken as none: ")


def test_a_prompt_that_is_a_word_for_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("source,target,prompt\na.png,b.png,nan\n")
    assert find(tmp_path / "t.csv").pairs[0].prompt is None
    # JSON has a value for nothing: what is written is meant.
    record = {"source": "a.png", "target": "b.png", "prompt": "NA"}
    (tmp_path / "t.jsonl").write_text(json.dumps(record))
    assert find(tmp_path / "t.jsonl").pairs[0].prompt == "NA"


def test_paths_in_another_spelling_find_their_file(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, f"img/{decomposed}.png", "img/Sub/B.PNG", "t.png", "img/a b.png", "same/X.png",
         "same/x.png")  # fmt: skip
    paths = {
        f"img/{composed}.png": f"img/{decomposed}.png",
        "img\\sub\\b.png": "img/Sub/B.PNG",
        ".\\IMG\\Sub\\B.PNG": "img/Sub/B.PNG",
        "IMG/Sub/b.png": "img/Sub/B.PNG",
        "'img/a b.png'": "img/a b.png",
        "img/a%20b.png": "img/a b.png",
        f"file://{tmp_path}/img/a b.png": "img/a b.png",
    }
    with (tmp_path / "t.csv").open("w", newline="") as file:
        rows = [[f"k{number}", path, "t.png"] for number, path in enumerate(paths)]
        csv.writer(file).writerows([["key", "source", "target"], *rows])
    found = find(tmp_path / "t.csv")
    assert found.bad == ()
    files = [Path(file_of(pair.source)).relative_to(tmp_path) for pair in found.pairs]
    assert list(map(str, files)) == list(paths.values())
    assert "paths found in another spelling: 7, such as img/" in found.notes[0]
    # Two that differ in capital letters alone: neither is guessed.
    (tmp_path / "t.csv").write_text("source,target\nSAME/x.PNG,t.png\n")
    (bad,) = find(tmp_path / "t.csv").bad
    assert "does not exist" in str(bad.error)


@pytest.mark.parametrize(
    ("path", "near"),
    [("img/cat.jpg", "img/cat.png"), ("img/ca.png", "img/cat.png"),
     ("/home/other/set/img/cat.png", "img/cat.png"), (r"C:\set\img\cat.png", "img/cat.png"),
     ("zzz/qqq.png", None), ("img/0008.png", None), ("u.png", None), ("img/caat7.png", None)],
)  # fmt: skip
def test_a_near_miss_is_named(path: str, near: str | None, tmp_path: Path) -> None:
    make(tmp_path, "img/cat.png", "t.png", "img/0007.png")
    (tmp_path / "t.csv").write_text(f"source,target\n{path},t.png\n")
    (bad,) = find(tmp_path / "t.csv").bad
    assert bad.error is not None
    assert "does not exist" in str(bad.error)
    assert str(bad.error.hint).partition("?")[0] == f"Is it {near}" or near is None
    assert ("Is it" in str(bad.error.hint)) == (near is not None)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_several_sources_in_a_row(kind: str, tmp_path: Path) -> None:
    make(tmp_path, "a.png", "ref.png", "b.png")
    row = {"images": ["a.png", "ref.png"], "output": ["b.png"], "instruction": "add a hat"}
    table = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        table.write_text(json.dumps(row))
    elif kind == "parquet":
        pl.DataFrame([row]).write_parquet(table)
    else:
        listed = {**row, "images": json.dumps(row["images"]), "output": json.dumps(row["output"])}
        pl.DataFrame([listed]).write_csv(table)
    (bad,) = find(table, columns="source=images,target=output,caption=instruction").bad
    assert "2 source images: a pair has one" in str(bad.error)
    advice = str(bad.error and bad.error.hint).partition("--columns ")[2]
    assert advice == "source=images[0],target=output,caption=instruction"
    (pair,) = find(table, columns=advice).pairs
    assert [Path(ref).name for ref in pair[1:3]] == ["a.png", "b.png"]
    (beyond,) = find(table, columns=advice.replace("[0]", "[5]")).bad
    assert "no source image" in str(beyond.error)


def test_several_columns_of_sources(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "ref.png", "b.png")
    (tmp_path / "t.csv").write_text("source_1,source_2,target\na.png,ref.png,b.png\n")
    with pytest.raises(ConfigError, match="are several columns for the source") as caught:
        find(tmp_path / "t.csv")
    wish = str(caught.value.hint).partition("--columns ")[2].replace("…", "target")
    assert [Path(p.source).name for p in find(tmp_path / "t.csv", columns=wish).pairs] == ["a.png"]
    (tmp_path / "t.csv").write_text("sorce,target\na.png,b.png\n")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path / "t.csv")
    assert "Was sorce for source meant?" in str(caught.value.hint)


def packed(root: Path, name: str = "set.zip", under: str = "") -> Path:
    with zipfile.ZipFile(root.parent / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, f"{under}{path.relative_to(root).as_posix()}")
    return root.parent / name


def test_a_zip_archive_is_read_in_place(run: Run, tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set", ["x", "ü#1 %23", "sub/y"])
    (root / "output/x.txt").write_text("add a hat", encoding="utf-8")
    for under in ("", "my set/"):
        archive = packed(root, under=under)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("__MACOSX/input/._x.png", b"")
            file.writestr(".DS_Store", b"")
        found, plain = find(archive, strict=True), find(root)
        assert found.tally.system == 1
        assert found.notes == ("folders of the system, not looked into: __MACOSX (1)",)
        assert [(p.key, p.caption) for p in found.pairs] == [
            (p.key, p.caption) for p in plain.pairs
        ]
        for zipped, pair in zip(found.pairs, plain.pairs, strict=True):
            assert isinstance(parse(zipped.source), Member)
            assert read_source(parse(zipped.target)) == Path(file_of(pair.target)).read_bytes()
    assert run("pairs", archive, "--link-manifest", "linked.csv", "--sheet", "s.png").code == 0
    assert [p.key for p in find(Path("linked.csv")).pairs] == [p.key for p in found.pairs]
    assert run("prepare", "set.zip", "-d", "data", "--prompt", "X.").code == 0
    again = run("prepare", "-d", "data", "--prompt", "X.", "--json")
    assert [row["skipped"] for row in again.json][1:3] == [3, 3]
    left = [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "set"]
    assert left == ["data"], "nothing is unpacked"


def test_a_table_names_files_in_an_archive(tmp_path: Path) -> None:
    archive = packed(write_pairs(tmp_path / "set", ["x", "y"]))
    lines = ["source,target", "set.zip#member=input/x.png,set.zip#member=output/x.png",
             "set.zip/input/y.png,set.zip/output/y.png"]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = find(tmp_path / "t.csv")
    assert [pair.key for pair in found.pairs] == ["x", "y"]
    assert found.pairs[1].target == of_member(str(archive), "output/y.png")
    for pair in found.pairs:
        assert load_image(parse(pair.source), ImageSettings()).image.size == (96, 72)
    with pytest.raises(PairError, match=r"no file gone\.png in this archive"):
        read_source(Member(archive, "gone.png"))


def test_archives_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "z.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("input/x.png", bytes(3 << 20))
        file.writestr("output/x.png", b"")
        file.writestr("deep/" * 10_000 + "x.png", b"x")
        file.writestr("../input/up.png", b"x")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_BZIP2) as file:
        file.writestr("input/b.png", bytes(3 << 20))
        file.writestr("output/b.png", b"x")
    found = find(archive)
    assert [pair.key for pair in found.pairs] == ["b", "x"]
    monkeypatch.setattr("chronoprep.images.archives.read_member.__defaults__", (1 << 20,))
    for pair, part in zip(found.pairs, ("compressed in a way", "larger than 1 MB"), strict=True):
        with pytest.raises(PairError, match=part):
            read_source(parse(pair.source))
    with pytest.raises(PairError, match="0 bytes"):
        read_source(parse(found.pairs[1].target))


def good_tables(root: Path) -> dict[str, bytes]:
    """A good table of each kind, images as paths and as bytes."""
    frame = pl.DataFrame([dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]] * 5)
    image = {"bytes": b"\x89PNG not really", "path": None}
    cells = pl.DataFrame({"source": [image] * 9, "target": [image] * 9, "caption": ["x"] * 9})
    made = {}
    for name, write in {
        "t.parquet": frame.write_parquet, "cells.parquet": cells.write_parquet,
        "plain.parquet": lambda p: cells.write_parquet(p, compression="uncompressed"),
        "t.arrow": frame.write_ipc, "cells.arrow": cells.write_ipc,
        "stream.arrow": frame.write_ipc_stream, "t.csv": frame.write_csv,
        "t.jsonl": frame.write_ndjson, "t.json": frame.write_json,
        "t.xlsx": lambda p: as_sheet(p, [list(frame.columns), *map(list, frame.iter_rows())]),
    }.items():  # fmt: skip
        write(root / name)
        made[name] = (root / name).read_bytes()
    write_pairs(root / "set", ["x", "y"], (16, 12))
    made["t.zip"] = packed(root / "set", "t.zip").read_bytes()
    return made


BRACKETS = b'["' + b"[" * 100_000 + b'"'


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One of the ways in which files go wrong."""
    mutable, kind, size = bytearray(data), chance.randrange(6), len(data)
    if kind == 0:
        return bytes(mutable[: chance.randrange(size)])
    if kind == 1:
        for _ in range(chance.randint(1, 8)):
            mutable[chance.randrange(size)] = chance.randrange(256)
        return bytes(mutable)
    start = chance.randrange(size)
    end = min(size, start + chance.choice((1, 4, 64, 1024)))
    if kind == 2:
        mutable[start:end] = bytes(end - start)
    elif kind == 3:
        mutable[start:end] = chance.randbytes(end - start)
    elif kind == 4:
        del mutable[start:end]
    else:
        mutable[start:start] = chance.choice((BRACKETS, b"\0", b'"', b"\xff\xfe", b"9" * 5000))
    return bytes(mutable)


def read_all(table: Path) -> None:
    """What a run does with PAIRS, as far as it reads a table."""
    for pair in find(table).pairs:
        with suppress(PairError):
            read_source(parse(pair.source))


TRIED = ("t.arrow", "cells.arrow")  # in a process of their own, which takes a while


def fuzzed(root: Path, count: int, seed: int, *, tried: bool) -> None:
    make(root, "a.png", "b.png")
    good = good_tables(root)
    tables = {name: data for name, data in good.items() if (name in TRIED) == tried}
    for name in tables:
        read_all(root / name)
    chance = random.Random(seed)
    refused = []
    for number in range(count):
        name = chance.choice(list(tables))
        path = root / f"damaged-{number}-{name}"
        path.write_bytes(damaged(tables[name], chance))
        with suppress_into(refused):
            read_all(path)
        path.unlink()
    assert len(refused) > count // 5
    for error in refused:
        assert "damaged-" in str(error)
        assert error.hint


@contextmanager
def suppress_into(refused: list[ChronoprepError]) -> Iterator[None]:
    try:
        yield
    except ChronoprepError as error:
        refused.append(error)


@pytest.mark.parametrize(("count", "tried"), [(250, False), (4, True)])
def test_damaged_tables_are_one_clear_error(count: int, tried: bool, tmp_path: Path) -> None:
    fuzzed(tmp_path, count, 1, tried=tried)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize(("count", "tried"), [(1000, False), (60, True)])
def test_many_damaged_tables_are_one_clear_error(
    seed: int, count: int, tried: bool, tmp_path: Path
) -> None:
    fuzzed(tmp_path, count, 100 + seed, tried=tried)


def test_deep_brackets_and_long_numbers_in_any_table(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    deep = "[" * 100_000
    (tmp_path / "t.csv").write_text(f'source,target\n"{deep}",b.png\na.png,b.png\n')
    assert [len(find(tmp_path / "t.csv").pairs), len(find(tmp_path / "t.csv").bad)] == [1, 1]
    for text in (deep, "9" * 5000):
        good = '{"source": "a.png", "target": "b.png"}'
        (tmp_path / "t.jsonl").write_text(f'{good}\n{{"source": {text}}}\n')
        assert [len(find(tmp_path / "t.jsonl").pairs), len(find(tmp_path / "t.jsonl").bad)] == [
            1,
            1,
        ]
        (tmp_path / "t.json").write_text(f"[{text}")
        with pytest.raises(ConfigError, match=r"t\.json: can't read it as JSON"):
            find(tmp_path / "t.json")


def test_a_table_that_is_no_file(tmp_path: Path, run: Run) -> None:
    os.mkfifo(tmp_path / "t.csv")
    for where in (tmp_path / "t.csv", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="neither a folder nor a regular file"):
            find(where)
    assert run("pairs", "t.csv").code == 2
    make(tmp_path, "a.png")
    (tmp_path / "u.csv").write_text("source,target\na.png,t.csv\n/dev/zero,a.png\n")
    assert [str(bad.error).partition(": ")[2] for bad in find(tmp_path / "u.csv").bad] == [
        "row 1: target t.csv is a special file, not an image.",
        "row 2: source /dev/zero is a special file, not an image.",
    ]
