"""How a target lies over its source: moved, zoomed, turned, framed, lighter or darker.

An edit changes a part of a picture; what it leaves as it is tells how the two lie: see
`registration`. Where too little is left as it was, nothing is said.

A leaf: imports OpenCV and numpy at its top.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chronoprep.data import Flaw
from chronoprep.images.registration import Array, Fit, Mask, Size, fitted, matrix_of, warped

Picture = Image.Image | NDArray[np.uint8]

SIDE = 512  # pixels of the longer side, where measuring ends
_LEAST_SIDE = 64
_MARGIN = 0.02  # of each side, where pictures end and resizing shows
# A window of pixels matches where its pattern correlates so well; of the windows that hold any
# pattern, so many have to match, or the pair says nothing of its alignment.
_WINDOW = 31
_MATCHES = 0.8
_PATTERN = 3.0  # grey levels, the deviation in a window that holds a pattern
_ENOUGH = 0.4
_GREY = 10.0  # levels between the channels of what counts as a grey
_BAR = 16.0  # grey levels by which a bar differs from the source more than the rest does
_WELL = 0.3  # pixels that a corner may be off before a target is moved
_COVER = 0.35  # of the frame, so that a thing which was moved is not taken for the picture
_VOTES = 0.85  # of what is alike, that has to lie better when aligned
_LEAST_EDGES = 0.18  # across the main direction of edges, against those along it
# What is zoomed more, or lies farther off as a share of the longer side, is another picture, or a
# pattern that repeats.
_MOST_ZOOM = 1.18
_FAR = 0.08
_SAMPLES = 8000  # pixels that tell of the light
_WORTH = 0.8  # of the squared difference before: what aligning has to bring it down to


class Limits(NamedTuple):
    """Where a finding begins.

    Attributes:
        shift: Right or down, as a share of the longer side.
        zoom: Away from 1.
        turn: Degrees.
        drift: Of a mid-grey, in levels of 255.
    """

    shift: float
    zoom: float
    turn: float
    drift: float


FINE = Limits(1 / 1024, 0.002, 0.15, 8.0)
# What photographs of one thing, taken twice, stay below (see `synth.drawing`); and light is often
# the edit itself.
GROSS = Limits(0.017, 0.01, 0.6, math.inf)


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a target lies over its source, of the same frame.

    Attributes:
        sure: Whether enough of the pictures is alike to tell; if not, the rest says nothing.
        shift: Of the frame's centre, right and down, in pixels of the source.
        zoom: Over 1 where the target shows things larger.
        turn: Degrees, clockwise.
        border: Plain bars that the target has and the source hasn't: left, top, right, bottom, in
            pixels of the source.
        gain, offset: Of the target's red, green and blue against the source's, outside the edit;
            levels of 255.
        changed: Share of the area that differs when both are aligned.
        out_of_line: Whether nearly all that is alike lies better when aligned. Else things were
            moved within the picture, and not the picture.
        before: Mean difference in grey levels as the pictures lie, outside what the edit changed.
        outside: The same when they are aligned.
    """

    sure: bool
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    turn: float = 0.0
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    out_of_line: bool = False
    changed: float = 0.0
    before: float = 0.0
    outside: float = 0.0

    def drift(self) -> float:
        """How far a mid-grey is off, in the channel where it is farthest."""
        return max(
            (
                128 * (gain - 1) + offset
                for gain, offset in zip(self.gain, self.offset, strict=True)
            ),
            key=abs,
        )


UNKNOWN = Alignment(sure=False)
NOT_ALIGNED = "not aligned"  # in what `aligned` says where it could not


def flaws_of(alignment: Alignment, size: Size, limits: Limits = FINE) -> list[Flaw]:
    """What is to be said of a pair's alignment.

    Args:
        size: Of the source, (width, height) in pixels.
    """
    found: list[Flaw] = []
    if not alignment.sure:
        return found
    if any(alignment.border):
        sides = zip(alignment.border, ("left", "top", "right", "bottom"), strict=True)
        bars = ", ".join(f"{bar} px {side}" for bar, side in sides if bar)
        found.append(
            Flaw("border", f"the target has a plain border that the source has not: {bars}")
        )
    if alignment.out_of_line:
        right, down = alignment.shift
        if max(abs(right), abs(down)) > limits.shift * max(size):
            what = f"the target lies {right:+.1f} px to the right and {down:+.1f} px down"
            found.append(Flaw("shifted", what))
        if abs(alignment.zoom - 1) > limits.zoom:
            found.append(Flaw("zoomed", f"the target is zoomed by {alignment.zoom:.4f}"))
        if abs(alignment.turn) > limits.turn:
            found.append(Flaw("turned", f"the target is turned by {alignment.turn:+.2f}°"))
    drift = alignment.drift()
    if abs(drift) > limits.drift:
        what = f"{abs(drift):.0f} levels of 255 {'lighter' if drift > 0 else 'darker'}"
        found.append(Flaw("exposure-drift", f"outside the edit, the target is {what}"))
    return found


