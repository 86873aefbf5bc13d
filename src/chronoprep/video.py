"""The 2-frame videos: frame 1 the source, frame 2 the target, 1 fps.

`lossless` is x264 in RGB: the trainers' readers give back exactly the pixels that went in, at any
size, odd ones included (measured with imageio, PyAV, OpenCV, decord and torchcodec). `h264` is
4:4:4 in tv range, about half the size and visually the same. It knows nothing of pairs, labels or
datasets.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import av
import numpy as np

from chronoprep.dataset import replacing
from chronoprep.errors import PairError

if TYPE_CHECKING:
    from av.video.stream import VideoStream
    from PIL.Image import Image

Codec = Literal["lossless", "h264"]

MAX_SIDE = 16384  # x264's own limit, in pixels
# What the machine, and not the pair, is to blame for.
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.EIO,
    errno.ENOENT,
)
MIN_PSNR = 40.0  # dB; crf 8 in 4:4:4 gives 48 on photographs

# encoder, pixel format, options. `ultrafast` has no B-frames, so that frames lie in order.
_CODECS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "lossless": ("libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"}),
    "h264": ("libx264", "yuv444p", {"crf": "8", "preset": "ultrafast"}),
}


def write_video(source: Image, target: Image, path: Path, *, codec: Codec, stamp: str) -> None:
    """Write two RGB images of equal size as an mp4, decoded back before it takes its name.

    Args:
        stamp: Identity of what the video was made from; `read_stamp` gives it back.

    Raises:
        PairError: When the sizes differ, are beyond what x264 takes, or the file does not decode to
            these two frames. Nothing is left behind.
        BackendError: When the disk is full or the folder can't be written.
    """
    if source.size != target.size:
        raise PairError(f"{path.name}: frames of different sizes, {source.size} and {target.size}")
    if max(source.size) > MAX_SIDE:
        raise PairError(
            f"{path.name}: {source.width}×{source.height}: x264 takes at most {MAX_SIDE} "
            "pixels a side",
            hint="Scale the images down.",
        )
    frames = [np.asarray(image) for image in (source, target)]
    with replacing(path) as temporary:
        try:
            _encode(frames, temporary, codec, stamp)
            _check(frames, temporary, codec, path.name)
        except av.FFmpegError as error:
            if error.errno in _DISK_ERRORS:
                raise OSError(error.errno, error.strerror) from None
            raise PairError(f"{path.name}: can't be encoded: {error}") from None


def read_stamp(path: Path) -> str | None:
    """The stamp of a complete 2-frame video; None for a file that is missing, torn or foreign.

    It looks at the boxes of the mp4 alone, some hundred times quicker than a demuxer: resuming asks
    for thousands of stamps.
    """
    try:
        with path.open("rb") as file:
            movie = _movie_box(file)
    except OSError:
        return None
    samples = _box(movie, b"trak", b"mdia", b"minf", b"stbl", b"stsz")
    # Behind the version and the common sample size stands the number of frames.
    if samples[8:12] != b"\0\0\0\2":
        return None
    # `meta` opens with a version, so that its children start 4 bytes later.
    comment = _box(_box(movie, b"udta", b"meta")[4:], b"ilst", b"\xa9cmt", b"data")
    return comment[8:].decode("utf-8", "replace") or None


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames as uint8 arrays [height, width, 3], RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _encode(frames: list[np.ndarray], path: Path, codec: Codec, stamp: str) -> None:
    encoder, pixel_format, options = _CODECS[codec]
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["comment"] = stamp
        stream = cast("VideoStream", container.add_stream(encoder, rate=1, options=options))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        # One thread: the bytes are the same on every machine; pairs are what runs in parallel.
        stream.codec_context.thread_count = 1
        stream.time_base = Fraction(1)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if codec == "h264":
                # The readers assume BT.601 where a file says nothing.
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace="ITU601", dst_color_range="MPEG"
                )
            frame.pts, frame.time_base = number, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _check(frames: list[np.ndarray], path: Path, codec: Codec, name: str) -> None:
    decoded = read_frames(path)
    if len(decoded) != 2 or any(d.shape != f.shape for d, f in zip(decoded, frames, strict=True)):
        raise PairError(f"{name}: the video does not decode to two frames of the right size")
    for wanted, got in zip(frames, decoded, strict=True):
        if codec == "lossless":
            good = np.array_equal(wanted, got)
        else:
            error = float(np.mean((wanted.astype(np.float32) - got) ** 2))
            good = error <= 255.0**2 / 10 ** (MIN_PSNR / 10)
        if not good:
            raise PairError(f"{name}: the decoded video differs too much from its images")


def _movie_box(file: BinaryIO) -> bytes:
    """The content of `moov`; empty unless the file ends where its last box does."""
    size = os.fstat(file.fileno()).st_size
    position, movie = 0, b""
    while position < size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # a box of more than 4 GB
            length = int.from_bytes(header[8:], "big")
        if length < 8 or position + length > size:
            return b""
        if header[4:8] == b"moov":
            file.seek(position + 8)
            movie = file.read(length - 8)
        position += length
    return movie


def _box(data: bytes, *names: bytes) -> bytes:
    """The content of the box at a path of names; empty if there is none."""
    for name in names:
        data = next((content for kind, content in _boxes(data) if kind == name), b"")
    return data


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + length]
        position += max(length, 8)
