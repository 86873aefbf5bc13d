"""Shared parts: an offline machine, real photos, tiny checkpoints and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from degenerate import COT
from odd_server import Server, running

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "200"

EXAMPLES = Path(__file__).parent.parent / "examples" / "pairs"
# Seconds after which something hangs: a slow or busy machine is waited for.
HANGS = 600

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # where nothing but models or trainers is tried
    pass
else:  # the same examples each time, however long they take
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    settings.register_profile(
        "same", derandomize=True, database=None, deadline=None, suppress_health_check=slow
    )
    settings.load_profile("same")


@dataclass
class Result:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line in this process: exit code and what a user sees."""
    from chronoprep.cli import app

    def run(*args: object) -> Result:
        capfd.readouterr()
        try:
            app([str(arg) for arg in args])
            code = 0
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in an empty folder, with no settings from outside and a cache of its own."""
    for name in list(os.environ):
        if name.startswith("CHRONOPREP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}-cache")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny checkpoint of a family, built once."""
    built: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in built:
            from tiny_checkpoints import build_vlm

            built[family] = build_vlm(tmp_path_factory.mktemp("models") / family, family)
        return built[family]

    return get


@pytest.fixture(scope="session")
def tiny_umt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_umt5 import build_umt5

    return build_umt5(tmp_path_factory.mktemp("umt5") / "tiny-umt5")


@pytest.fixture
def fault_server() -> Iterator[Callable[..., str]]:
    """Start servers of fault_server.py; each call gives an endpoint. They end with the test."""
    script = Path(__file__).parent / "fault_server.py"
    processes = []

    def start(*options: object) -> str:
        command = [sys.executable, str(script), *(str(option) for option in options)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as the test says."""
    with running() as server:
        yield server


class Model:
    """What `prepare` asks of the model in one run: chats, counted by stage."""

    def __init__(self, *, answer: Callable[[str], str] | None = None) -> None:
        self.calls = {"caption": 0, "cot": 0}
        self.answer = answer or (lambda stage: "Add a hat" if stage == "caption" else COT)

    def generate(self, chats: list, *sampling: object) -> list:  # type: ignore[type-arg]
        from test_captioning import Queue

        queue = Queue()
        for chat in chats:
            text = str(chat[-1].parts[-1])
            stage = "cot" if text.startswith("The edit that leads") else "caption"
            self.calls[stage] += 1
            queue.answers.append(self.answer(stage))
        return queue.generate(chats, *sampling)

    def close(self) -> None: ...


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], Path]) -> Model:
    """A counted stand-in behind a real checkpoint folder: what is asked is the point here."""
    from chronoprep import vlm

    counted = Model()
    monkeypatch.setattr(vlm.Model, "load", lambda _: counted)
    monkeypatch.setenv("CHRONOPREP_VLM_MODEL", str(tiny("qwen3_vl")))
    return counted


def label_of(folder: Path | str, key: str) -> Any:
    """The label of a pair that a dataset's journal ends with."""
    from chronoprep.dataset import Dataset

    return Dataset(Path(folder)).journal.state(key).label


def text_of(folder: Path | str, key: str) -> tuple[str | None, str | None]:
    """The caption and the prompt of a pair that a dataset's journal ends with."""
    from chronoprep.dataset import Dataset

    return tuple(Dataset(Path(folder)).journal.state(key).text)


def photo(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A smooth random picture, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def write_pairs(folder: Path, names: list[str], size: tuple[int, int] = (96, 72)) -> Path:
    """A folder of pairs in `input` and `output`, as PNG."""
    for number, name in enumerate(names):
        for offset, side in enumerate(("input", "output")):
            path = folder / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(2 * number + offset, size).save(path)
    return folder
