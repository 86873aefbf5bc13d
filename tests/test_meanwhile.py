"""What happens to a dataset while a run is at work on it; what lies in the place of its files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chronoprep.config import LabelSettings, Settings
from chronoprep.dataset import Dataset
from chronoprep.errors import BackendError
from chronoprep.workflows import build_csv, embed_prompts, prepare, write_videos
from conftest import Result, text_of, write_pairs

Run = Callable[..., Result]
FIXED = Settings(labels=LabelSettings(prompt="Add a hat."))


def cells(table: Path, column: str) -> dict[str, str]:
    with table.open(encoding="utf-8") as file:
        return {row["key"]: row[column] for row in csv.DictReader(file)}


class Meddler:
    """A reporter that does something once, when a stage begins or has done its first item."""

    def __init__(self, stage: str, act: Callable[[], object], *, after: int = 0) -> None:
        self.stage, self.act, self.left = stage, act, after
        self.now = ""

    def start(self, what: str, _: int) -> None:
        self.now = what
        self._look()

    def advance(self, _: str) -> None:
        self.left -= self.now == self.stage
        self._look()

    def say(self, message: str) -> None: ...

    def _look(self) -> None:
        if self.now == self.stage and self.left <= 0 and self.act is not None:
            act, self.act = self.act, None  # type: ignore[assignment]
            act()


@pytest.mark.parametrize("stage", ["labels", "videos"])
@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_a_dataset_that_is_moved_under_a_run_stops_it(stage: str, how: str) -> None:
    write_pairs(Path("pairs"), ["a", "b", "c"])
    folder = Path("data")
    if stage == "videos":
        prepare(folder, FIXED, pairs=Path("pairs"))
        for video in folder.glob("videos/*"):
            video.unlink()

    def meddle() -> None:
        if how == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename("elsewhere")
        if how == "replaced":
            folder.mkdir()

    with pytest.raises(BackendError, match=r"moved or removed|can't write"):
        prepare(folder, FIXED, pairs=Path("pairs"), reporter=Meddler(stage, meddle))
    # Nothing has come into being at the old place.
    assert not folder.exists() or not any(p for p in folder.rglob("*") if p.is_file())
    if how == "removed":
        return
    shutil.rmtree(folder, ignore_errors=True)
    Path("elsewhere").rename(folder)
    done = prepare(folder, FIXED, pairs=Path("pairs"))
    assert done[-1].done == 3, done


def test_an_edit_during_a_run_is_taken_over() -> None:
    write_pairs(Path("pairs"), ["a", "b", "c"])
    folder = Path("data")
    prepare(folder, FIXED, pairs=Path("pairs"))
    table = folder / "metadata.csv"

    def edit() -> None:
        text = table.read_text("utf-8")
        rows = [line for line in text.splitlines(keepends=True) if not line.startswith('"c"')]
        table.write_text("".join(rows).replace("Add a hat.", "Add a red hat.", 1), "utf-8")

    for video in folder.glob("videos/a.*"):
        video.unlink()
    done = write_videos(folder, FIXED, reporter=Meddler("videos", edit))
    assert done[-1].failed == 0
    done = build_csv(folder, FIXED)
    assert text_of(folder, "a") == (None, "Add a red hat.")
    assert cells(table, "prompt") == {"a": "Add a red hat.", "b": "Add a hat."}
    assert any("taken over" in note for summary in done for note in summary.notes)


def test_an_edit_while_prompts_are_embedded_stays(tiny_umt5: Path) -> None:
    write_pairs(Path("pairs"), ["a", "b"])
    folder, table = Path("data"), Path("data/metadata.csv")
    settings = FIXED.model_copy(
        update={"umt5": FIXED.umt5.model_copy(update={"model": str(tiny_umt5)})}
    )
    prepare(folder, settings, pairs=Path("pairs"))

    def edit() -> None:
        text = table.read_text("utf-8")
        table.write_text(text.replace("Add a hat.", "Add a green hat.", 1), "utf-8")

    embed_prompts(folder, settings, reporter=Meddler("embeddings", edit))
    assert cells(table, "prompt")["a"] == "Add a green hat."
    # What was embedded is not what stands there now.
    assert cells(table, "umt5") == {"a": "", "b": "umt5/b.pkl"}
    embed_prompts(folder, settings)
    assert cells(table, "umt5") == {"a": "umt5/a.pkl", "b": "umt5/b.pkl"}


def test_a_linked_table_stays_a_link_and_a_read_only_one_is_left(run: Run) -> None:
    write_pairs(Path("pairs"), ["a"])
    command = ("prepare", "pairs", "-d", "data", "--prompt")
    assert run(*command, "One.").code == 0
    table = Path("data/metadata.csv")
    table.rename("shared.csv")
    table.symlink_to(Path("shared.csv").absolute())
    assert run(*command, "Two.").code == 0
    assert table.is_symlink()
    assert "Two." in Path("shared.csv").read_text("utf-8")

    Path("shared.csv").chmod(0o444)
    before = Path("shared.csv").read_bytes()
    result = run(*command, "Three.")
    assert result.code == 1
    assert "read-only" in result.stderr
    assert "permissions" in result.stderr
    assert Path("shared.csv").read_bytes() == before
    assert text_of("data", "a") == (None, "Three.")


@pytest.mark.parametrize("name", ["labels.jsonl", "pairs.parquet"])
@pytest.mark.parametrize("what", ["folder", "loop", "pipe"])
def test_what_is_no_file_in_the_place_of_one_is_named(name: str, what: str, run: Run) -> None:
    write_pairs(Path("pairs"), ["a"])
    assert run("prepare", "pairs", "-d", "data", "--prompt", "One.").code == 0
    path = Path("data", name)
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    result = run("build-csv", "-d", "data")
    assert result.code in (1, 2)
    assert name in result.stderr
    assert "Traceback" not in result.stderr


def test_a_nul_in_a_journal_is_refused_by_its_line(run: Run) -> None:
    write_pairs(Path("pairs"), ["a"])
    assert run("prepare", "pairs", "-d", "data", "--prompt", "One.").code == 0
    journal = Path("data/labels.jsonl")
    lines = journal.read_text("utf-8").splitlines()
    label = json.loads(next(line for line in lines if '"label"' in line))
    label["caption_cot"] = "Two\0three."
    journal.write_text("\n".join([*lines, json.dumps(label)]) + "\n", "utf-8")
    result = run("build-csv", "-d", "data")
    assert result.code == 1
    assert f"labels.jsonl:{len(lines) + 1}: " in result.stdout
    assert "caption_cot" in result.stdout
    assert text_of("data", "a") == (None, "One.")


def test_a_nul_in_a_brought_prompt_fails_its_pair(run: Run) -> None:
    write_pairs(Path("pairs"), ["a", "b"])
    rows = [
        {"key": key, "source": f"pairs/input/{key}.png", "target": f"pairs/output/{key}.png",
         "prompt": prompt}
        for key, prompt in (("a", "Add a\0hat."), ("b", "Add a hat."))
    ]  # fmt: skip
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    result = run("prepare", "pairs.jsonl", "-d", "data")
    assert result.code == 1
    assert "NUL" in result.stdout + result.stderr
    assert cells(Path("data/metadata.csv"), "prompt") == {"b": "Add a hat."}


def test_a_file_of_another_size_than_written_stands_in_no_row(run: Run, tiny_umt5: Path) -> None:
    write_pairs(Path("pairs"), ["a", "b", "c"])
    command = ("prepare", "pairs", "-d", "data", "--prompt", "One.", "--umt5",
               "--umt5-model", tiny_umt5)  # fmt: skip
    assert run(*command).code == 0
    for name in ("videos/a.mp4", "umt5/b.pkl"):
        path = Path("data", name)
        data = path.read_bytes()
        path.unlink()  # equal prompts share a file
        path.write_bytes(data[:-5])
    result = run("build-csv", "-d", "data")
    assert result.code == 0
    assert "1 whose video was damaged" in result.stdout
    table = Path("data/metadata.csv")
    assert cells(table, "umt5") == {"b": "", "c": "umt5/c.pkl"}
    assert run(*command).code == 0  # and the next run makes them anew
    assert cells(table, "umt5") == {key: f"umt5/{key}.pkl" for key in "abc"}


def test_a_group_shares_a_dataset() -> None:
    before = os.umask(0o002)
    try:
        with Dataset(Path("data")).locked():
            pass
    finally:
        os.umask(before)
    assert Path("data/.chronoprep.lock").stat().st_mode & 0o777 == 0o664
