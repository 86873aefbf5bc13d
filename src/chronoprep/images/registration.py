"""The similarity that lays one picture over another: moved, zoomed, turned, lighter or darker.

It is found by Gauss-Newton steps over a pyramid (the inverse compositional form of Lucas and
Kanade), on points with a gradient that are spread over the picture, together with a gain and an
offset of the light. Tukey's weights take out the points that an edit changed: up to half of all.

A leaf: imports OpenCV and numpy at its top.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Size = tuple[int, int]

_LEVELS = (8, 4, 2, 1)  # by how much smaller each level is
_CELLS = (1, 2, 3, 6)  # of how many pixels a side one point is taken, a level
_STEPS = 30
_TUKEY = 4.685  # of a deviation: 95 % as efficient as least squares where nothing was edited
_STILL = 0.2  # pixels at the last level: what moves less is not measured finer


class Fit(NamedTuple):
    """A similarity and the light: target(turn · point + shift) = gain · source(point) + offset, of
    complex points in pixels of the source, from its centre."""

    turn: complex
    shift: complex
    gain: float
    offset: float
    cost: float

    def moves(self, reach: float) -> float:
        """How far it moves a point at most, in pixels of the source.

        Args:
            reach: From the centre to a corner.
        """
        return abs(self.turn - 1) * reach + abs(self.shift)


def fitted(source: Array, target: Array, usable: Mask, size: Size) -> Fit:
    """The similarity, from coarse to fine."""
    fit: Fit | None = None
    for factor, cell in zip(_LEVELS, _CELLS, strict=True):
        height, width = (max(8, side // factor) for side in source.shape)
        small = [_shrunk(pixels, (width, height)) for pixels in (source, target)]
        mask = cv2.resize(usable.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
        if fit is None:
            starts = [0j, _phase(small[0], small[1], size)]
            fits = [
                _refined(small[0], small[1], mask > 0, cell, size, Fit(1, at, 1, 0, math.inf))
                for at in starts
            ]
            fit = min(fits, key=lambda one: one.cost)
        elif factor > 1 or fit.moves(abs(complex(*size)) / 2) * width / size[0] > _STILL:
            fit = _refined(small[0], small[1], mask > 0, cell, size, fit)
    assert fit is not None
    return fit


def _shrunk(pixels: Array, size: Size) -> Array:
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1).astype(np.float32, copy=False)


def _phase(source: Array, target: Array, size: Size) -> complex:
    """A first guess of the shift, by phase correlation."""
    window = cv2.createHanningWindow(source.shape[::-1], cv2.CV_32F)
    (right, down), _ = cv2.phaseCorrelate(source, target, window)
    return complex(right * size[0] / source.shape[1], down * size[1] / source.shape[0])


def _refined(
    source: Array, target: Array, mask: Mask, cell: int, size: Size,
    fit: Fit,
) -> Fit:  # fmt: skip
    """A better fit at one level of the pyramid."""
    height, width = source.shape
    scale = np.array([width / size[0], height / size[1]])
    right = cv2.Scharr(source, cv2.CV_32F, 1, 0, scale=scale[0] / 32)
    down = cv2.Scharr(source, cv2.CV_32F, 0, 1, scale=scale[1] / 32)
    rows, columns = _points(np.hypot(right, down) * mask, cell)
    if len(rows) < 50:
        return fit._replace(cost=math.inf)
    centre = complex(*size) / 2
    points = (columns + 0.5) / scale[0] + 1j * (rows + 0.5) / scale[1] - centre
    values, gx, gy = source[rows, columns], right[rows, columns], down[rows, columns]
    jacobian = np.stack(
        [gx, gy, gx * points.real + gy * points.imag, gy * points.real - gx * points.imag,
         values, np.ones_like(values)], axis=1,
    ).astype(np.float64)  # fmt: skip
    turn, shift, gain, offset, cost = fit
    reach = abs(centre)
    for _ in range(_STEPS):
        at = turn * points + shift + centre
        x, y = at.real * scale[0] - 0.5, at.imag * scale[1] - 0.5
        seen = cv2.remap(
            target, x.astype(np.float32)[:, None], y.astype(np.float32)[:, None], cv2.INTER_LINEAR
        )[:, 0]
        there = (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1)
        if there.sum() < 50:
            return fit._replace(cost=math.inf)
        off = gain * values + offset - seen
        deviation = max(0.5, 1.4826 * float(np.median(np.abs(off[there]))))
        ratio = np.clip(off / (_TUKEY * deviation), -1, 1)
        weights = (1 - ratio**2) ** 2 * there
        cost = float(np.minimum(np.abs(off[there]), 3 * deviation).mean())
        scaled = jacobian * np.array([gain, gain, gain, gain, 1, 1])
        weighted = scaled * weights[:, None]
        normal = weighted.T @ scaled
        normal[np.diag_indices(6)] *= 1 + 1e-6
        try:
            step = np.linalg.solve(normal, -(weighted.T @ off))
        except np.linalg.LinAlgError:
            return fit._replace(cost=math.inf)
        grown, moved = 1 + complex(step[2], step[3]), complex(step[0], step[1])
        turn, shift = turn / grown, shift - turn * moved / grown
        gain, offset = gain + step[4], offset + step[5]
        if not (0.5 < abs(turn) < 2 and abs(shift) < reach and 0.2 < gain < 5):
            return fit._replace(cost=math.inf)
        if (abs(moved) + abs(grown - 1) * reach) * scale[0] < 0.005:
            break
    return Fit(complex(turn), complex(shift), float(gain), float(offset), cost)


def _points(strength: Array, cell: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each square cell, the pixel with the strongest gradient, unless there is hardly any."""
    height, width = (side // cell for side in strength.shape)
    cells = strength[: height * cell, : width * cell].reshape(height, cell, width, cell)
    flat = cells.transpose(0, 2, 1, 3).reshape(height, width, cell * cell)
    best = flat.argmax(axis=2)
    top = flat.max(axis=2)
    strong = top > max(float(np.percentile(top, 20)), 1e-3)
    row, column = np.nonzero(strong)
    place = best[row, column]
    return row * cell + place // cell, column * cell + place % cell


def warped(pixels: Array, fit: Fit, size: Size) -> Array:
    """A target brought over its source."""
    height, width = pixels.shape[:2]
    matrix = matrix_of(fit.turn, fit.shift, size, (width, height))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, (width, height), flags=flags).astype(
        np.float32, copy=False
    )


def matrix_of(turn: complex, shift: complex, size: Size, frame: Size) -> NDArray[np.float64]:
    """From pixels of the source to those of the target, both in a frame of another size."""
    scale = frame[0] / size[0]
    middle = complex(frame[0] - 1, frame[1] - 1) / 2
    moved = shift * scale + middle - turn * middle
    return np.array([[turn.real, -turn.imag, moved.real], [turn.imag, turn.real, moved.imag]])
