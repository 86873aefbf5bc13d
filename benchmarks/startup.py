"""How long `chronoprep --help` takes, and when a command says its first word.

Run: python benchmarks/startup.py [--rounds 5]

`python -c pass` is measured in the same run. Commands run on eight synthetic pairs and name a fixed
prompt or the packaged model; a first word is the first line on stdout or stderr.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

PROGRAM = [sys.executable, "-m", "chronoprep"]
HELPS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "--help": [*PROGRAM, "--help"],
    "prepare --help": [*PROGRAM, "prepare", "--help"],
}
FIRST_WORDS = (
    "pairs pairs",
    "prepare pairs -d fixed --prompt Paint.",
    "prepare pairs -d labelled --model shapes",
    "caption pairs -d labelled --model shapes",
    "pair2video pairs -d fixed",
    "build-csv -d fixed",
    "check fixed",
    "verify labelled",
    "synth 8 -o more",
    "models",
)


def whole(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_word(words: str, folder: Path) -> float:
    command = [*PROGRAM, *words.split()]
    if "synth" in command:
        command[-1] += str(time.monotonic_ns())  # it draws into an empty folder only
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - began
    process.communicate()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([*PROGRAM, "synth", "8", "-o", folder / "pairs", "-q"], check=True)
        works: dict[str, Callable[[], float]] = {
            title: partial(whole, command) for title, command in HELPS.items()
        }
        works |= {
            f"first word: {words}": partial(first_word, words, folder) for words in FIRST_WORDS
        }
        for work in works.values():
            work()  # the first run reads the files from disk
        times: dict[str, list[float]] = {title: [] for title in works}
        for _ in range(rounds):
            for title, work in works.items():
                times[title].append(work())
    base = statistics.median(times["python -c pass"])
    print(f"{'':54} {'median s':>9} {'min':>7} {'max':>7} {'ratio':>7}")
    for title, values in times.items():
        middle = statistics.median(values)
        spread = f"{min(values):7.3f} {max(values):7.3f}"
        print(f"{title:54} {middle:9.3f} {spread} {middle / base:7.1f}")


if __name__ == "__main__":
    main()
