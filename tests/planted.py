"""A clean dataset with embeddings, and everything that can go wrong with one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from chronoprep import digest
from chronoprep.config import Settings, VideoSettings
from chronoprep.dataset import Dataset, Embedding, Label, read_table, rewrite_table
from chronoprep.umt5 import save
from chronoprep.video import _mux, write_video
from chronoprep.workflows import build_csv, prepare
from conftest import photo, write_pairs

NAMES = [f"p{number}" for number in range(8)]
_COT = (
    "The user wants to add hat number {} to the person in the middle of the scene while the rest "
    "of the picture stays as it is: the hair, the clothes, the pose, the light and the background "
    "are kept, the framing does not move, and the hat sits straight, casts a soft shadow on the "
    "brow, and matches the colours and the grain of the photograph around it."
)


def cot(number: int) -> str:
    return _COT.format(number)


def clean_dataset(root: Path, count: int = len(NAMES), *, embeddings: bool = True) -> Path:
    """`root/data`, of the pairs in `root/pairs`."""
    names = [f"p{number}" for number in range(count)]
    write_pairs(root / "pairs", names, (64, 48))
    rows = [f'{n},pairs/input/{n}.png,pairs/output/{n}.png,"{cot(i)}"' for i, n in enumerate(names)]
    (root / "pairs.csv").write_text("\n".join(["key,source,target,prompt", *rows]))
    data = root / "data"
    prepare(data, Settings(), pairs=root / "pairs.csv")
    if embeddings:
        dataset = Dataset(data)
        dataset.append([_embedded(dataset, name, cot(i)) for i, name in enumerate(names)])
        build_csv(data, Settings())
    return data


def _embedded(dataset: Dataset, key: str, prompt: str) -> Embedding:
    path = dataset.embedding(key)
    torch.manual_seed(len(key))
    path.parent.mkdir(exist_ok=True)
    content = save(torch.randn(7, 4096).bfloat16(), path)
    status = path.stat()
    return Embedding(
        key=key, prompt=digest.of_text(prompt), encoder="x", tokens=7, bytes=status.st_size,
        mtime=status.st_mtime_ns, content=content,
    )  # fmt: skip


def frames_video(
    path: Path, count: int, *, times: list[int] | None = None, audio: bool = False,
    size: tuple[int, int] = (64, 48), ratio: Fraction | None = None,
    kind: str = "mp4",
) -> None:  # fmt: skip
    """A video of so many frames at 1 fps, with what else may be in one."""
    with av.open(str(path), "w", format=kind) as container:
        stream: Any = container.add_stream("libx264rgb", rate=1, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24"
        stream.time_base = stream.codec_context.time_base = Fraction(1)
        stream.codec_context.max_b_frames = 0
        if ratio is not None:
            stream.codec_context.sample_aspect_ratio = ratio
        sound: Any = container.add_stream("aac", rate=8000) if audio else None
        container.start_encoding()
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.asarray(photo(number, size)), format="rgb24")
            frame.pts, frame.time_base = (times or range(count))[number], Fraction(1)
            container.mux(stream.encode(frame))
        if sound is not None:
            noise = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            noise.sample_rate, noise.pts = 8000, 0
            container.mux(sound.encode(noise))
            container.mux(sound.encode(None))
        container.mux(stream.encode(None))


def cells(data: Path, **changed: str) -> None:
    """Change the cells of p1's row."""
    import polars as pl

    table = read_table(data / "metadata.csv")
    for column, text in changed.items():
        there = pl.col("key") == "p1"
        table = table.with_columns(
            pl.when(there).then(pl.lit(text)).otherwise(column).alias(column)
        )
    rewrite_table(table, data / "metadata.csv")


def text_of(data: Path) -> str:
    return (data / "metadata.csv").read_text("utf-8")


def rewrite(data: Path, text: str, encoding: str = "utf-8") -> None:
    (data / "metadata.csv").write_text(text, encoding, newline="")


def folder(path: Path) -> None:
    """A folder where there was a file."""
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def lines(data: Path, change: Callable[[list[str]], list[str]]) -> None:
    rewrite(data, "\n".join(change(text_of(data).splitlines())) + "\n")


def column(data: Path, name: str, value: Callable[[int], str]) -> None:
    import polars as pl

    table = read_table(data / "metadata.csv")
    made = pl.Series(name, [value(n) for n in range(len(table))], dtype=pl.String)
    rewrite_table(table.with_columns(made), data / "metadata.csv")


