"""How long `chronoprep --help` takes, against `python -c pass` in the same run.

Run: python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "chronoprep --help": [str(Path(sys.executable).parent / "chronoprep"), "--help"],
        "chronoprep prepare --help": [
            str(Path(sys.executable).parent / "chronoprep"),
            "prepare",
            "--help",
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)  # the first run reads the files from disk
    for _ in range(5):
        for name, command in commands.items():
            times[name].append(seconds(command))
    base = statistics.median(times["python -c pass"])
    print(f"{'command':28} {'median s':>9} {'min':>7} {'max':>7} {'ratio':>7}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:28} {middle:9.3f} {min(values):7.3f} {max(values):7.3f} {middle / base:7.1f}")


if __name__ == "__main__":
    main()
