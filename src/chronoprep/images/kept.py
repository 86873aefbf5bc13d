"""Which image files may go on as they are: any reader sees in them what `load_pair` gives.

A leaf: imports Pillow at its top.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.images.colour import is_srgb, space_of
from chronoprep.images.decode import opened
from chronoprep.images.reading import read_file
from chronoprep.images.refs import parse

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg"}
_ORIENTATION_TAG = 0x0112
_PNG_DEPTH = 24  # where a PNG file says its bits a channel


class KeptFile(NamedTuple):
    """A file that may stay as it is.

    Attributes:
        suffix: That of its format, whatever the file is called.
    """

    path: Path
    suffix: str
    size: tuple[int, int]


def kept_files(pair: Pair, settings: ImageSettings) -> tuple[KeptFile | None, KeptFile | None]:
    """The files of source and target that may stay as they are; only their headers are read.

    Raises:
        PairError: One is missing or can't be read.
    """
    if settings.align:
        return None, None
    source, target = _kept(pair.source, settings), _kept(pair.target, settings)
    if target is not None and (source is None or source.size != target.size):
        target = None  # it may have to meet the source's frame
    return source, target


def _kept(ref: str, settings: ImageSettings) -> KeptFile | None:
    """Upright RGB of 8 bits in sRGB, without transparency: PNG or JPEG.

    Trainers convert to RGB and look at nothing else: at no profile, and some at no orientation.
    """
    path = parse(ref)
    if not isinstance(path, Path):
        return None
    data = read_file(path)
    try:
        with opened(data, ref) as image:
            suffix = _SUFFIXES.get(image.format or "")
            if suffix is None or image.mode != "RGB" or image.has_transparency_data:
                return None
            if suffix == ".png" and data[_PNG_DEPTH] != 8:
                return None
            if getattr(image, "n_frames", 1) != 1:
                return None
            if int(image.getexif().get(_ORIENTATION_TAG, 1)) != 1:
                return None
            if settings.colour_management and not is_srgb(space_of(image, data)):
                return None
            return KeptFile(path, suffix, image.size)
    except Exception:  # Pillow's plugins raise nearly any on a damaged header; loading it tells
        return None
