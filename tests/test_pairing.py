"""The pairing report: what it says of a folder that has gone wrong in every way."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoprep.images.sheet import sheet_size
from chronoprep.workflows.pairing import SHEET_PAIRS
from conftest import EXAMPLES, photo, write_pairs
from test_cli import Run
from test_pairs import find
from trainer import read_dataset


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Six good pairs, and one of every kind of trouble."""
    root = write_pairs(tmp_path / "pairs", [f"good{n}" for n in range(6)], (128, 96))
    source, target = root / "input", root / "output"
    for side in (source, target):
        shutil.copy(side / "good0.png", side / "copy.png")
        with Image.open(side / "good1.png") as image:
            image.resize((64, 48)).save(side / "again.jpg", quality=80)
    shutil.copy(source / "good2.png", source / "edit2.png")
    photo(50, (128, 96)).save(target / "edit2.png")
    photo(51).save(source / "same.png")
    with Image.open(source / "same.png") as image:
        image.save(target / "same.bmp")
    photo(52, (128, 96)).save(source / "small.png")
    photo(53, (64, 48)).save(target / "small.png")
    photo(54, (128, 96)).save(source / "shape.png")
    photo(55, (96, 128)).save(target / "shape.png")
    photo(56).save(source / "broken.png")
    (target / "broken.png").write_bytes((source / "broken.png").read_bytes()[:300])
    photo(57).save(source / "alone.png")
    for suffix in ("png", "jpg"):
        photo(58).save(source / f"twice.{suffix}")
        photo(59).save(target / f"twice.{suffix}")
    for side in (source, target):
        photo(60 + len(str(side))).save(side / "0007.png")
    (source / "good5.txt").write_text("Add a hat")
    return root


def test_the_report_names_every_trouble(run: Run, messy: Path) -> None:
    result = run("pairs", messy, "--json")
    assert result.code == 1, "a pair can't be used"
    report = result.json
    assert report["pairs"] == 14
    assert report["captions"] == 1
    assert report["layout"] == "two folders: input/ → output/"
    assert report["counts"] == {
        "unmatched": 1, "ambiguous": 1, "renamed-key": 1, "unreadable": 1, "identical": 1,
        "duplicate": 1, "near-duplicate": 1, "other-size": 1, "other-shape": 1,
    }  # fmt: skip
    found = {finding["code"]: finding for finding in report["findings"]}
    assert found["unmatched"]["message"] == str(messy / "input/alone.png")
    assert "twice.jpg" in found["ambiguous"]["message"]
    broken = found["unreadable"]
    assert (broken["key"], broken["severity"]) == ("broken", "error")
    assert "output/broken.png: the image is damaged" in broken["message"]
    assert {code: finding["key"] for code, finding in found.items()} == {
        "unmatched": None, "ambiguous": None, "renamed-key": "pair-0007", "unreadable": "broken",
        "identical": "same", "duplicate": "good0", "near-duplicate": "good1",
        "other-size": "small", "other-shape": "shape",
    }  # fmt: skip
    assert [code for code, finding in found.items() if finding["severity"] == "error"] == [
        "unreadable"
    ]
    assert all(finding["remedy"] for code, finding in found.items() if code != "renamed-key")
    shown = run("pairs", messy).stdout
    for part in ("14 pairs", "unreadable: 1", "without a partner: 1", "ambiguous: 1",
                 "target is the source: 1", "good0: same images as copy", "good1: looks like again",
                 "shape: 128×96 → 96×128", "small: 128×96 → 64×48", "--fit says otherwise",
                 "pair-0007: made of 0007"):  # fmt: skip
        assert part in shown
    assert shown.index("unreadable") < shown.index("without a partner"), "the worst first"