def video(data: Path) -> Path:
    return data / "videos/p1.mp4"


def pickle_of(data: Path) -> Path:
    return data / "umt5/p1.pkl"


def dump(data: Path, value: object) -> None:
    import pickle

    pickle_of(data).write_bytes(pickle.dumps(value))


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    start = int(len(content) * at)
    for place in range(start, min(start + 64, len(content))):
        content[place] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def sizes_differ(data: Path) -> None:
    import io

    files = []
    for number, size in enumerate(((64, 48), (96, 72))):
        file = io.BytesIO()
        photo(number, size).save(file, "JPEG")
        files.append(file.getvalue())
    _mux(files, (64, 48), video(data))


def hide_a_frame(data: Path) -> None:
    """An edit list that begins with the second frame."""
    content = bytearray(video(data).read_bytes())
    at = content.index(b"elst")
    assert int.from_bytes(content[at + 8 : at + 12], "big") == 1
    time = content.index(b"mdhd") + 16  # its time scale
    scale = int.from_bytes(content[time : time + 4], "big")
    content[at + 16 : at + 20] = scale.to_bytes(4, "big")
    video(data).write_bytes(content)


def unknown_codec(data: Path) -> None:
    content = video(data).read_bytes()
    video(data).write_bytes(content.replace(b"avc1", b"zzzz"))


def sideways(data: Path) -> None:
    """The matrix of a picture turned by a right angle, as telephones write it."""
    content = bytearray(video(data).read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(part.to_bytes(4, "big", signed=True) for part in matrix)
    video(data).write_bytes(content)


def two_videos(data: Path) -> None:
    with av.open(str(video(data)), "w", format="mp4") as container:
        streams: list[Any] = [container.add_stream("libx264rgb", rate=1) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for stream in streams:
            for number in range(2):
                picture = np.asarray(photo(number, (64, 48)))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))


