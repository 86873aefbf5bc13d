"""Label pairs, keep the labels that can be trusted, and write them out for another trainer.

python examples/tutorial.py my-pairs my-dataset [model]
"""

import json
import sys
from pathlib import Path

import chronoprep


def main(pairs: str, dataset: str, model: str = "shapes") -> None:
    """Write DATASET/train.jsonl: source, target and instruction of each trusted pair."""
    settings = chronoprep.load_settings({"vlm": {"model": model}})
    folder = Path(dataset)
    for summary in chronoprep.prepare(folder, settings, pairs=Path(pairs)):
        print(f"{summary.what}: {summary.done} done, {summary.failed} failed")

    verdicts = chronoprep.verify_labels(folder, settings).verdicts
    trusted = {verdict.key for verdict in verdicts if not verdict.suspect}

    data = chronoprep.Dataset(folder)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for pair in data.index.entries():
            state = data.journal.state(pair.key)
            if state.status == "ok" and pair.key in trusted:
                row = {"source": pair.source, "target": pair.target, "edit": state.text.caption}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
