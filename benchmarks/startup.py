"""How long `chronoprep --help` takes, and when each command says its first word.

Run: python benchmarks/startup.py [--rounds 5] [--only verify,report]

A first word is the first byte on stdout or stderr. Commands run on eight synthetic pairs, with the
packaged model, a tiny checkpoint or a tiny encoder. Beside the seconds stand the processor's until
then: where other programs use the machine, those are the ones to trust.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

PROGRAM = [sys.executable, "-m", "chronoprep"]
BASE = "python -c pass"
# `done` is a dataset with labels, `N` a number that no other run has.
COMMANDS = (
    "--help",
    "prepare --help",
    "",
    "pairs pairs",
    "prepare pairs -d newN --model shapes",
    "prepare pairs -d newN --prompt Paint.",
    "caption pairs -d newN --model vlm --max-new-tokens 8",
    "cot -d done --model vlm --max-new-tokens 8",
    "pair2video pairs -d newN",
    "pair2video pairs -d newN --codec copy",
    "build-csv -d done",
    "umt5 done --model umt5",
    "check done",
    "verify done",
    "review done --no-browser --port 0",
    "report done",
    "stats done",
    "export done --to ai-toolkit -o exportN",
    "merge sharded",
    "enhance --input-image pairs/input/{first} --prompt Paint. --model vlm --max-new-tokens 8",
    "synth 8 -o synthN",
    "models",
    "doctor",
)


class First(NamedTuple):
    """When a command said its first word: seconds, the processor's, and what it was."""

    seconds: float
    cpu: float
    words: str


def first_word(command: list[str], folder: Path) -> First:
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    start = process.stdout.read(1)
    seconds = time.perf_counter() - began
    used = psutil.Process(process.pid).cpu_times()  # not waited for, it is there in any case
    words = (start + process.stdout.readline()).decode(errors="replace").strip()
    process.terminate()  # a page is served until it is stopped
    process.communicate()
    return First(seconds, used.user + used.system, words)


def prepare(folder: Path) -> str:
    """What the commands work on; gives the name of a picture."""
    from tiny_checkpoints import build_vlm
    from tiny_umt5 import build_umt5

    build_vlm(folder / "vlm", "qwen3_vl")
    build_umt5(folder / "umt5")
    for command in (
        "synth 8 -o pairs -q",
        "prepare pairs -d done --model shapes -q",
        "prepare pairs -d sharded --prompt Paint. -q --shard 0/2",
        "prepare pairs -d sharded --prompt Paint. -q --shard 1/2",
    ):
        subprocess.run(
            [*PROGRAM, *command.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return sorted((folder / "pairs" / "input").glob("*.*"))[0].name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="commands, with commas between them")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    commands = [text for text in COMMANDS if not only or only & set(text.split()[:1])]
    times: dict[str, list[First]] = {text: [] for text in (BASE, *commands)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = prepare(folder)
        for number in range(options.rounds):
            times[BASE].append(first_word([sys.executable, "-c", "pass"], folder))
            for at, text in enumerate(commands):
                words = text.replace("N", f"{number}-{at}").format(first=first).split()
                times[text].append(first_word([*PROGRAM, *words], folder))
    print(f"| command | s until its first word (worst) | CPU s (worst) | × `{BASE}` | it says |")
    print("|---|---|---|---|---|")
    base = statistics.median(one.cpu for one in times[BASE])
    for text, values in times.items():
        walls, cpus = [one.seconds for one in values], [one.cpu for one in values]
        shown = text if text == BASE else shlex.join(["chronoprep", *text.split()])
        print(
            f"| `{shown}` | {statistics.median(walls):.2f} ({max(walls):.2f}) "
            f"| {statistics.median(cpus):.2f} ({max(cpus):.2f}) "
            f"| {statistics.median(cpus) / base:.1f} | {values[-1].words[:60]} |"
        )
    worst = max(commands, key=lambda text: statistics.median(one.cpu for one in times[text]))
    cpu = statistics.median(one.cpu for one in times[worst])
    print(f"\nThe slowest to say a word: `{worst}`, after {cpu:.2f} s of the processor.")


if __name__ == "__main__":
    main()
