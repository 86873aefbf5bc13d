"""Shards: parts of the pairs, each a dataset of its own, and what they come to together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoprep.dataset import Dataset
from chronoprep.dataset.shards import Shard
from conftest import Model, Result, photo, text_of, write_pairs

Run = Callable[..., Result]
NAMES = [f"picture {n:02}" for n in range(12)]


def files(folder: Path) -> dict[str, bytes]:
    """All that a trainer gets of a dataset."""
    found = [folder / "metadata.csv", *(folder / "videos").iterdir(), *(folder / "umt5").glob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def known(folder: Path) -> list[str]:
    """The keys of a dataset's pairs."""
    return Dataset(folder).index.keys()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", NAMES, (32, 24))


def shard(
    run: Run, command: str, i: int, n: int = 4, *more: object, pairs: object = "pairs"
) -> Any:
    """Run one shard; its folder."""
    where = (pairs, "-d", "data") if command != "umt5" else ("data",)
    done = run(command, *where, "--shard", f"{i}/{n}", *more)
    assert done.code == 0, done.stderr
    return Path("data/shards") / f"{i:05}-of-{n:05}"


@pytest.mark.usefixtures("model", "pairs")
def test_shards_put_together_are_what_one_run_makes(run: Run, tiny_umt5: Path) -> None:
    embeds = ("--umt5", "--umt5-model", tiny_umt5)
    assert run("prepare", "pairs", "-d", "whole", *embeds).code == 0
    keys: list[str] = []
    for i in (2, 0, 3, 1):  # as a scheduler likes
        part = shard(run, "prepare", i, 4, *embeds)
        keys += known(part)
        assert all(Shard(4, i).holds(key) for key in known(part))
    assert sorted(keys) == sorted(NAMES)
    done = run("merge", "data", "--json")
    assert done.code == 0
    wanted = files(Path("whole"))
    assert files(Path("data")) == wanted
    assert len(wanted) == 1 + 2 * len(NAMES)
    assert {key: text_of("data", key) for key in NAMES} == {
        key: text_of("whole", key) for key in NAMES
    }
    assert known(Path("data")) == known(Path("whole"))
    assert Path("data/videos/picture 00.mp4").stat().st_nlink == 2, "no file is there twice"
    assert not list(Path("data").rglob("*.tmp"))

    # It is a dataset as any other, and nothing is left to do for it.
    again = run("prepare", "data", *embeds, "--json")
    assert again.code == 0
    stages = json.loads(again.stdout)
    assert [(stage["done"], stage["failed"]) for stage in stages if stage["what"] == "labels"] == [
        (0, 0)
    ]
    assert files(Path("data")) == wanted
    lines = Path("data/labels.jsonl").read_bytes()
    assert run("merge", "data").code == 0
    assert Path("data/labels.jsonl").read_bytes() == lines, "what it has is not taken again"


@pytest.mark.usefixtures("pairs")
def test_what_is_missing_doubled_or_unfinished_is_named(run: Run, model: Model) -> None:
    for i in (0, 1, 3):
        shard(run, "prepare", i)
    without = run("merge", "data")
    assert without.code == 1
    assert "1 of 4 shards are missing: 2/4" in without.stderr
    assert not Path("data/metadata.csv").exists()
    partial = run("merge", "data", "--partial", "--json")
    assert partial.code == 0
    assert len(known(Path("data"))) < len(NAMES)

    place = shard(run, "prepare", 2)
    note = json.loads((place / "shard.json").read_text())
    (place / "shard.json").write_text(json.dumps({**note, "finished": False}))
    killed = run("merge", "data")
    assert killed.code == 1
    assert "1 of 4 shards have not come to their end: 2/4" in killed.stderr
    (place / "shard.json").write_text(json.dumps(note))

    elsewhere = Path("elsewhere") / place.name
    shutil.copytree(place, elsewhere)
    twice = run("merge", "data", *Path("data/shards").iterdir(), elsewhere)
    assert twice.code == 1
    assert "Shard 2/4 is there twice" in twice.stderr

    shutil.move(place, "kept")
    shutil.copytree("data/shards/00001-of-00004", place)
    wrong = run("merge", "data")
    assert wrong.code == 1
    assert "belong to other shards" in wrong.stderr
    shutil.rmtree(place)
    assert run("merge", "data", *Path("data/shards").iterdir(), elsewhere).code == 0
    assert sorted(known(Path("data"))) == sorted(NAMES)
    assert model.calls["caption"] == len(NAMES)

    shutil.move("kept", place)
    shard(run, "prepare", 0, 2)
    several = run("merge", "data")
    assert several.code == 1
    assert "of 2 and of 4" in several.stderr


