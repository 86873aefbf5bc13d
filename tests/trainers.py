"""What trainers of other editors read of an export, by the rules of their own sources.

Each reader takes the export's folder and gives key → (source, target, text): images as RGB arrays,
the text as the trainer trains on it. They know nothing of chronoprep: what they open is named by
the export's own settings, as the trainer would find it.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Read = dict[str, tuple[np.ndarray, np.ndarray, str]]


def pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """As nearly all of them open an image: no profile, no orientation, converted to RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122 - as they do


def ai_toolkit(folder: Path) -> Read:
    """toolkit/data_loader.py, dataloader_mixins.py: walks the folder of targets; the control is the
    first file of the same stem; the text file's content goes through a split at commas."""
    config = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    (dataset,) = config["config"]["process"][0]["datasets"]
    kinds, found = (".jpg", ".jpeg", ".png", ".webp"), {}
    for root, _, files in os.walk(dataset["folder_path"]):
        for name in files:
            if not name.lower().endswith(kinds) or name.startswith("."):
                continue
            path = os.path.join(root, name)  # noqa: PTH118
            control = next(
                candidate
                for kind in kinds
                if os.path.exists(candidate := f"{dataset['control_path']}/{stem(name)}{kind}")  # noqa: PTH110
            )
            beside = f"{os.path.splitext(path)[0]}.{dataset['caption_ext']}"  # noqa: PTH122
            with open(beside, encoding="utf-8") as file:  # noqa: PTH123
                text = ", ".join(file.read().split(","))
            found[stem(name)] = (pixels(control), pixels(path), text)
    return found


def musubi(folder: Path) -> Read:
    """dataset/datasources.py: targets with a text file; controls begin with the target's stem and a
    dot or an underscore, those of the longest names are given away first."""
    config = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    (dataset,) = config["datasets"]
    suffix = config["general"]["caption_extension"]

    def images(where: str) -> set[str]:
        names = (f"*{kind}" for kind in (".png", ".jpg", ".jpeg", ".webp", ".bmp"))
        return {path for name in names for path in glob.glob(f"{glob.escape(where)}/{name}")}  # noqa: PTH207

    where = dataset["image_directory"]
    texts = {stem(path) for path in glob.glob(f"{glob.escape(where)}/*{suffix}")}  # noqa: PTH207
    targets = [path for path in images(where) if stem(path) in texts]
    controls, found = images(dataset["control_directory"]), {}
    for path in sorted(targets, key=lambda path: len(os.path.basename(path)), reverse=True):  # noqa: PTH119
        name = stem(path)
        begin = (f"{name}.", f"{name}_")
        mine = [c for c in controls if os.path.basename(c).startswith(begin)]  # noqa: PTH119
        controls.difference_update(mine)
        mine.sort(key=lambda c: 0 if stem(c) == name else int(stem(c).rsplit("_", 1)[-1]) + 1)
        beside = os.path.splitext(path)[0] + suffix  # noqa: PTH122
        with open(beside, encoding="utf-8") as file:  # noqa: PTH123
            found[name] = (pixels(mine[0]), pixels(path), file.read().strip())
    return found


def diffusion_pipe(folder: Path, split: str = "") -> Read:
    """utils/dataset.py: all files but texts and caches are targets; every one needs a control of
    its stem."""
    config = tomllib.loads((folder / "train.toml").read_text(encoding="utf-8"))
    data = config["dataset"]
    if split:
        data = next(one["config"] for one in config["eval_datasets"] if one["name"] == split)
    (dataset,) = tomllib.loads(Path(data).read_text(encoding="utf-8"))["directory"]
    controls = {path.stem: path for path in Path(dataset["control_path"]).glob("*")}
    found = {}
    for path in sorted(Path(dataset["path"]).glob("*")):
        if not path.is_file() or path.suffix in (
            ".txt",
            ".npz",
            ".json",
            ".parquet",
            ".bak",
            ".db",
        ):
            continue
        with open(path.with_suffix(".txt")) as file:  # noqa: PTH123
            found[path.stem] = (pixels(controls[path.stem]), pixels(path), file.read().strip())
    return found


def simpletuner(folder: Path) -> Read:
    """helpers/prompts.py: every line of a text file is a text of its own; the conditioning dataset
    has the same file names."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    datasets = json.loads(Path(config["data_backend_config"]).read_text(encoding="utf-8"))
    by_id = {dataset["id"]: dataset for dataset in datasets}
    (target,) = (one for one in datasets if one.get("conditioning_data"))
    control = by_id[target["conditioning_data"][0]]
    assert (control["dataset_type"], target["caption_strategy"]) == ("conditioning", "textfile")
    found = {}
    for path in sorted(Path(target["instance_data_dir"]).iterdir()):
        if path.suffix == ".txt":
            continue
        text = Path(f"{os.path.splitext(path)[0]}.txt").read_bytes().decode()  # noqa: PTH122
        if "\n" in text:
            raise AssertionError(f"{path}: several texts")
        other = Path(control["instance_data_dir"]) / path.name
        found[path.stem] = (pixels(other), pixels(path), text)
    return found


def diffsynth(folder: Path, images: str = "edit_image") -> Read:
    """diffsynth/core/data/unified_dataset.py: a row a line; the named columns are paths from the
    base."""
    found = {}
    with open(folder / "metadata.jsonl") as file:  # noqa: PTH123 - in the machine's encoding
        rows: list[dict[str, Any]] = [json.loads(line.strip()) for line in file]
    for row in rows:
        source, target = (pixels(folder / row[name]) for name in (images, "image"))
        found[stem(row["image"])] = (source, target, row["prompt"])
    return found


def of_columns(rows: Iterator[dict[str, Any]], source: str, target: str, text: str) -> Read:
    """Rows of the `datasets` library, as diffusers' scripts take them."""
    return {
        row["key"]: (
            np.asarray(row[source].convert("RGB")),
            np.asarray(row[target].convert("RGB")),
            row[text],
        )
        for row in rows
    }
