"""What the trainers' reader makes of a video file, which may be anybody's.

They read it by imageio, which is FFmpeg at a constant rate: `count_frames`, then each frame as RGB.
FFmpeg conceals damage, and repeats or drops frames whose times are not those of the rate. So a file
is opened by FFmpeg's libraries here, and its frames are decoded, by a decoder that reports damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.video.stream import VideoStream

from chronoprep.data import Flaw

LEAST_SIDE = 16  # pixels: the trainers crop to multiples of it, and from less to nothing
_HEAD = 64
_LFS = b"version https://git-lfs"
_THUMB = 16  # pixels a side
# A frame may be shown by so many intervals early or late before another takes its place.
_EARLY = 0.5


@dataclass
class Footage:
    """A video file, looked at.

    Attributes:
        frames: How many frames it shows; None where that can't be told.
        size: Of its first frame, (width, height) in pixels.
        first: Its first frame as 16×16 RGB values, if it was decoded.
        pair: Its two frames, RGB, if it was decoded and has two of one size.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    first: bytes | None = None
    pair: tuple[np.ndarray, ...] = ()
    flaws: list[Flaw] = field(default_factory=list)


def examine(path: Path, *, decode: bool) -> Footage:
    """Look at a video file.

    Args:
        decode: Every frame; without, what its container says of it.

    Raises:
        OSError: The file can't be read.
    """
    seen = Footage()
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if not head:
            seen.flaws.append(Flaw("file-empty", f"{path}: the file is empty."))
        elif head.startswith(_LFS):
            what = f"{path}: a Git LFS pointer, not the file itself."
            seen.flaws.append(Flaw("lfs-pointer", what))
        elif head[4:8] == b"ftyp" and (missing := _cut(file)):
            seen.flaws.append(Flaw("video-truncated", f"{path}: cut short: {missing}."))
    if seen.flaws:
        return seen
    try:
        with av.open(str(path)) as container:
            flaws = [*_flaws_of_streams(container)]
            if not any(code in _BLIND for code, _ in flaws):
                flaws += _flaws_of_frames(container, seen, decode=decode)
    except Exception as error:  # what damage makes PyAV raise: nearly any
        reason = getattr(error, "strerror", None) or error
        flaws = [("video-unreadable", f"no video that FFmpeg can read: {reason}")]
    seen.flaws += [Flaw(code, f"{path}: {what}.") for code, what in flaws]
    return seen


_BLIND = ("no-pictures", "codec-unknown")  # with which there is no more to see


def _flaws_of_streams(container: InputContainer) -> Iterator[tuple[str, str]]:
    videos = container.streams.video
    if not videos:
        yield "no-pictures", "there are no pictures in it"
        return
    if len(videos) > 1:
        yield "several-videos", f"it has {len(videos)} video streams, of which one is read"
    if container.streams.audio:
        yield "audio", "it has sound, which may move the times of its frames"
    stream = videos[0]
    # PyAV has no context of a codec that FFmpeg does not know.
    context: CodecContext | None = stream.codec_context
    if context is None:
        yield "codec-unknown", "its codec is not known to FFmpeg"
        return
    ratio = stream.sample_aspect_ratio
    if ratio and ratio != 1:
        yield "pixel-shape", f"its pixels are {ratio} times as wide as high, which no trainer heeds"
    width, height = stream.width, stream.height
    if width and height and min(width, height) < LEAST_SIDE:
        yield "too-small", f"{width}×{height}: less than {LEAST_SIDE} pixels a side"


def _flaws_of_frames(
    container: InputContainer, seen: Footage, *, decode: bool
) -> Iterator[tuple[str, str]]:
    stream = container.streams.video[0]
    times: list[int | None] = []
    if not decode:
        packets = (packet for packet in container.demux(stream) if packet.size)
        times += sorted((p.pts for p in packets if not p.is_discard), key=lambda time: time or 0)
        seen.size = (stream.width, stream.height)
    else:
        sizes: dict[tuple[int, int], int] = {}
        pair = []
        stream.codec_context.options = {"err_detect": "explode"}
        stream.codec_context.thread_count = 1  # files are what runs in parallel
        try:
            for number, frame in enumerate(container.decode(stream), 1):
                times.append(frame.pts)
                if number <= 2:
                    pair.append(frame.to_ndarray(format="rgb24"))
                if number == 1:
                    seen.size = (frame.width, frame.height)
                    small = frame.reformat(_THUMB, _THUMB, "rgb24", interpolation="AREA")
                    seen.first = small.to_ndarray().tobytes()
                    if frame.rotation:
                        yield (
                            "rotation",
                            f"it is to be shown turned by {frame.rotation % 360:.0f}°, which some "
                            "readers do and some don't",
                        )
                sizes.setdefault((frame.width, frame.height), number)
        except av.FFmpegError as error:
            yield "video-damaged", f"frame {len(times) + 1} does not decode: {error.strerror}"
            return
        if len(sizes) > 1:
            shown = ", ".join(f"frame {at} {w}×{h}" for (w, h), at in sizes.items())
            yield "frame-sizes", f"its frames differ in size: {shown}"
        elif len(times) == 2:
            seen.pair = tuple(pair)
    seen.frames = len(times)
    if stream.frames > seen.frames:
        yield "hidden-frames", f"it holds {stream.frames} frames and shows {seen.frames}"
    yield from _flaws_of_times(stream, times)


def _flaws_of_times(stream: VideoStream, times: list[int | None]) -> Iterator[tuple[str, str]]:
    """Hold the times of frames against the rate at which FFmpeg will show them."""
    rate, base = stream.guessed_rate, stream.time_base
    if not rate or not base or not times or any(time is None for time in times):
        return
    known = [time for time in times if time is not None]
    for number, time in enumerate(known):
        if abs((time - known[0]) * base * rate - number) > _EARLY:
            yield (
                "video-timing",
                f"frame {number + 1} is not shown when it is due at {float(rate):.4g} frames a "
                "second: the reader repeats and drops frames",
            )
            return


def _cut(file: BinaryIO) -> str | None:
    """What is missing at the end of an mp4, by the lengths of its boxes."""
    end = file.seek(0, 2)
    at, kinds = 0, set()
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # up to the end
            length = end - at
        if length < 8:
            return f"its part at byte {at} has no length"
        kinds.add(kind)
        at += length
    if at > end:
        return f"{at - end} bytes are missing"
    return None if b"moov" in kinds else "its index (moov) is missing"
