"""What changed between two pictures: where, how much, from which colours to which.

Made to be blind to what no editor means: coding, grain, a little light, a few pixels of shift. All
is measured on pictures of `SIDE` pixels; lengths are shares of the sides, areas of the area,
colours and distances CIELAB as `colours.to_lab` gives it. A leaf: imports OpenCV at its top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from chronoprep.images.colours import LIGHTNESS, to_lab
from chronoprep.images.regions import THIN, Both, Pixels, Region, gradient, regions_of, summed
from chronoprep.images.view import MOST_SHIFT, view

Array = np.ndarray[Any, Any]

SIDE = 256  # of the longer side; 384 finds little more and costs three times as much
# What may lie so far away, as a share of the side, counts as being in its place.
_REACH = 0.016
# A distance is a change from the noise's own median + 5 deviations on, within these bounds.
_FEWEST, _MOST = 7.0, 14.0
_CELL = 10.0  # of the colours that are one when it is asked what they became
_COMMON = 0.03  # share of the area from which on what a colour became is what it becomes
_LEAST_DETAIL = 0.01  # share of the area
_WIDE = 0.3  # share changed from which on another view is looked for
# Pictures that are nowhere lighter than the first are brought to the second, as an eye adapts to a
# dark room, by the third at most: names of colours are those of usual light.
_DIM, _LIT, _BRIGHTEN = 150, 245, 3.0


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between source and target.

    Attributes:
        identical: Whether all pixels are the same.
        changed: Share of the area that changed, small shifts forgiven.
        plain: The same with no shift forgiven: sees faint patterns.
        rest: Mean distance outside the changed regions, in no other light and with no shift
            forgiven: high where the edit is of all of the picture.
        border: Distance along the edges of the picture, with no shift forgiven, which a fifth of
            them exceeds: high where the background is another.
        whole, frame: Both pictures as one region, and a band along their edges.
        softer, sharper: Where detail was lost and won, as a region; None where next to nowhere.
        regions: The heaviest first.
        beside: Where nearly all changed, the regions that changed otherwise than the rest.
        view: "mirrored", "turned" or "zoomed" where the target is the source seen in another way.
    """

    identical: bool
    changed: float
    plain: float
    rest: float
    border: float
    whole: Region
    frame: Region
    softer: Region | None
    sharper: Region | None
    regions: tuple[Region, ...]
    beside: tuple[Region, ...]
    view: str | None


def measure(source: Array, target: Array) -> Difference:
    """Measure what changed.

    Args:
        source, target: RGB, 8 bits, of any size; the target is brought to the source's.
    """
    identical = source.shape == target.shape and bool((source == target).all())
    before = _small(source, None)
    after = _small(target, before.shape[1::-1])
    level = _shifted_back(before, _as_lit(before, after))
    one, other = _smooth(to_lab(before)), _smooth(to_lab(level))
    near, plain = _distances(one, other)
    limit = float(np.clip(np.median(near) + 5 * _deviation(near), _FEWEST, _MOST))
    mask = _cleaned(near > limit)
    raw = _smooth(to_lab(after))
    both = _both(before, after, one, raw)
    regions = regions_of(mask, near, limit, both)
    everything = np.ones(mask.shape, np.uint8)
    changed = float(mask.mean())
    outside = cv2.dilate(mask, np.ones((7, 7), np.uint8)) == 0
    gap = cv2.subtract(one, raw)
    rest = float(np.sqrt(summed(gap * gap))[outside].mean()) if outside.any() else 0.0
    softer, sharper = _detail(both, plain)
    return Difference(
        identical=identical,
        changed=changed,
        plain=float((plain > limit).mean()),
        rest=rest,
        whole=both.region(everything, plain),
        border=float(np.percentile(plain[_frame(mask) > 0], 80)),
        frame=both.region(_frame(mask), plain),
        softer=softer,
        sharper=sharper,
        regions=regions,
        beside=_beside(both) if changed > _WIDE else (),
        view=view(before, level) if changed > _WIDE else None,
    )


def _small(image: Array, size: tuple[int, int] | None) -> Array:
    if size is None:
        height, width = image.shape[:2]
        scale = SIDE / max(height, width)
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
    way = cv2.INTER_AREA if image.shape[1] >= size[0] else cv2.INTER_CUBIC
    small: Array = cv2.resize(np.ascontiguousarray(image), size, interpolation=way)
    return small


def _as_lit(before: Array, after: Array) -> Array:
    """The target in the source's light, if the two differ by as little as an encoder makes them."""
    lit = after.astype(np.float32)
    for channel in range(3):
        # Of every fourth pixel: a median is what takes its time here.
        one, other = (picture[::2, ::2, channel].astype(np.float32) for picture in (before, after))
        bright = one > 24
        if not bright.any():
            continue
        gain = float(np.median(other[bright] / one[bright]))
        if not 0.88 < gain < 1.13:
            gain = 1.0
        offset = float(np.median(other / gain - one))
        if abs(offset) >= 8:
            offset = 0.0
        lit[..., channel] = lit[..., channel] / gain - offset
    return lit.clip(0, 255).astype(np.uint8)


