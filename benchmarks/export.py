"""How long an export takes: 10,000 pairs of 512² by links, and again when nothing is to be done.

    python -m benchmarks.export --pairs 10000 --folder /tmp/export

The image pass, which decodes every pair once, is `pair2video`; `--no-videos` puts into the journal
what an export takes from it, that the images are known, without decoding them.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from chronoprep.config import load_settings
from chronoprep.dataset import Label
from chronoprep.images.load import content_hash
from chronoprep.workflows import write_videos
from chronoprep.workflows.export import export_dataset
from chronoprep.workflows.stage import opened


def write_pairs(folder: Path, count: int) -> Path:
    """Pairs of 512²: JPEG files, of 200 pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(200):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        encoded = io.BytesIO()
        small.resize((512, 512), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
        pictures.append(encoded.getvalue())
    rows = []
    for number in range(count):
        for place, side in enumerate(("source", "target")):
            picture = pictures[(number // (100 if place else 1) + place) % len(pictures)]
            (folder / f"{number}-{side}.jpg").write_bytes(picture)
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
                known = {"images": content_hash(entry.pair), "files": entry.files}
                label = label.model_copy(update=known)
            labels.append(label)
        run.dataset.append(labels)
    if not options.no_videos:
        write_videos(dataset, settings)
    print(f"image pass: {time.monotonic() - began:.1f} s")
    for to in ("ai-toolkit", "diffsynth"):
        for time_of in ("first", "second"):
            began, busy = time.monotonic(), time.process_time()
            done = export_dataset(dataset, settings, to=to, output=folder / to).summaries[-1]
            seconds, busy = time.monotonic() - began, time.process_time() - busy
            print(
                f"{to}, {time_of}: {done.done} written, {done.skipped} there, {seconds:.1f} s, "
                f"{busy:.1f} s of the processor"
            )


if __name__ == "__main__":
    main()
