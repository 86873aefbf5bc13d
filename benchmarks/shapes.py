"""The packaged `shapes` model against the truth, through the command line itself.

    python benchmarks/shapes.py                # 1,000 pairs of a series that training never saw
    python benchmarks/shapes.py --pairs 100

"right" is the strictest reading: the sentence equals the true one, word for word, so that the kind
of edit, size, colour, shape and place are all right, for both edits where there are two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from chronoprep.dataset import Dataset, State

KINDS = ("recolour", "move", "remove", "add", "replace", "resize", "background", "no change")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1001, help="7 is the training's")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong captions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs, dataset = Path(folder) / "pairs", Path(folder) / "dataset"
        chronoprep("synth", arguments.pairs, "--output", pairs, "--seed", arguments.seed, "-q")
        command = ("caption", pairs, "--dataset", dataset, "--generate-cot", "--json", "-q")
        options = ("--model", arguments.model, "--preset", "compact", "--batch-size", 32)
        summaries = json.loads(chronoprep(*command, *options, may_fail=True))
        rows = map(json.loads, (pairs / "truth.jsonl").read_text("utf-8").splitlines())
        truth = {row["key"]: row for row in rows}
        labels = states(dataset)
    report(truth, labels, next(s["seconds"] for s in summaries if s["what"] == "labels"))
    wrong = [key for key in truth if labels[key].text.caption != truth[key]["caption"]]
    for key in wrong[: arguments.wrong]:
        failure = labels[key].failure
        got = failure.error if failure is not None else labels[key].text.caption
        print(f"\n{key}\n  true: {truth[key]['caption']}\n  got:  {got}")


def report(truth: dict[str, Any], labels: dict[str, State], seconds: float) -> None:
    """A Markdown table by kind, and the totals."""
    print("| kind of edit | pairs | caption right | CoT right |")
    print("|---|---:|---:|---:|")
    rows: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "two edits")}
    for key, row in truth.items():
        rows["two edits" if " + " in row["kind"] else row["kind"]].append(key)
    rows["all"] = list(truth)
    for kind, keys in rows.items():
        captions = sum(labels[key].text.caption == truth[key]["caption"] for key in keys)
        edits = [key for key in keys if truth[key]["prompt"]]
        cots = sum(labels[key].text.cot == truth[key]["prompt"] for key in edits)
        cot = share(cots, len(edits)) if edits else "–"
        print(f"| {kind} | {len(keys)} | {share(captions, len(keys))} | {cot} |")

    same, edited = rows["no change"], [key for key in truth if truth[key]["prompt"]]
    said = {key for key in truth if labels[key].text.caption == "no change"}
    texts = [state.text for state in labels.values()]
    whole = [(text.caption or "", text.cot) for text in texts if text.cot is not None]
    opened = sum(cot.startswith("The user wants to ") for _, cot in whole)
    sized = sum(80 <= len(cot.split()) <= 100 for _, cot in whole)
    named = sum(cot.startswith(opening(caption)) for caption, cot in whole)
    failed = sum(state.status == "failed" for state in labels.values())
    print()
    print(f'- "no change" said of {share(len(said & set(same)), len(same))} of the unchanged pairs')
    print(f"  and of {share(len(said & set(edited)), len(edited))} of the changed ones")
    print(f'- CoTs that open with "The user wants to": {share(opened, len(whole))}')
    print(f"- CoTs of 80–100 words: {share(sized, len(whole))}")
    print(f"- CoTs that name the caption's edits: {share(named, len(whole))}")
    print(f"- failed labels: {failed} of {len(truth)}")
    print(f"- {len(truth) / seconds:.1f} pairs a second, loading included")


def opening(caption: str) -> str:
    """How a CoT begins that names a caption's edits."""
    edits = caption.removesuffix(".").split("; ")
    return f"The user wants to {' and '.join(e[:1].lower() + e[1:] for e in edits)}."


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def states(dataset: Path) -> dict[str, State]:
    journal = Dataset(dataset).journal
    return {key: journal.state(key) for key in journal}


def chronoprep(*arguments: object, may_fail: bool = False) -> str:
    command = [sys.executable, "-m", "chronoprep", *map(str, arguments)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode and not may_fail:
        sys.exit(run.returncode)
    return run.stdout


if __name__ == "__main__":
    main()