def flaws_in_notes(notes: Iterable[str]) -> list[Flaw]:
    """What is to be said of a pair that was to be aligned and could not be.

    Args:
        notes: On what was done to its images.
    """
    return [Flaw("not-aligned", note) for note in notes if NOT_ALIGNED in note]


def measure(source: Picture, target: Picture) -> Alignment:
    """Measure how a target lies over its source.

    Args:
        source, target: RGB of 8 bits. A target of another size is brought to that of the source.
    """
    height, width = np.asarray(source).shape[:2]
    size = (width, height)
    if min(size) < _LEAST_SIDE:
        return UNKNOWN
    before, after = _small(source, size), _small(target, size)
    border = _border(before, after, size)
    grey = _grey(before), _grey(after)
    usable = _inside(grey[0].shape, border, size)
    fit = fitted(*grey, usable, size)
    over = warped(after, fit, size)
    there = usable & (warped(np.ones_like(grey[0]), fit, size) > 0.99)
    alike, textured = _alike(grey[0], _grey(over), there)
    enough = max(_ENOUGH * textured, _COVER * there.sum(), 1)
    near = 1 / _MOST_ZOOM < abs(fit.turn) < _MOST_ZOOM and abs(fit.shift) < _FAR * max(size)
    if alike.sum() < enough or not near or _one_way(grey[0], alike):
        return UNKNOWN
    gain, offset = _light(before, over, there & alike)
    changed, as_it_lies, outside = _difference(before, after, over, there, gain, offset)
    return Alignment(
        sure=True,
        shift=(fit.shift.real, fit.shift.imag),
        zoom=abs(fit.turn),
        turn=math.degrees(math.atan2(fit.turn.imag, fit.turn.real)),
        border=border,
        gain=_three(gain),
        offset=_three(offset),
        out_of_line=_better(before, after, over, alike, gain, offset),
        changed=changed,
        before=as_it_lies,
        outside=outside,
    )


def aligned(
    source: Image.Image, target: Image.Image
) -> tuple[Image.Image, Image.Image, str | None]:
    """A pair of equal size, with the target moved back over the source and both cropped to what
    both show.

    Returns:
        The pair, and what was done to it; as it was, and None, where it lies well. Where too little
        is alike to tell, the pair is as it was, and that is said.
    """
    size = source.size
    found = measure(source, target)
    if not found.sure:
        return source, target, f"{NOT_ALIGNED}: too little of it is like the source"
    turn = found.zoom * cmath.exp(1j * math.radians(found.turn))
    fit = Fit(turn, complex(*found.shift), 1.0, 0.0, 0.0)
    well = fit.moves(abs(complex(*size)) / 2) < _WELL or not found.out_of_line
    if well and not any(found.border):
        return source, target, None
    if well:
        fit = Fit(1, 0, 1.0, 0.0, 0.0)
    box = _common(fit, found.border, size)
    if min(box[2] - box[0], box[3] - box[1]) < _LEAST_SIDE:
        return source, target, f"{NOT_ALIGNED}: hardly anything would be left"
    if not well:
        matrix = matrix_of(fit.turn, fit.shift, size, size)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        target = Image.fromarray(cv2.warpAffine(np.asarray(target), matrix, size, flags=flags))
    right, down = fit.shift.real, fit.shift.imag
    note = (
        f"aligned: moved by {-right:+.2f}, {-down:+.2f} px, zoomed by {1 / abs(fit.turn):.4f}, "
        f"turned by {-found.turn if not well else 0:+.2f}°, cropped to {box[2] - box[0]}×"
        f"{box[3] - box[1]}"
    )
    return source.crop(box), target.crop(box), note


def _common(fit: Fit, border: tuple[int, int, int, int], size: Size) -> tuple[int, int, int, int]:
    """The largest upright box of the source that the target shows without its border: left, top,
    right, bottom."""
    centre = complex(*size) / 2
    margin = 0 if fit.turn == 1 and fit.shift == 0 else 2  # what interpolation reaches for
    left, top, right, bottom = (bar + margin for bar in border)
    x, y = (left, size[0] - right), (top, size[1] - bottom)
    back = [[(complex(a, b) - centre - fit.shift) / fit.turn + centre for b in y] for a in x]
    return (
        max(0, math.ceil(max(back[0][0].real, back[0][1].real))),
        max(0, math.ceil(max(back[0][0].imag, back[1][0].imag))),
        min(size[0], math.floor(min(back[1][0].real, back[1][1].real))),
        min(size[1], math.floor(min(back[0][1].imag, back[1][1].imag))),
    )


def _three(values: Array) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _small(image: Picture, size: Size) -> Array:
    """A picture as floating point, its longer side at most `SIDE`."""
    scale = min(1.0, SIDE / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    pixels = cv2.resize(np.asarray(image), (width, height), interpolation=cv2.INTER_AREA)
    return pixels.astype(np.float32)


def _grey(pixels: Array) -> Array:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32, copy=False)


