"""Ray against this process, on the same cores: the packaged model labels the same pairs in both.

Run: python benchmarks/engines.py [--pairs 400] [--rounds 3]

Each run is a process of its own. What counts is the time from the first label to the last, for the
labels behind the first ones: starting Ray, and loading the model, are told beside it. The texts of
both have to be equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chronoprep.config import Settings
from chronoprep.data import Status
from chronoprep.dataset import Dataset
from chronoprep.workflows import caption_pairs, write_synthetic

ENGINES = ("local", "ray")


class Clock:
    """A reporter that notes when each label came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, what: str, total: int) -> None: ...

    def advance(self, status: Status) -> None:  # noqa: ARG002
        self.times.append(time.perf_counter())

    def say(self, message: str) -> None: ...


def run(engine: str, pairs: Path, data: Path) -> None:
    """Label; print the seconds to the first label, and a second's labels from there on."""
    began, clock = time.perf_counter(), Clock()
    settings = Settings.model_validate({"vlm": {"model": "shapes"}, "run": {"engine": engine}})
    caption_pairs(data, settings, pairs=pairs, with_cot=True, reporter=clock)
    first, last = clock.times[0], clock.times[-1]
    behind = sum(moment > first + 0.05 for moment in clock.times)  # what came at once is one batch
    print(json.dumps({"start": first - began, "rate": behind / (last - first)}))


def texts(data: Path) -> dict[str, tuple[str | None, str | None]]:
    journal = Dataset(data).journal
    return {key: tuple(journal.state(key).text) for key in journal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, metavar=("ENGINE", "PAIRS", "DATA"))
    options = parser.parse_args()
    if options.run:
        run(options.run[0], *map(Path, options.run[1:]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "pairs", options.pairs, seed=5, size=64)
        ratios = []
        print(f"{'engine':8} {'first label (s)':>16} {'labels/s':>9}")
        for number in range(options.rounds):
            rates = []
            for engine in ENGINES[:: -1 if number % 2 else 1]:
                data = folder / f"{engine}-{number}"
                command = (sys.executable, __file__, "--run", engine, folder / "pairs", data)
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                told = json.loads(done.stdout.splitlines()[-1])
                print(f"{engine:8} {told['start']:16.1f} {told['rate']:9.2f}", flush=True)
                rates.append((engine, told["rate"]))
            by_engine = dict(rates)
            ratios.append(by_engine["local"] / by_engine["ray"])
            assert texts(folder / f"local-{number}") == texts(folder / f"ray-{number}")
        print(f"Ray takes {statistics.median(ratios):.2f} × the time (median; the texts are equal)")


if __name__ == "__main__":
    main()