def _shifted_back(before: Array, after: Array) -> Array:
    """The target moved to where the source is, if it lies off by little."""
    one, other = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float32) for p in (before, after))
    height, width = one.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    (dx, dy), response = cv2.phaseCorrelate(one, other, window)
    if response < 0.1 or not 0.3 < max(abs(dx), abs(dy)) <= MOST_SHIFT * max(height, width):
        return after
    move = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
    moved: Array = cv2.warpAffine(
        after, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    grey = cv2.cvtColor(moved, cv2.COLOR_RGB2GRAY).astype(np.float32)
    better = np.abs(grey - one).mean() < np.abs(other - one).mean()
    return moved if better else after


def _smooth(lab: Array) -> Array:
    smooth: Array = cv2.GaussianBlur(lab, (0, 0), 1.2)
    return smooth


def _distances(one: Array, other: Array) -> tuple[Array, Array]:
    """For each pixel how far it is from the nearest colour around its place in the other picture,
    whichever way is farther; and from the colour in its very place."""
    reach = max(2, round(_REACH * max(one.shape[:2])))
    steps = [(dx, dy) for dy in range(-reach, reach + 1, 2) for dx in range(-reach, reach + 1, 2)]
    height, width = one.shape[:2]
    wide = cv2.copyMakeBorder(other, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    there = np.full((height, width), np.inf, np.float32)
    back = np.full((height + 2 * reach, width + 2 * reach), np.inf, np.float32)
    plain = there
    for dx, dy in steps:
        y, x = reach + dy, reach + dx
        gap = cv2.subtract(one, wide[y : y + height, x : x + width])
        far = cv2.blur(summed(cv2.multiply(gap, gap)), (3, 3))
        there = np.minimum(there, far)
        window = back[y : y + height, x : x + width]
        np.minimum(window, far, out=window)
        if (dx, dy) == (0, 0):
            plain = far
    inner = back[reach : reach + height, reach : reach + width]
    inner = np.where(np.isfinite(inner), inner, there)
    # A running sum rounds to a little less than nothing.
    return np.sqrt(np.maximum(np.maximum(there, inner), 0)), np.sqrt(np.maximum(plain, 0))


def _deviation(values: Array) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _frame(mask: Array) -> Array:
    frame = np.ones(mask.shape, np.uint8)
    height, width = (max(2, round(0.05 * side)) for side in mask.shape)
    frame[height:-height, width:-width] = 0
    return frame


def _cleaned(changed: Array) -> Array:
    mask: Array = changed.astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed: Array = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return closed


def _both(before: Array, after: Array, lab_before: Array, lab_after: Array) -> Both:
    """What regions are looked at in: where both pictures are dark all over, by one factor lighter.
    (Where they differ is measured as they are: what is lighter has more noise.)"""
    lightest = max(
        float(np.percentile(np.maximum(np.maximum(red, green), blue), 99))
        for red, green, blue in map(cv2.split, (before, after))
    )
    if 0 < lightest < _DIM:
        gain = np.float32(min(_LIT / lightest, _BRIGHTEN))
        before, after = ((p * gain).clip(0, 255).astype(np.uint8) for p in (before, after))
        lab_before, lab_after = (_smooth(to_lab(picture)) for picture in (before, after))
    return Both(Pixels.of(before, lab_before), Pixels.of(after, lab_after))


def _beside(both: Both) -> tuple[Region, ...]:
    """The regions that changed otherwise than the rest: a thing that went while the background took
    another colour.

    What many pixels of one colour turned into is what the picture turned into; all else should have
    stayed.
    """
    far = np.maximum(
        _unexpected(both.before.lab, both.after.lab), _unexpected(both.after.lab, both.before.lab)
    )
    return regions_of(_cleaned(far > _MOST), far, _MOST, both, thin=1.5 * THIN)


def _unexpected(one: Array, other: Array) -> Array:
    """How far each pixel is from what its colour became elsewhere."""
    cells = [np.floor(lab / _CELL).astype(np.int64) + 32 for lab in (one, other)]
    first, second = (c[..., 0] << 12 | c[..., 1] << 6 | c[..., 2] for c in cells)
    pairs, at, counts = np.unique(
        (first << 18 | second).ravel(), return_inverse=True, return_counts=True
    )
    often = np.flatnonzero(counts >= _COMMON * first.size)
    far = np.linalg.norm(one - other, axis=2).ravel()
    sums = np.stack(
        [np.bincount(at.ravel(), part.ravel(), len(pairs)) for part in np.moveaxis(other, 2, 0)], 1
    )
    flat = other.reshape(-1, 3)
    near = np.full(far.shape, np.inf)
    for pair in often:
        # Neighbouring cells hold the same colour, a little lighter or darker.
        centre = (
            np.array([pairs[pair] >> 30, pairs[pair] >> 24 & 63, pairs[pair] >> 18 & 63]) - 31.5
        )
        source = np.abs(one.reshape(-1, 3) - centre * _CELL).max(1) <= 1.2 * _CELL
        gap = np.linalg.norm(flat[source] - sums[pair] / counts[pair], axis=1)
        near[source] = np.minimum(near[source], gap)
    expected = np.where(np.isfinite(near), near, far)
    result: Array = cv2.blur(expected.reshape(first.shape).astype(np.float32), (3, 3))
    return result


def _fine(rgb: Array) -> Array:
    """The gradient of lightness, not smoothed."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) * (LIGHTNESS / 2.55)
    return gradient(grey[..., None])


def _detail(both: Both, distances: Array) -> tuple[Region | None, Region | None]:
    """Where detail was lost, and where it was won."""
    one, other = (cv2.blur(_fine(one.rgb), (11, 11)) for one in (both.before, both.after))
    found: list[Region | None] = []
    for less, more in ((other, one), (one, other)):
        mask: Array = ((more > 1) & (less < 0.66 * more)).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        found.append(both.region(mask, distances) if mask.mean() > _LEAST_DETAIL else None)
    return found[0], found[1]
