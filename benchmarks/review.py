"""The review page of a large dataset: first paint, the next pair, the server's memory.

    .venv/bin/python benchmarks/review.py --pairs 100000

Needs Playwright and a Chromium, which `make test-browser` tells of. The pairs share 24 pictures
of 1024² pixels; each has its own label and score.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PICTURES = 24
STEPS = 60


def written(folder: Path, count: int) -> Path:
    """A dataset of so many labelled and judged pairs."""
    from chronoprep.data import Pair
    from chronoprep.dataset import Dataset, Label, Score, Text, text_digest
    from chronoprep.rows import Rows
    from chronoprep.workflows import write_synthetic
    from chronoprep.workflows.verify import RULES

    write_synthetic(folder / "pictures", PICTURES, size=1024)
    truth = [json.loads(line) for line in (folder / "pictures/truth.jsonl").open(encoding="utf-8")]
    dataset, drawn = Dataset(folder / "data"), random.Random(0)
    pairs, lines = Rows(Pair), list[str]()
    for number in range(count):
        row = truth[number % PICTURES]
        key = f"pair-{number:06}"
        pairs.append(
            Pair(key, *(str(folder / "pictures" / row[side]) for side in ("source", "target")))
        )
        text = Text(f"{row['caption']} ({number})", row["prompt"])
        label = Label(
            key=key, caption=text.caption, caption_cot=text.cot, images="0" * 32, model="m"
        )
        score = Score(
            key=key, of=text_digest(text), by=RULES, scores={"side": round(drawn.random() ** 3, 3)},
            reasons=("says left; the change is on the right",), edit=row["kind"],
        )  # fmt: skip
        lines += [
            label.model_dump_json(exclude_none=True),
            score.model_dump_json(exclude_none=True),
        ]
    dataset.folder.mkdir()
    dataset.journal.path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    dataset.index.update(
        pairs, str(folder / "pictures"), keep=None, roles={},
        images_of=lambda _: None, digest_of=lambda _: None,
    )  # fmt: skip
    dataset.index.save()
    return dataset.folder


def measured(dataset: Path) -> dict[str, float]:
    """Seconds, milliseconds and megabytes."""
    from browser import browsing

    began = time.monotonic()
    command = [sys.executable, "-m", "chronoprep", "review", str(dataset), "--port", "0"]
    server = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    found = {"server up, s": time.monotonic() - began}
    try:
        with browsing() as browser:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto("about:blank")
            began = time.monotonic()
            page.goto(address)
            page.wait_for_selector("body.ready")
            found["first pair shown, s"] = time.monotonic() - began
            paints = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            found["first paint, ms"] = page.evaluate(paints)
            for name, key in (("next pair", "j"), ("accept, next pair", "a")):
                page.wait_for_timeout(1500)
                times = page.evaluate(_STEPPING, [key, STEPS])
                found[f"{name}, ms (median)"] = statistics.median(times)
                found[f"{name}, ms (worst of {STEPS})"] = max(times)
            found["server's memory, MB"] = psutil.Process(server.pid).memory_info().rss / 1e6
    finally:
        server.terminate()
        server.wait(20)
    return found


# From the key to the frame in which the next pair's pictures are drawn.
_STEPPING = """async ([key, steps]) => {
  const times = [], shown = () => document.querySelector("#key").textContent;
  const images = [...document.querySelectorAll(".shot img")];
  for (let step = 0; step < steps; step++) {
    const before = shown(), began = performance.now();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    do await new Promise(requestAnimationFrame);
    while (shown() === before || !images.every((image) => image.complete && image.naturalWidth));
    times.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 400));
  }
  return times;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--dataset", type=Path, help="one that is there already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = given.dataset or written(Path(folder), given.pairs)
        for name, value in measured(dataset).items():
            print(f"{name:40} {value:10.1f}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
