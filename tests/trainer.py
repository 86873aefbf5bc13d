"""A dataset read as ChronoEdit's trainers read it: pandas, imageio and plain pickle."""

from __future__ import annotations

import gc
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio
import numpy as np
import pandas
import torch

VIDEOS = ("mp4", "avi", "mov", "wmv", "mkv", "flv", "webm")


@dataclass
class Sample:
    key: str
    prompt: str
    frames: list[np.ndarray]
    umt5: Any


def read_video(path: Path, fps: int = 1) -> list[np.ndarray]:
    """All frames as uint8 arrays [height, width, 3] of a video of `fps`."""
    reader = imageio.get_reader(path)
    try:
        assert reader.get_meta_data()["fps"] == fps
        return [np.asarray(reader.get_data(i)) for i in range(int(reader.count_frames()))]
    finally:
        with warnings.catch_warnings():
            # imageio leaves the pipes of its ffmpeg to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            reader.close()


def read_dataset(folder: Path) -> list[Sample]:
    """Every sample; raises where the trainer would drop one."""
    samples = []
    for row in pandas.read_csv(folder / "metadata.csv").to_dict("records"):
        assert isinstance(row["prompt"], str)
        frames = read_video(folder / row["video"])
        assert len(frames) == 2
        embedding = None
        if isinstance(row["umt5"], str):
            with (folder / row["umt5"]).open("rb") as file:
                embedding = pickle.load(file)
            assert embedding.sum(axis=-1).nonzero().shape[0] == embedding.shape[0] <= 512
        samples.append(Sample(row["key"], row["prompt"], frames, embedding))
    return samples


def is_refused(folder: Path, key: str, *, video: bool = True) -> str | None:
    """Why the full-model trainer would pass over a sample or stop at it, None where it trains on
    it: the steps of its dataset and of its loader, in their order.

    Args:
        video: Whether to read that, too, which takes some processes.
    """
    with warnings.catch_warnings():
        # Of a video that can't be read, imageio leaves the pipes to the garbage collector. That has
        # to come by here: later, another test would be blamed for them.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return _refusal(folder, key, video=video)
        finally:
            gc.collect()


def _refusal(folder: Path, key: str, *, video: bool) -> str | None:
    table = pandas.read_csv(folder / "metadata.csv")
    rows = [table.iloc[number].to_dict() for number in range(len(table))]
    row = next(row for row in rows if row["key"] == key)
    try:
        if video:
            if row["video"].split(".")[-1].lower() not in VIDEOS:
                raise ValueError("unsupported file")
            frames = _frames(folder / row["video"], 2)
            assert len(frames) == 2, f"{len(frames)} frames"
            assert frames[0].shape == frames[1].shape
            assert min(frames[0].shape[:2]) >= 16, "nothing is left of it"
        if not row["umt5"].endswith(".pkl"):
            raise ValueError("unsupported file")
        with (folder / row["umt5"]).open("rb") as file:
            embedding = pickle.load(file)
        text = torch.zeros(512, 4096)
        count = embedding.sum(axis=-1).nonzero().shape[0]
        text[:count] = embedding[:count]
        assert not embedding[count:].any(), f"{count} of {len(embedding)} tokens"
        assert text.isfinite().all()
        pickle.dumps(text)  # from the loader's process to the trainer's
        assert not text.requires_grad
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _frames(path: Path, wanted: int) -> list[np.ndarray]:
    """As many frames as are asked for, as `LoadVideo` takes them."""
    reader = imageio.get_reader(path)
    try:
        there = int(reader.count_frames())
        number = wanted
        if there < wanted:
            number = there
            while number > 1 and number % 4 != 1:
                number -= 1
        return [np.asarray(reader.get_data(n)) for n in range(number)]
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            reader.close()
