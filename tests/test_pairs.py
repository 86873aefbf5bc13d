"""Pairs as they lie on disk: which images become which pair, and what is said of the rest."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronoprep.config import PairSettings
from chronoprep.data import Cell, Frame, Pair
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.refs import file_of, of_path, parse
from chronoprep.images.sources import files_stamp
from chronoprep.keys import pandas_reads_as_text, safe_key
from chronoprep.pairs import Discovery, discover
from chronoprep.rows import Rows
from conftest import photo


def make(root: Path, *names: str) -> Path:
    """Discovery opens no image, so empty files do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def find(root: Path, **settings: object) -> Discovery:
    return discover(root, PairSettings(**settings))


def shown(found: Discovery, root: Path) -> dict[str, tuple[str, str]]:
    return {
        pair.key: (
            Path(file_of(pair.source)).relative_to(root).as_posix(),
            Path(file_of(pair.target)).relative_to(root).as_posix(),
        )
        for pair in found.pairs
    }


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("input", "output"), ("inputs", "outputs"), ("input-images", "output-images")),
        *(("input_images", "output_images"), ("source", "target"), ("sources", "targets")),
        *(("before", "after"), ("control", "target"), ("A", "B"), ("Before", "AFTER")),
    ],
)
def test_two_folders(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path, f"{source}/x.JPG", f"{target}/x.png", f"{source}/y.webp", f"{target}/y.avif")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {
        "x": (f"{source}/x.JPG", f"{target}/x.png"),
        "y": (f"{source}/y.webp", f"{target}/y.avif"),
    }
    assert found.layout == f"two folders: {source}/ → {target}/"
    assert (found.unmatched, found.ambiguous, found.bad, found.renamed) == ((), (), (), ())


def test_two_folders_with_subfolders_and_everything_else_that_lies_around(tmp_path: Path) -> None:
    make(tmp_path, "input/a/1x.png", "output/a/1x.jpg", "input/b/1x.tif", "output/b/1x.bmp")
    make(tmp_path, "input/.hidden.png", "input/Thumbs.db", "output/notes.md", "input/.git/z.png")
    make(tmp_path, "input/lost.png", "output/found.png", "masks/m.png", "loose.png")
    make(tmp_path, "input/twice.png", "input/twice.jpg", "output/twice.png")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {
        "a__1x": ("input/a/1x.png", "output/a/1x.jpg"),
        "b__1x": ("input/b/1x.tif", "output/b/1x.bmp"),
    }
    assert found.unmatched == tuple(
        tmp_path / name for name in ("input/lost.png", "loose.png", "output/found.png")
    )
    (line,) = found.ambiguous
    assert "twice.jpg" in line
    assert "twice.png" in line
    assert found.renamed == ()
    with pytest.raises(ConfigError) as caught:
        find(tmp_path, strict=True)
    for name in ("lost.png", "found.png", "twice.jpg", "loose.png"):
        assert name in str(caught.value)


def test_strict_is_content_with_a_clean_folder(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "output/x.png", "input/readme.txt")
    assert len(find(tmp_path, strict=True).pairs) == 1


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("start", "end"), ("in", "out"), ("input", "output"), ("before", "after")),
        *(("source", "target"), ("A", "B"), ("original", "edited"), ("START", "End")),
    ],
)
def test_suffixes_in_one_folder(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path, f"cat_1_{source}.png", f"cat_1_{target}.jpg", "other.png", f"lone_{source}.png")
    make(tmp_path, f"sub/dog_{source}.png", f"sub/dog_{target}.png")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {
        "cat_1": (f"cat_1_{source}.png", f"cat_1_{target}.jpg"),
        "sub__dog": (f"sub/dog_{source}.png", f"sub/dog_{target}.png"),
    }
    assert {path.name for path in found.unmatched} == {"other.png", f"lone_{source}.png"}
    assert found.layout == f"suffixes in one folder: _{source.lower()} → _{target.lower()}"


