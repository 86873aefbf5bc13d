"""Layouts by name, by pattern and by recognition: the right pairs with the right roles, or a
question."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from chronoprep.errors import ConfigError, PairError
from conftest import write_pairs
from test_cli import Run
from test_pairs import find, make, shown

Pairs = dict[str, tuple[str, str]]


# Layout, files, and the pairs that they are: settings beside the files where they have to be named.
LAYOUTS: list[tuple[dict[str, str], list[str], Pairs]] = [
    ({}, ["original/x.jpg", "edited/x.png"], {"x": ("original/x.jpg", "edited/x.png")}),
    (
        {},
        ["image_directory/x.png", "image_directory/y.png", "control_directory/x.png",
         "control_directory/y_0.png"],
        {"x": ("control_directory/x.png", "image_directory/x.png"),
         "y": ("control_directory/y_0.png", "image_directory/y.png")},
    ),
    (
        {"layout": "kohya"},
        ["images/x.png", "images/sub/y.jpg", "control/x_0.jpg", "control/sub/y.png"],
        {"x": ("control/x_0.jpg", "images/x.png"),
         "sub__y": ("control/sub/y.png", "images/sub/y.jpg")},
    ),
    ({"layout": "kohya"}, ["image/x.png", "conditioning_images/x.png"],
     {"x": ("conditioning_images/x.png", "image/x.png")}),
    (
        {},
        ["source/x.png", "target/x_1.png", "target/x-2.png", "source/a_1.png", "target/a_1.png"],
        {"x_1": ("source/x.png", "target/x_1.png"), "x-2": ("source/x.png", "target/x-2.png"),
         "a_1": ("source/a_1.png", "target/a_1.png")},
    ),
    (
        {},
        ["before/x.png", "after/x/1.png", "after/x/red.png", "before/y.png", "after/y.png"],
        {"x__1": ("before/x.png", "after/x/1.png"), "x__red": ("before/x.png", "after/x/red.png"),
         "y": ("before/y.png", "after/y.png")},
    ),
    (
        {},
        ["image_1_original.jpg", "image_1_edited_1.jpg", "image_1_edited_12.jpg"],
        {"image_1_1": ("image_1_original.jpg", "image_1_edited_1.jpg"),
         "image_1_12": ("image_1_original.jpg", "image_1_edited_12.jpg")},
    ),
    (
        {},
        ["x_before.png", "x_after_1.png", "x_after_2.png"],
        {"x_1": ("x_before.png", "x_after_1.png"), "x_2": ("x_before.png", "x_after_2.png")},
    ),
    (
        {},
        ["before_0.png", "before_1.png", "after_0.png", "after_1.png"],
        {"set_0": ("before_0.png", "after_0.png"), "set_1": ("before_1.png", "after_1.png")},
    ),
    (
        {},
        ["x_source_1.png", "x_target_1.png", "x_source_2.png", "x_target_2.png", "x_target_3.png"],
        {"x_1": ("x_source_1.png", "x_target_1.png"), "x_2": ("x_source_2.png", "x_target_2.png")},
    ),
    (
        {},
        ["s/Before (1).png", "s/After (1).png", "s/in_7.png", "s/out_7.png"],
        {"s_1": ("s/Before (1).png", "s/After (1).png"), "s_7": ("s/in_7.png", "s/out_7.png")},
    ),
    (
        {},
        ["x-before.png", "x-after.jpg", "y.input.png", "y.output.png", "z before.png",
         "z after.png", "vitamin a.png", "vitamin b.png", "b_1.png"],
        {"x": ("x-before.png", "x-after.jpg"), "y": ("y.input.png", "y.output.png"),
         "z": ("z before.png", "z after.png")},
    ),
    ({"layout": "suffixes"}, ["input/x_in.png", "input/x_out.png", "output/x.png"],
     {"input__x": ("input/x_in.png", "input/x_out.png")}),
    ({"layout": "folders"}, ["a_in.png", "a_out.png", "input/x.png", "output/x.png"],
     {"x": ("input/x.png", "output/x.png")}),
    ({"layout": "pair-folders"}, ["cat/before.png", "cat/after.png", "cat/x_in.png",
     "cat/x_out.png"], {"cat": ("cat/before.png", "cat/after.png")}),
    ({"layout": "instructpix2pix"}, ["70_0.jpg", "70_1.jpg", "x.jpg"],
     {"pair-70": ("70_0.jpg", "70_1.jpg")}),
    ({"source_glob": "raw/*", "target_glob": "final/*.png"},
     ["raw/x.jpg", "raw/y.jpg", "final/x.png", "final/x.jpg"],
     {"x": ("raw/x.jpg", "final/x.png")}),
    ({"source_glob": "*.in.*", "target_glob": "*.out.*"}, ["x.in.png", "x.out.jpg"],
     {"x": ("x.in.png", "x.out.jpg")}),
    (
        {"source_glob": "./**/photo.png", "target_glob": "**/edit_*.png"},
        ["a/photo.png", "a/edit_1.png", "a/edit_2.png", "b/c/photo.png", "b/c/edit_1.png"],
        {"a__1": ("a/photo.png", "a/edit_1.png"), "a__2": ("a/photo.png", "a/edit_2.png"),
         "b__c__1": ("b/c/photo.png", "b/c/edit_1.png")},
    ),
    ({"source_glob": "base.png", "target_glob": "v*.png"}, ["base.png", "v1.png", "v2.png"],
     {"pair-1": ("base.png", "v1.png"), "pair-2": ("base.png", "v2.png")}),
    ({"source_glob": "[ab]/x?.png", "target_glob": "out/[ab]x?.png"},
     ["a/x1.png", "b/x1.png", "c/x1.png", "out/ax1.png", "out/bx1.png"],
     {"a__1": ("a/x1.png", "out/ax1.png"), "b__1": ("b/x1.png", "out/bx1.png")}),
    (
        {"regex": r"(?P<key>.+?)_((?P<source>raw)|(?P<target>done)(-(?P<edit>\w+))?)\.jpg"},
        ["x_raw.jpg", "x_done.jpg", "x_done-red.jpg", "s/y_raw.jpg", "s/y_done.jpg", "z.jpg"],
        {"x": ("x_raw.jpg", "x_done.jpg"), "x__red": ("x_raw.jpg", "x_done-red.jpg"),
         "s__y": ("s/y_raw.jpg", "s/y_done.jpg")},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "names", "pairs"), LAYOUTS)
def test_layouts(settings: dict[str, str], names: list[str], pairs: Pairs, tmp_path: Path) -> None:
    tmp_path = tmp_path / "set"
    found = find(make(tmp_path, *names), **settings)
    assert shown(found, tmp_path) == pairs
    assert found.bad == ()
    assert found.ambiguous == ()
    paired = {path for pair in pairs.values() for path in pair}
    below = {path.relative_to(tmp_path).as_posix() for path in found.unmatched}
    assert below <= set(names) - paired
    if settings.get("layout") not in ("folders", "suffixes", "kohya"):
        assert below == set(names) - paired


def test_instructpix2pix_as_it_was_generated(tmp_path: Path) -> None:
    make(tmp_path, "0001/70_0.jpg", "0001/70_1.jpg", "0001/8_0.jpg", "0001/8_1.jpg")
    make(tmp_path, "0001/9_1.jpg", "0002/3_0.jpg", "0002/3_1.jpg")
    record = {"input": "a dog", "edit": " make it a cat ", "output": "a cat"}
    (tmp_path / "0001/prompt.json").write_text(json.dumps(record))
    (tmp_path / "0002/prompt.json").write_text('{"edit": 7}')
    found = find(tmp_path)
    assert {pair.key: pair.caption for pair in found.pairs} == {
        "pair-0001__70": "make it a cat",
        "pair-0001__8": "make it a cat",
    }
    assert shown(found, tmp_path)["pair-0001__70"] == ("0001/70_0.jpg", "0001/70_1.jpg")
    assert found.unmatched == (tmp_path / "0001/9_1.jpg",)
    (bad,) = found.bad
    assert isinstance(bad.error, PairError)
    assert "0002/prompt.json" in str(bad.error)


def test_several_control_images_are_ambiguous(tmp_path: Path) -> None:
    make(tmp_path, "images/x.png", "control/x_0.png", "control/x_1.png", "images/y.png")
    found = find(make(tmp_path, "control/y.png"), layout="kohya")
    assert [pair.key for pair in found.pairs] == ["y"]
    (line,) = found.ambiguous
    assert all(part in line for part in ("control/x_0.png", "control/x_1.png", "both the source"))


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (
            ["images/x.png", "control/x.png"],
            ["control/x.png → images/x.png", "images/x.png → control/x.png", "--layout kohya",
             "--source-glob 'images/*' --target-glob 'control/*'"],
        ),
        (
            ["foo/x.png", "bar/x.jpg"],
            ["foo/x.png → bar/x.jpg", "bar/x.jpg → foo/x.png",
             "--source-glob 'foo/*' --target-glob 'bar/*'"],
        ),
        (
            ["input/x.png", "output/x.png", "before/y.png", "after/y.png"],
            ["input/x.png → output/x.png", "before/y.png → after/y.png",
             "--source-glob 'input/*' --target-glob 'output/*'"],
        ),
        (
            ["7_0.jpg", "7_1.jpg", "8_0.jpg", "8_1.jpg"],
            ["7_0 → 7_1", "8_0 → 8_1", "--layout instructpix2pix", "--source-glob '*_1.*'"],
        ),
    ],
)  # fmt: skip
def test_a_question_shows_two_pairs_and_a_flag_that_works(
    names: list[str], parts: list[str], tmp_path: Path
) -> None:
    make(tmp_path, *names)
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    text = f"{caught.value}\n{caught.value.hint}"
    assert all(part in text for part in parts)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"source_glob": "*.png"}, "go together"),
        ({"source_glob": "*/*.png", "target_glob": "out/*.png"}, "more wildcards"),
        ({"source_glob": "*.png", "target_glob": "x*.png"}, "fits both"),
        ({"source_glob": "../*.png", "target_glob": "x*.png"}, "leads out of"),
        ({"source_glob": "[z-a].png", "target_glob": "x[ab].png"}, "no pattern"),
        ({"regex": "(?P<key>.+)"}, "no group called source or target"),
        ({"regex": "("}, "--regex ("),
        ({"regex": ".", "source_glob": "x"}, "Either"),
        ({"layout": "folders"}, "no two folders"),
        ({"layout": "kohya"}, "control/ and images/"),
        ({"layout": "pair-folders"}, "no pairs found"),
    ],
)
def test_wrong_patterns_and_layouts_say_what_to_do(
    settings: dict[str, str], part: str, tmp_path: Path
) -> None:
    make(tmp_path, "x.png", "xy.png")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path, **settings)
    assert part in str(caught.value)
    assert caught.value.hint


def test_names_that_are_no_unicode_cost_their_pair_only(tmp_path: Path) -> None:
    broken = b"\xff.png".decode("utf-8", "surrogateescape")
    make(tmp_path, f"input/{broken}", f"output/{broken}", "input/x.png", "output/x.png")
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["x"]
    assert "not valid UTF-8" in str(found.bad[0].error)


def test_the_options_reach_every_command(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["x"])
    (tmp_path / "pairs/input").rename(tmp_path / "pairs/raw")
    (tmp_path / "pairs/output").rename(tmp_path / "pairs/final")
    for command in ("caption", "cot", "pair2video", "build-csv", "prepare"):
        asked = run(command, "pairs", "-d", "data")
        assert asked.code == 2
        assert "can't tell which folder" in asked.stderr
        assert run(command, "pairs", "-d", "data", "--layout", "vhs").code == 2
    globs = ("--source-glob", "raw/*", "--target-glob", "final/*")
    assert run("prepare", "pairs", "-d", "data", "--prompt", "X.", *globs).code == 0
    assert Path("data/videos/x.mp4").is_file()


def test_numbered_sources_have_no_numbered_targets(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "input/x_1.png", "output/x_1.png", "output/x_2.png")
    found = find(tmp_path)
    assert shown(found, tmp_path) == {"x_1": ("input/x_1.png", "output/x_1.png")}
    assert {path.name for path in found.unmatched} == {"x.png", "x_2.png"}


def test_what_is_no_pair_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "output/x.png", "masks/x.png", "input/y.heic", "input/z.gif")
    found = find(make(tmp_path, "output/y.jpg"))
    assert found.layout.endswith("without masks/")
    assert sorted(pair.key for pair in found.pairs) == ["x", "y"]
    assert found.unmatched == (tmp_path / "input/z.gif",)


def test_a_file_where_the_other_side_has_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "input/sub/x.png", "input/y.png", "output/sub", "output/y.png")
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["y"]
    assert found.unmatched == (tmp_path / "input/sub/x.png",)


def test_a_linked_folder_counts_beside_the_one_that_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, "input/a/1.png", "output/a/1.png", "output/b/1.png")
    (tmp_path / "input/b").symlink_to("a")
    assert [pair.key for pair in find(tmp_path).pairs] == ["a__1", "b__1"]


def test_two_files_of_one_name_are_named_even_if_they_are_all_there_is(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "input/x.jpg", "output/x.png")
    with pytest.raises(ConfigError, match="differ only in their suffix"):
        find(tmp_path)


def test_a_table_beside_two_folders_is_not_the_pairs(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "output/x.png", "scores.parquet", "raw/y.png", "final/y.png")
    assert [pair.key for pair in find(tmp_path).pairs] == ["x"]
    named = find(tmp_path, source_glob="raw/*", target_glob="final/*")
    assert [pair.key for pair in named.pairs] == ["y"]


def test_a_dataset_among_clips_is_not_taken_for_clips(tmp_path: Path) -> None:
    make(tmp_path, "one.mp4", "out/.chronoprep.lock", "out/videos/one.mp4", "more/videos/two.mp4")
    assert [pair.key for pair in find(tmp_path).pairs] == ["more__videos__two", "one"]


def test_a_pair_that_cannot_be_used_has_the_key_that_it_would_have(tmp_path: Path) -> None:
    make(tmp_path, "0001/70_0.jpg", "0001/70_1.jpg", "a.png")
    (tmp_path / "0001/prompt.json").write_text("{}")
    assert [bad.key for bad in find(tmp_path).bad] == ["pair-0001__70"]
    (tmp_path / "t.csv").write_text("key,source,target\n007,a.png,gone.png\n")
    assert [bad.key for bad in find(tmp_path / "t.csv").bad] == ["pair-007"]


SOURCES = ("before", "input", "source", "original", "control", "in", "start", "befor", "ref", "src")


@pytest.mark.parametrize("word", SOURCES)
@pytest.mark.parametrize("raw", [False, True])
def test_no_advice_pairs_two_sources(word: str, raw: bool, tmp_path: Path) -> None:
    """`before_0 before_1` are no InstructPix2Pix, whatever lies beside them."""
    make(tmp_path, *(f"{word}_{number}.png" for number in range(2)), "photo_2.png", "photo_0.png",
         "photo_1.png")  # fmt: skip
    if raw:
        (tmp_path / "prompt.json").write_text('{"edit": "a hat"}')
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    text = f"{caught.value}\n{caught.value.hint}"
    assert f"{word}_0 → {word}_1" not in text
    assert "photo_0 → photo_1" not in text
    assert "--layout instructpix2pix" not in text
    # Who asks for it gets it, but for what is a source by its name.
    asked = find(tmp_path, layout="instructpix2pix")
    assert [Path(pair.source).name for pair in asked.pairs] == ["photo_0.png"]


def test_folders_of_one_side_are_not_paired_with_each_other(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/x.png" for name in ("source_1", "source_2", "target_1")))
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    text = f"{caught.value}\n{caught.value.hint}"
    assert "--source-glob 'source_1/*' --target-glob 'target_1/*'" in text
    assert "source_1, source_2 look like several: choose one" in text
    assert not any(f"{one}/x.png → {other}" in text for one, other in (
        ("source_1", "source_2"), ("source_2", "source_1"), ("target_1", "source_1")
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["befor/x.png", "after/x.png"], ["befor/x.png → after/x.png", "--source-glob 'befor/*'"]),
        (["input/x.png"], ["input/ is there, but no folder of targets such as output/"]),
        (["output/x.png"], ["output/ is there, but no folder of sources such as input/"]),
        (["inptu/x.png", "outptu/y.png"], ["look like sources and targets, but share no file"]),
        (["set/input/x.png", "set/output/x.png"], ["set/ holds input/ and output/", "as PAIRS"]),
        (["x_before.png"], ["x_before.png is named as a source, and no target goes with it"]),
        (["xBefore.png", "xAfter.png"], ["xBefore.png and xAfter.png look like source and target"]),
        (["pairs.csv", "x.png"], ["pairs.csv: a table: if it lists the pairs, give it as PAIRS"]),
    ],
)
def test_a_near_miss_of_a_layout_is_explained(
    names: list[str], parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        find(make(tmp_path, *names))
    text = f"{caught.value}\n{caught.value.hint}"
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", ".thumbnails", "__MACOSX", ".Trashes", "$RECYCLE.BIN", ".dropbox.cache", "#recycle",
     ".ipynb_checkpoints", ".sync", ".stfolder", ".comments", "CaptureOne", ".picasaoriginals",
     "Catalog Previews.lrdata", "@Recycle", "lost+found", ".@__thumb", "System Volume Information",
     ".git", "[Originals]"],
)  # fmt: skip
def test_folders_of_the_system_hold_no_pairs(folder: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{side}/x.png" for side in ("input", "output")), "a/p_in.png", "a/p_out.png")
    make(tmp_path, *(f"{side}/{folder}/x.png" for side in ("input", "output")))
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["x"]
    assert found.notes == (f"folders of the system, not looked into: {folder} (2)",)
    inner = make(
        tmp_path / "b", f"{folder}/p_in.png", f"{folder}/p_out.png", "q_in.png", "q_out.png"
    )
    assert [pair.key for pair in find(inner, strict=True).pairs] == ["q"]


@pytest.mark.parametrize(
    ("globs", "part"),
    [
        (("RAW/*.jpg", "final/*.jpg"), "raw/x.JPG would, but for capital letters"),
        (("raw/*.jpg", "final/*.jpg"), "raw/x.JPG would, but for capital letters"),
        (("raw/*", "finals/*"), "no image fits --target-glob finals/*"),
    ],
)
def test_a_glob_that_fits_nothing(globs: tuple[str, str], part: str, tmp_path: Path) -> None:
    make(tmp_path, "raw/x.JPG", "final/x.jpg")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path, source_glob=globs[0], target_glob=globs[1])
    assert part in f"{caught.value}\n{caught.value.hint}"


def test_a_glob_in_another_spelling(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    make(tmp_path, f"{decomposed}/x.png", "out/x.png")
    for glob in (f"{composed}/*", f"{decomposed}/*", f"{composed}\\*", f".\\{composed}\\*.png"):
        assert len(find(tmp_path, source_glob=glob, target_glob="out/*").pairs) == 1
