"""Images: files to RGB, a pair to one frame, a frame to what the model sees.

A leaf: imports Pillow at its top. Knows nothing of models, videos or where pairs come from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling

from chronoprep import digest
from chronoprep.config import ImageSettings
from chronoprep.data import Cell, Frame, ImageRef, Member, Pair, Picture, Remote
from chronoprep.errors import ChronoprepError, PairError
from chronoprep.images.decode import colour, decoded
from chronoprep.images.reading import AGAIN, RESAVE, reason
from chronoprep.images.refs import parse
from chronoprep.images.room import room
from chronoprep.images.sniffing import sniff
from chronoprep.images.sources import content_digest, files_stamp, read_source

# glibc would give each picture's memory back to the system and fetch it anew, page by page, for the
# next: a fifth of the time that a video takes. A freed block of nearly 32 MB, its limit for this,
# teaches it to keep what is smaller. Elsewhere this does nothing.
bytearray(31 << 20)

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
    """An upright RGB image at full size, in sRGB.

    Attributes:
        notes: What a user may not expect: first of many frames, transparency, a conversion.
        digest: As `content_digest` gives it.
        jpeg: The JPEG file of these very pixels, if there is one that says nothing beside.
        colours: The colour space that the file names.
    """

    image: Image.Image
    notes: tuple[str, ...]
    digest: str
    jpeg: bytes | None = None
    colours: str = "sRGB"


def load_image(
    ref: ImageRef, settings: ImageSettings, *, at_least: tuple[int, int] | None = None
) -> LoadedImage:
    """Load one image; its file is opened once.

    Args:
        at_least: A size that will do, where the format can be decoded smaller.

    Raises:
        PairError: The image is missing, unreadable, not an image, damaged, larger than
            `max_pixels`, or has pixels that don't map to 8 bits (floating point).
        ConfigError: `background` is no colour.
    """
    colour(settings)  # a wrong setting is no pair's fault: found before a pair can be blamed
    with room():
        if isinstance(ref, Frame):
            from chronoprep.images.clips import load_frame

            image, colours, notes, _ = load_frame(ref, settings)
            return LoadedImage(image, notes, content_digest(ref), None, colours)
        return _load_still(ref, settings, at_least)


def _load_still(
    ref: Path | Cell | Member | Remote, settings: ImageSettings, at_least: tuple[int, int] | None
) -> LoadedImage:
    data = b""
    try:
        data = read_source(ref)
        image, colours, notes, plain = decoded(data, ref, settings, at_least)
        # A large one is not kept: the model sees it smaller.
        plain = plain and _bounded_size(image.size, settings) == image.size
        jpeg = _plain_jpeg(data) if plain else None
        return LoadedImage(image, notes, digest.of_bytes(data), jpeg, colours)
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


def load_pair(pair: Pair, settings: ImageSettings) -> LoadedPair:
    """Load both images at full size, the target brought to the source's size by `settings.fit`.

    Images of equal size are not resampled. Notes tell which image they speak of.

    Raises:
        PairError: As `load_image`; or the sizes differ and `fit` is `error`.
        ConfigError: `background` is no colour.
    """
    files = files_stamp(pair.source, pair.target)
    with room():
        before = load_image(parse(pair.source), settings)
        after = load_image(parse(pair.target), settings)
    source, target, target_jpeg = before.image, after.image, after.jpeg
    notes = [f"source {note}" for note in before.notes]
    notes += [f"target {note}" for note in after.notes]
    if before.colours != after.colours:
        notes.append(f"colour spaces differ: {before.colours} and {after.colours}")
    if source.size != target.size:
        was, now = (f"{width}×{height}" for width, height in (target.size, source.size))
        if settings.fit == "error":
            raise PairError(
                f"{pair.key}: source {pair.source} is {now} but target {pair.target} is {was}.",
                hint="Make them equal, or set fit to crop, pad or stretch in [images].",
            )
        target, target_jpeg = _to_frame(target, source.size, settings), None
        notes.append(f"target {was} → {now} ({settings.fit})")
    images = of_both(before.digest, after.digest)
    jpegs = (before.jpeg, target_jpeg)
    if settings.align:
        from chronoprep.images.alignment import aligned

        upright = source
        source, target, note = aligned(source, target)
        notes += [f"target {note}"] if note is not None else []
        jpegs = jpegs if source is upright else (None, None)
    return LoadedPair(pair, source, target, images, files, tuple(notes), jpegs)


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
    canvas = Image.new("RGB", frame, colour(settings))
    offset = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, Resampling.LANCZOS), offset)
    return canvas