def test_one_original_with_many_edits(tmp_path: Path) -> None:
    make(tmp_path, "i_original.jpg", "i_edited_1.jpg", "i_edited_12.jpg", "j_original.jpg")
    make(tmp_path, "j_edited.jpg", "k_edited_1.jpg")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {
        "i_1": ("i_original.jpg", "i_edited_1.jpg"),
        "i_12": ("i_original.jpg", "i_edited_12.jpg"),
        "j": ("j_original.jpg", "j_edited.jpg"),
    }
    assert [path.name for path in found.unmatched] == ["k_edited_1.jpg"]


@pytest.mark.parametrize(
    ("source", "target"),
    [("before", "after"), ("source", "target"), ("Input", "Output"), ("a", "b"), ("start", "end")],
)
def test_a_folder_a_pair(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path, f"cat/{source}.png", f"cat/{target}.png", f"x/dog/{source}.jpg")
    make(tmp_path, f"x/dog/{target}.jpg", f"half/{source}.png")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {
        "cat": (f"cat/{source}.png", f"cat/{target}.png"),
        "x__dog": (f"x/dog/{source}.jpg", f"x/dog/{target}.jpg"),
    }
    assert found.unmatched == (tmp_path / f"half/{source}.png",)
    assert found.layout.startswith("a folder a pair")


def test_a_single_pair_is_called_after_its_folder(tmp_path: Path) -> None:
    root = make(tmp_path / "kitchen", "before.png", "after.png")
    assert shown(find(root), root) == {"kitchen": ("before.png", "after.png")}


def test_two_sources_of_one_root_are_ambiguous(tmp_path: Path) -> None:
    make(tmp_path, "x_in.png", "x_in.jpg", "x_out.png", "y_in.png", "y_out.png")
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["y"]
    assert "x_in.jpg" in found.ambiguous[0]
    assert "x_in.png" in found.ambiguous[0]


def test_sidecars_bring_captions_and_prompts(tmp_path: Path) -> None:
    make(tmp_path, *(f"{side}/{stem}.png" for side in ("input", "output") for stem in "abcde"))
    (tmp_path / "input/a.txt").write_text("\ufeffadd a hat \n", encoding="utf-8")
    (tmp_path / "output/b.txt").write_text("remove it", encoding="utf-8")
    (tmp_path / "c.txt").write_text("im Süden\nmit Hut", encoding="utf-8")
    both = {"caption": "add a dog", "caption_cot": "The user wants to add a dog."}
    (tmp_path / "output/d.json").write_text(json.dumps(both), encoding="utf-8")
    found = find(tmp_path)
    assert {pair.key: (pair.caption, pair.prompt) for pair in found.pairs} == {
        "a": ("add a hat", None),
        "b": ("remove it", None),
        "c": ("im Süden\nmit Hut", None),
        "d": ("add a dog", "The user wants to add a dog."),
        "e": (None, None),
    }


