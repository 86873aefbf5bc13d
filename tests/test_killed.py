"""A run of `umt5` that is killed: nothing lost, nothing wrong, nothing left behind."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from chronoprep.config import Settings, UMT5Settings
from chronoprep.files import file_names
from chronoprep.workflows import embed_prompts

# A server that has imported everything forks each run in a moment, so that kills hit the work.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["transformers.models.umt5.modeling_umt5", "polars", "chronoprep.workflows", "test_killed"]
)


def embed(path: Path, model: Path, last: int | None) -> None:
    """A run; it is killed in the moment in which the `last`-th file has its name."""
    torch.set_num_threads(1)
    if last is not None:
        rename, number = Path.replace, itertools.count(1)

        def renamed(self: Path, target: Path) -> Path:
            result = rename(self, target)
            if next(number) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Path.replace = renamed  # type: ignore[assignment,method-assign]
    embed_prompts(
        path, Settings(umt5=UMT5Settings(model=str(model), device="cpu", batch_tokens=512))
    )


def started(path: Path, model: Path, last: int | None = None) -> ForkServerProcess:
    process = SERVER.Process(target=embed, args=(path, model, last))
    process.start()
    return process


def finished(path: Path, model: Path) -> None:
    """A run that nobody disturbs."""
    process = started(path, model)
    process.join(120)
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
    finished(calm / "metadata.csv", tiny_umt5)
    wanted = [pickle.loads((calm / "umt5" / f"k{n}.pkl").read_bytes()) for n in range(rows)]

    path = folder / "metadata.csv"
    partial = 0
    for number in range(1, kills + 1):
        if not folder.exists():
            folder.mkdir()
            shutil.copy(fresh, path)
        with watched(path, rows) as wrong:
            process = started(path, tiny_umt5, None if random_moments else rows // 10 + number)
            if random_moments:
                # By progress and not by the clock: a slow machine is hit at the same places.
                target = chance.randint(0, rows)
                while process.is_alive() and written(folder) < target:
                    time.sleep(0.001)
                process.join(chance.choice([0, 0, chance.uniform(0, 0.1)]))
                process.kill()
            process.join(120)
            partial += 0 < written(folder) < rows
            ends = random_moments or number == kills
            if ends:
                finished(path, tiny_umt5)
        assert not wrong
        if ends:
            assert [row[-1] for row in table(path)[1:]] == [f"umt5/k{n}.pkl" for n in range(rows)]
            for n, tensor in enumerate(wanted):
                found = pickle.loads((folder / "umt5" / f"k{n}.pkl").read_bytes())
                torch.testing.assert_close(found, tensor, rtol=0.05, atol=0.05)
            left = [name for _, _, names in os.walk(folder) for name in names]
            assert not [name for name in left if "tmp" in name]
            assert len(left) == rows + 3, "the index, the table and the lock"
            shutil.rmtree(folder)
    assert partial, "some kills hit the work"