def _border(before: Array, after: Array, size: Size) -> tuple[int, int, int, int]:
    """Plain bars at the edges of the target that the source has not, in pixels of the source."""
    found = []
    for turns in (3, 0, 1, 2):  # left, top, right, bottom: how often to turn until it lies on top
        one, other = (np.rot90(pixels, turns) for pixels in (before, after))
        bar = _bar(other)
        off = np.abs(one - other).mean(axis=2)
        # Most of what the bar covers has to be unlike it: not where a thing was taken off a wall.
        covers = bar > 0 and np.median(off[:bar]) > _BAR + np.median(off)
        bare = covers and _bar(one) < bar - 1
        found.append(round(bar * size[0] / before.shape[1]) if bare else 0)
    left, top, right, bottom = found
    return left, top, right, bottom


def _bar(pixels: Array) -> int:
    """How many rows at the top are of one grey, black or white, the same in all of them."""
    colour = np.median(pixels[0], axis=0)
    if np.ptp(colour) > _GREY:
        return 0
    for number, row in enumerate(pixels[: len(pixels) // 3]):
        if np.count_nonzero(np.abs(row - colour).max(axis=1) > 5) > 0.02 * len(row):
            return number
    return 0


def _inside(shape: tuple[int, ...], border: tuple[int, int, int, int], size: Size) -> Mask:
    """Where both pictures show something."""
    height, width = shape
    scale = width / size[0]
    edge = max(2, round(_MARGIN * max(shape)))
    left, top, right, bottom = (round(bar * scale) + edge for bar in border)
    inside = np.zeros(shape, bool)
    inside[top : height - bottom, left : width - right] = True
    return inside


def _alike(source: Array, target: Array, there: Mask) -> tuple[Mask, int]:
    """Where both show the same pattern, and how many pixels hold any."""
    window = (_WINDOW, _WINDOW)

    def mean(values: Array) -> Array:
        return cv2.blur(values, window).astype(np.float32, copy=False)

    one, other = mean(source), mean(target)
    var_one = mean(source * source) - one * one
    var_other = mean(target * target) - other * other
    both = mean(source * target) - one * other
    textured = there & (np.maximum(var_one, var_other) > _PATTERN**2)
    correlation = both / np.sqrt(np.maximum(var_one * var_other, 1e-6))
    return textured & (correlation > _MATCHES), int(textured.sum())


def _one_way(grey: Array, where: Mask) -> bool:
    """Whether all edges run in one direction, along which nothing can be told."""
    right, down = (cv2.Scharr(grey, cv2.CV_32F, *way)[where] for way in ((1, 0), (0, 1)))
    tensor = [[right @ right, right @ down], [right @ down, down @ down]]
    least, most = np.linalg.eigvalsh(np.array(tensor, np.float64))
    return bool(least < _LEAST_EDGES * most)


def _light(source: Array, target: Array, where: Mask) -> tuple[Array, Array]:
    """Gain and offset of each channel, by some of the pixels that are alike."""
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    rows, columns = np.nonzero(where)
    step = max(1, len(rows) // _SAMPLES)
    ones, others = (part[rows[::step], columns[::step]] for part in (source, target))
    for channel, (one, other) in enumerate(zip(ones.T, others.T, strict=True)):
        for _ in range(4):
            spread = one.var()
            if len(one) < 50 or spread < 1:
                break
            gain[channel] = ((one - one.mean()) * (other - other.mean())).mean() / spread
            offset[channel] = other.mean() - gain[channel] * one.mean()
            off = np.abs(gain[channel] * one + offset[channel] - other)
            keep = off < max(2.0, 2.5 * 1.4826 * float(np.median(off)))
            one, other = one[keep], other[keep]
    return gain, offset


def _better(
    before: Array, after: Array, over: Array, alike: Mask, gain: Array, offset: Array
) -> bool:
    """Whether nearly all that is alike lies better when aligned."""
    lit = before * gain + offset
    errors = [cv2.blur(_grey((lit - other) ** 2), (_WINDOW, _WINDOW)) for other in (after, over)]
    return float((errors[1] < _WORTH * errors[0])[alike].mean()) > _VOTES


def _difference(
    before: Array, after: Array, warped: Array, there: Mask,
    gain: Array, offset: Array,
) -> tuple[float, float, float]:  # fmt: skip
    """The share of the area where an aligned target differs, and by how many levels it differs
    elsewhere: as it lies, and aligned."""
    height, width = (side // 2 for side in there.shape)
    small = [
        cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        for part in (before, after, warped, there.astype(np.uint8))
    ]
    one, other, aligned = small[0] * gain + offset, small[1], small[2]
    inside = small[3] > 0
    off = cv2.transform(np.abs(one - aligned), np.full((1, 3), 1 / 3, np.float32))
    smooth = cv2.blur(off, (5, 5))
    usual = smooth[inside][::4]
    middle = float(np.median(usual))
    limit = max(8.0, middle + 6 * 1.4826 * float(np.median(np.abs(usual - middle))))
    changed = inside & (smooth > limit)
    rest = inside & ~changed
    if not rest.any():
        return 1.0, 0.0, 0.0
    as_it_lies = np.abs(one - other)[rest].mean()
    return float(changed.sum() / inside.sum()), float(as_it_lies), float(off[rest].mean())
