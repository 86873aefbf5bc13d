"""Draw pairs, let the packaged micro model label them, and show what comes out: `make demo`."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
from PIL import Image
from rich.console import Console

from chronoprep.dataset import Dataset

ROOT = Path(__file__).parent.parent
DEMO = Path("demo")
PAIRS, DATASET, SHEET = DEMO / "pairs", DEMO / "dataset", DEMO / "contact-sheet.jpg"


def main() -> int:
    shutil.rmtree(ROOT / DEMO, ignore_errors=True)
    chronoprep("synth", "8", "--output", str(PAIRS), "--seed", "9")
    chronoprep("prepare", str(PAIRS), "--dataset", str(DATASET), "--model", "shapes")

    lines = (ROOT / PAIRS / "truth.jsonl").read_text("utf-8").splitlines()
    truth = {row["key"]: row for row in map(json.loads, lines)}
    journal = Dataset(ROOT / DATASET).journal
    with (ROOT / DATASET / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}

    console = Console(highlight=False, soft_wrap=True)
    sheet = []
    for key in sorted(truth):
        state = journal.state(key)
        right = state.text.caption == truth[key]["caption"]
        console.print(f"\n[bold]{key}[/]  {'[green]right[/]' if right else '[red]wrong[/]'}")
        if not right:
            console.print(f"truth:   {truth[key]['caption']}", markup=False)
        said = state.failure.error if state.failure is not None else state.text.caption
        console.print(f"caption: {said}", markup=False)
        if key not in rows:
            continue  # "no change": nothing to train on
        with av.open(str(ROOT / DATASET / rows[key]["video"])) as video:
            frames = [frame.to_image() for frame in video.decode(video=0)]
        size = f"{frames[0].width}×{frames[0].height}"
        console.print(f"video:   {rows[key]['video']}, {len(frames)} frames of {size}")
        console.print(f"prompt:  {rows[key]['prompt']}", markup=False)
        sheet.append(frames)
    contact_sheet(sheet).save(ROOT / SHEET, quality=88)
    console.print(f"\nWhat the trainer reads: {DATASET / 'metadata.csv'}, {len(rows)} rows")
    console.print(f"The frames side by side: {SHEET}")
    console.print(f"Next: source .venv/bin/activate; chronoprep review {DATASET}")
    return 0


def chronoprep(*arguments: str) -> None:
    """Run the command from the repository's root, as it stands in the README."""
    print("$ chronoprep", *arguments, flush=True)
    run = subprocess.run([sys.executable, "-m", "chronoprep", *arguments], cwd=ROOT, check=False)
    if run.returncode:
        sys.exit(run.returncode)


def contact_sheet(rows: list[list[Image.Image]], width: int = 256) -> Image.Image:
    """The frames of each video, source left and target right, two videos a row."""
    across, down = 2 * width + 24, width + 12
    sheet = Image.new("RGB", (2 * across, (len(rows) + 1) // 2 * down), "white")
    for number, frames in enumerate(rows):
        for column, frame in enumerate(frames):
            left = (number % 2) * across + column * (width + 3)
            sheet.paste(frame.resize((width, width)), (left, number // 2 * down))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
