"""Bytes to pixels: every format and mode to upright RGB in sRGB.

A leaf: imports Pillow at its top. Knows nothing of pairs, and of files only their names.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageCms, ImageColor
from PIL.Image import Transpose

from chronoprep.config import ImageSettings
from chronoprep.data import ImageRef
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.boxes import jxl_size
from chronoprep.images.colour import is_srgb, space_of, to_srgb, tone_mapped
from chronoprep.images.formats import formats_of, plugin_of
from chronoprep.images.reading import AGAIN, require_size
from chronoprep.images.room import claim

if TYPE_CHECKING:
    import numpy as np

_GREY = ("1", "L", "LA")  # which stay so, for a profile that may be grey's
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


class Decoded(NamedTuple):
    """An upright RGB image.

    Attributes:
        colours: The colour space that its file named.
        notes: What a user may not expect: first of many frames, transparency, a conversion.
        plain: Whether it is an RGB JPEG whose pixels are as its file holds them.
    """

    image: Image.Image
    colours: str
    notes: tuple[str, ...]
    plain: bool


@contextmanager
def opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """An image, of which no more than the header is read, by the formats that we know.

    Raises:
        UnidentifiedImageError: It is none, or its plug-in is not installed.
        Exception: Nearly any, on damage; and while the image is decoded.
    """
    with (
        _pillow_rules(),
        Image.open(io.BytesIO(data), formats=formats_of(data, name)) as image,
    ):
        yield image


def is_image(data: bytes, name: str) -> bool:
    """Whether bytes begin as an image that `decoded` knows."""
    try:
        with opened(data, name):
            return True
    except Exception:  # Pillow's plugins raise nearly any on a damaged header
        return False


def says_srgb(data: bytes, name: str) -> bool:
    """Whether an image's numbers are sRGB's; what can't be read says nothing else."""
    if data.startswith(b"\xff\xd8"):
        head = _before_the_scan(data)
        if b"ICC_PROFILE" not in head and b"Exif" not in head:
            return True  # most JPEG files, quickly
    try:
        with opened(data, name) as image:
            return is_srgb(space_of(image, data))
    except Exception:  # Pillow's plugins raise nearly any on a damaged header
        return True


def _before_the_scan(data: bytes) -> bytes:
    """A JPEG file's segments before its pixels; all of it where they can't be told apart."""
    at = 2
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] == b"\xda":
            return data[:at]
        filled = data[at + 1 : at + 2] == b"\xff"
        at += 1 if filled else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data


def decoded(
    data: bytes, ref: ImageRef, settings: ImageSettings, at_least: tuple[int, int] | None = None
) -> Decoded:
    """An image of its bytes.

    Args:
        at_least: A size that will do, where the format can be decoded smaller.

    Raises:
        PairError: It is larger than `max_pixels`, empty, or has pixels that don't map to 8 bits.
        Exception: As `opened`.
    """
    if at_once := plugin_of(data) == "JXL":  # its plug-in decodes where others read a header
        size = jxl_size(data)
        require_size(ref, size, settings)
        claim(size[0] * size[1])
    notes: list[str] = []
    with opened(data, str(ref)) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise PairError(f"{ref}: the image is empty ({width}×{height}).", hint=AGAIN)
        require_size(ref, image.size, settings)
        if at_least is not None:
            image.draft(None, at_least)
        if not at_once:
            claim(image.width * image.height)
        _first_frame(image, notes)
        image.load()
        orientation = _orientation(image)
        rgb, colours = _to_rgb(image, data, ref, settings, notes)
        plain = (image.format, image.mode, colours) == ("JPEG", "RGB", "sRGB")
    if orientation in _ORIENTATIONS:
        rgb = rgb.transpose(_ORIENTATIONS[orientation])
    return Decoded(rgb, colours, tuple(notes), plain)


