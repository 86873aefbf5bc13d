"""Runs that are asked to stop: what is under way is finished and written down."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronoprep.dataset import Dataset
from chronoprep.files import file_names
from conftest import HANGS, label_of, write_pairs
from degenerate import COT
from odd_server import Handler, Server, said, send

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def started(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chronoprep", *(str(arg) for arg in args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=_heard,
    )  # fmt: skip


def _heard() -> None:
    """Under `nohup`, these tests would pass on that a lost terminal is ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


class Slow:
    """Answers as many requests as it is allowed to; the others wait."""

    def __init__(self, server: Server, allowed: int) -> None:
        self.allowed = threading.Semaphore(allowed)
        self.server = server
        server.answer = self.answer

    def answer(self, handler: Handler, request: dict[str, Any]) -> None:
        self.allowed.acquire()
        text = str(request["messages"][-1]["content"])
        send(handler, said(COT if "The edit that leads" in text else f"Add hat {len(text)}"))


def half_written(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names if "tmp" in name]


@pytest.mark.parametrize("name", CODES)
def test_what_is_under_way_is_finished(name: str, tmp_path: Path, server: Server) -> None:
    pairs = write_pairs(tmp_path / "pairs", [f"p{i:02}" for i in range(40)], (24, 18))
    slow = Slow(server, 9)
    data = tmp_path / "data"
    ask = ("prepare", pairs, "-d", data, "--endpoint", server.endpoint, "--concurrency", 3)
    process = started(*ask)
    wait_for(lambda: len(server.asked) >= 12, process)  # nine are answered, three wait
    process.send_signal(getattr(signal, name))
    slow.allowed.release(6)  # the three, and their second stages
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == CODES[name]
    assert "Traceback" not in said
    assert "run it again to go on" in said
    keys = list(Dataset(data).journal)
    done = [key for key in keys if label_of(data, key).caption_cot == COT]
    assert 4 <= len(done) <= 7
    assert "failure" not in (data / "labels.jsonl").read_text()
    assert not half_written(tmp_path)
    if name == "SIGTERM":
        slow.allowed.release(1000)
        again = started(*ask, "--json")
        table, _ = again.communicate(timeout=HANGS)
        assert again.returncode == 0
        labels = json.loads(table)[1]
        assert labels["skipped"] >= len(done)
        assert labels["done"] + labels["skipped"] == 40


def test_a_second_signal_ends_at_once(tmp_path: Path, server: Server) -> None:
    pairs = write_pairs(tmp_path / "pairs", [f"p{i:02}" for i in range(8)], (24, 18))
    slow = Slow(server, 0)
    ask = ("caption", pairs, "-d", tmp_path / "data", "--endpoint", server.endpoint)
    process = started(*ask)
    wait_for(lambda: bool(server.asked), process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode in (130, 143), "which of the two came first is the system's affair"
    assert "Traceback" not in said
    slow.allowed.release(100)


@pytest.mark.slow
def test_what_takes_too_long_is_given_up(tmp_path: Path, server: Server) -> None:
    pairs = write_pairs(tmp_path / "pairs", [f"p{i:02}" for i in range(8)], (24, 18))
    slow, data = Slow(server, 3), tmp_path / "data"
    ask = ("caption", pairs, "-d", data, "--endpoint", server.endpoint, "--concurrency", 1)
    process = started(*ask)
    wait_for(lambda: len(server.asked) == 4, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 143
    assert "Traceback" not in said
    assert len(list(Dataset(data).journal)) == 3
    slow.allowed.release(100)


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_embeddings_stop_and_go_on(name: str, tmp_path: Path, tiny_umt5: Path) -> None:
    table = tmp_path / "metadata.csv"
    count = 3000
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = [(f"k{i}", f"Paint door {i} red", "") for i in range(count)]
        csv.writer(file).writerows([("key", "prompt", "umt5"), *rows])
    ask = ("umt5", table, "--model", tiny_umt5, "--device", "cpu", "--batch-tokens", 32)
    process = started(*ask)
    wait_for(lambda: len(file_names(tmp_path / "umt5")) > 20, process)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == CODES[name]
    assert "Traceback" not in said
    assert "run it again to go on" in said
    assert not half_written(tmp_path)
    made = {name for name in file_names(tmp_path / "umt5") if name.endswith(".pkl")}
    known = {f"{key}.pkl" for key in Dataset(tmp_path).journal}
    assert 20 < len(made) < count
    assert made == known, "what was written is on record"


def test_a_signal_while_it_starts_is_quiet() -> None:
    for name, code in CODES.items():
        process = started("models")
        # Its modules are being read by now, which the system tells.
        maps = Path(f"/proc/{process.pid}/maps")
        if maps.exists():
            while process.poll() is None and "pydantic_core" not in maps.read_text():
                pass
        else:
            time.sleep(0.5)
        number = getattr(signal, name)
        process.send_signal(number)
        printed, said = process.communicate(timeout=HANGS)
        assert "Traceback" not in said
        # On a busy machine it had ended before: then Python dies of it plainly.
        ended = printed.endswith("or a folder.\n")
        assert process.returncode == code or (ended and process.returncode in (0, -number))
