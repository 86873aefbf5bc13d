"""Labels that a model gets wrong by itself: its weights disturbed, or what it is shown darkened.

Both by so much that it labels about every fifth pair wrongly: where more labels are wrong than
right, none of its views can be trusted. Pictures are darkened to 55 % of their light and blurred by
one of 256 pixels, for the verifier as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from chronoprep import synth, vlm
from chronoprep.config import LabelSettings, Settings, VLMSettings
from chronoprep.dataset import State
from chronoprep.labels.scoring import together
from chronoprep.workflows import caption_pairs
from chronoprep.workflows.stage import opened
from chronoprep.workflows.verify import RULES, verify_run

WAYS = ("noisy weights", "dark pictures")
_SMALL = ("the", "a", "an", "at", "from", "in", "on")
_NOISE = 0.31  # of the deviation of each matrix
_DARK, _BLUR = 0.55, 1.0  # of the light that is left; of 256 pixels

Row = dict[str, Any]
Scores = dict[str, dict[str, float]]


def pictures(way: str, index: int, seed: int) -> tuple[synth.samples.Sample, tuple[Any, Any]]:
    """A sample, and its pictures as the model is to see them."""
    sample = synth.sample(seed, index)
    source, target = (np.asarray(picture) for picture in sample.pictures(256))
    return sample, (source, target) if way == WAYS[0] else (_dark(source), _dark(target))


def _dark(picture: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(picture, (0, 0), _BLUR)
    return (blurred * _DARK).round().astype(np.uint8)


def disturbed(folder: Path, seed: int) -> Path:
    """A copy of the packaged model with noise on its weights."""
    packaged = vlm.MODELS["shapes"].folder
    assert packaged is not None
    shutil.copytree(packaged, folder)
    file = folder / "model.safetensors"
    weights, draw = load_file(file), torch.Generator().manual_seed(seed)
    for name, value in weights.items():
        if value.dim() > 1:
            noise = torch.randn(value.shape, generator=draw) * value.float().std()
            weights[name] = (value.float() + _NOISE * noise).to(value.dtype)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def judged(pairs: Path, data: Path, model: str, truth: dict[str, str]) -> tuple[set[str], Scores]:
    """Has a model label pairs and verify its own labels.

    Returns:
        The keys of its wrong labels; and for each set of signals, every label's score.
    """
    settings = Settings(
        vlm=VLMSettings(model=model, batch_size=32, max_new_tokens=64),
        labels=LabelSettings(preset="compact", retries=0),
    )
    caption_pairs(data, settings, pairs=pairs)
    scores: Scores = {}
    with opened(data, settings) as run:
        cheap = verify_run(run)
        scores["rules"] = {
            verdict.key: _of_rules(run.dataset.journal.state(verdict.key))
            for verdict in cheap.verdicts
        }
        scores["rules + log-probabilities"] = {v.key: v.score for v in cheap.verdicts}
        done = verify_run(run, model)
        scores["all signals"] = {v.key: v.score for v in done.verdicts}
        print(*done.summaries[1].notes, sep="\n")
        texts = {v.key: run.dataset.journal.state(v.key).text.caption for v in done.verdicts}
    return {key for key, text in texts.items() if edits(text) != edits(truth[key])}, scores


def edits(text: str | None) -> set[str]:
    """The edits of a label, in any order, however they are dotted, and without small words: "move
    ring on the left to the top" is as good as "move the ring from the left to the top"."""
    return {
        " ".join(word for word in edit.strip(" .").lower().split() if word not in _SMALL)
        for edit in (text or "").split(";")
    }


def _of_rules(state: State) -> float:
    score = next(score for score in state.scores if score.by == RULES)
    return together(score.scores.values())


def manifest(rows: Iterator[Row], path: Path) -> dict[str, str]:
    """Writes a table of pairs; returns the true label of each."""
    truth = {}
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            truth[row["key"]] = row.pop("truth")
            file.write(json.dumps(row) + "\n")
    return truth