def _first_frame(image: Image.Image, notes: list[str]) -> None:
    # MPO's further frames are thumbnails, depth and gain maps of the same photograph, and
    # Photoshop's are the layers of what is shown.
    frames = 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)
    if frames == 1:
        return
    if image.format == "HEIF":  # opened at its main one
        notes.append(f"several pictures: the main one of {frames}")
        return
    image.seek(0)
    kind, unit = ("multi-page", "pages") if image.format == "TIFF" else ("animated", "frames")
    notes.append(f"{kind}: first of {frames} {unit}")


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
                warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|pillow_jxl)\.")
        try:
            yield
        finally:
            with _rules_lock:
                _rules_users -= 1
                if _rules_users == 0:
                    _rules.close()


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged metadata around a good image counts as upright."""
    # JPEG XL's decoder has turned the picture, except where it gives back the JPEG that it was.
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(value)
    except Exception:
        return 1


def _to_rgb(
    image: Image.Image, data: bytes, ref: ImageRef, settings: ImageSettings, notes: list[str]
) -> tuple[Image.Image, str]:
    """Any mode to RGB, and the colour space that it was in; appends to `notes`."""
    if image.mode == "F":
        raise PairError(
            f"{ref}: floating-point pixels have no defined black and white.",
            hint="Tone-map the image to 8 bits and save it as PNG or JPEG.",
        )
    if image.mode == "LAB":
        return _from_lab(image), "Lab"
    space = space_of(image, data)
    alpha = None
    if image.mode == "I" or image.mode.startswith("I;16"):
        base = _from_deep_gray(image, ref)
    elif image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        alpha = rgba.getchannel("A")
        base = straight.convert("L") if straight.mode in _GREY else rgba.convert("RGB")
    elif image.mode in _GREY:
        base = image.convert("L")
    else:  # on RGB, convert would be a copy
        base = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
    foreign = not is_srgb(space)
    if not settings.colour_management:
        if foreign:
            notes.append(f"{space.name}: its numbers taken as sRGB")
        rgb = base if base.mode == "RGB" else base.convert("RGB")
    elif space.transfer is not None and (deep := _deep_pixels(data, image)) is not None:
        rgb = tone_mapped(deep, space, notes)
    else:
        rgb = to_srgb(base, space, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        notes.append(f"transparent: composited on {settings.background}")
        canvas = Image.new("RGB", rgb.size, colour(settings))
        canvas.paste(rgb, mask=alpha)
        rgb = canvas
    return rgb, space.name if foreign else "sRGB"


def _deep_pixels(data: bytes, image: Image.Image) -> np.ndarray | None:
    """RGB of 16 bits, [height, width, 3], as it lies in the file, where Pillow gives but 8 of them
    and others give all."""
    import numpy as np

    pixels: np.ndarray | None = None
    if image.format == "HEIF":
        import pillow_heif

        pixels = np.asarray(pillow_heif.open_heif(data, convert_hdr_to_8bit=False))
    elif image.format == "PNG":
        import cv2

        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        pixels = pixels[..., 2::-1] if pixels is not None and pixels.ndim == 3 else None
    elif image.format == "AVIF":
        import av

        with suppress(av.FFmpegError), av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0), None)
            pixels = frame.to_ndarray(format="rgb48le") if frame is not None else None
    fits = pixels is not None and pixels.shape[:2] == (image.height, image.width)
    return pixels[..., :3] if pixels is not None and fits and pixels.dtype == np.uint16 else None


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


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return converted or image.convert("RGB")


def colour(settings: ImageSettings) -> tuple[int, int, int]:
    """The colour behind transparent pixels.

    Raises:
        ConfigError: `background` is none.
    """
    try:
        named: tuple[int, ...] = ImageColor.getrgb(settings.background)
    except ValueError:
        raise ConfigError(
            f"images.background = {settings.background!r} is not a colour.",
            hint="Use a name or a hex value, such as white or #808080.",
        ) from None
    return named[0], named[1], named[2]
