"""Faults of the machine, in their numbers: kills at random moments, disks of every size, disks that
may not be written, clocks that jump. What was done before is kept, nothing half written is left,
and the next run comes to what an undisturbed one comes to."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import psutil
import pytest
import torch

from chronoprep.workflows import write_synthetic
from conftest import HANGS
from test_killed import SERVER, is_clean

pytestmark = pytest.mark.faults

KILLS, SIZES = 200, 20
_SHARD = ("--shard", "1/2")


def clock_at(year: int) -> None:
    """Let the clock of this process stand in a year."""
    moment = time.mktime((year, 1, 1, 0, 0, 0, 0, 0, 0))
    time.time = lambda: moment


def locks_fail(number: int) -> None:
    """Let a lock of this process meet an error, as on a file system that knows no locks."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


def prepare(
    pairs: Path,
    folder: Path,
    models: tuple[Path, Path],
    odd: Callable[[], None] | None,
    *more: str,
) -> None:
    """A run of `prepare --umt5`, as the command line does it."""
    from chronoprep.cli import app

    torch.set_num_threads(1)
    log = os.open(pairs.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    if odd is not None:
        odd()
    # What a model of random weights says is refused by the guard.
    app(["prepare", str(pairs), "-d", str(folder), "--model", str(models[0]), "--no-guard",
         "--max-new-tokens", "8", "--batch-size", "2", "--dtype", "float32", "-q",
         "--umt5", "--umt5-model", str(models[1]), *more])  # fmt: skip


class Running:
    """Runs of `prepare` over the same pairs.

    Attributes:
        wanted: All that an undisturbed run leaves for a trainer, byte for byte.
        seconds: Of processor time that it takes, however busy the machine is.
    """

    def __init__(self, pairs: Path, models: tuple[Path, Path], calm: Path) -> None:
        self.pairs, self.models = pairs, models
        # What is imported once does not count.
        assert self.started(calm).wait() == 0, self.said()
        shutil.rmtree(calm)
        run = self.started(calm)
        self.seconds = run.wait_busy(math.inf)
        assert run.wait() == 0, self.said()
        self.wanted = files(calm)

    def started(self, folder: Path, *more: str, odd: Callable[[], None] | None = None) -> One:
        return One(
            SERVER.Process(target=prepare, args=(self.pairs, folder, self.models, odd, *more))
        )

    def said(self) -> str:
        """What the runs since the last look printed."""
        log = self.pairs.parent / "log"
        text = log.read_text()
        log.write_text("")
        return text


class One:
    """A run in a process of its own."""

    def __init__(self, process: object) -> None:
        self.process = process
        process.start()  # type: ignore[attr-defined]

    def wait(self, seconds: float = HANGS) -> int | None:
        """Its exit code; None where it still runs."""
        self.process.join(seconds)  # type: ignore[attr-defined]
        return self.process.exitcode  # type: ignore[attr-defined,no-any-return]

    def wait_busy(self, seconds: float) -> float:
        """Wait until it has had so many seconds of processor time or ends; how many it had."""
        had = 0.0
        while self.process.is_alive() and had < seconds:  # type: ignore[attr-defined]
            with suppress(psutil.NoSuchProcess):  # it has just ended
                times = psutil.Process(self.process.pid).cpu_times()  # type: ignore[attr-defined]
                had = times.user + times.system
            time.sleep(0.002)
        return had

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            if self.process.is_alive():  # type: ignore[attr-defined]
                os.kill(self.process.pid, number)  # type: ignore[attr-defined]


def files(folder: Path) -> dict[str, bytes]:
    found = [folder / "metadata.csv", *(folder / "videos").iterdir(), *(folder / "umt5").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path], tiny_umt5: Path
) -> Running:
    folder = tmp_path_factory.mktemp("faults")
    write_synthetic(folder / "pairs", 8, seed=3, size=64)
    running = Running(folder / "pairs", (tiny("qwen3_vl"), tiny_umt5), folder / "calm")
    assert len(running.wanted) > 10
    return running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, which can be made larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems can't be mounted here: run it in `unshare --user --map-root-user "
                    "--mount`")  # fmt: skip
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def reached(folder: Path) -> str:
    """How far a run has come."""
    names = ("pairs.parquet", "labels.jsonl", "videos", "metadata.csv", "umt5")
    there = [name for name in names if (folder / name).exists()]
    return there[-1] if there else "nothing"