@pytest.mark.usefixtures("model")
def test_shards_of_other_pairs_are_refused(run: Run, pairs: Path) -> None:
    shard(run, "prepare", 0, 2)
    for side in ("input", "output"):
        photo(99).save(pairs / side / "late.png")
    shard(run, "prepare", 1, 2)
    other = run("merge", "data")
    assert other.code == 1
    assert "not of the same pairs. There were 12 in 0/2; 13 in 1/2" in other.stderr
    shard(run, "prepare", 0, 2)
    assert run("merge", "data").code == 0

    # A pair that is gone leaves the dataset, as it does without shards.
    for side in ("input", "output"):
        (pairs / side / "late.png").unlink()
    for i in (0, 1):
        shard(run, "prepare", i, 2)
    assert run("merge", "data").code == 0
    assert "late" not in known(Path("data"))
    assert '"late"' not in Path("data/metadata.csv").read_text()


@pytest.mark.usefixtures("pairs")
def test_shards_made_in_different_ways_are_refused(run: Run, model: Model) -> None:
    shard(run, "caption", 0, 2)
    shard(run, "caption", 1, 2, "--max-resolution", 64)
    other = run("merge", "data")
    assert other.code == 1
    assert "max_resolution is 1080 in 0/2; 64 in 1/2" in other.stderr
    assert "same settings" in other.stderr
    assert not Path("data/labels.jsonl").exists()
    assert run("merge", "data", "--partial").code == 0
    shard(run, "caption", 1, 2)
    assert run("merge", "data").code == 0
    assert model.calls["caption"] == len(NAMES) + len(known(Path("data/shards/00001-of-00002")))


@pytest.mark.usefixtures("pairs")
def test_shards_begin_with_what_the_dataset_knows(run: Run, model: Model) -> None:
    """A dataset that was begun in one piece goes on in shards, stage by stage."""
    assert run("caption", "pairs", "-d", "data", "--limit", "5").code == 0
    assert model.calls == {"caption": 5, "cot": 0}
    for i in (0, 1):
        shard(run, "prepare", i, 2)
    assert model.calls == {"caption": len(NAMES), "cot": len(NAMES)}
    assert run("merge", "data").code == 0
    assert len(Path("data/metadata.csv").read_text().splitlines()) == 1 + len(NAMES)

    # Without PAIRS: the dataset knows them.
    shutil.rmtree("data/shards")
    Image.open("pairs/input/picture 03.png").transpose(Image.Transpose.ROTATE_180).save(
        "pairs/input/picture 03.png"
    )
    for i in (0, 1, 2):
        assert run("prepare", "data", "--shard", f"{i}/3").code == 0
    assert model.calls == {"caption": len(NAMES) + 1, "cot": len(NAMES) + 1}, "one was stale"
    assert run("merge", "data").code == 0
    frames = Path("data/videos/picture 03.mp4").read_bytes()
    part = next(Path("data/shards").glob("*/videos/picture 03.mp4"))
    assert part.read_bytes() == frames


@pytest.mark.usefixtures("model", "pairs")
def test_a_human_is_heard_in_shards_and_in_the_whole(run: Run) -> None:
    places = [shard(run, "prepare", i, 2) for i in (0, 1)]
    table = places[0] / "metadata.csv"
    key = known(places[0])[0]
    prompt = text_of(places[0], key)[1]
    assert prompt is not None
    table.write_text(table.read_text().replace(prompt, "Words of a human.", 1))
    assert run("merge", "data").code == 0
    assert "Words of a human." in Path("data/metadata.csv").read_text()
    whole = Path("data/metadata.csv")
    whole.write_text(whole.read_text().replace("Words of a human.", "Better words."))
    assert run("merge", "data").code == 0
    assert "Better words." in whole.read_text()


@pytest.mark.usefixtures("model", "pairs")
def test_more_shards_than_pairs(run: Run) -> None:
    for i in range(30):
        if Shard(30, i).place(Path("data")).exists():
            continue
        shard(run, "build-csv", i, 30, "--prompt", "Remove the noise.")
    assert run("merge", "data").code == 0
    assert run("build-csv", "pairs", "-d", "whole", "--prompt", "Remove the noise.").code == 0
    assert files(Path("data")) == files(Path("whole"))


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "1/0", "1/2/3"])
def test_what_is_no_shard(text: str, run: Run) -> None:
    wrong = run("prepare", "pairs", "-d", "data", f"--shard={text}")
    assert wrong.code == 2
    assert "a shard is i/n" in wrong.stderr


def test_merge_says_where_shards_come_from(run: Run, tmp_path: Path) -> None:
    none = run("merge", tmp_path)
    assert none.code == 2
    assert "--shard 0/4" in none.stderr
    other = run("merge", tmp_path, tmp_path)
    assert other.code == 2
    assert "not the folder of a shard" in other.stderr