def test_sidecars_of_the_other_layouts(tmp_path: Path) -> None:
    words = make(tmp_path / "w", "x_start.png", "x_end.png", "y_original.png", "y_edited_2.png")
    make(words, "z_in.png", "z_out.png")
    (words / "z_out.txt").write_text("three", encoding="utf-8")
    (words / "x.txt").write_text("one", encoding="utf-8")
    (words / "y_2.txt").write_text("two", encoding="utf-8")
    assert [pair.caption for pair in find(words).pairs] == ["one", "two", "three"]
    folders = make(tmp_path / "f", "x/before.png", "x/after.png", "y/before.png", "y/after.png")
    (folders / "x/x.txt").write_text("one", encoding="utf-8")
    (folders / "y.txt").write_text("two", encoding="utf-8")
    assert [pair.caption for pair in find(folders).pairs] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("input/x.txt", b"\xff\xfe\xfa", "can't read the caption"),
        ("input/x.json", b"{broken", "can't read the caption"),
        ("input/x.json", b"[1]", "not a JSON object"),
        ("input/x.json", b'{"caption": 7}', "is not text"),
        ("input/x.json", b'{"caption": "\\ud83d smile"}', "half a character"),
        ("output/x.txt", b"another", "disagree"),
    ],
)
def test_a_broken_sidecar_costs_its_pair_only(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    make(tmp_path, "input/x.png", "output/x.png", "input/y.png", "output/y.png")
    (tmp_path / "x.txt").write_text("a caption", encoding="utf-8")
    (tmp_path / name).write_bytes(data)
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["y"]
    (bad,) = found.bad
    assert (bad.key, type(bad.error)) == ("x", PairError)
    assert reason in str(bad.error)
    assert name in str(bad.error)


def test_order_and_limit(tmp_path: Path) -> None:
    make(tmp_path, *(f"{side}/k{n}.png" for side in ("input", "output") for n in (3, 1, 10, 2)))
    assert [pair.key for pair in find(tmp_path).pairs] == ["k1", "k10", "k2", "k3"]
    assert [pair.key for pair in find(tmp_path, limit=2).pairs] == ["k1", "k10"]


def test_rows_wait_in_columns_and_come_back_as_they_were() -> None:
    rows = [Pair(f"k{n}", f"a/{n}.png", "…", None, "p" if n % 2 else None) for n in range(25_000)]
    columns = Rows(Pair)
    for number, row in enumerate(rows):
        assert len(columns) == number
        columns.append(row)
    assert list(columns) == rows
    assert list(columns.ordered(n % 3 for n in range(25_000))) == [
        *rows[2::3],
        *rows[1::3],
        *rows[::3],
    ]
    assert list(Rows(Pair).ordered([])) == []


def test_keys_that_the_trainer_would_misread_are_renamed(tmp_path: Path) -> None:
    make(tmp_path, *(f"{side}/{stem}.png" for side in ("input", "output") for stem in NAMES))
    found = find(tmp_path)
    assert dict(found.renamed) == NAMES
    assert {pair.key for pair in found.pairs} == set(NAMES.values())


NAMES = {"0001": "pair-0001", "NA": "pair-NA", "a:b": "a_b", "con": "pair-con", "true": "pair-true"}


@pytest.mark.parametrize(
    "stems", [("a:b", "a?b"), ("Cat", "cat"), ("sub/x", "sub__x"), ("1", "pair-1")]
)
def test_colliding_keys_use_neither_pair_and_name_the_files(
    tmp_path: Path, stems: tuple[str, str]
) -> None:
    make(tmp_path, *(f"{side}/{s}.png" for side in ("input", "output") for s in (*stems, "ok")))
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["ok"]
    assert len(found.bad) == 2
    for outcome in found.bad:
        assert isinstance(outcome.error, PairError)
        assert all(f"input/{stem}.png" in str(outcome.error) for stem in stems)


def test_decomposed_names_match_composed_ones(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, f"input/{decomposed}.png", f"output/{composed}.png")
    assert [pair.key for pair in find(tmp_path).pairs] == [composed]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "real/sub/x.png", "set/output/sub/x.png")
    (tmp_path / "set/input").symlink_to(tmp_path / "real")
    (tmp_path / "real/sub/loop").symlink_to(tmp_path / "real")
    assert [pair.key for pair in find(tmp_path / "set").pairs] == ["sub__x"]


