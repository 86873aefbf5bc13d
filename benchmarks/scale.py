"""Time and memory for a million pairs: pairing by name, metadata.csv, what a run decides to do,
what verify makes of judged labels, and which pictures look alike.

Run: python benchmarks/scale.py [PAIRS [STAGE ...]]

The files are empty, but for those of 300 pairs that `verify` still has to judge. Each stage runs in
a process of its own, whose peak memory is shown, and through the workflow that a user's script
calls. A first run finds nothing labelled, a resumed one everything; a dry run decides as a real one
does, then stops. `verify` is killed by SIGKILL once in between, and has to go on from there.
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chronoprep.config import Settings

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

BARS = {
    "pairing": (60, 1.5),
    "first run": (15, 1.5),
    "build-csv": (60, 1.5),
    "resume": (15, 1.5),
    "prepare": (40, 1.5),
    "verify": (120, 3.0),
    "alike": (120, 3.0),
}
TO_JUDGE = 300  # labels that no rule has seen
COT = "The user wants to replace the small red ball near the door by a blue one, and so on. " * 7


def touch(folder: Path, count: int, suffix: str) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"photo-{number:07}{suffix}").touch()


def settings(folder: Path) -> Settings:
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


def write_dataset(folder: Path) -> None:
    """An index, and a label and a video of every pair in the journal, as a finished run leaves
    them."""
    from chronoprep.dataset import Dataset, Event, Label
    from chronoprep.engine import batched
    from chronoprep.images.load import content_hash
    from chronoprep.pairs import discover
    from chronoprep.workflows.label import recipe_of
    from chronoprep.workflows.videos import _video
    from tiny_checkpoints import build_vlm

    build_vlm(folder / "model", "qwen3_vl")
    chosen = settings(folder)
    recipe = recipe_of(chosen)
    dataset = Dataset(folder / "data")
    pairs = discover(folder / "pairs", chosen.pairs).pairs
    dataset.index.update(
        pairs,
        str(folder / "pairs"),
        keep=None,
        roles={},
        images_of=lambda _: None,
        digest_of=lambda _: None,
    )
    dataset.index.save()
    (folder / "new").mkdir()
    shutil.copy(dataset.index.path, folder / "new")
    for number, batch in enumerate(batched(dataset.index.entries(), 50_000)):
        events: list[Event] = []
        for place, entry in enumerate(batch, number * 50_000):
            images = content_hash(entry.pair) if place < TO_JUDGE else f"{place:032x}"
            caption = f"Replace the small red ball number {place} near the door by a blue one"
            label = Label(
                key=entry.key,
                caption=caption,
                caption_cot=COT,
                images=images,
                files=entry.files,
                model="model",
                cot_model="model",
                caption_prompt=recipe.prompts.caption.version,
                generation=recipe.generation,
                cot_prompt=recipe.prompts.cot.version,
                caption_id=recipe.caption_id(images),
                cot_id=recipe.cot_id(images, caption),
                seconds=1.0,
            )
            video = _video(entry.key, dataset.video(entry.key), images, entry.files, chosen)
            events += [label, video]
        dataset.append(events)


def csv(folder: Path) -> Callable[[], str]:
    """The table of what is there: without PAIRS, no image is looked at."""
    from chronoprep.workflows import build_csv

    return lambda: f"{build_csv(folder / 'data', settings(folder))[-1].done:,} rows"


def decision(folder: Path, data: str) -> tuple[int, int]:
    """Of labels: how many are to be made, and how many are up to date."""
    from chronoprep.workflows import caption_pairs

    (summary,) = caption_pairs(folder / data, settings(folder), with_cot=True, dry_run=True)[1:]
    return summary.todo or 0, summary.skipped


def first_run(folder: Path) -> Callable[[], str]:
    """The pairs are known, and nothing is labelled."""
    return lambda: f"{decision(folder, 'new')[0]:,} to label"


def resume(folder: Path) -> Callable[[], str]:
    """All is labelled: files are looked at, and nothing is to be done."""

    def check() -> str:
        todo, skipped = decision(folder, "data")
        assert todo == 0, "the benchmark's events are stale"
        return f"{skipped:,} up to date"

    return check


def finished(folder: Path) -> Callable[[], str]:
    """What a whole `prepare` over finished pairs decides: labels and videos."""
    from chronoprep.workflows import prepare

    def check() -> str:
        done = prepare(folder / "data", settings(folder), dry_run=True)[1:]
        assert [summary.todo for summary in done] == [0, 0], "the benchmark's events are stale"
        return "{:,} labels and {:,} videos up to date".format(*(s.skipped for s in done))

    return check


def draw_pair(pairs: Path, number: int) -> None:
    """Small pictures: a disc comes, of another place and colour in each pair."""
    from PIL import Image, ImageDraw

    drawn = random.Random(number)
    picture = Image.new("RGB", (96, 96), tuple(drawn.choices(range(256), k=3)))
    for side in ("input", "output"):
        picture.save(pairs / side / f"photo-{number:07}.jpg")
        x, y = drawn.choices(range(20, 76), k=2)
        colour = tuple(drawn.choices(range(256), k=3))
        ImageDraw.Draw(picture).ellipse((x - 15, y - 15, x + 15, y + 15), colour)


def judge_all(folder: Path) -> None:
    """Has all labels judged but those of the pictures, which a run begins with that is killed."""
    from chronoprep.dataset import Dataset, Event, Score, text_digest
    from chronoprep.engine import batched
    from chronoprep.workflows.verify import RULES

    dataset, drawn, left = Dataset(folder / "data"), random.Random(0), TO_JUDGE
    for batch in batched(dataset.index.entries(), 50_000):
        events: list[Event] = []
        for entry in batch[left:]:
            state = dataset.journal.state(entry.key, files=False)
            score = Score(
                key=entry.key,
                of=text_digest(state.text),
                by=RULES,
                images=state.images,
                files=entry.files,
                scores={"side": round(drawn.random() ** 3, 3)},
                reasons=("says top left; the change is at the lower right",),
                edit="replace",
                places=("top left",),
                spots=((0.7, 0.7, 0.9, 0.9, 1.5, 0.03),),
            )
            events.append(score)
        dataset.append(events)
        left = 0
    journal = folder / "data" / "labels.jsonl"
    size = journal.stat().st_size
    with subprocess.Popen([sys.executable, __file__, "--stage", "verify", str(folder)]) as run:
        while journal.stat().st_size == size and run.poll() is None:
            time.sleep(0.1)
        run.kill()


def verify(folder: Path) -> Callable[[], str]:
    """What a killed run left is judged, and the verdicts follow from all judgements."""
    from chronoprep.workflows import verify_labels

    def check() -> str:
        done = verify_labels(folder / "data", settings(folder))
        (summary,) = done.summaries
        assert 0 < summary.done < TO_JUDGE, f"{summary.done} were left to judge"
        return f"{len(done.verdicts):,} verdicts, {summary.done} judged after the kill"

    return check


def alike(folder: Path) -> Callable[[], str]:
    """Thumbnails as smooth as photos, one in a hundred of them a lighter copy of another one."""
    import cv2
    import numpy as np

    from chronoprep.images.likeness import SIDE
    from chronoprep.images.likeness import alike as alike_ones

    count = sum(1 for _ in (folder / "pairs" / "input").iterdir())
    drawn = np.random.default_rng(0)
    rough = drawn.normal(128, 40, (count, 4, 4, 3)) + drawn.normal(0, 30, (count, 1, 1, 3))
    pictures = np.stack([cv2.resize(p, (SIDE, SIDE)).clip(0, 255).astype(np.uint8) for p in rough])
    copies = count // 100
    pictures[-copies:] = cv2.add(pictures[:copies], np.full_like(pictures[:copies], 2))

    def check() -> str:
        found = alike_ones(pictures)
        right = {(place, count - copies + place) for place in range(copies)}
        assert right <= {(int(one), int(other)) for one, other in found}
        return f"{len(found):,} couples, {copies:,} of them planted"

    return check


STAGES = {
    "pairing": pairing,
    "first run": first_run,
    "build-csv": csv,
    "resume": resume,
    "prepare": finished,
    "verify": verify,
    "alike": alike,
}


def main() -> None:
    if sys.argv[1:2] == ["--stage"]:
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
    stages = sys.argv[2:] or list(STAGES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("input", "output"):
            touch(folder / "pairs" / side, count, ".jpg")
        for number in range(TO_JUDGE):
            draw_pair(folder / "pairs", number)
        touch(folder / "data" / "videos", count, ".mp4")
        write_dataset(folder)
        print(f"{'stage':10} {'seconds':>8} {'CPU s':>8} {'peak GB':>8}", flush=True)
        for stage in stages:
            if stage == "verify":
                judge_all(folder)
            subprocess.run([sys.executable, __file__, "--stage", stage, name], check=True)


if __name__ == "__main__":
    main()
