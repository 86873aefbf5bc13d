"""Pixels in flight are bounded, not pairs."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.images import room as rooms
from chronoprep.images.load import load_pair
from chronoprep.images.room import claim, room
from conftest import write_pairs


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_MOST", 100)


def test_pictures_wait_until_there_is_room() -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def work(pixels: int) -> None:
        with room():
            claim(pixels)
            with lock:
                held[0] += pixels
                most[0] = max(most[0], held[0])
            for _ in range(100):
                pass
            with lock:
                held[0] -= pixels

    sizes = [10, 30, 60, 90, 100] * 40
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, sizes))
    assert 0 < most[0] <= 100
    assert rooms._in_use == 0


def test_one_larger_than_all_of_it_goes_alone_and_a_pair_never_waits_for_itself() -> None:
    with room():
        claim(1000)
        with room():  # of the second picture of a pair
            claim(1000)
        assert rooms._in_use == 2000
        waiting = threading.Thread(target=lambda: work_alone())
        started, done = threading.Event(), threading.Event()

        def work_alone() -> None:
            started.set()
            with room():
                claim(1)
                done.set()

        waiting.start()
        started.wait()
        assert not done.is_set()
    waiting.join()
    assert done.is_set()
    assert rooms._in_use == 0


def test_outside_of_a_room_nothing_is_counted() -> None:
    claim(10**9)
    assert rooms._in_use == 0


def test_room_is_given_back_where_a_picture_is_damaged(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, ["a"])
    broken = folder / "output/a.png"
    broken.write_bytes(broken.read_bytes()[:-3000])
    with ThreadPoolExecutor(2) as pool:
        for outcome in [pool.submit(load_both, folder) for _ in range(6)]:
            with pytest.raises(Exception, match="damaged"):
                outcome.result()
    assert rooms._in_use == 0


def load_both(folder: Path) -> object:
    files = (str(folder / side / "a.png") for side in ("input", "output"))
    return load_pair(Pair("a", *files), ImageSettings())


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "chronoprep", *sys.argv[1:]], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*arguments: object) -> int:
    """The most memory of a run, in kB."""
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts in kB there")
def test_four_pairs_of_large_pictures_take_little_more_memory_than_one(tmp_path: Path) -> None:
    for count in (1, 4):
        for number in range(count):
            for side in ("input", "output"):
                path = tmp_path / f"{count}" / side / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                colour = (number * 20, 100, 200 if side == "input" else 50)
                Image.new("RGB", (10_000, 10_000), colour).save(path)
    for command, rest in (("pair2video", ("-d",)), ("pairs", ("--sheet",))):
        one, four = (
            peak(command, tmp_path / f"{count}", *rest, tmp_path / f"{command}{count}.jpg")
            for count in (1, 4)
        )
        assert four < 1.25 * one
        assert one < 3_200_000
