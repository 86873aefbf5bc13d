"""A dataset read as ChronoEdit's trainers read it: pandas, imageio and plain pickle."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio
import numpy as np
import pandas


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
