"""How many wrong labels `verify` finds, and how many right ones it accuses.

    python benchmarks/verify.py                       # synthetic pairs, errors planted in labels
    python benchmarks/verify.py --clean 120 --each 12 --model shapes --reworded
    python benchmarks/verify.py --photos WHEELS       # photos; benchmarks/photos says which wheels
    python benchmarks/verify.py --own-errors          # the model's own errors, found by itself
    python benchmarks/verify.py --cost                # CPU time of a pair of 1024²

Synthetic: 1,000 pairs with their true labels, then 80 of each of ten kinds of errors. Flagged is
what scores above the score that one in twenty right labels has (`at 5 %`), and what is a suspect as
the defaults have it (`default`). `--model` has a model judge them, too, as labels of somebody else;
with `--reworded` they are put into other words first. `--own-errors` has the packaged `shapes`
model label pairs with its weights disturbed, and pairs that were darkened, and verify what it said.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import own_errors
import photos
from PIL import Image
from reworded import reworded

import planted
from chronoprep.config import Settings
from chronoprep.images.difference import measure
from chronoprep.workflows.label import label_by_text
from chronoprep.workflows.stage import opened
from chronoprep.workflows.verify import Verdict, verify_run

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", type=int, default=1000)
    parser.add_argument("--each", type=int, default=80)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--model", help="a VLM that judges them, too")
    parser.add_argument("--reworded", action="store_true", help="labels of another author")
    parser.add_argument("--photos", type=Path, help="a folder of wheels")
    parser.add_argument("--own-errors", action="store_true", help="of the `shapes` model")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--show", type=int, default=0, help="so many misses and false alarms")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.cost:
            cost(Path(folder))
        elif arguments.own_errors:
            of_own_errors(arguments, Path(folder))
        elif arguments.photos:
            for part in ("kept", "tuning"):
                print(f"\nPhotos, captions of `{part}`:\n")
                rows = list(photo_rows(part, arguments.photos, Path(folder) / part))
                report(rows, verified(rows, Path(folder) / f"{part}-data"), arguments.show)
        else:
            rows = list(synthetic_rows(arguments, Path(folder)))
            verdicts = verified(rows, Path(folder) / "data", arguments.model)
            report(rows, verdicts, arguments.show)


def of_own_errors(arguments: argparse.Namespace, folder: Path) -> None:
    """A Markdown table: the area under the curve by the signals that are put together."""
    print("| errors by | labels | wrong | signals | area under the curve | found at 5 % |")
    print("|---|---:|---:|---|---:|---:|")
    for number, way in enumerate(own_errors.WAYS):
        place = folder / str(number)
        place.mkdir()
        model = "shapes" if number else str(own_errors.disturbed(place / "model", arguments.seed))

        def rows(way: str = way, place: Path = place) -> Iterator[Row]:
            for index in range(arguments.clean):
                sample, pair = own_errors.pictures(way, index, arguments.seed)
                yield saved(place, f"p{index:05}", pair, "png") | {"truth": sample.instruction}

        truth = own_errors.manifest(rows(), place / "pairs.jsonl")
        wrong, scores = own_errors.judged(place / "pairs.jsonl", place / "data", model, truth)
        for name, found in scores.items():
            high = [score for key, score in found.items() if key in wrong]
            low = [score for key, score in found.items() if key not in wrong]
            limit = sorted(low, reverse=True)[len(low) // 20]
            print(
                f"| {way} | {len(found)} | {len(wrong)} | {name} | {area(low, high):.3f} | "
                f"{share(score > limit for score in high)} |"
            )


def synthetic_rows(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    made = planted.planted(arguments.seed, arguments.clean, arguments.each)
    for number, label in enumerate(made):
        pair = planted.pictures(label.sample, number)
        row = saved(folder, f"p{number:05}", pair, "png")
        caption, cot = label.caption, label.cot
        if arguments.reworded:
            caption, cot = reworded(caption, random.Random(number)), None
        yield row | {"caption": caption, "prompt": cot, "error": label.error}


def photo_rows(part: str, wheels: Path, folder: Path) -> Iterator[Row]:
    """A row a caption; the pictures of a pair are written once. Every other target is coded again
    as an editor would."""
    for number, pair in enumerate(photos.pairs_of(part)):
        pictures = photos.pictures(pair, wheels, redrawn=number % 2 == 0)
        files = saved(folder, pair.name, pictures, "jpg")
        said = [(None, text) for text in pair.right] + pair.wrong
        for at, (error, text) in enumerate(said):
            key = f"{pair.name}-{at}"
            yield files | {"key": key, "caption": text, "prompt": None, "error": error}


def saved(folder: Path, key: str, pair: tuple[np.ndarray, np.ndarray], kind: str) -> Row:
    row: Row = {"key": key}
    for side, pixels in zip(("source", "target"), pair, strict=True):
        path = folder / side / f"{key}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=92)
        row[side] = str(path)
    return row


def verified(rows: Iterable[Row], data: Path, model: str | None = None) -> dict[str, Verdict]:
    """The verdicts of labels that are brought by a manifest."""
    manifest = data.with_suffix(".jsonl")
    names = ("key", "source", "target", "caption", "prompt")
    lines = (json.dumps({name: row[name] for name in names}) + "\n" for row in rows)
    manifest.write_text("".join(lines), encoding="utf-8")
    with opened(data, Settings(), pairs=manifest) as run:
        label_by_text(run, run.entries)
        began = time.process_time()
        verdicts = verify_run(run, model).verdicts
        spent = time.process_time() - began
        print(f"{len(verdicts)} labels, {1000 * spent / max(1, len(verdicts)):.0f} CPU ms each\n")
    return {verdict.key: verdict for verdict in verdicts}


def report(rows: list[Row], verdicts: dict[str, Verdict], show: int) -> None:
    """A Markdown table by kind of error."""
    by_error: dict[str | None, list[Verdict]] = defaultdict(list)
    text = {row["key"]: row["caption"] for row in rows}
    for row in rows:
        by_error[row["error"]].append(verdicts[row["key"]])
    right = by_error.pop(None)
    limit = sorted((v.score for v in right), reverse=True)[len(right) // 20]
    wrong = [verdict for found in by_error.values() for verdict in found]
    print("| error | labels | flagged at 5 % | flagged by default |")
    print("|---|---:|---:|---:|")
    for name, found in [*by_error.items(), ("all wrong", wrong), ("right: false alarms", right)]:
        above = share(v.score > limit for v in found)
        print(f"| {name} | {len(found)} | {above} | {share(v.suspect for v in found)} |")
    scores = [[verdict.score for verdict in part] for part in (right, wrong)]
    print(f"\nArea under the curve: {area(*scores):.3f}")
    missed = [v for v in wrong if not v.suspect][:show]
    for title, found in (("accused", [v for v in right if v.suspect][:show]), ("missed", missed)):
        for verdict in found:
            print(f"\n{title} {verdict.key} {verdict.score}: {text[verdict.key]}")
            print(f"  {'; '.join(verdict.reasons)}")


def share(found: Iterable[bool]) -> str:
    values = list(found)
    return f"{100 * sum(values) / max(1, len(values)):.1f} %"


def area(right: list[float], wrong: list[float]) -> float:
    low, high = np.array(right), np.array(wrong)
    below = (low[:, None] < high).mean() + 0.5 * (low[:, None] == high).mean()
    return float(below)


def cost(folder: Path) -> None:
    """CPU time of a pair of 1024² as JPEG, and of one as PNG, decoding included."""
    measure(np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 99, np.uint8))  # makes its table
    for kind in ("jpg", "png"):
        rows = []
        for number, label in enumerate(planted.planted(1, 40, 0)):
            pair = [np.asarray(picture) for picture in label.sample.pictures(1024)]
            row = saved(folder / kind, f"p{number}", (pair[0], pair[1]), kind)
            rows.append(row | {"caption": label.caption, "prompt": label.cot})
        print(kind, end=": ")
        verified(rows, folder / f"{kind}-data")


if __name__ == "__main__":
    cv2.setNumThreads(1)  # the engine has a thread a core already
    main()
