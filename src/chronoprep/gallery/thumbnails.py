"""Pictures small enough for a page, as WebP. A leaf: imports Pillow at its top."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.images.load import load_image, load_pair
from chronoprep.images.refs import parse
from chronoprep.images.room import room
from chronoprep.images.sources import files_stamp

QUALITY = 72
_METHOD = 2  # of 0 to 6: the further ones take many times as long for a few per cent
_KEPT = 64_000_000  # bytes


def webp(image: Image.Image, side: int, quality: int = QUALITY) -> bytes:
    """A picture as a WebP file whose longer side is at most `side` pixels; never enlarged."""
    if max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=_METHOD)
    return file.getvalue()


class Kept:
    """Pictures that were made, of which the last ones are kept; threads may share it.

    Args:
        most: Bytes; one picture is kept, however large.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[tuple[object, ...], tuple[bytes, ...]] = OrderedDict()
        self._making: dict[tuple[object, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def taken(
        self, name: tuple[object, ...], make: Callable[[], tuple[bytes, ...]]
    ) -> tuple[bytes, ...]:
        """What is kept, or made now: once, though several ask for it at the same time."""
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
                    self._making.pop(name, None)
                    return self._kept[name]
            try:
                made = make()
                with self._lock:
                    self._kept[name] = made
                    self._size += sum(map(len, made))
                    while self._size > self._most and len(self._kept) > 1:
                        _, old = self._kept.popitem(last=False)
                        self._size -= sum(map(len, old))
                return made
            finally:
                with self._lock:
                    self._making.pop(name, None)


class Thumbnails:
    """Thumbnails, of which the last ones are kept; threads may share it.

    Args:
        settings: How images are read and fitted.
        kept: Bytes of thumbnails that are kept.
    """

    def __init__(self, settings: ImageSettings, kept: int = _KEPT) -> None:
        self._settings = settings
        self._kept = Kept(kept)

    def of(self, ref: str, side: int) -> bytes:
        """An image as it is, upright and in sRGB.

        Raises:
            PairError: It can't be used.
        """

        @room()
        def made() -> tuple[bytes, ...]:
            enough = (2 * side, 2 * side)  # to make it small in good quality
            image = load_image(parse(ref), self._settings, at_least=enough).image
            return (webp(image, side),)

        return self._kept.taken((ref, side, files_stamp(ref, ref)), made)[0]

    def of_pair(self, pair: Pair, side: int) -> tuple[bytes, bytes]:
        """Source and target in one frame, so that they lie over each other.

        Raises:
            PairError: One of them can't be used.
        """

        @room()
        def made() -> tuple[bytes, ...]:
            loaded = load_pair(pair, self._settings)
            return webp(loaded.source, side), webp(loaded.target, side)

        stamp = files_stamp(pair.source, pair.target)
        source, target = self._kept.taken((pair.source, pair.target, side, stamp), made)
        return source, target
