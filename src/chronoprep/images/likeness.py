"""Which pictures of many are nearly the same: saved again, cropped a little, a little lighter.

All is told from thumbnails of 16 × 16 pixels in CIELAB, so that hundred thousand pictures fit in
memory. A leaf: imports OpenCV, numpy and Pillow at its top.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import cv2
import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

SIDE = 16
BYTES = SIDE * SIDE * 3  # of a thumbnail
_REACH = 1  # pixels of a thumbnail by which what is the same may lie apart: 6 % of the side
_LIGHT = 8.0  # by which two pictures as a whole may differ in each of L*, a* and b*
_EVEN = 3.0  # the deviation (ΔE) of a picture that shows too little to be told by
# Distances of what is the same, in deviations of the evener picture: of colours in 4 × 4 and in
# 8 × 8 cells; and of the thumbnails, on average, and where they are greatest but for one in fifty.
_CELLS = ((4, 0.25), (8, 0.4))
_MEAN, _MOST = 0.17, 1.0
_NEIGHBOURS = 16  # that a picture is compared with, at most
_BLOCK = 2048
_LEAF = 512  # pictures of a leaf: fewer cost more in calls than their bounds save
_CHANGE = 0.45  # of two changes: how far they are apart at most, as a share of the larger one
_NO_CHANGE = 0.35  # ΔE on average: what coding alone comes to


def thumbnail(image: Image.Image) -> bytes:
    """A picture as `BYTES` bytes, for `stacked`.

    Args:
        image: In RGB.
    """
    # A box filter first: as good for so few pixels, and many times quicker.
    small = np.asarray(image.reduce(max(1, min(image.size) // 128)))
    small = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return bytes(cv2.cvtColor(small, cv2.COLOR_RGB2LAB))


def stacked(thumbnails: bytes | bytearray) -> Array:
    """Thumbnails one after the other, as an array of [n, 16, 16, 3] bytes."""
    return np.frombuffer(thumbnails, np.uint8).reshape(-1, SIDE, SIDE, 3)


def alike(pictures: Array) -> Array:
    """The places of each two pictures that are nearly the same, [n, 2], the lower one first.

    Pictures of one even colour are like none. Of a picture that is like very many, only the nearest
    are told.

    Args:
        pictures: As `stacked` gives them.
    """
    found = [_confirmed(pictures, some) for some in _candidates(pictures) if len(some)]
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=0)


def same_change(sources: Array, targets: Array, couples: Array) -> Array:
    """Whether what was done to two sources that are alike is the same, for each couple of places.

    Args:
        sources, targets: Of pairs, as `stacked` gives them.
        couples: As `alike` gives them for the sources.
    """
    same = [np.zeros(0, bool)]
    for some in _parts(couples) if len(couples) else ():
        one, other = (
            _smooth(_lab(targets[some[:, at]]) - _lab(sources[some[:, at]])) for at in (0, 1)
        )
        size = np.maximum(*(np.linalg.norm(c, axis=3).mean((1, 2)) for c in (one, other)))
        apart = _apart(one, other).mean((1, 2))
        same.append(apart <= np.maximum(_CHANGE * size, _NO_CHANGE))
    return np.concatenate(same)


def _parts(rows: Array, size: int = _BLOCK) -> Iterator[Array]:
    """Some rows at a time; at least one part, be it empty."""
    for start in range(0, max(1, len(rows)), size):
        yield rows[start : start + size]


def _lab(pictures: Array) -> Array:
    """L* from 0 to 100, a* and b* around 0."""
    lab = pictures.astype(np.float32) - np.array([0, 128, 128], np.float32)
    lab[..., 0] *= 100 / 255
    return lab


def _deviation(pictures: Array) -> Array:
    deviation: Array = np.sqrt(_lab(pictures).var((1, 2)).sum(1))
    return deviation


def _cells(pictures: Array, number: int) -> Array:
    """The colours of `number`² cells against the picture's mean, so that the length of a difference
    is its root mean square."""
    side = SIDE // number
    means = _lab(pictures).reshape(-1, number, side, number, side, 3).mean((2, 4))
    means -= means.mean((1, 2), keepdims=True)
    cells: Array = means.reshape(len(pictures), 3 * number**2) / number
    return cells


def _candidates(pictures: Array) -> Iterator[Array]:
    """Couples whose cells have nearly the same colours: within a limit that goes by the deviation
    of the darker one.

    The pictures lie in the leaves of a k-d tree, by their light and by their cells. A leaf is held
    against those whose bounds are near enough.
    """
    (number, limit), finer = _CELLS
    deviation = np.concatenate([_deviation(part) for part in _parts(pictures)])
    usable = np.flatnonzero(deviation > _EVEN)
    light = np.concatenate([_lab(pictures[some]).mean((1, 2)) for some in _parts(usable)])
    order = np.argsort(light[:, 0], kind="stable")
    usable, light = usable[order], light[order]
    reach = (limit * deviation[usable]) ** 2
    points = np.concatenate([_cells(pictures[some], number) for some in _parts(usable)])
    for ones, others in _near(light, points, reach):
        lit = np.abs(light[ones] - light[others]).max(1, initial=0) <= 1.01 * _LIGHT
        ones, others = ones[lit], others[lit]
        for some in _parts(np.stack([usable[ones], usable[others]], 1)):
            one, other = (pictures[some[:, at]] for at in (0, 1))
            apart = np.linalg.norm(_cells(one, finer[0]) - _cells(other, finer[0]), axis=1)
            evener = np.minimum(_deviation(one), _deviation(other))
            yield np.sort(some[apart < finer[1] * evener], axis=1)


def _near(light: Array, points: Array, reach: Array) -> Iterator[tuple[Array, Array]]:
    """Two of the points whose distance squared is within the reach of the first; of very many, the
    nearest. Their light differs by no more than `_LIGHT`, or somewhat more."""
    if not len(points):
        return
    # Along the axes that points differ most on, bounds tell most; distances stay.
    turned = points @ np.linalg.eigh(points.T @ points)[1][:, ::-1]
    places = np.concatenate([light / _LIGHT, turned / np.sqrt(np.median(reach))], axis=1)
    leaves = list(_leaves(places, np.arange(len(points))))
    low, high = (
        np.array([edge(places[leaf], axis=0) for leaf in leaves]) for edge in (np.min, np.max)
    )
    widest = np.array([reach[leaf].max() for leaf in leaves]) / np.median(reach)
    squares = (points**2).sum(1)
    for at, rows in enumerate(leaves):
        gaps = np.maximum(0, np.maximum(low[at:] - high[at], low[at] - high[at:]))
        near = (gaps[:, :3] <= 1).all(1)
        near &= (gaps[:, 3:] ** 2).sum(1) <= np.maximum(widest[at:], widest[at])
        columns = np.concatenate([leaves[at + place] for place in np.flatnonzero(near)])
        for some in _parts(columns, 8 * _BLOCK):
            far = squares[rows, None] + squares[some] - 2 * points[rows] @ points[some].T
            if some[0] == rows[0]:
                far[np.tril_indices(len(rows), m=len(some))] = np.inf
            most = max(reach[rows].max(), reach[some].max())
            ones, others = np.divmod(np.flatnonzero(far < most), len(some))
            within = far[ones, others] < reach[np.minimum(rows[ones], some[others])]
            ones, others = ones[within], others[within]
            crowded = np.bincount(ones, minlength=len(rows)) > _NEIGHBOURS
            if crowded.any():
                furthest = np.partition(far[crowded], _NEIGHBOURS - 1, axis=1)
                furthest = furthest[crowded.cumsum() - 1, _NEIGHBOURS - 1]
                within = ~crowded[ones] | (far[ones, others] <= furthest[ones])
                ones, others = ones[within], others[within]
            yield rows[ones], some[others]


def _leaves(places: Array, rows: Array) -> Iterator[Array]:
    """Rows whose places are near each other: cut in two where they reach furthest, and again."""
    if len(rows) <= _LEAF:
        yield rows
        return
    axis = int(np.ptp(places[rows], axis=0).argmax())
    middle = len(rows) // 2
    order = np.argpartition(places[rows, axis], middle)
    for half in (order[:middle], order[middle:]):
        yield from _leaves(places, rows[half])


def _confirmed(pictures: Array, couples: Array) -> Array:
    """Those couples that are alike pixel by pixel, too."""
    one, other = (_lab(pictures[couples[:, at]]) for at in (0, 1))
    evener = np.minimum(*(_deviation(pictures[couples[:, at]]) for at in (0, 1)))
    light = (other - one).mean((1, 2), keepdims=True)
    apart = _apart(one + light, other)
    near = apart.mean((1, 2)) <= _MEAN * evener
    near &= np.percentile(apart, 98, axis=(1, 2)) <= _MOST * evener
    near &= np.abs(light).max((1, 2, 3)) <= _LIGHT
    kept: Array = couples[near]
    return kept


def _smooth(pictures: Array) -> Array:
    return np.stack([cv2.blur(picture, (3, 3)) for picture in pictures])


def _apart(one: Array, other: Array) -> Array:
    """How far each pixel is from the nearest one around its place in the other picture: the larger
    of both ways."""
    return np.maximum(_nearest(one, other), _nearest(other, one))


def _nearest(one: Array, other: Array) -> Array:
    wide = np.pad(other, ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    least = np.full(one.shape[:3], np.inf, np.float32)
    for down, right in product(range(-2 * _REACH, 2 * _REACH + 1), repeat=2):
        # In half pixels: where one lies between two pixels, it is their mean.
        corners = product({down // 2, -(-down // 2)}, {right // 2, -(-right // 2)})
        parts = [_part(wide, *corner) for corner in corners]
        moved = sum(parts[1:], parts[0]) / len(parts)
        least = np.minimum(least, np.linalg.norm(one - moved, axis=3))
    return least


def _part(wide: Array, down: int, right: int) -> Array:
    top, left = _REACH + down, _REACH + right
    return wide[:, top : top + SIDE, left : left + SIDE]
