"""Turn the example pairs into a dataset and show it. `make demo` runs this."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import av
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).parent.parent
PAIRS, DATASET, SHEET = ROOT / "examples" / "pairs", ROOT / "demo" / "dataset", "contact-sheet.jpg"


def main() -> int:
    command = ["prepare", str(PAIRS.relative_to(ROOT)), "--dataset", str(DATASET.relative_to(ROOT))]
    print("$ chronoprep", *command, flush=True)
    run = subprocess.run([sys.executable, "-m", "chronoprep", *command], cwd=ROOT, check=False)
    if run.returncode:
        return run.returncode

    console = Console(highlight=False, soft_wrap=True)
    rows = []
    with (DATASET / "metadata.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            with av.open(str(DATASET / row["video"])) as video:
                frames = [frame.to_image() for frame in video.decode(video=0)]
            size = f"{frames[0].width}×{frames[0].height}"
            console.print(f"\n[bold]{row['key']}[/]  {row['video']}: {len(frames)} frames, {size}")
            console.print(row["prompt"], markup=False)
            rows.append(frames)
    contact_sheet(rows).save(ROOT / "demo" / SHEET, quality=88)
    console.print(f"\nThe frames side by side: demo/{SHEET}")
    return 0


def contact_sheet(rows: list[list[Image.Image]], width: int = 320) -> Image.Image:
    """The frames of each video, source left and target right, one row a video."""
    small = [
        [f.resize((width, round(f.height * width / f.width))) for f in frames] for frames in rows
    ]
    sheet = Image.new("RGB", (2 * width, sum(frames[0].height for frames in small)))
    top = 0
    for frames in small:
        for column, frame in enumerate(frames):
            sheet.paste(frame, (column * width, top))
        top += frames[0].height
    return sheet


if __name__ == "__main__":
    sys.exit(main())
