"""Clips: frames of a video as images, and the clip itself as a video of the dataset.

A leaf: imports PyAV at its top. The file is sought in, not decoded from its start, where its
container allows that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image
from PIL.Image import Resampling, Transpose

from chronoprep.config import ImageSettings
from chronoprep.data import Frame
from chronoprep.errors import PairError
from chronoprep.images.colour import Space, by_codes, is_srgb, to_srgb, tone_mapped
from chronoprep.images.decode import Decoded
from chronoprep.images.reading import reason, require_file, require_size, unreadable
from chronoprep.images.room import claim
from chronoprep.images.wholeness import promised_size

# Frames are shown at times that a container rounds.
_EPSILON = 1e-4
# AVI and MPEG program streams time few frames or none, and FFmpeg guesses the rest wrong: their
# frames are counted from the start.
_COUNTED = ("avi", "mpeg")
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2",)  # containers whose index names each frame

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


# What PyAV answers damage with: besides FFmpeg's errors, those of names that are no text and of
# streams that turn up while others are read.
_DAMAGE = (av.FFmpegError, ValueError, IndexError, OverflowError, MemoryError)
_AGAIN = "Copy or download the clip again, or remove it."


def load_frame(ref: Frame, settings: ImageSettings) -> Decoded:
    """A frame as upright RGB at full size, as a player shows it: with square pixels, turned and
    mirrored as the clip's display matrix says.

    Pixels that are no squares are made so by enlarging the shorter side of them.

    Raises:
        PairError: The clip is missing, damaged, shorter than its container says, has no such frame,
            more than `max_pixels` or a matrix that does more than turn by right angles and mirror.
    """
    with _opened(ref.clip) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        size = _square((codec.width, codec.height), stream)
        require_size(ref.clip, size, settings)
        claim(size[0] * size[1])
        frame = (
            next(container.decode(stream), None) if ref.at == "first" else _found(container, ref.at)
        )
        if frame is None:
            raise PairError(f"{ref}: the clip has no such frame.", hint="Is it cut short?")
        if frame.is_corrupt:
            raise PairError(f"{ref}: the frame is damaged.", hint=_AGAIN)
        size = _square((frame.width, frame.height), stream)
        require_size(ref.clip, size, settings)
        notes: list[str] = []
        image, space = _pixels(frame, settings, notes)
        move = _display(frame, ref)
    if image.size != size:
        was, now = (f"{width}×{height}" for width, height in (image.size, size))
        notes.append(f"pixels made square: {was} → {now}")
        image = image.resize(size, Resampling.LANCZOS)
    upright = image if move is None else image.transpose(move)
    return Decoded(upright, "sRGB" if is_srgb(space) else space.name, tuple(notes), plain=False)


def _pixels(
    frame: av.VideoFrame, settings: ImageSettings, notes: list[str]
) -> tuple[Image.Image, Space]:
    """A frame in sRGB, and the colour space that it was in; appends to `notes`."""
    space = _space(frame)
    if space.transfer is not None and settings.colour_management:
        return tone_mapped(frame.to_ndarray(format="rgb48le"), space, notes), space
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    if settings.colour_management:
        return to_srgb(image, space, notes), space
    if not is_srgb(space):
        notes.append(f"{space.name}: its numbers taken as sRGB")
    return image, space


def _space(shown: av.VideoFrame | av.VideoCodecContext) -> Space:
    return by_codes(int(shown.color_primaries), int(shown.color_trc))


def _square(size: tuple[int, int], stream: VideoStream) -> tuple[int, int]:
    """The size of a frame with square pixels."""
    width, height = size
    shape = stream.sample_aspect_ratio or Fraction(1)
    if shape <= 0:
        return size
    return (round(width * shape), height) if shape > 1 else (width, round(height / shape))


def keep_clip(clip: Path, path: Path, settings: ImageSettings, *, check: bool) -> None:
    """Put the clip's own pictures, not encoded again, into an mp4 at `path`.

    A file of its own, not a link to the clip, which may have sound, or be no mp4.

    Args:
        check: Decode what was written.

    Raises:
        PairError: The clip can't be read, is not whole, does not decode, an mp4 can't hold its
            codec, or its pixels would have to be changed to be right.
        OSError: When the disk is full or the folder can't be written.
    """
    with _opened(clip) as source:
        stream = source.streams.video[0]
        _require_plain(clip, stream, settings)
        packets = 0
        try:
            with av.open(str(path), "w", format="mp4") as kept:
                out = kept.add_stream_from_template(stream, opaque=True)
                for packet in source.demux(stream):
                    # The last one is empty. Others may lack a dts, as Matroska's first do.
                    if packet.size:
                        packets += 1
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
        if source.format.name in _INDEXED and packets < len(stream.index_entries):
            raise _broken_off(clip, packets, len(stream.index_entries), "frames")
    if check:
        _check(path, clip)


def _require_plain(clip: Path, stream: VideoStream, settings: ImageSettings) -> None:
    """Refuse to keep a clip whose frames would be shown otherwise than a trainer reads them."""
    codec = stream.codec_context
    space = _space(codec)
    if settings.colour_management and not is_srgb(space):
        what = f"its colours are {space.name} and would be read as sRGB"
    elif _square((codec.width, codec.height), stream) != (codec.width, codec.height):
        what = "its pixels are no squares and would be read as such"
    else:
        return
    raise PairError(
        f"{clip}: {what}.", hint="Leave out --keep-clip, or convert the clip as it is to be seen."
    )


def _check(kept: Path, clip: Path) -> None:
    """Decode a kept clip: without an error, to frames whose times rise, up to its last."""
    time, last = None, 0
    try:
        with av.open(str(kept)) as container:
            stream = _pictures(container, clip)
            stream.codec_context.options = {"err_detect": "explode"}
            for packet in container.demux(stream):
                last = max(last, packet.pts or 0)
                for frame in packet.decode():
                    if time is not None and (frame.pts or 0) < time:
                        raise PairError(
                            f"{clip}: its container does not say when its frames are shown.",
                            hint="Convert the clip to mp4, or leave out --keep-clip.",
                        )
                    time = frame.pts or 0
            if time is not None:
                _require_last(clip, stream, time, last)
    except _DAMAGE as error:
        raise PairError(f"{clip}: does not decode: {reason(error)}.", hint=_AGAIN) from None
    if time is None:
        raise PairError(f"{clip}: does not decode to any frame.", hint=_AGAIN)


def _require_last(clip: Path, stream: VideoStream, time: int, last: int) -> None:
    """Refuse where the last frame that decodes is not the last that there is, by their times in
    units of the stream."""
    base, rate = float(stream.time_base or 0), float(stream.average_rate or 1)
    if (last - time) * base > 0.5 / rate:
        raise PairError(
            f"{clip}: its last frame, at {last * base:.2f} s, does not decode; the last that does "
            f"is at {time * base:.2f} s.",
            hint=_AGAIN,
        )


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
    """A clip that is whole, with pictures that can be decoded."""
    require_file(clip)
    size = clip.stat().st_size
    try:
        promised = promised_size(clip, size)
    except OSError as error:
        raise unreadable(clip, error) from None
    if size < promised:
        raise _broken_off(clip, size, promised, "bytes")
    try:
        with av.open(str(clip)) as container:
            _require_indexed(clip, size, _pictures(container, clip))
            yield container
    except _DAMAGE as error:
        raise PairError(f"{clip}: can't read the clip: {reason(error)}.", hint=_AGAIN) from None


def _pictures(container: InputContainer, clip: Path) -> VideoStream:
    """The stream of pictures that is looked at."""
    if not container.streams.video:
        raise PairError(f"{clip}: no pictures in it.", hint="Remove it.")
    stream = container.streams.video[0]
    # It is None where FFmpeg has no decoder, whatever the annotation says.
    if getattr(stream, "codec_context", None) is None:
        raise PairError(
            f"{clip}: its pictures are of a codec that FFmpeg does not know.",
            hint="Convert the clip to H.264, or remove it.",
        )
    stream.thread_type = "AUTO"
    return stream


def _require_indexed(clip: Path, size: int, stream: VideoStream) -> None:
    """Refuse where the index tells of frames that lie behind the file's end."""
    entries = stream.index_entries
    there = sum(entry.pos + entry.size <= size for entry in entries)
    if there < len(entries):
        raise _broken_off(clip, there, len(entries), "frames in its index")


def _broken_off(clip: Path, there: int, promised: int, what: str) -> PairError:
    return PairError(
        f"{clip}: ends early: {there:,} of {promised:,} {what} are there.", hint=_AGAIN
    )


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
    last: list[int] = []
    for number, frame in enumerate(_decoded(container, stream, last)):
        if frame.pts is None or container.format.name in _COUNTED:
            time = number / rate
        else:
            time = (frame.pts - (stream.start_time or 0)) * base
        if at != "last" and time > at + _EPSILON:
            return shown
        shown = frame
    if shown is not None and shown.pts is not None and last:
        _require_last(Path(container.name), stream, shown.pts, last[-1])
    end = max((stream.duration or 0) * base, time + 1 / rate) + _EPSILON
    return shown if at == "last" or at <= end else None


def _decoded(
    container: InputContainer, stream: VideoStream, last: list[int]
) -> Iterator[av.VideoFrame]:
    """The frames from here on. Once they are all read, `last` holds the time that the container
    gives the last of them, in units of the stream, if it does."""
    times = []
    for packet in container.demux(stream):
        if packet.pts is not None and not packet.is_discard:
            times.append(packet.pts)
        yield from packet.decode()
    if times and container.format.name not in _COUNTED:
        last.append(max(times))