@pytest.mark.parametrize(
    ("names", "fragments"),
    [
        ((), ("no pairs found",)),
        (("x.png", "y.png"), ("no pairs found", "x.png")),
        (("input/x.png", "output/y.png"), ("no pairs found", "input/x.png", "output/y.png")),
        (
            ("input/x.png", "output/x.png", "before/x.png", "after/x.png"),
            ("more than one way", "input/x.png → output/x.png", "before/x.png → after/x.png"),
        ),
        (("source/x.png", "control/x.png", "target/x.png"), ("more than one way",)),
        (("A/x.png", "a/x.png", "B/x.png"), ("more than one way",)),
        (("images/x.png", "control/x.png"), ("can't tell", "control, images", "kohya")),
    ],
)
def test_roles_are_never_guessed(
    tmp_path: Path, names: tuple[str, ...], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        find(make(tmp_path, *names))
    assert all(fragment in str(caught.value) for fragment in fragments)
    assert caught.value.hint


def test_missing_place_and_strange_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder or manifest"):
        find(tmp_path / "nowhere")
    for name, part in (("x.png", "not a table"), ("x.parquet", "the file is empty")):
        with pytest.raises(ConfigError, match=part):
            find(make(tmp_path, name) / name)


def table(root: Path, text: str, name: str = "pairs.csv") -> Path:
    make(root, *(f"img/{stem}.png" for stem in ("a", "b", "c", "d")))
    path = root / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("source", "target"), ("source_image", "target_image"), ("source_img", "target_img")),
        *(("original_image", "edited_image"), ("src_img", "edited_img"), ("before", "after")),
        *(("input_image", "output_image"), ("Source Image", "target-image")),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_manifest_columns(tmp_path: Path, source: str, target: str, suffix: str) -> None:
    if suffix == "csv":
        text = f"{target},x,{source}\nimg/b.png,1,img/a.png\n"
    else:
        text = json.dumps({target: "img/b.png", "x": 1, source: "img/a.png"})
    found = find(table(tmp_path, text, f"pairs.{suffix}"))
    assert shown(found, tmp_path) == {"a": ("img/a.png", "img/b.png")}
    assert found.layout == f"table: pairs.{suffix}"


def test_csv_texts_come_through_as_they_are(tmp_path: Path) -> None:
    caption = 'say "hi", then\nleave — für immer'
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["key", "source", "target", "instruction", "prompt"])
    writer.writerow(["007", "img/a.png", str(tmp_path / "img/b.png"), caption, "[1]"])
    writer.writerow(["k2", " img/c.png ", "img/d.png", "", ""])
    found = find(table(tmp_path, "\ufeff" + buffer.getvalue()))
    assert [(p.key, p.caption, p.prompt) for p in found.pairs] == [
        ("pair-007", caption, "[1]"),
        ("k2", None, None),
    ]
    assert shown(found, tmp_path)["pair-007"] == ("img/a.png", "img/b.png")
    assert found.renamed == (("007", "pair-007"),)


def test_jsonl_texts_numbers_and_lists(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "source": "img/a.png", "target": ["img/b.png"], "edit": "add a hat"},
        {"id": "x", "source": "img/c.png", "target": "img/d.png", "caption_cot": "The user …"},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in rows)
    found = find(table(tmp_path, text, "pairs.ndjson"))
    assert [(p.key, p.caption, p.prompt) for p in found.pairs] == [
        ("pair-7", "add a hat", None),
        ("x", None, "The user …"),
    ]


def test_manifest_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    rows = [
        '{"source": "img/a.png", "target": "img/b.png"}',
        '{"source": "img/a.png", "target": ',
        '{"key": "k3", "source": "img/c.png"}',
        '{"key": "k4", "source": "img/c.png", "target": "img/gone.png"}',
        '{"key": "k5", "source": "img/c.png", "target": "img/c.png"}',
        '{"key": "k6", "source": "https://x.org/c.png", "target": "img/d.png"}',
        '{"key": "k7", "source": "img/c.png", "target": 5}',
        '["img/c.png"]',
        '{"key": "k9", "source": "img/c.png", "target": null}',
        '{"key": "k10", "source": "img/c.png", "target": "img/\\u0000.png"}',
    ]
    found = find(table(tmp_path, "\n".join(rows), "pairs.jsonl"))
    assert [pair.key for pair in found.pairs] == ["a"]
    errors = {int(str(o.error).split("jsonl:")[1].split(":")[0]): str(o.error) for o in found.bad}
    assert sorted(errors) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    for line, fragment in {
        2: "not valid JSON",
        3: "target",
        4: "img/gone.png does not exist",
        5: "the same file",
        6: "an address",
        7: "is int, not text",
        8: "not a JSON object",
        9: "no target image",
        10: "does not exist",
    }.items():
        assert fragment in errors[line]
    with pytest.raises(ConfigError, match=r"gone\.png"):
        find(tmp_path / "pairs.jsonl", strict=True)