def test_kills_at_random_moments(running: Running, tmp_path: Path) -> None:
    """Kill −9, each followed by a run that ends; a part of them in a shard, then put together."""
    chance = random.Random(0)
    stages: Counter[str] = Counter()
    for number in count():
        if stages.total() == KILLS:
            break
        folder = tmp_path / str(number)
        more = _SHARD if number % 10 == 0 else ()
        place = folder / "shards/00001-of-00002" if more else folder
        run = running.started(folder, *more)
        run.wait_busy(chance.uniform(0, running.seconds))
        run.send(signal.SIGKILL)
        if run.wait() == -signal.SIGKILL:  # and was not done before
            stages[reached(place)] += 1
        assert running.started(folder, *more).wait() == 0, number
        if more:
            assert running.started(folder, "--shard", "0/2").wait() == 0
            subprocess.run(
                [sys.executable, "-m", "chronoprep", "merge", folder],
                check=True,
                capture_output=True,
            )
        assert files(folder) == running.wanted, number
        assert is_clean(folder), number
        shutil.rmtree(folder)
    print(f"{KILLS} of {number} runs were killed: {dict(stages)}")  # noqa: T201
    assert len(stages) > 3, "kills hit every stage"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_at_random_moments(number: int, running: Running, tmp_path: Path) -> None:
    chance = random.Random(number)
    for at in range(10):
        folder = tmp_path / str(at)
        run = running.started(folder)
        run.wait_busy(chance.uniform(0, running.seconds))
        run.send(number)
        run.wait()
        assert is_clean(folder)
        assert running.started(folder).wait() == 0
        assert files(folder) == running.wanted
        assert is_clean(folder)


def test_disks_that_are_full_at_twenty_sizes(running: Running, disk: Path) -> None:
    """From a disk that holds nothing to one that holds nearly all."""
    needed = sum(map(len, running.wanted.values())) // 1024
    stages: Counter[str] = Counter()
    for number in range(SIZES):
        remount(disk, f"size={max(4, number * needed // SIZES)}k")
        folder = disk / "data"
        code = running.started(folder).wait()
        stages[reached(folder)] += code == 1
        assert is_clean(disk), number
        remount(disk, "size=64m")
        assert running.started(folder).wait() == 0, number
        assert files(folder) == running.wanted, number
        assert is_clean(disk), number
        shutil.rmtree(folder)
    print(f"{stages.total()} of {SIZES} disks were too small: {dict(stages)}")  # noqa: T201
    assert stages.total() > SIZES // 2


def test_a_disk_that_turns_read_only(running: Running, disk: Path) -> None:
    remount(disk, "size=64m")
    folder = disk / "data"
    run = running.started(folder)
    while not (folder / "videos").exists():
        assert run.wait(0.001) is None
    run.send(signal.SIGSTOP)
    for _ in range(100):  # a file that is open keeps it writable
        done = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True)
        if done.returncode == 0:
            break
        run.send(signal.SIGCONT)
        run.wait(0.003)
        run.send(signal.SIGSTOP)
    run.send(signal.SIGCONT)
    code = run.wait()
    remount(disk, "rw")
    assert code in (0, 1)
    assert running.started(folder).wait() == 0
    assert files(folder) == running.wanted
    assert is_clean(disk)


def test_clocks_that_jump(running: Running, tmp_path: Path) -> None:
    """Runs of the future and of the past, each killed and gone on with at another time."""
    folder = tmp_path / "data"
    chance = random.Random(1)
    for year in (2050, 1990, 2030, 2001):
        run = running.started(folder, odd=partial(clock_at, year))
        run.wait_busy(chance.uniform(0.3, 1) * running.seconds)
        run.send(signal.SIGKILL)
        run.wait()
    assert running.started(folder, odd=partial(clock_at, 1995)).wait() == 0
    assert files(folder) == running.wanted
    assert is_clean(folder)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_locks_that_fail(number: int, running: Running, tmp_path: Path) -> None:
    """As on NFS without its lock service: the run says so and writes nothing."""
    folder = tmp_path / "data"
    running.said()
    assert running.started(folder, odd=partial(locks_fail, number)).wait() == 1
    said = " ".join(running.said().split())
    assert os.strerror(number) in said
    assert "Traceback" not in said
    assert ("without `nolock`" in said) == (number != errno.EIO)
    assert [path.name for path in folder.iterdir()] == [".chronoprep.lock"]
    assert running.started(folder).wait() == 0
    assert files(folder) == running.wanted
