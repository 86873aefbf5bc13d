"""Time and memory for a million pairs: pairing by name, metadata.csv, what a run decides to do.

Run: python benchmarks/scale.py [PAIRS]

The files are empty: nothing here opens an image. Each stage runs in a process of its own, whose
peak memory is shown. A first run finds nothing labelled, a resumed one everything; a dry run
decides as a real one does, then stops.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

BARS = {"pairing": (60, 1.5), "first run": (15, 1.5), "build-csv": (60, 1.5), "resume": (15, 1.5)}
COT = "The user wants to replace the small red ball near the door by a blue one, and so on. " * 7


def touch(folder: Path, count: int, suffix: str) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"photo-{number:07}{suffix}").touch()


def settings(folder: Path) -> object:
    from chronoprep.config import Settings

    return Settings.model_validate({"vlm": {"model": str(folder / "model")}})


def peak_memory() -> float:
    """Of this process in GB; `ru_maxrss` would start from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def pairing(folder: Path) -> Callable[[], str]:
    from chronoprep.config import PairSettings
    from chronoprep.pairs import discover

    return lambda: f"{len(discover(folder / 'pairs', PairSettings()).pairs):,} pairs"


def write_journal(folder: Path) -> None:
    """A record of both stages for every pair, as a finished run leaves them."""
    from chronoprep import vlm
    from chronoprep.config import PairSettings
    from chronoprep.data import Label
    from chronoprep.dataset import Dataset
    from chronoprep.engine import batched
    from chronoprep.images.sources import files_stamp
    from chronoprep.labels.prompts import load_prompts
    from chronoprep.labels.recipe import Recipe
    from chronoprep.pairs import discover
    from tiny_checkpoints import build_vlm

    build_vlm(folder / "model", "qwen3_vl")
    chosen = settings(folder)
    model = vlm.resolve(chosen.vlm)
    recipe = Recipe(model, load_prompts(chosen.labels, model.preset), chosen)
    dataset = Dataset(folder / "data")
    pairs = discover(folder / "pairs", PairSettings()).pairs
    for number, batch in enumerate(batched(pairs, 50_000)):
        records = []
        for place, pair in enumerate(batch):
            images = f"{number * 50_000 + place:032x}"
            caption = f"Replace the small red ball number {place} near the door by a blue one"
            records.append(
                Label(
                    key=pair.key,
                    status="ok",
                    caption=caption,
                    caption_cot=COT,
                    images=images,
                    files=files_stamp(str(pair.source), str(pair.target)),
                    model="model",
                    cot_model="model",
                    caption_prompt=recipe.prompts.caption.version,
                    generation=recipe.generation,
                    cot_prompt=recipe.prompts.cot.version,
                    caption_id=recipe.caption_id(images),
                    cot_id=recipe.cot_id(images, caption),
                    seconds=1.0,
                )
            )
        dataset.append(records)


def csv(folder: Path) -> Callable[[], str]:
    from chronoprep.dataset import Dataset
    from chronoprep.workflows import artefacts

    chosen = settings(folder)
    return lambda: f"{artefacts.build_csv(Dataset(folder / 'data'), chosen).done:,} rows"


def decision(folder: Path, data: str) -> Callable[[], tuple[int | None, int]]:
    """How many labels are to be made, and how many are up to date."""
    from chronoprep.config import PairSettings
    from chronoprep.dataset import Dataset
    from chronoprep.pairs import discover
    from chronoprep.workflows import Silent
    from chronoprep.workflows.label import label_by_model

    pairs = discover(folder / "pairs", PairSettings()).pairs

    def decide() -> tuple[int | None, int]:
        summary = label_by_model(
            pairs, Dataset(folder / data), settings(folder), with_cot=True, captions="brought",
            reporter=Silent(), dry_run=True,
        )  # fmt: skip
        return summary.todo, summary.skipped

    return decide


def first_run(folder: Path) -> Callable[[], str]:
    decide = decision(folder, "new")
    return lambda: f"{decide()[0]:,} to label"


def resume(folder: Path) -> Callable[[], str]:
    decide = decision(folder, "data")

    def check() -> str:
        todo, skipped = decide()
        assert todo == 0, "the benchmark's records are stale"
        return f"{skipped:,} up to date"

    return check


STAGES = {"pairing": pairing, "first run": first_run, "build-csv": csv, "resume": resume}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--stage":
        work = STAGES[sys.argv[2]](Path(sys.argv[3]))
        began, busy = time.perf_counter(), time.process_time()
        result = work()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        peak = peak_memory()
        most, room = BARS[sys.argv[2]]
        print(
            f"{sys.argv[2]:10} {seconds:8.1f} {busy:8.1f} {peak:8.2f}   {result} "
            f"(bar for a million: {most} s, {room} GB)"
        )
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("input", "output"):
            touch(folder / "pairs" / side, count, ".jpg")
        touch(folder / "data" / "videos", count, ".mp4")
        write_journal(folder)
        print(f"{'stage':10} {'seconds':>8} {'CPU s':>8} {'peak GB':>8}", flush=True)
        for stage in STAGES:
            subprocess.run([sys.executable, __file__, "--stage", stage, name], check=True)


if __name__ == "__main__":
    main()
