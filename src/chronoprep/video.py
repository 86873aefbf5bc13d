"""The 2-frame videos: frame 1 the source, frame 2 the target, 1 fps.

`lossless` is x264 in RGB: the trainers' readers give back exactly the pixels that went in, at any
size, odd ones included. `h264` is 4:4:4 in tv range, a third of the size and visually the same, or
4:2:0 for players. `copy` puts two JPEG files into the mp4 as they are. What each reader makes of
them is measured by `benchmarks/video.py`. It knows nothing of pairs, labels or datasets.
"""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOENT, ENOSPC, EROFS
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL.Image import Image, Resampling
from PIL.JpegImagePlugin import JpegImageFile

from chronoprep import mp4
from chronoprep.config import VideoSettings
from chronoprep.errors import PairError, ToolError
from chronoprep.files import replacing
from chronoprep.mp4 import ALL, Sample

MAX_SIDE = 16384  # x264's own limit, in pixels
# What the machine, and not the pair, is to blame for.
_DISK_ERRORS = {ENOSPC, EDQUOT, EFBIG, EACCES, EROFS, EIO, ENOENT}
_SECOND = Fraction(1)
# Asks FFmpeg not to decode a frame only to see what the file holds: a third of reading it back.
_UNPROBED = {"skip_frame": "all"}
_TV_RANGE, _BT601, _BT709_PRIMARIES, _SRGB_CURVE = 1, 5, 1, 13  # as H.264 numbers them
_ORIENTATION_TAG = 0x0112


class _Encoder(NamedTuple):
    """How frames are encoded, and the PSNR in dB that they must have after decoding."""

    name: str
    pixel_format: str
    options: dict[str, str]
    floor: float


def _encoder(settings: VideoSettings) -> _Encoder:
    # `ultrafast` has no B-frames, so that frames lie in order.
    if settings.codec != "h264":
        return _Encoder("libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"}, math.inf)
    options = {"crf": str(settings.crf), "preset": "ultrafast"}
    # Even noise in all colours, the hardest there is, keeps 4 dB more.
    floor = 40.0 - 0.75 * max(0, settings.crf - 6)
    return _Encoder("libx264", f"yuv{settings.chroma}p", options, floor)


def write_video(
    source: Image,
    target: Image,
    path: Path,
    settings: VideoSettings,
    sample: Sample = ALL,
    kind: Hashable = None,
) -> tuple[str, ...]:
    """Encode two RGB images of equal size as an mp4, checked before it takes its name.

    Args:
        settings: `copy` encodes as `lossless` does: that is for the pairs that can't be copied.
        sample: Says whether it is decoded back.
        kind: Of the source.

    Returns:
        Notes: whether the frames were scaled down to `max_pixels`.

    Raises:
        PairError: When the sizes differ or are none that the codec takes, or the file does not
            decode to these two frames. Nothing is left behind.
        BackendError: When the disk is full or the folder can't be written.
    """
    if source.size != target.size:
        raise PairError(
            f"{path.name}: frames of different sizes, {source.size} and {target.size}",
            hint="Set fit to crop, pad or stretch in [images].",
        )
    encoder = _encoder(settings)
    halved = encoder.pixel_format == "yuv420p"
    size = _within(source.size, settings.max_pixels, step=2 if halved else 1)
    was, now = (f"{width}×{height}" for width, height in (source.size, size))
    if max(size) > MAX_SIDE:
        raise PairError(
            f"{path.name}: {now}: x264 takes at most {MAX_SIDE} pixels a side.",
            hint="Scale the images down, or let --max-pixels do it.",
        )
    if halved and (size[0] % 2 or size[1] % 2):
        raise PairError(
            f"{path.name}: {now}: 4:2:0 needs even sides.",
            hint="Use --chroma 444, or crop the images.",
        )
    images = [source, target]
    if was != now:
        images = [image.resize(size, Resampling.LANCZOS) for image in images]
    frames = [_frame(image, encoder.pixel_format) for image in images]
    with _written(path) as temporary:
        _encode(frames, temporary, encoder)
        _two_packets(temporary, "h264", size, path.name)
        if sample.holds(path.stem, encoder.pixel_format, size, kind):
            _check(frames, temporary, encoder, path.name)
    return (f"frames {was} → {now} (max_pixels)",) if was != now else ()


