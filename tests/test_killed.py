"""Runs that are killed: nothing lost, nothing wrong, nothing left behind."""

from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from chronoprep.config import Settings, UMT5Settings
from chronoprep.dataset import Dataset
from chronoprep.files import file_names
from chronoprep.video import read_frames
from chronoprep.workflows import embed_prompts, write_synthetic
from conftest import HANGS, text_of

# A server that has imported everything forks each run in a moment, so that kills hit the work.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "transformers.models.umt5.modeling_umt5",
        "polars",
        "chronoprep.cli.commands",
        "chronoprep.workflows",
        "chronoprep.vlm.transformers_backend",
        "test_killed",
    ]
)


def dying(last: int | None) -> None:
    """Have this process killed in the moment in which its `last`-th file has its name."""
    rename, number = Path.replace, itertools.count(1)

    def renamed(self: Path, target: Path) -> Path:
        result = rename(self, target)
        if next(number) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = renamed  # type: ignore[assignment,method-assign]


def embed(path: Path, model: Path, last: int | None) -> None:
    """A run of `umt5`."""
    torch.set_num_threads(1)
    dying(last)
    embed_prompts(
        path, Settings(umt5=UMT5Settings(model=str(model), device="cpu", batch_tokens=512))
    )


def prepare(pairs: Path, folder: Path, last: int | None) -> None:
    """A run of `prepare`, as the command line does it."""
    from chronoprep.cli import app

    torch.set_num_threads(1)
    dying(last)
    app(["prepare", str(pairs), "-d", str(folder), "--model", "shapes", "--batch-size", "2", "-q"])


def started(
    run: Callable[[Path, Path, int | None], None], one: Path, other: Path, last: int | None = None
) -> ForkServerProcess:
    process = SERVER.Process(target=run, args=(one, other, last))
    process.start()
    return process


def finished(run: Callable[[Path, Path, int | None], None], one: Path, other: Path) -> None:
    """A run that nobody disturbs."""
    process = started(run, one, other)
    process.join(HANGS)
    assert process.exitcode == 0


def written(folder: Path) -> int:
    """How many embeddings are there."""
    return len([name for name in file_names(folder / "umt5") if name.startswith("k")])


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@contextmanager
def watched(path: Path, rows: int) -> Iterator[list[str]]:
    """Read the table all the time; what is wrong with it at any moment is collected."""
    wrong: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            try:
                seen = table(path)
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                wrong.append(repr(error))
                continue
            cells = {cell for *_, cell in seen[1:]}
            whole = all(cells) or cells == {""}
            if len(seen) != rows + 1 or not whole:
                wrong.append(f"{len(seen)} lines, {len(cells)} different cells")
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("rows", "kills", "random_moments"),
    [(120, 5, False), pytest.param(500, 50, True, marks=pytest.mark.slow)],
)
def test_a_killed_run_is_finished_by_the_next(
    rows: int, kills: int, random_moments: bool, tmp_path: Path, tiny_umt5: Path
) -> None:
    """Kill −9: at random moments, each followed by a run that ends, or one after the other when
    some files more are there."""
    words = ["hat", "tree", "car", "blue", "red", "left", "person", "background", "everything"]
    chance = random.Random(0)
    prompts = [
        " ".join(chance.choices(words, k=chance.randint(3, 60))) + f" {number}"
        for number in range(rows - rows // 10)
    ]
    prompts += chance.choices(prompts, k=rows - len(prompts))  # some are equal
    fresh = tmp_path / "fresh.csv"
    with fresh.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["key", "prompt", "umt5"], *([f"k{n}", p, ""] for n, p in enumerate(prompts))]
        )
    calm, folder = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    shutil.copy(fresh, calm / "metadata.csv")
    finished(embed, calm / "metadata.csv", tiny_umt5)
    wanted = [pickle.loads((calm / "umt5" / f"k{n}.pkl").read_bytes()) for n in range(rows)]

    path = folder / "metadata.csv"
    partial = 0
    for number in range(1, kills + 1):
        if not folder.exists():
            folder.mkdir()
            shutil.copy(fresh, path)
        with watched(path, rows) as wrong:
            last = None if random_moments else rows // 10 + number
            process = started(embed, path, tiny_umt5, last)
            if random_moments:
                # By progress and not by the clock: a slow machine is hit at the same places.
                target = chance.randint(0, rows)
                while process.is_alive() and written(folder) < target:
                    time.sleep(0.001)
                process.join(chance.choice([0, 0, chance.uniform(0, 0.1)]))
                process.kill()
            process.join(HANGS)
            partial += 0 < written(folder) < rows
            ends = random_moments or number == kills
            if ends:
                finished(embed, path, tiny_umt5)
        assert not wrong
        if ends:
            assert [row[-1] for row in table(path)[1:]] == [f"umt5/k{n}.pkl" for n in range(rows)]
            for n, tensor in enumerate(wanted):
                found = pickle.loads((folder / "umt5" / f"k{n}.pkl").read_bytes())
                torch.testing.assert_close(found, tensor, rtol=0.05, atol=0.05)
            left = [name for _, _, names in os.walk(folder) for name in names]
            assert not [name for name in left if "tmp" in name]
            assert len(left) == rows + 4, "the journal, its lock, the table and the lock"
            shutil.rmtree(folder)
    assert partial, "some kills hit the work"


