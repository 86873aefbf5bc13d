"""Images: files to RGB, a pair to one frame, a frame to what the model sees.

A leaf: imports Pillow at its top. Knows nothing of models, videos or where pairs come from.
"""

from __future__ import annotations

import io
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from chronoprep import digest
from chronoprep.config import ImageSettings
from chronoprep.data import Frame, ImageRef, Pair, Picture
from chronoprep.errors import ChronoprepError, ConfigError, PairError
from chronoprep.images.refs import parse
from chronoprep.images.sources import (
    AGAIN,
    RESAVE,
    content_digest,
    files_stamp,
    read_source,
    reason,
    require_size,
    sniff,
)

# Named, so that a file called x.png can't reach the rarer decoders (EPS runs Ghostscript). JPEG
# opens MPO too.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "JPEG2000", "PPM")

# glibc would give each picture's memory back to the system and fetch it anew, page by page, for the
# next: a fifth of the time that a video takes. A freed block of nearly 32 MB, its limit for this,
# teaches it to keep what is smaller. Elsewhere this does nothing.
bytearray(31 << 20)

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


# A marker of a JPEG file. Where one stands within coded pixels, 00 or a restart marker follows FF.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
# The segments that tell of the coding alone, JFIF's and Adobe's, and their lengths without more.
_JPEG_CODING = {0xE0: 16, 0xEE: 14}


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A pair in memory: two RGB images of equal size, and what was done to get there.

    Attributes:
        images: Digest of the bytes that were decoded, as `content_hash` gives it.
        files: Their `files_stamp`, taken before they were read.
        jpegs: The JPEG files of these very pixels, where there are any that say nothing beside.
    """

    pair: Pair
    source: Image.Image
    target: Image.Image
    images: str
    files: str | None
    notes: tuple[str, ...] = ()
    jpegs: tuple[bytes | None, bytes | None] = (None, None)


class LoadedImage(NamedTuple):
    """An upright RGB image at full size.

    Attributes:
        notes: What a user may not expect: first of many frames, transparency.
        digest: As `content_digest` gives it.
        jpeg: The JPEG file of these very pixels, if there is one that says nothing beside.
    """

    image: Image.Image
    notes: tuple[str, ...]
    digest: str
    jpeg: bytes | None = None


def load_image(ref: ImageRef, settings: ImageSettings) -> LoadedImage:
    """Load one image; its file is opened once.

    Raises:
        PairError: The image is missing, unreadable, not an image, damaged, larger than
            `max_pixels`, or has pixels that don't map to 8 bits (floating point).
        ConfigError: `background` is no colour.
    """
    _colour(settings)  # a wrong setting is no pair's fault: found before a pair can be blamed
    if isinstance(ref, Frame):
        from chronoprep.images.clips import load_frame

        return LoadedImage(load_frame(ref, settings), (), content_digest(ref))
    data = b""
    try:
        data = read_source(ref)
        with _pillow_rules(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rgb, notes = _decoded(image, ref, settings)
            jpeg = None
            # A large one is not kept: the model sees it smaller.
            if (image.format, image.mode) == ("JPEG", "RGB") and (
                _bounded_size(rgb.size, settings) == rgb.size
            ):
                jpeg = _plain_jpeg(data)
            return LoadedImage(rgb, notes, digest.of_bytes(data), jpeg)
    except ChronoprepError:
        raise
    except UnidentifiedImageError:
        what, hint = sniff(data)
        raise PairError(f"{ref}: {what}.", hint=hint) from None
    except MemoryError:
        raise PairError(f"{ref}: not enough memory to decode it.", hint=RESAVE) from None
    except Exception as error:
        # Pillow's plugins answer bad data with nearly any exception: SyntaxError,
        # struct.error, zlib.error, ValueError, EOFError, IndexError, ...
        raise PairError(f"{ref}: the image is damaged: {reason(error)}.", hint=AGAIN) from error


def _decoded(
    image: Image.Image, ref: ImageRef, settings: ImageSettings
) -> tuple[Image.Image, tuple[str, ...]]:
    width, height = image.size
    if width < 1 or height < 1:
        raise PairError(f"{ref}: the image is empty ({width}×{height}).", hint=AGAIN)
    require_size(ref, image.size, settings)
    notes = []
    # MPO's further frames are thumbnails, depth and gain maps of the same photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames != 1:
        image.seek(0)
        kind, unit = ("multi-page", "pages") if image.format == "TIFF" else ("animated", "frames")
        notes.append(f"{kind}: first of {frames} {unit}")
    image.load()
    orientation = _orientation(image)
    rgb = _to_rgb(image, ref, settings, notes)
    if orientation in _ORIENTATIONS:
        rgb = rgb.transpose(_ORIENTATIONS[orientation])
    return rgb, tuple(notes)


def is_image(data: bytes) -> bool:
    """Whether bytes begin as an image that `load_image` knows."""
    try:
        with _pillow_rules(), Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # Pillow's plugins raise nearly any on a damaged header
        return False


def load_pair(pair: Pair, settings: ImageSettings) -> LoadedPair:
    """Load both images at full size, the target brought to the source's size by `settings.fit`.

    Images of equal size are not resampled. Notes tell which image they speak of.

    Raises:
        PairError: As `load_image`; or the sizes differ and `fit` is `error`.
        ConfigError: `background` is no colour.
    """
    files = files_stamp(pair.source, pair.target)
    source, source_notes, before, source_jpeg = load_image(parse(pair.source), settings)
    target, target_notes, after, target_jpeg = load_image(parse(pair.target), settings)
    notes = [f"source {note}" for note in source_notes]
    notes += [f"target {note}" for note in target_notes]
    if source.size != target.size:
        was, now = (f"{width}×{height}" for width, height in (target.size, source.size))
        if settings.fit == "error":
            raise PairError(
                f"{pair.key}: source {pair.source} is {now} but target {pair.target} is {was}.",
                hint="Make them equal, or set fit to crop, pad or stretch in [images].",
            )
        target, target_jpeg = _to_frame(target, source.size, settings), None
        notes.append(f"target {was} → {now} ({settings.fit})")
    jpegs = (source_jpeg, target_jpeg)
    return LoadedPair(pair, source, target, of_both(before, after), files, tuple(notes), jpegs)


def pictures(loaded: LoadedPair, settings: ImageSettings) -> tuple[Picture, Picture]:
    """Source and target as the model sees them, each `bounded`."""
    source, target = bounded(loaded.source, settings), bounded(loaded.target, settings)
    jpegs = loaded.jpegs
    return (
        Picture(source, jpegs[0] if source is loaded.source else None),
        Picture(target, jpegs[1] if target is loaded.target else None),
    )


def bounded(image: Image.Image, settings: ImageSettings) -> Image.Image:
    """Shrink an image for the model; never enlarges.

    The shortest edge is at most `max_resolution`, and exactly that if it was longer; then the
    longest edge is at most `max_long_edge` in the same way. Resampled once, the other edge rounded.
    """
    size = _bounded_size(image.size, settings)
    return image if size == image.size else image.resize(size, Resampling.LANCZOS)


def _bounded_size(size: tuple[int, int], settings: ImageSettings) -> tuple[int, int]:
    short, long = sorted(size)
    new_short, new_long = short, long
    if new_short > settings.max_resolution:
        new_short = settings.max_resolution
        new_long = _scaled(long, new_short, short)
    if new_long > settings.max_long_edge:
        new_long = settings.max_long_edge
        new_short = _scaled(short, new_long, long)
    return (new_short, new_long) if size[1] > size[0] else (new_long, new_short)


def content_hash(pair: Pair) -> str:
    """Digest of both images' bytes as 32 hex digits; source and target are not interchangeable.

    Raises:
        PairError: A file is missing or unreadable.
    """
    return of_both(content_digest(parse(pair.source)), content_digest(parse(pair.target)))


def of_both(source: str, target: str) -> str:
    return digest.of_text(source + target, 16)


_rules_lock = threading.Lock()
_rules_users = 0
_rules = ExitStack()


@contextmanager
def _pillow_rules() -> Iterator[None]:
    """Pillow's warnings off, and our own pixel limit in place of Pillow's, while in use.

    Both are global to the process and images are loaded in threads: the first thread in sets them
    and the last one out restores them, since `catch_warnings` in each would restore the wrong ones.
    """
    global _rules_users
    # Free-threaded Python has the warnings' rules per thread.
    own = getattr(sys.flags, "context_aware_warnings", False)
    with warnings.catch_warnings() if own else nullcontext():
        with _rules_lock:
            _rules_users += 1
            if _rules_users == 1:
                _rules.enter_context(nullcontext() if own else warnings.catch_warnings())
                _rules.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = None
            if own or _rules_users == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        finally:
            with _rules_lock:
                _rules_users -= 1
                if _rules_users == 0:
                    _rules.close()


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged metadata around a good image counts as upright."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(value)
    except Exception:
        return 1


def _plain_jpeg(data: bytes) -> bytes | None:
    """A JPEG file up to the end of its image, without what may be appended: a video, a second
    image. None where the file itself has room for where, when or by whom: in segments that tell of
    more than the coding, or between them."""
    at, in_scan = 2, False
    while marker := _JPEG_MARKER.search(data, at):
        if marker.start() > at and not in_scan:
            return None
        kind, at = marker[1][0], marker.end()
        if kind == _JPEG_END:
            return data[:at]
        length = int.from_bytes(data[at : at + 2], "big")
        tells = kind == 0xFE or 0xE0 <= kind <= 0xEF  # a comment, an application's
        if tells and _JPEG_CODING.get(kind) != length:
            return None
        at, in_scan = at + length, kind == _JPEG_SCAN
    return None


def _to_rgb(
    image: Image.Image, ref: ImageRef, settings: ImageSettings, notes: list[str]
) -> Image.Image:
    """Any mode to RGB; appends to `notes`.

    RGB with an embedded profile keeps its values: the trainer ignores profiles, so a conversion
    here would show the model other colours than the editor learns from.
    """
    mode = image.mode
    if mode == "F":
        raise PairError(
            f"{ref}: floating-point pixels have no defined black and white.",
            hint="Tone-map the image to 8 bits and save it as PNG or JPEG.",
        )
    if mode == "I" or mode.startswith("I;16"):
        return _from_deep_gray(image, ref).convert("RGB")
    if mode == "CMYK":
        return _from_cmyk(image, notes)
    if mode == "LAB":
        return _to_srgb(image, ImageCms.createProfile("LAB"))
    if image.has_transparency_data:
        straight = image.convert("LA") if mode == "La" else image
        rgba = straight.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append(f"transparent: composited on {settings.background}")
            canvas = Image.new("RGBA", rgba.size, (*_colour(settings), 255))
            rgba = Image.alpha_composite(canvas, rgba)
        return rgba.convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")  # on RGB, that would be a copy


def _from_deep_gray(image: Image.Image, ref: ImageRef) -> Image.Image:
    """16 bits to 8 by dropping the low byte; Pillow's own conversion would clip at 255."""
    import numpy as np

    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise PairError(
            f"{ref}: 32-bit pixels outside 0…65535 have no defined black and white.",
            hint="Save the image with 8 or 16 bits.",
        )
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def _from_cmyk(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        if profile := image.info.get("icc_profile"):
            return _to_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("CMYK: converted without its unusable colour profile")
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    return converted or image.convert("RGB")


def _colour(settings: ImageSettings) -> tuple[int, int, int]:
    try:
        colour: tuple[int, ...] = ImageColor.getrgb(settings.background)
    except ValueError:
        raise ConfigError(
            f"images.background = {settings.background!r} is not a colour.",
            hint="Use a name or a hex value, such as white or #808080.",
        ) from None
    return colour[0], colour[1], colour[2]


def _scaled(edge: int, numerator: int, denominator: int) -> int:
    """edge · numerator / denominator, rounded half up in integers, at least 1."""
    return max(1, (2 * edge * numerator + denominator) // (2 * denominator))


def _to_frame(image: Image.Image, frame: tuple[int, int], settings: ImageSettings) -> Image.Image:
    width, height = frame
    if settings.fit == "stretch":
        return image.resize(frame, Resampling.LANCZOS)
    if settings.fit == "crop":
        return ImageOps.fit(image, frame, Resampling.LANCZOS)
    inner = (
        min(width, _scaled(image.width, height, image.height)),
        min(height, _scaled(image.height, width, image.width)),
    )
    canvas = Image.new("RGB", frame, _colour(settings))
    offset = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, Resampling.LANCZOS), offset)
    return canvas
