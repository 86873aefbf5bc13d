"""Synthetic pairs on disk: the images, and a manifest that holds the truth about them."""

from __future__ import annotations

import json
from pathlib import Path

from chronoprep import synth
from chronoprep.data import TRUTH
from chronoprep.engine import mapped
from chronoprep.errors import ConfigError
from chronoprep.files import make_folder, replacing
from chronoprep.workflows.progress import Reporter, Silent, Summary


def write_synthetic(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 256,
    reporter: Reporter | None = None,
) -> Summary:
    """Write the first `count` pairs of the series `seed`, as PNG of `size`² pixels.

    `folder/input` and `folder/output` are a folder of pairs like any other. `folder/truth.jsonl` is
    a manifest of them: its columns `caption` and `prompt` are the true labels, `kind` the kind of
    edit, `region` the box around what changed (left, top, right, bottom in pixels).

    Raises:
        ConfigError: When the folder is not empty.
        BackendError: When the disk is full or the folder can't be written.
    """
    reporter = reporter or Silent()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder}: there is something here already.",
            hint="Give --output a new or empty folder, so that the pairs do not mix with others.",
        )
    summary = Summary("synthetic pairs")
    width = max(4, len(str(count - 1)))

    def write(index: int) -> str:
        sample, key = synth.sample(seed, index), f"shapes-{index:0{width}}"
        name = f"{key}.png"
        for side, image in zip(("input", "output"), sample.pictures(size), strict=True):
            with replacing(folder / side / name) as temporary:
                image.save(temporary, "PNG")
        row = {
            "key": key,
            "source": f"input/{name}",
            "target": f"output/{name}",
            "kind": sample.kind,
            "caption": sample.instruction,
            "prompt": sample.cot,
            "region": sample.region and [round(part * size) for part in sample.region],
        }
        return json.dumps(row, ensure_ascii=False)

    for side in ("input", "output"):
        make_folder(folder / side)
    reporter.start("synthetic pairs", count)
    with replacing(folder / TRUTH) as temporary, temporary.open("w", encoding="utf-8") as file:
        for outcome in mapped(write, range(count), key=str):
            file.write(f"{outcome.value}\n")
            summary.done += 1
            reporter.advance("ok")
    return summary.finish()