def test_a_long_list_is_cut_and_its_remedy_said_once(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    for number in range(9):
        photo(number).save(tmp_path / f"pairs/input/alone{number}.png")
    result = run("pairs", "pairs", "--names-only")
    assert result.code == 0, "a warning is no failure"
    assert "without a partner: 9" in result.stdout
    assert result.stdout.count("alone") == 5
    assert "and 4 more: all with --json" in result.stdout
    assert result.stdout.count("a source and a target") == 1
    assert len(run("pairs", "pairs", "--names-only", "--json").json["findings"]) == 9


def test_names_only_opens_nothing(run: Run, messy: Path) -> None:
    result = run("pairs", messy, "--json", "--names-only", "--limit", 3)
    assert result.code == 0
    assert (result.json["pairs"], result.json["looked"]) == (3, False)
    assert "not opened" in run("pairs", messy, "--names-only").stdout
    assert run("pairs", messy, "--names-only", "--strict").code == 2


def test_a_linked_manifest_is_corrected_and_taken(run: Run, messy: Path) -> None:
    manifest = messy.parent / "pairs.csv"
    assert run("pairs", messy, "--link-manifest", manifest).code == 1
    before = find(messy)
    linked = find(manifest)
    assert [(p.key, p.source, p.target, p.caption) for p in linked.pairs] == [
        (p.key, p.source, p.target, p.caption) for p in before.pairs
    ]
    lines = manifest.read_text("utf-8").splitlines()
    assert '"pairs/input/shape.png"' in "".join(lines), "relative, so that both can move"
    remarks = {line.split('"')[1]: line.split('"')[-2] for line in lines[1:]}
    assert remarks["good0"] == "duplicate: same images as copy"
    assert remarks["good1"] == "near-duplicate: looks like again"
    assert remarks["shape"] == "other-shape: 128×96 → 96×128"
    assert remarks["same"] == "identical: source and target are the same"
    assert remarks["good3"] == ""
    assert remarks["broken"].startswith("unreadable")
    kept = [line for line in lines[1:] if line.endswith(',""')]
    manifest.write_text("\n".join([lines[0], *kept]), "utf-8")
    result = run("prepare", manifest, "-d", "data", "--prompt", "X.")
    assert result.code == 0, result.stderr
    assert {s.key for s in read_dataset(Path("data"))} == {
        "again", "copy", "edit2", "good2", "good3", "good4", "good5", "pair-0007"
    }  # fmt: skip


def test_a_linked_manifest_names_files_that_begin_or_end_with_a_space(
    run: Run, tmp_path: Path
) -> None:
    for number, side in enumerate(("before", "after")):
        photo(number).save(tmp_path / f" a_{side}.png")
    assert run("pairs", tmp_path, "--link-manifest", "pairs.csv").code == 0
    (pair,) = find(tmp_path / "pairs.csv").pairs
    assert pair.source == str(tmp_path / " a_before.png")


def test_the_sheet_shows_pairs_side_by_side(run: Run, messy: Path) -> None:
    assert run("pairs", messy, "--sheet", "out/sheet.png", "--sheet-pairs", 14).code == 1
    with Image.open("out/sheet.png") as sheet:
        assert sheet.width > sheet.height > 1000
    assert run("pairs", EXAMPLES, "--sheet", "one.png", "--sheet-pairs", 1).code == 0
    with Image.open("one.png") as sheet, Image.open(EXAMPLES / "input" / (
        "astronaut_sunglasses.jpg")) as source:  # fmt: skip
        source.thumbnail((240, 240))
        shown = np.asarray(sheet.convert("RGB"))[12 : 12 + 240, 12 : 12 + 240]
        assert np.array_equal(shown, np.asarray(source.convert("RGB")))
    assert list(Path("out").iterdir()) == [Path("out/sheet.png")]


def test_a_sheet_of_many_pairs_is_as_wide_as_it_is_high(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["a"], (16, 16))
    rows = [f"k{n},pairs/input/a.png,pairs/output/a.png" for n in range(1501)]
    (tmp_path / "t.csv").write_text("\n".join(["key,source,target", *rows]))
    result = run("pairs", "t.csv", "--names-only", "--sheet", "s.webp", "--sheet-pairs", 200)
    assert result.code == 0, result.stderr
    with Image.open("s.webp") as sheet:
        assert 0.8 < sheet.width / sheet.height < 1.25
    refused = run("pairs", "t.csv", "--sheet", "s.webp", "--sheet-pairs", 1501)
    assert refused.code == 2
    assert "1501 pairs don't fit" in refused.stderr
    assert f"--sheet-pairs {SHEET_PAIRS}" in refused.stderr
    assert all(max(sheet_size(count)[1]) <= 16383 for count in range(SHEET_PAIRS + 1))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["pairs", "--sheet", "x.txt"], "no picture"),
        (["pairs", "--link-manifest", "x.png"], "no .csv"),
        (["nowhere"], "nowhere"),
        (["pairs", "--source-glob", "x"], "go together"),
    ],
)
def test_wrong_usage(options: list[str], part: str, run: Run, messy: Path) -> None:
    assert messy.name == "pairs"
    result = run("pairs", *options)
    assert result.code == 2
    assert part in result.stderr


def test_the_manifest_does_not_replace_what_it_is_made_from(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["x"])
    table = tmp_path / "p.csv"
    table.write_text("source,target,split\npairs/input/x.png,pairs/output/x.png,a\n")
    before = table.read_text()
    result = run("pairs", table, "--link-manifest", table)
    assert result.code == 2
    assert "PAIRS itself" in result.stderr
    assert table.read_text() == before
