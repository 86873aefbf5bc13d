"""How long an export takes: 10,000 pairs of 512² by links, and again when nothing is to be done.

    python -m benchmarks.export --pairs 10000 --folder /tmp/export

The image pass, which decodes every pair once, is `pair2video`; `--no-videos` writes what it learned
into the journal instead, which is all that an export takes from it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from chronoprep.config import load_settings
from chronoprep.data import Pair
from chronoprep.dataset import Label
from chronoprep.images.load import load_pair
from chronoprep.workflows import write_videos
from chronoprep.workflows.export import export_dataset
from chronoprep.workflows.stage import opened


def write_pairs(folder: Path, count: int) -> Path:
    """Pairs of 512², as photographs are: JPEG files with their own bytes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        for side in ("source", "target"):
            small = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((512, 512), Image.Resampling.BICUBIC)
            image.save(folder / f"{number}-{side}.jpg", quality=90)
        rows.append({"key": f"p{number}", "source": f"{number}-source.jpg",
                     "target": f"{number}-target.jpg"})  # fmt: skip
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--no-videos", action="store_true")
    options = parser.parse_args()
    folder, settings = options.folder, load_settings()
    manifest, dataset = write_pairs(folder / "pairs", options.pairs), folder / "dataset"
    began = time.monotonic()
    with opened(dataset, settings, pairs=manifest) as run:
        labels = []
        for entry in run.entries:
            label = Label(key=entry.key, caption=f"Make {entry.key} red.")
            if options.no_videos:
                loaded = load_pair(Pair(*entry[:3]), settings.images)
                known = {"images": loaded.images, "files": loaded.files}
                label = label.model_copy(update=known)
            labels.append(label)
        run.dataset.append(labels)
    if not options.no_videos:
        write_videos(dataset, settings)
    print(f"image pass: {time.monotonic() - began:.1f} s")
    for to in ("ai-toolkit", "diffsynth"):
        for time_of in ("first", "second"):
            began = time.monotonic()
            done = export_dataset(dataset, settings, to=to, output=folder / to).summaries[-1]
            seconds = time.monotonic() - began
            print(f"{to}, {time_of}: {done.done} written, {done.skipped} there, {seconds:.1f} s")


if __name__ == "__main__":
    main()