def test_csv_rows_without_a_cell_are_named(tmp_path: Path) -> None:
    found = find(table(tmp_path, "source,target\nimg/a.png,img/b.png\nimg/c.png,\n,img/d.png\n"))
    assert [pair.key for pair in found.pairs] == ["a"]
    assert [(o.key, str(o.error).split(": ", 1)[1]) for o in found.bad] == [
        ("c", "row 2: no target image."),
        ("row-3", "row 3: no source image."),
    ]


def test_csv_rows_with_too_many_cells_fail_alone(tmp_path: Path) -> None:
    text = 'source,target,caption\nimg/a.png,img/b.png,"x, y"\nimg/c.png,img/d.png,Add, please\n'
    found = find(table(tmp_path, text + "img/c.png,img/d.png\n"))
    assert [(pair.key, pair.caption) for pair in found.pairs] == [("a", "x, y"), ("c", None)]
    (bad,) = found.bad
    assert "pairs.csv: row 2: 4 cells for 3 columns" in str(bad.error)
    # What swallows rows is the whole table's error.
    with pytest.raises(ConfigError, match="not a readable CSV"):
        find(table(tmp_path, text + 'img/c.png,img/d.png,"open\nimg/a.png,img/d.png,x\n'))


def test_duplicate_keys_in_a_manifest(tmp_path: Path) -> None:
    text = "key,source,target\nk,img/a.png,img/b.png\nk,img/c.png,img/d.png\n"
    found = find(table(tmp_path, text))
    assert len(found.pairs) == 0
    assert [o.key for o in found.bad] == ["k", "k"]
    assert all(n in str(o.error) for o in found.bad for n in ("a.png", "c.png"))


def test_sources_of_one_stem_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    make(tmp_path, *(f"{n}/{role}.png" for n in ("p", "q/r") for role in ("one", "two")))
    text = "source,target\np/one.png,p/two.png\nq/r/one.png,q/r/two.png\nimg/a.png,img/b.png\n"
    found = find(table(tmp_path, text))
    assert [pair.key for pair in found.pairs] == ["p__one", "q__r__one", "a"]