def sound_only(data: Path) -> None:
    with av.open(str(video(data)), "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), np.float32)
        noise = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        noise.sample_rate, noise.pts = 8000, 0
        container.mux(sound.encode(noise))
        container.mux(sound.encode(None))


def relabel(data: Path) -> None:
    """A label for other images than the video shows."""
    dataset = Dataset(data)
    before = dataset.journal.state("p1").label
    assert isinstance(before, Label)
    dataset.append([before.model_copy(update={"images": "0" * 32})])


def same_source(data: Path) -> None:
    """p5 begins with p1's source."""
    settings = VideoSettings()
    with Image.open(data.parent / "pairs/input/p1.png") as source:
        write_video(source, photo(77, (64, 48)), data / "videos/p5.mp4", settings)
    column(data, "split", lambda number: "train" if number < 4 else "test")


def two_frames(data: Path, *numbers: int | None) -> None:
    """A video of photos; of None, red."""
    size = (64, 48)
    first, second = (
        Image.new("RGB", size, "red") if n is None else photo(n, size) for n in numbers
    )
    write_video(first, second, video(data), VideoSettings())


def renamed(data: Path) -> None:
    video(data).rename(data / "videos/p1.m4v")
    cells(data, video="videos/p1.m4v")


Plant = Callable[[Path], object]
LFS = "version https://git-lfs.github.com/spec/v1\n"
T = torch.randn(7, 4096, generator=torch.Generator().manual_seed(7)).bfloat16()


def _with_row(change: Callable[[torch.Tensor], object]) -> Plant:
    def plant(data: Path) -> None:
        tensor = T.clone()
        change(tensor)
        dump(data, tensor)

    return plant


def wider(line: str) -> str:
    return f"{line},y"


PLANTED: list[tuple[str, str | None, Plant]] = [
    ("table-missing", None, lambda d: (d / "metadata.csv").unlink()),
    (
        "table-unreadable",
        None,
        lambda d: ((d / "metadata.csv").unlink(), (d / "metadata.csv").mkdir()),
    ),
    ("table-unreadable", None, lambda d: pipe(d / "metadata.csv")),
    ("table-empty", None, lambda d: rewrite(d, "")),
    ("table-empty", None, lambda d: rewrite(d, "key,video,prompt,umt5\n")),
    (
        "table-encoding",
        None,
        lambda d: (d / "metadata.csv").write_bytes(text_of(d).encode("utf-16")),
    ),
    ("table-broken", None, lambda d: rewrite(d, text_of(d) + '"p9,')),
    ("column-missing", None, lambda d: rewrite(d, text_of(d).replace("prompt", "caption", 1))),
    ("column-missing", None, lambda d: rewrite(d, text_of(d).replace("key", "name", 1))),
    ("column-missing", None, lambda d: rewrite(d, text_of(d).replace('","', '";"'))),
    (
        "column-twice",
        None,
        lambda d: lines(d, lambda ls: [f"{ls[0]},prompt", *(f"{x},y" for x in ls[1:])]),
    ),
    ("columns-shifted", None, lambda d: lines(d, lambda ls: [ls[0], *map(wider, ls[1:])])),
    ("row-wide", None, lambda d: lines(d, lambda ls: [*ls[:3], ls[3] + ",more", *ls[4:]])),
    ("row-short", None, lambda d: lines(d, lambda ls: [*ls, "p9,videos/p1.mp4"])),
    ("row-twice", "p1", lambda d: lines(d, lambda ls: [*ls, ls[2]])),
    ("key-twice", "p1", lambda d: lines(d, lambda ls: [*ls, ls[4].replace('"p3"', '"p1"')])),
    ("keys-not-text", None, lambda d: column(d, "key", lambda n: f"000{n}")),
    ("key-empty", "p1", lambda d: cells(d, key="")),
    ("key-empty", "NA", lambda d: cells(d, key="NA")),
    ("row-gone", "p1", lambda d: lines(d, lambda ls: ls[:2] + ls[3:])),
    ("prompt-empty", "p1", lambda d: cells(d, prompt="")),
    ("prompt-empty", "p1", lambda d: cells(d, prompt="  \t")),
    ("prompt-nan", "p1", lambda d: cells(d, prompt="N/A")),
    ("prompt-nan", "p1", lambda d: cells(d, prompt="None")),
    ("prompt-number", "p1", lambda d: column(d, "prompt", lambda n: str(n))),
    ("prompt-bool", "p1", lambda d: column(d, "prompt", lambda _: "True")),
    ("prompt-control", "p1", lambda d: cells(d, prompt=cot(1) + "\r")),
    ("prompt-control", "p1", lambda d: cells(d, prompt=cot(1) + "\0")),
    ("prompt-control", "p1", lambda d: cells(d, prompt=cot(1) + "\x1b[0m")),
    ("prompt-opening", "p1", lambda d: cells(d, prompt=cot(1).replace("The user", "She"))),
    ("prompt-length", "p1", lambda d: cells(d, prompt="The user wants to add a hat.")),
    ("prompt-length", "p1", lambda d: cells(d, prompt=" ".join(cot(n) for n in range(9)))),
    ("prompt-degenerate", "p1", lambda d: cells(d, prompt="The user wants to " + "!" * 90)),
    (
        "prompt-degenerate",
        "p1",
        lambda d: cells(d, prompt="The user wants to " + "add a hat, " * 20),
    ),
    ("prompt-degenerate", "p1", lambda d: cells(d, prompt=cot(1) + "<|im_end|>")),
    ("prompt-garbled", "p1", lambda d: cells(d, prompt=cot(1).replace("hat", "cafÃ©"))),
    ("path-empty", "p1", lambda d: cells(d, video="")),
    ("path-absolute", "p1", lambda d: cells(d, video=str(video(d)))),
    ("path-outside", "p1", lambda d: cells(d, video="../data/videos/p1.mp4")),
    ("path-backslash", "p1", lambda d: cells(d, video="videos\\p1.mp4")),
    ("path-case", "p1", lambda d: cells(d, video="videos/P1.mp4")),
    (
        "path-suffix",
        "p1",
        lambda d: (video(d).rename(d / "videos/p1.m4v"), cells(d, video="videos/p1.m4v")),
    ),
    ("path-suffix", "p1", lambda d: cells(d, umt5="umt5/p1.pt")),
    ("file-missing", "p1", lambda d: video(d).unlink()),
    ("file-missing", "p1", lambda d: pickle_of(d).unlink()),
    ("file-missing", "p1", lambda d: cells(d, video=f"videos/{'p' * 300}.mp4")),
    ("file-unreadable", "p1", lambda d: folder(video(d))),
    ("file-unreadable", "p1", lambda d: pipe(video(d))),
    ("file-empty", "p1", lambda d: video(d).write_bytes(b"")),
    ("file-empty", "p1", lambda d: pickle_of(d).write_bytes(b"")),
    (
        "lfs-pointer",
        "p1",
        lambda d: video(d).write_text(LFS),
    ),
    (
        "lfs-pointer",
        "p1",
        lambda d: pickle_of(d).write_text(LFS),
    ),
    ("video-unreadable", "p1", lambda d: video(d).write_text("<html>not found</html>" * 9)),
    ("video-truncated", "p1", lambda d: cut(video(d), 0.5)),
    ("video-truncated", "p1", lambda d: cut(video(d), 0.99)),
    ("video-damaged", "p1", lambda d: flip(video(d), 0.3)),
    ("no-pictures", "p1", sound_only),
    ("no-frames", "p1", lambda d: frames_video(video(d), 0, kind="avi")),
    ("one-frame", "p1", lambda d: frames_video(video(d), 1)),
    ("extra-frames", "p1", lambda d: frames_video(video(d), 3)),
    ("extra-frames", "p1", lambda d: frames_video(video(d), 26)),
    ("frame-sizes", "p1", sizes_differ),
    ("hidden-frames", "p1", hide_a_frame),
    ("video-timing", "p1", lambda d: frames_video(video(d), 3, times=[0, 1, 5])),
    ("codec-unknown", "p1", unknown_codec),
    ("too-small", "p1", lambda d: frames_video(video(d), 2, size=(64, 12))),
    ("rotation", "p1", sideways),
    ("pixel-shape", "p1", lambda d: frames_video(video(d), 2, ratio=Fraction(4, 3))),
    ("audio", "p1", lambda d: frames_video(video(d), 2, audio=True)),
    ("several-videos", "p1", two_videos),
    ("same-frames", "p1", lambda d: two_frames(d, 1, 1)),
    ("plain-frame", "p1", lambda d: two_frames(d, 1, None)),
    ("video-shared", "p2", lambda d: cells(d, video="videos/p2.mp4")),
    ("embedding-shared", "p2", lambda d: cells(d, umt5="umt5/p2.pkl")),
    ("other-images", "p1", relabel),
    ("video-changed", "p1", lambda d: shutil.copy(d / "videos/p2.mp4", video(d))),
    ("embedding-missing", "p1", lambda d: cells(d, umt5="")),
    ("pickle-damaged", "p1", lambda d: cut(pickle_of(d), 0.5)),
    ("pickle-damaged", "p1", lambda d: pickle_of(d).write_text("not found")),
    ("embedding-torch-save", "p1", lambda d: torch.save(T, pickle_of(d))),
    ("embedding-type", "p1", lambda d: dump(d, T.float().numpy())),
    ("embedding-type", "p1", lambda d: dump(d, {"umt5": T})),
    ("embedding-shape", "p1", lambda d: dump(d, torch.ones(7, 32).bfloat16())),
    ("embedding-shape", "p1", lambda d: dump(d, T[None].clone())),
    ("embedding-shape", "p1", lambda d: dump(d, torch.ones(513, 4096).bfloat16())),
    ("embedding-grad", "p1", lambda d: dump(d, torch.nn.Parameter(T))),
    ("embedding-not-finite", "p1", _with_row(lambda t: t[3].fill_(float("nan")))),
    ("embedding-zero", "p1", lambda d: dump(d, torch.zeros(7, 4096).bfloat16())),
    ("embedding-zero-row", "p1", _with_row(lambda t: t[3].zero_())),
    ("embedding-padded", "p1", _with_row(lambda t: t[5:].zero_())),
    ("embedding-dtype", "p1", lambda d: dump(d, T.float())),
    ("embedding-not-compact", "p1", lambda d: dump(d, torch.ones(512, 4096).bfloat16()[:7])),
    ("embedding-stale", "p1", lambda d: cells(d, prompt=cot(99))),
    ("embedding-changed", "p1", lambda d: dump(d, T + 1)),
    ("orphan", None, lambda d: shutil.copy(video(d), d / "videos/stray.mp4")),
    ("orphan", None, lambda d: shutil.copy(pickle_of(d), d / "umt5/stray.pkl")),
    ("split-leak", "p5", same_source),
]
