"""How long a second `prepare` takes over finished pairs, against the first run.

Run: python benchmarks/resume.py [PAIRS]

A tiny checkpoint labels photos of 512×384 once; the second run has to find that nothing is stale.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tiny_checkpoints import build_vlm  # noqa: E402


def write_pairs(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for side in ("input", "output"):
        (folder / side).mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
            image.save(folder / side / f"pair{number:05}.jpg")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs", count)
        model = build_vlm(folder / "model", "qwen3_vl")
        command = [
            *(sys.executable, "-X", "importtime", "-m", "chronoprep", "prepare"),
            *(str(folder / "pairs"), "--dataset", str(folder / "data"), "--model", str(model)),
            *("--max-new-tokens", "4", "--no-guard", "--batch-size", "16", "--json"),
        ]
        print(f"{'run':8} {'seconds':>8} {'labelled':>9} {'up to date':>11} {'torch loaded':>13}")
        for run in ("first", "second", "third"):
            began = time.perf_counter()
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - began
            labels = next(s for s in json.loads(result.stdout) if s["what"] == "labels")
            imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
            print(
                f"{run:8} {seconds:8.2f} {labels['done']:9} {labels['skipped']:11} "
                f"{'yes' if 'torch' in imported else 'no':>13}"
            )


if __name__ == "__main__":
    main()
