"""Nothing that was seen goes missing: every file and every row has one fate, and exceptions are
named."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronoprep.config import PairSettings
from chronoprep.errors import ConfigError
from chronoprep.pairs import Discovery, discover
from conftest import write_pairs
from test_cli import Run
from test_pairs import find, make

SYSTEM_FOLDERS = ("@eaDir", ".git", "__MACOSX", "#recycle", "Catalog Previews.lrdata")


def files_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[str]:
    """All that is no folder, by a walk of its own: links are followed, loops and folders of the
    system not."""
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        return []
    found = []
    for path in folder.iterdir():
        if not os.path.isdir(path):  # noqa: PTH112 - False of a link to itself
            found.append(str(path))
        elif not path.name.startswith(".") and path.name not in SYSTEM_FOLDERS:
            found += files_below(path, above | {place})
    return found


def require_all_named(found: Discovery, files: list[str]) -> None:
    """The numbers add up to the files on disk, and what is no pair is named."""
    tally = found.tally
    assert tally.seen == len(files), tally
    assert sum(tally.parts.values()) == tally.seen, tally
    assert all(count >= 0 for count in tally.parts.values()), tally
    assert tally.unmatched == len(found.unmatched)
    passed = (f"{p.what}: {p.why}" for p in found.passed)
    lines = [*map(str, found.unmatched), *found.ambiguous, *passed]
    named = sum(any(path in line for line in lines) for path in files)
    reported = tally.unmatched + tally.ambiguous + tally.passed
    assert named >= reported - sum(p.files for p in found.passed if p.why.endswith("of a pair"))


STEMS = ("x", "y", "x_before", "x_after", "x_after_1", "x_0", "x_1", "before", "after", "before_0",
         "after_0", "after_1", "a", "b", "original", "edited", "1", "Ünï", "readme")  # fmt: skip
ENDS = (".png", ".png", ".PNG", ".jpg", ".heic", ".txt", ".TXT", ".caption", ".json", ".png.txt",
        ".mp4", ".xyz", ".csv", ".xmp", "")  # fmt: skip
FOLDERS = ("input", "output", "masks", "sub", "x.png", *SYSTEM_FOLDERS)
ODD = ("fifo", "self", "nowhere", "up", "hidden", "Thumbs.db", "prompt.json", "lock")
WHERE = st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(FOLDERS), max_size=2))
# Each tree is a set of pairs that somebody began with, and what has come to lie in it.
BEGUN = (
    ("input/x.png", "output/x.png", "input/y.png", "output/y_1.png", "output/y_2.png"),
    ("input/sub/x.png", "output/sub/x.jpg", "input/x.png", "input/x.txt"),
    ("x_before.png", "x_after.png", "y_before.png"),
    ("before_0.png", "before_1.png", "after_0.png", "after_1.png"),
    ("sub/x_original.png", "sub/x_edited_1.png", "sub/x_edited_2.png", "y_in.png", "y_out.png"),
    ("x/before.png", "x/after.png", "y/source.png", "y/target.png"),
    ("1_0.png", "1_1.png", "2_0.png", "2_1.png", "prompt.json"),
    ("x.mp4", "sub/y.mov"),
)
TREES = st.tuples(
    st.sampled_from(BEGUN),
    st.lists(st.tuples(WHERE, st.sampled_from(STEMS), st.sampled_from(ENDS)), max_size=16),
    st.lists(st.tuples(WHERE, st.sampled_from(ODD)), max_size=4),
)
WISHES = st.sampled_from(
    [{}, {}, {}, {}, {}, {"limit": 1}, {"layout": "suffixes"}, {"layout": "pair-folders"},
     {"layout": "instructpix2pix"}, {"limit": 2},
     {"source_glob": "**/*_before.*", "target_glob": "**/*_after*.*"},
     {"regex": r"(?P<key>.*)((?P<source>before)|(?P<target>after(_(?P<edit>\d))?))\.\w+"}]
)  # fmt: skip


def grow(root: Path, begun: tuple[str, ...], names: list, odd: list) -> None:
    """A tree as it grew over years: also what is neither a file nor a folder."""
    make(root, *begun)
    for path in root.rglob("prompt.json"):
        path.write_text('{"edit": "a hat"}')
    for folders, stem, end in names:
        folder = root.joinpath(*folders)
        if not any(part.is_file() for part in (*folder.parents, folder)):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (stem + end)
            if not path.exists():
                path.write_text('{"edit": "a hat", "caption": "a hat"}' if end == ".json" else "")
    for number, (folders, kind) in enumerate(odd):
        folder = root.joinpath(*folders)
        if not folder.is_dir():
            continue
        path = folder / f"{kind}{number}.{('png', 'txt', 'xyz')[number % 3]}"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind in ("self", "nowhere", "up"):
            path.symlink_to({"self": path.name, "nowhere": "gone", "up": root}[kind])
        else:
            name = {"hidden": ".x.png", "lock": ".chronoprep.lock"}.get(kind, kind)
            if not os.path.lexists(folder / name):
                (folder / name).write_text('{"edit": "a hat"}')


def hold(tree: tuple, wish: dict, root: Path) -> bool:
    grow(root, *tree)
    try:
        found = discover(root, PairSettings(**wish))
    except ConfigError:
        return False
    require_all_named(found, files_below(root))
    return True


def _held(examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    held = 0

    @settings(max_examples=examples)
    @given(tree=TREES, wish=WISHES)
    def every(tree: tuple, wish: dict) -> None:
        nonlocal held
        held += hold(tree, wish, tmp_path_factory.mktemp("tree"))

    every()
    assert held > examples // 2, "most trees hold no pairs: the test says little"


def test_every_file_of_a_tree_has_one_fate(tmp_path_factory: pytest.TempPathFactory) -> None:
    _held(60, tmp_path_factory)


@pytest.mark.slow
def test_every_file_of_many_trees_has_one_fate(tmp_path_factory: pytest.TempPathFactory) -> None:
    _held(600, tmp_path_factory)


@pytest.mark.parametrize("packed", [False, True])
def test_each_exception_is_named_and_strict_stops_at_it(
    run: Run, tmp_path: Path, packed: bool
) -> None:
    root = write_pairs(tmp_path / "set", ["a", "b", "c"])
    assert len(find(root, strict=True).pairs) == 3
    left = ("input/lone.png", "output/y.xyz", "output/raw.CR2", "masks/m.png", "d.caption",
            "pairs.csv", "clip.mp4")  # fmt: skip
    make(root, *left, "README.md", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "input/Thumbs.db")
    make(root, "output/._a.png", ".DS_Store", "input/a.xmp", "input/.x/y.png")
    (root / "input/a.TXT").write_text("add a hat")
    (root / "output/b.png.txt").write_text("add a dog")
    (root / "c.caption").write_text("add a cat")
    where = root
    if packed:
        where = tmp_path / "set.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for path in root.rglob("*"):
                if path.is_file():
                    archive.write(path, Path("set") / path.relative_to(root))
    found = find(where)
    assert [pair.caption for pair in found.pairs] == ["add a hat", "add a dog", "add a cat"]
    parts = {name: count for name, count in found.tally.parts.items() if count}
    assert parts == {"in pairs": 6, "sidecars": 3, "unmatched": 1, "passed over": 6,
                     "of the system": 5}  # fmt: skip
    assert found.tally.seen == 21 == sum(parts.values())
    said = [*map(str, found.unmatched), *(f"{p.what}: {p.why}" for p in found.passed)]
    for name in (*left[:3], "masks/: 1 images, no side of a pair", *left[4:]):
        assert any(name in line for line in said), name
    assert "a camera's raw file" in " ".join(said)
    assert any("@eaDir (1)" in note for note in found.notes)
    with pytest.raises(ConfigError, match="7 files or rows don't become pairs"):
        find(where, strict=True)
    line = "21 files: 6 in pairs, 3 sidecars, 1 unmatched, 6 passed over, 5 of the system"
    shown = run("pairs", where)
    assert (shown.code, line in shown.stdout) == (0, True)
    assert "passed over: 6" in shown.stdout
    assert run("pairs", where, "--json").json["tally"]["seen"] == 21
    done = run("prepare", where, "-d", "data", "--prompt", "X.", "--json")
    assert done.code == 0
    assert line in done.stderr
    assert [row["done"] for row in done.json] == [3, 3, 3, 3]


def test_every_row_of_a_summary_adds_up(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", ["a", "b", "same", "bare", "broken", "bad"])
    for name in ("a", "b", "broken"):
        (tmp_path / f"set/{name}.json").write_text('{"caption_cot": "The user wants to add it."}')
    (tmp_path / "set/same.txt").write_text("no change")
    (tmp_path / "set/bad.json").write_text("[]")
    (tmp_path / "set/input/broken.png").write_bytes(b"broken")
    first = run("build-csv", "set", "-d", "data", "--json")
    assert first.code == 1
    again = run("build-csv", "set", "-d", "data", "--limit", 2, "--json")
    for result, pairs, known in ((first, 5, 5), (again, 2, 5)):
        rows = {row["what"]: row for row in result.json}
        assert rows["pairs"]["done"] == pairs
        for what, total in (("videos", pairs), ("metadata.csv", known)):
            row = rows[what]
            left = [int(note.split()[2]) for note in row["notes"] if note.startswith("left out")]
            seen = row["done"] + row["no_change"] + row["failed"] + row["skipped"]
            assert seen + sum(left) == total, row
    assert "of all 5 pairs that the dataset knows" in rows["metadata.csv"]["notes"]


def test_what_is_no_file_costs_only_itself(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{side}/{name}.png" for side in ("input", "output") for name in "abc"))
    for name in ("loop", "loop.txt", "self.png"):
        (root / "input" / name).symlink_to(name)
    (root / "input/a.txt").symlink_to("gone")
    os.mkfifo(root / "input/b.txt")
    for name in ("input/b.png", "output/c.png"):
        (root / name).unlink()
        os.mkfifo(root / name)
    found = find(root)
    assert [(pair.key, pair.caption) for pair in found.pairs] == [("a", None)]
    assert {bad.key: str(bad.error) for bad in found.bad} == {
        "b": f"{root}/input/b.png: a special file, not an image.",
        "c": f"{root}/output/c.png: a special file, not an image.",
    }
    assert found.unmatched == (root / "input/self.png",)
    assert {Path(p.what).name: p.why for p in found.passed} == {
        "loop": "a link that leads nowhere", "loop.txt": "a link that leads nowhere",
        "a.txt": "a link that leads nowhere", "b.txt": "neither a file nor a folder",
    }  # fmt: skip
    require_all_named(found, files_below(root))


def test_files_without_end_are_named_together(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "output/x.png", *(f"input/{n}.xml" for n in range(150)))
    found = find(tmp_path)
    assert [(p.what, p.files) for p in found.passed] == [
        (f"{tmp_path}/input/0.xml", 1), (f"149 more files *.xml in {tmp_path}/input/", 149)
    ]  # fmt: skip
    assert found.tally.passed == 150


def test_folders_nested_without_end(tmp_path: Path) -> None:
    make(tmp_path, "input/x.png", "output/x.png")
    folder = os.open(tmp_path / "input", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("nested", dir_fd=folder)
        inner = os.open("nested", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    found = find(tmp_path)
    assert [pair.key for pair in found.pairs] == ["x"]
    assert [p.why for p in found.passed] == ["can't be opened: File name too long"]
    inner, outer = tmp_path / "input/nested", tmp_path / "input/outer"
    while inner.exists():  # no library removes it
        inner.rename(outer)
        if (outer / "nested").exists():
            (outer / "nested").rename(inner)
        outer.rmdir()
