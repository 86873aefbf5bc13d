"""A stage is a plan, a worker and a record; and how often it opens a picture."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoprep import engine
from chronoprep.config import load_settings
from chronoprep.data import Outcome
from chronoprep.dataset import Event, Score
from chronoprep.dataset.events import text_digest
from chronoprep.errors import PairError
from chronoprep.labels.labeller import Labeller
from chronoprep.labels.recipe import LabelTask
from chronoprep.mp4 import Sample
from chronoprep.workflows import caption_pairs
from chronoprep.workflows.label import recipe_of
from chronoprep.workflows.progress import Summary
from chronoprep.workflows.stage import Run as Opened
from chronoprep.workflows.stage import failure, opened
from chronoprep.workflows.videos import VideoTask, VideoWriter
from conftest import Model, write_pairs
from test_cli import Run


# A new stage: how bright each target is, as a score of its label.
def measure(task: Any) -> float:
    """The worker: it opens what it needs, and knows no journal."""
    with Image.open(task.target) as image:
        if image.width < 40:
            raise PairError(f"{task.target}: too small to measure.", hint="Leave the pair out.")
        return float(np.asarray(image.convert("L")).mean()) / 255


def measure_targets(run: Opened) -> Summary:
    """The plan: the pairs whose label has no such score yet."""
    states = {entry.key: run.dataset.journal.state(entry.key) for entry in run.entries}
    todo = run.entries.where(lambda entry: not states[entry.key].scores)

    def record(outcome: Outcome[float]) -> Iterator[Event]:
        """The record: an outcome as events."""
        if outcome.value is None:
            yield failure(outcome, "images")
            return
        of = text_digest(states[outcome.key].text)
        yield Score(key=outcome.key, of=of, scores={"brightness": outcome.value})

    summary = Summary("brightness", skipped=len(run.entries) - len(todo))
    return run.stage("brightness", todo, measure, record, summary=summary)


@pytest.mark.usefixtures("model")
def test_a_new_stage_is_forty_lines(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b", "c"])
    write_pairs(tmp_path / "pairs", ["small"], (20, 20))
    data = tmp_path / "data"
    caption_pairs(data, load_settings(), pairs=pairs)
    with opened(data, load_settings()) as run:
        summary = measure_targets(run)
    assert (summary.done, summary.failed) == (3, 1)
    assert "too small" in summary.failures[0][1]
    with opened(data, load_settings()) as run:
        again = measure_targets(run)
        scores = run.dataset.journal.state("b").scores
    assert (again.done, again.skipped, again.failed) == (0, 3, 1), "a failure is tried again"
    assert 0 < scores[0].scores["brightness"] < 1
    assert pickle.loads(pickle.dumps(measure)) is measure
    lines = [inspect.getsource(part).splitlines() for part in (measure, measure_targets)]
    assert sum(map(len, lines)) < 40


@pytest.fixture
def pictures_opened() -> Iterator[Callable[[], Counter[str]]]:
    """How often each picture was opened since the last call."""
    seen: Counter[str] = Counter()
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).endswith((".png", ".jpg")):
            seen[str(arguments[0])] += 1

    sys.addaudithook(hook)

    def taken() -> Counter[str]:
        copy = Counter(seen)
        seen.clear()
        return copy

    yield taken
    watching = False


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "options", [(), ("--prompt", "Do it."), ("--codec", "copy"), ("--codec", "h264")]
)
def test_a_picture_is_opened_twice_at_most_and_never_again(
    options: tuple[str, ...],
    run: Run,
    tmp_path: Path,
    pictures_opened: Callable[[], Counter[str]],
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    if "copy" in options:
        for file in pairs.glob("*/*.png"):
            with Image.open(file) as image:
                image.save(file.with_suffix(".jpg"), quality=95)
            file.unlink()
    pictures_opened()
    assert run("prepare", pairs, "-d", "data", *options).code == 0
    opened = pictures_opened()
    assert len(opened) == 4
    assert max(opened.values()) <= 2
    assert run("prepare", pairs, "-d", "data", *options).code == 0
    assert run("prepare", "data", *options).code == 0
    assert pictures_opened() == {}


def test_labels_that_the_data_brings_open_nothing_again(
    run: Run, tmp_path: Path, pictures_opened: Callable[[], Counter[str]]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    for key in "ab":
        (pairs / f"{key}.json").write_text('{"caption": "Do", "caption_cot": "The user wants it."}')
    pictures_opened()
    assert run("build-csv", pairs, "-d", "data").code == 0
    assert max(pictures_opened().values()) == 1
    assert run("build-csv", pairs, "-d", "data").code == 0
    assert run("pair2video", "data").code == 0
    assert pictures_opened() == {}


def test_a_touched_picture_is_read_once(
    run: Run, tmp_path: Path, model: Model, pictures_opened: Callable[[], Counter[str]]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    run("prepare", pairs, "-d", "data")
    for file in pairs.glob("*/a.png"):
        file.touch()
    pictures_opened()
    assert run("prepare", pairs, "-d", "data").code == 0
    assert set(pictures_opened().values()) == {1}
    assert run("prepare", pairs, "-d", "data").code == 0
    assert pictures_opened() == {}
    assert model.calls == {"caption": 2, "cot": 2}


def test_workers_travel(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    """Each is as good in another process as here: it brings all that it needs."""
    write_pairs(tmp_path / "pairs", ["a", "b"])
    chosen = load_settings({"vlm": {"model": str(tiny("qwen3_vl")), "max_new_tokens": 8}})
    refs = [(key, *(str(tmp_path / "pairs" / s / f"{key}.png") for s in ("input", "output")))
            for key in "ab"]  # fmt: skip
    labeller = Labeller(recipe_of(chosen), with_cot=False)
    tasks = [LabelTask(*ref) for ref in refs]
    here, there = (
        [outcome.value for part in engine.run(worker, tasks) for outcome in part]
        for worker in (labeller, pickle.loads(pickle.dumps(labeller)))
    )
    assert [one and one.answer for one in here] == [one and one.answer for one in there]
    writer = VideoWriter(chosen, Sample("all"))
    jobs = [VideoTask(*ref, str(tmp_path / f"{ref[0]}.mp4")) for ref in refs]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(writer, jobs))
    assert [video.content for video in made] == [writer(job).content for job in jobs]