@pytest.mark.parametrize(
    ("header", "fragments"),
    [
        ("input,output", ("`input`, `output`", "input='img/a.png'")),
        ("edit_image,image", ("`image`",)),
        ("source,output", ("target", "`output`")),
        ("image,target", ("source", "`image`")),
        ("source,source_image,target", ("`source`, `source_image`", "could each be the source")),
        ("source,target,caption,instruction", ("could each be the caption",)),
        ("file,other", ("`file`, `other`",)),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_column_traps(tmp_path: Path, header: str, fragments: tuple[str, ...], suffix: str) -> None:
    columns = header.split(",")
    cells = [f"img/{stem}.png" for stem in "abcd"][: len(columns)]
    text = f"{header}\n{','.join(cells)}\n"
    if suffix == "jsonl":
        text = json.dumps(dict(zip(columns, cells, strict=True)))
    with pytest.raises(ConfigError) as caught:
        find(table(tmp_path, text, f"pairs.{suffix}"))
    assert all(fragment in str(caught.value) for fragment in fragments)
    assert "img/a.png" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b""),
        ("a.csv", b"source,target\n"),
        ("a.csv", b"source,target\n\xff\xfe\xfa,x\n"),
        ("a.csv", b"source,target\na,b,c,d,e\n"),
        ("a.csv", b"source;target\n"),
        ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        ("a.jsonl", b""),
    ],
)
def test_a_manifest_that_is_none_is_a_config_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        find(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.hint


HOSTILE = [
    *("0001", "123", "1e5", "1E+5", "-7", "+7", " 7", "7 ", "\t7", "7.", ".5", "1.5e-3", "1_000"),
    *("inf", "-inf", "+inf", "Inf", "INF", "Infinity", "-infinity", "NA", "N/A", "n/a", "nan"),
    *("NaN", "-nan", "-NaN", "NAN", "null", "NULL", "Null", "None", "none", "<NA>", "#N/A", "#NA"),
    *("#N/A N/A", "1.#IND", "-1.#QNAN", "True", "False", "TRUE", "true", "false", "TrUe", ""),
    *(" ", "  ", "\n", "0x10", "1j", "1+2j", "1e", "e5", "-", "+", ".", "1e400", "9" * 40),
    *("12a", "a12", "1-2", "1.2.3", "2024-01-01", "12:30", "1,5", '"quoted"', "'x'", "a\nb"),
    *(
        "a,b",
        "a\rb",
        "a\r\nb",
        "é",
        "日本",
        "🙂",
        "٣",
        "x\0y",
        "nul",
        "--5",
        "1 2",
        "#x",
        "-0",
        "1e5x",
    ),
    *("NA ", " NA", "null ", "True ", " false", "1e-5 ", "\ufeffx", "\\N", "NaT", "nat", "<na>"),
    *(
        "1d5",
        "1f",
        "1L",
        "0b1",
        "0o7",
        "1%",
        "$1",
        "1e+",
        "1.e5",
        "+.5e1",
        "infx",
        "\x1a",
        '"',
        ",,",
    ),
]


def pandas_reads(text: str) -> object:
    """What the trainer gets for a prompt or key, alone in its column."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["key", "x"], [text, "y"], [text, "z"]])
    return pd.read_csv(io.StringIO(buffer.getvalue(), newline=""))["key"].tolist()


def test_pandas_agrees_about_what_is_text() -> None:
    rng = random.Random(2)
    alphabet = list("0123456789+-..eE  _xjinfnaNAtrueT#<>/,\"'\n\r\t")
    fuzz = ["".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(1500)]
    lost = [
        text
        for text in HOSTILE + fuzz
        if pandas_reads_as_text(text) and pandas_reads(text) != [text, text]
    ]
    assert lost == []


def test_ordinary_prompts_count_as_text() -> None:
    for text in (
        "The user wants to add a hat.",
        "a",
        "cat 12",
        "3 cats",
        "no change",
        "e5",
        "n/ab",
    ):
        assert pandas_reads_as_text(text)


def test_safe_keys_are_safe_everywhere_and_read_back() -> None:
    rng = random.Random(4)
    alphabet = [*'ab0.. _-/\\:*?"<>|', "\n", "\x7f", "é", "e\u0301", "日", "\u2028", "\udc80", "~"]
    names = ["".join(rng.choices(alphabet, k=rng.randint(0, 9))) for _ in range(700)] + HOSTILE
    names += [
        "x" * 300,
        "日" * 150,
        "a" * 199 + "é" * 9,
        "CON",
        "aux.txt",
        "com1",
        "LPT9.x",
        "COM¹",
    ]
    names += ["..", "../../etc/passwd", ".hidden", "a..b", "trail.", "trail ", "C:\\x", "\udcff"]
    for name in names:
        key = safe_key(name)
        assert key
        assert not set(key) & set('/\\:*?"<>|\0\n')
        assert ".." not in key
        assert key[0] not in ". "
        assert key[-1] not in ". "
        assert len(key.encode()) <= 240
        assert key == unicodedata.normalize("NFC", key)
        assert safe_key(key) == key
        assert key.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "COM¹"}
    keys = [safe_key(name) for name in names]
    assert all(pandas_reads(key) == [key, key] for key in set(keys))


def test_long_names_stay_apart() -> None:
    assert safe_key("x" * 300 + "a") != safe_key("x" * 300 + "b")


def test_good_names_stay_as_they_are() -> None:
    for name in ("cat", "IMG_0001", "a b", "x.y", "2024-01-01", "日本", "scene (1)", "pair-0001"):
        assert safe_key(name) == name


def test_importing_pairs_is_cheap() -> None:
    code = (
        "import sys, chronoprep.pairs; "
        "print(sorted({'PIL', 'polars', 'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What references are written with, and all else that a name may hold.
NAMES_OF_FILES = (
    st.lists(
        st.sampled_from(["#", "%", "2", "3", "5", "%23", "%25", "#t=first", "#t=1", "[a]", ".mp4"])
        | st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=4),
        min_size=1,
        max_size=6,
    )
    .map("".join)
    .filter(lambda name: name not in (".", ".."))
)


@given(name=NAMES_OF_FILES, other=NAMES_OF_FILES)
def test_a_reference_gives_back_any_path(name: str, other: str) -> None:
    folder = Path("/set #row=1&column=x") / other
    for path in (Path(name), folder / name):
        text = of_path(str(path))
        assert parse(text) == path
        assert file_of(text) == str(path)
        assert parse(f"{text}#t=first") == Frame(path, "first")
        cell = Cell(path, 7, other, 1)
        assert parse(str(Cell(Path(text), 7, other, 1))) == cell
        assert file_of(str(Cell(Path(text), 7, other, 1))) == str(path)
    assert (of_path(name) == of_path(other)) == (name == other)


@given(name=NAMES_OF_FILES)
def test_files_of_any_name_have_a_stamp(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(name.encode())
    other = path.with_name("other")
    other.touch()
    stamp = files_stamp(of_path(str(path)), of_path(str(other)))
    assert stamp is not None
    path.write_bytes(b"")
    assert files_stamp(of_path(str(path)), of_path(str(other))) != stamp


def test_names_that_need_no_escape_stay_as_they_are() -> None:
    for path in ("a/b c.png", "100%.png", "a%20b.png", "[a]/x (1).png", "é.png"):
        assert of_path(path) == path
    assert parse("shot#3.png") == Path("shot#3.png"), "as people write it"


ODD = ["x#t=1", "y#row=3&column=c", "[z]", '"[1]"', "100%23", "s#3"]


@pytest.mark.parametrize("folder", ["plain", "set#t=1", "[set]", "%23"])
def test_odd_names_are_found_and_read_back_from_a_manifest(
    tmp_path: Path, folder: str, run: Callable[..., Any]
) -> None:
    root = tmp_path / folder
    for number, name in enumerate(ODD):
        for side in ("input", "output"):
            path = root / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(number).save(path)
        (root / f"input/{name}.txt").write_text(f"[{number}]")
    found = find(root)
    names = {pair.key: Path(file_of(pair.source)).stem for pair in found.pairs}
    assert sorted(names.values()) == sorted(ODD)
    assert all(pair.caption == f"[{ODD.index(names[pair.key])}]" for pair in found.pairs)
    assert run("pairs", root, "--link-manifest", root / "pairs.csv").code == 0
    again = find(root / "pairs.csv")
    assert list(again.pairs) == [
        pair._replace(**{side: of_path(str(Path(file_of(getattr(pair, side))).absolute()))
                         for side in ("source", "target")})
        for pair in found.pairs
    ]  # fmt: skip
    assert again.bad == ()


def test_a_manifest_by_hand_may_name_odd_files_plainly(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}.png" for name in ODD), "b.png")
    with (tmp_path / "t.csv").open("w") as file:
        csv.writer(file).writerows([["source", "target"], *([f"{n}.png", "b.png"] for n in ODD)])
    found = find(tmp_path / "t.csv")
    assert [file_of(pair.source) for pair in found.pairs] == [
        str(tmp_path / f"{name}.png") for name in ODD
    ]