def content(folder: Path) -> dict[str, object]:
    """All that a trainer gets of a dataset, and the texts of its pairs."""
    keys = list(Dataset(folder).journal)
    videos = sorted((folder / "videos").iterdir())
    return {
        "table": (folder / "metadata.csv").read_bytes(),
        "texts": {key: text_of(folder, key) for key in sorted(keys)},
        "frames": {path.name: [f.tobytes() for f in read_frames(path)] for path in videos},
    }


def is_clean(folder: Path) -> bool:
    """Whether nothing half written is left."""
    return not [name for _, _, names in os.walk(folder) for name in names if "tmp" in name]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], float]:
    """Pairs, what an undisturbed run makes of them, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("calm")
    write_synthetic(folder / "pairs", 12, seed=3, size=96)
    finished(prepare, folder / "pairs", folder / "first")  # what is imported once does not count
    began = time.monotonic()
    finished(prepare, folder / "pairs", folder / "data")
    seconds = time.monotonic() - began
    wanted = content(folder / "data")
    assert wanted == content(folder / "first")
    assert len(wanted["frames"]) > 6  # type: ignore[arg-type]
    return folder / "pairs", wanted, seconds


def test_a_killed_prepare_is_finished_by_the_next(
    calm: tuple[Path, dict[str, object], float], tmp_path: Path
) -> None:
    """Kill −9, one after the other: with the index there, a video, more of them, the table."""
    pairs, wanted, _ = calm
    for last in (1, 3, 6, 1):
        process = started(prepare, pairs, tmp_path / "data", last)
        process.join(HANGS)
        assert process.exitcode == -signal.SIGKILL
    finished(prepare, pairs, tmp_path / "data")
    assert content(tmp_path / "data") == wanted
    assert is_clean(tmp_path)


@pytest.mark.slow
def test_prepare_killed_at_any_moment_is_finished_by_the_next(
    calm: tuple[Path, dict[str, object], float], tmp_path: Path
) -> None:
    pairs, wanted, seconds = calm
    chance = random.Random(0)
    stages: Counter[str] = Counter()
    for number in range(60):
        folder = tmp_path / str(number)
        process = started(prepare, pairs, folder)
        process.join(chance.uniform(0, seconds))
        process.kill()
        process.join(HANGS)
        there = [name for name in ("labels.jsonl", "videos", "metadata.csv")
                 if (folder / name).exists()]  # fmt: skip
        stages[there[-1] if there else "nothing"] += process.exitcode == -signal.SIGKILL
        finished(prepare, pairs, folder)
        assert content(folder) == wanted, number
        assert is_clean(folder), number
        shutil.rmtree(folder)
    assert stages["labels.jsonl"] + stages["videos"], f"kills hit the work: {stages}"