def copy_video(
    files: list[bytes], path: Path, settings: VideoSettings, sample: Sample = ALL
) -> str | None:
    """Put two JPEG files, byte for byte, into an mp4 as its two frames (MJPEG).

    Only what all readers decode alike is taken: 8-bit YCbCr or grey, baseline or progressive,
    upright, chroma at full size or, with even sides, halved. The file's packets are compared with
    the files.

    Args:
        files: The content of the source's and of the target's file.
        sample: Says whether it is decoded back, too.

    Returns:
        None when the video was written, else why this pair can't be copied; then nothing is left
        behind, and `write_video` is the way.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    try:
        (size, form), (other, other_form) = map(_jpeg, files)
    except PairError as reason:
        return str(reason)
    if other != size:
        return "different sizes"
    if size != _within(size, settings.max_pixels) or max(size) > MAX_SIDE:
        return "too large"
    try:
        with _written(path) as temporary:
            _mux(files, size, temporary)
            packets = _two_packets(temporary, "mjpeg", size, path.name)
            decoded = sample.holds(path.stem, "copy", size, form, other_form)
            same = all(bytes(got) == file for got, file in zip(packets, files, strict=True))
            if not same or (decoded and not _decodes(packets, size)):
                raise PairError(f"{path.name}: does not decode to the two JPEG files")
    except PairError:
        return "damaged"
    return None


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames as uint8 arrays [height, width, 3], RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _jpeg(data: bytes) -> tuple[tuple[int, int], Hashable]:
    """Width and height of a JPEG file that all readers decode alike, and how it is coded.

    Raises:
        PairError: It is another file; the message is the reason alone.
    """
    try:
        # Not `Image.open`: it warns of large images, which are checked elsewhere.
        image = JpegImageFile(io.BytesIO(data))
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's plugins answer bad data with nearly any exception
        raise PairError("not JPEG") from None
    if orientation != 1:
        raise PairError("EXIF orientation")  # some readers apply it and some do not
    # No scan behind its end; with the end missing, Pillow refuses what others show half grey.
    if data.find(b"\xff\xda", max(0, data.rfind(b"\xff\xd9"))) >= 0:
        raise PairError("cut off")
    if image.mode == "L":
        return image.size, image.mode
    # Of each component: its name, which b"RGB" has for just that, and its sampling.
    luma, *chroma = [component[:3] for component in image.layer]
    usual = luma in ((1, 1, 1), (1, 2, 1), (1, 2, 2)) and chroma == [(2, 1, 1), (3, 1, 1)]
    if image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1 or not usual:
        raise PairError("unusual colours (CMYK, RGB, rare subsampling)")
    if luma != (1, 1, 1) and (image.width % 2 or image.height % 2):
        raise PairError("odd sides with halved chroma")  # readers differ in the last row
    return image.size, (luma, "progression" in image.info)


def _within(size: tuple[int, int], max_pixels: int | None, step: int = 1) -> tuple[int, int]:
    """A size of the same shape with at most `max_pixels`, its sides multiples of `step`."""
    width, height = size
    if max_pixels is None or width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    sides = [max(step, int(side * scale) // step * step) for side in size]
    return sides[0], sides[1]


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path`; FFmpeg's errors are put to the disk or the pair."""
    with replacing(path) as temporary:
        try:
            yield temporary
        except av.FFmpegError as error:
            if error.errno in _DISK_ERRORS:
                raise OSError(error.errno, error.strerror) from None
            raise ToolError(
                f"{path.name}: can't be encoded: {error}", hint="Another --codec may do."
            ) from None


def _frame(image: Image, pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame.from_numpy_buffer(np.asarray(image), format="rgb24")  # not copied
    if pixel_format == "rgb24":
        return frame
    return frame.reformat(format=pixel_format, dst_colorspace="ITU601", dst_color_range="MPEG")


def _encode(frames: list[av.VideoFrame], path: Path, encoder: _Encoder) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        added = container.add_stream(encoder.name, rate=1, options=encoder.options)
        stream = cast("VideoStream", added)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = encoder.pixel_format
        if encoder.pixel_format != "rgb24":
            # BT.601 in tv range is what readers assume where a file says nothing.
            context = stream.codec_context
            context.color_range, context.colorspace = _TV_RANGE, _BT601
            context.color_primaries, context.color_trc = _BT709_PRIMARIES, _SRGB_CURVE
        # One thread: the bytes are the same on every machine; pairs are what runs in parallel.
        stream.codec_context.thread_count = 1
        stream.time_base = _SECOND
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, _SECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _two_packets(
    path: Path, codec: mp4.Codec, size: tuple[int, int], name: str
) -> list[memoryview]:
    """The packets of a video, which are two and whole."""
    try:
        return mp4.frames(path.read_bytes(), codec, size)
    except mp4.BrokenError as error:
        raise ToolError(
            f"{name}: the file is not what was written: {error}",
            hint="Run it again; if that does not help, look after the disk or try another --codec.",
        ) from None


def _check(frames: list[av.VideoFrame], path: Path, encoder: _Encoder, name: str) -> None:
    """Compare what decodes with what the encoder was given, in its own pixel format."""
    with av.open(str(path), options=_UNPROBED) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        shown = list(container.decode(stream))
    if [(got.width, got.height) for got in shown] != 2 * [(frames[0].width, frames[0].height)]:
        raise ToolError(
            f"{name}: the video does not decode to two frames of the right size",
            hint="Another --codec may do.",
        )
    for wanted, got in zip(frames, shown, strict=True):
        pixels = got.to_ndarray(format=encoder.pixel_format)
        if _psnr(wanted.to_ndarray(), pixels) < encoder.floor:
            raise PairError(
                f"{name}: the decoded video differs too much from its images",
                hint="Lower --crf, or use --codec lossless.",
            )


def _decodes(packets: list[memoryview], size: tuple[int, int]) -> bool:
    """Whether each packet is one upright JPEG frame without an error."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    # At an eighth of the size: that reads every coefficient, which is what finds damage, and spares
    # making the pixels.
    decoder.options = {"err_detect": "explode", "lowres": "3"}
    small = tuple(-(-side // 8) for side in size)
    frames = [decoder.decode(av.Packet(bytes(packet))) for packet in packets]
    return all(
        len(shown) == 1 and (shown[0].width, shown[0].height, shown[0].rotation) == (*small, 0)
        for shown in frames
    )


def _psnr(wanted: np.ndarray, got: np.ndarray) -> float:
    if np.array_equal(wanted, got):
        return math.inf
    # In bytes as long as possible: this is most of what a check costs beside decoding.
    error = np.maximum(wanted, got) - np.minimum(wanted, got)
    flat = error.ravel().astype(np.float32)
    return 10 * math.log10(255.0**2 * flat.size / float(flat @ flat))


def _mux(files: list[bytes], size: tuple[int, int], path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_mux_stream("mjpeg", rate=1, width=size[0], height=size[1])
        stream.time_base = _SECOND
        for number, data in enumerate(files):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, _SECOND, True
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
