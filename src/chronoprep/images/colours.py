"""Names of colours, and which of them a pixel may be called by.

The names lie in `colours.txt`, in thirteen groups: people agree on a group, and hardly on a shade.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Lightness counts less than hue: blue in the shade is blue.
LIGHTNESS = 0.7
# A pixel may be called by every group that is at most so much farther from it than the nearest one.
# Shades at a border are called by either name; a photo's light moves them as well.
_MARGIN = 13.0
_GREY = 15.0  # of chroma: from there on, nobody calls it grey
_HUELESS, _DARK = 4.0, 15.0  # of chroma, up to which a colour has no hue; of lightness: see above
_BITS = 5  # of a channel, in the table of all colours


@cache
def names() -> dict[str, str]:
    """The group of each name; a name of several words has spaces between them."""
    return {name.replace("-", " "): group for group, name, _ in _lines()}


@cache
def groups() -> tuple[str, ...]:
    return tuple(dict.fromkeys(group for group, _, _ in _lines()))


def to_lab(rgb: Array) -> Array:
    """CIELAB of 8-bit RGB as float32, its lightness weighted by `LIGHTNESS`."""
    import cv2
    import numpy as np

    lab: Array = cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    lab[..., 0] *= LIGHTNESS
    return lab


def cells(rgb: Array) -> Array:
    """The cell of each 8-bit RGB pixel in the table of all colours."""
    import numpy as np

    red, green, blue = np.moveaxis((rgb >> (8 - _BITS)).astype(np.int32), -1, 0)
    place: Array = (red << 2 * _BITS) + (green << _BITS) + blue
    return place


def share_of_groups(cells: Array) -> Array:
    """Of the pixels of these cells, the share that may be called by each of `groups`: more than 1
    in sum."""
    import numpy as np

    counts = np.bincount(cells.ravel(), minlength=2 ** (3 * _BITS))
    there = np.flatnonzero(counts)
    shares: Array = counts[there] @ _plausible()[there] / max(1, cells.size)
    return shares


def nearest(lab: Sequence[float]) -> str:
    """The group of one colour, as `to_lab` gives it."""
    import numpy as np

    distances = ((_values() - np.asarray(lab)) ** 2).sum(1)
    return _lines()[int(distances.argmin())][0]


@cache
def _lines() -> tuple[tuple[str, str, str], ...]:
    """Group, name and value of every line."""
    text = (files(__package__) / "colours.txt").read_text("utf-8")
    found = []
    for line in text.splitlines():
        group, colon, rest = line.partition(":")
        if colon and not line.startswith("#"):
            found += [(group, *pair) for pair in re.findall(r"([\w-]+) #([0-9a-f]{6})", rest)]
    return tuple(found)


@cache
def _values() -> Array:
    import numpy as np

    rgb = np.array([list(bytes.fromhex(value)) for _, _, value in _lines()], np.uint8)
    values: Array = to_lab(rgb[:, None])[:, 0]
    return values


@cache
def _plausible() -> Array:
    """Which colours may be called by which group: a row for each of 5 bits a channel."""
    import numpy as np

    steps = ((np.arange(2**_BITS) + 0.5) * 2 ** (8 - _BITS)).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    lab = to_lab(grid.reshape(-1, 1, 3))[:, 0]
    of = np.array([groups().index(group) for group, _, _ in _lines()])
    least = np.stack(
        [
            np.sqrt(((lab[:, None] - _values()[of == number]) ** 2).sum(2).min(1))
            for number in range(len(groups()))
        ],
        1,
    )
    close = least <= least.min(1, keepdims=True) + _MARGIN
    chroma, lit = np.hypot(lab[:, 1], lab[:, 2]), lab[:, 0] > _DARK
    close[:, groups().index("grey")] &= chroma < _GREY
    for name in ("brown", "blue", "pink"):  # which the margin makes of grey
        close[:, groups().index(name)] &= (chroma > _HUELESS) | ~lit
    return np.asarray(close, np.float32)
