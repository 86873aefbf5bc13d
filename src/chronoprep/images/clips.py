"""Clips: frames of a video as images, and the clip itself as a video of the dataset.

A leaf: imports PyAV at its top. The file is sought in, not decoded from its start, where its
container allows that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from PIL import Image
from PIL.Image import Transpose

from chronoprep.config import ImageSettings
from chronoprep.data import Frame
from chronoprep.errors import PairError
from chronoprep.images.sources import require_file, require_size

# Frames are shown at times that a container rounds.
_EPSILON = 1e-4
# AVI and MPEG program streams time few frames or none, and FFmpeg guesses the rest wrong: their
# frames are counted from the start.
_COUNTED = ("avi", "mpeg")

# A pixel at (x, y) is shown at (ax + cy, bx + dy).
_MATRICES = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Transpose.ROTATE_180,
    (0, 1, -1, 0): Transpose.ROTATE_270,
    (0, -1, 1, 0): Transpose.ROTATE_90,
    (0, 1, 1, 0): Transpose.TRANSPOSE,
    (0, -1, -1, 0): Transpose.TRANSVERSE,
}


def load_frame(ref: Frame, settings: ImageSettings) -> Image.Image:
    """A frame as upright RGB at full size, turned and mirrored as the clip's display matrix says.

    Raises:
        PairError: The clip is missing, damaged, has no such frame, more than `max_pixels` or a
            matrix that does more than turn by right angles and mirror.
    """
    with _opened(ref.clip) as container:
        codec = container.streams.video[0].codec_context
        require_size(ref.clip, (codec.width, codec.height), settings)
        frame = (
            next(container.decode(video=0), None)
            if ref.at == "first"
            else _found(container, ref.at)
        )
        if frame is None:
            raise PairError(f"{ref}: the clip has no such frame.", hint="Is it cut short?")
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        move = _display(frame, ref)
    return image if move is None else image.transpose(move)


def keep_clip(clip: Path, path: Path, *, check: bool) -> None:
    """Put the clip's own pictures, not encoded again, into an mp4 at `path`.

    A file of its own, not a link to the clip, which may have sound, or be no mp4.

    Args:
        check: Decode what was written.

    Raises:
        PairError: The clip can't be read, does not decode, or an mp4 can't hold its codec.
        OSError: When the disk is full or the folder can't be written.
    """
    with _opened(clip) as source:
        stream = source.streams.video[0]
        try:
            with av.open(str(path), "w", format="mp4") as kept:
                out = kept.add_stream_from_template(stream, opaque=True)
                for packet in source.demux(stream):
                    # The last one is empty. Others may lack a dts, as Matroska's first do.
                    if packet.size:
                        packet.stream = out
                        kept.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            # Neither a clip that breaks off nor the disk is the codec's fault.
            if getattr(error, "filename", None) == str(clip):
                raise
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(path)) from None
            codec = stream.codec_context.name
            raise PairError(
                f"{clip}: an mp4 can't hold its {codec} pictures: {error}.",
                hint="Convert the clip to H.264, or leave out --keep-clip.",
            ) from None
    if check:
        _check(path, clip)


def _check(kept: Path, clip: Path) -> None:
    """Decode a kept clip: without an error, and to frames whose times rise."""
    again = "Copy or download the clip again, or remove it."
    time = None
    try:
        with av.open(str(kept)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if time is not None and (frame.pts or 0) < time:
                    raise PairError(
                        f"{clip}: its container does not say when its frames are shown.",
                        hint="Convert the clip to mp4, or leave out --keep-clip.",
                    )
                time = frame.pts or 0
    except av.FFmpegError as error:
        raise PairError(f"{clip}: does not decode: {error.strerror}.", hint=again) from None
    if time is None:
        raise PairError(f"{clip}: does not decode to any frame.", hint=again)


def _display(frame: av.VideoFrame, ref: Frame) -> Transpose | None:
    """How a frame has to be moved to be shown, by the display matrix of its clip."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = (round(part / (1 << 16)) for part in struct.unpack_from("=5i", matrix))
    if (a, b, c, d) not in _MATRICES:
        raise PairError(
            f"{ref}: the clip is to be shown turned by {frame.rotation:.0f}°, which is no right "
            "angle, or stretched.",
            hint="Encode the clip as it is to be seen.",
        )
    return _MATRICES[a, b, c, d]


@contextmanager
def _opened(clip: Path) -> Iterator[InputContainer]:
    require_file(clip)
    try:
        with av.open(str(clip)) as container:
            if not container.streams.video:
                raise PairError(f"{clip}: no pictures in it.", hint="Remove it.")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except (av.FFmpegError, ValueError) as error:
        raise PairError(
            f"{clip}: can't read the clip: {error}.",
            hint="Copy or download the file again, or remove it.",
        ) from None


def _found(container: InputContainer, at: Literal["last"] | float) -> av.VideoFrame | None:
    """The frame on show at a time or at the end: from the key frame before it on, or from the
    first, where seeking finds none or the container has no index to seek by."""
    stream = container.streams.video[0]
    start, duration = stream.start_time or 0, stream.duration or 0
    if at == "last":
        # Some containers find no key frame before the very end.
        places = [start + duration, start + duration // 2] if duration else []
    elif container.format.name in _COUNTED or not stream.time_base:
        places = []
    else:
        places = [start + int(at / stream.time_base)]
    for place in places:
        with suppress(av.FFmpegError):
            container.seek(place, stream=stream)
            if (frame := _shown(container, at)) is not None:
                return frame
    with _opened(Path(container.name)) as again:
        return _shown(again, at)


def _shown(container: InputContainer, at: Literal["last"] | float) -> av.VideoFrame | None:
    """Of the frames from here on, the last one, or the last up to a time that the clip reaches.

    Decoders give frames in the order in which they are shown; the times of AVI's are shuffled.
    """
    stream = container.streams.video[0]
    base, rate = float(stream.time_base or 0), float(stream.average_rate or 1)
    shown, time = None, 0.0
    for number, frame in enumerate(container.decode(stream)):
        if frame.pts is None or container.format.name in _COUNTED:
            time = number / rate
        else:
            time = (frame.pts - (stream.start_time or 0)) * base
        if at != "last" and time > at + _EPSILON:
            return shown
        shown = frame
    end = max((stream.duration or 0) * base, time + 1 / rate) + _EPSILON
    return shown if at == "last" or at <= end else None
