"""The parts of two small pictures that changed, and how each looks in both. A leaf: imports OpenCV
at its top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from chronoprep.images.colours import cells, groups, share_of_groups
from chronoprep.images.outline import Outline, outline

Array = np.ndarray[Any, Any]

_SMALLEST = 0.0009  # of a region's area
_MOST_REGIONS = 8
_NEARBY = 0.4  # of a distance with small shifts forgiven to one without
_FORM = 18.0  # a distance that no moved edge has: a thing has another form, in its own colour
_CLEAR = 12.0  # between a region's mean colours
THIN, _SLIVER = 3.2, 0.01  # of a region that is an edge: half its width in pixels, its share
_RING = 15  # pixels, of what is around a region: its width and the one of its edge


@dataclass(frozen=True, slots=True)
class Look:
    """How a region looks in one of the pictures.

    Attributes:
        lab: Its mean colour.
        chroma: Mean distance of its pixels from grey.
        colours: Share of its pixels that may be called by each group of `colours`.
        detail: Mean gradient within it.
        edge: Mean gradient along its outline.
        apart: How far its colour is from that around it.
    """

    lab: tuple[float, float, float]
    chroma: float
    colours: dict[str, float]
    detail: float
    edge: float
    apart: float


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the pictures that changed, or all of them.

    Attributes:
        share: Of the area.
        centre, box: (x, y) and left, top, right, bottom.
        distance: How far the colours lie apart, on average.
        kept: Correlation of the gradients in it and around it: near 1 where the forms stayed.
    """

    share: float
    centre: tuple[float, float]
    box: tuple[float, float, float, float]
    distance: float
    kept: float
    before: Look
    after: Look
    outline: Outline | None = None

    @property
    def weight(self) -> float:
        """How much of the change it is."""
        return self.share * self.distance

    @property
    def gap(self) -> float:
        """How far its mean colours lie apart."""
        return float(np.linalg.norm(np.subtract(self.before.lab, self.after.lab)))

    @property
    def clear(self) -> bool:
        """Whether it is another colour or has another outline, and not the edge of a thing that
        moved a little: the colours of such an edge are found close by."""
        if self.distance < _NEARBY * self.gap:
            return False
        return self.gap >= _CLEAR or abs(self.appears) >= 0.4 or self.distance >= _FORM

    @property
    def appears(self) -> float:
        """From -1, something is gone, to 1, something is there that was not; by its outline."""
        before = self.before.edge + 0.25 * self.before.apart
        after = self.after.edge + 0.25 * self.after.apart
        return (after - before) / (after + before + 1)


class Pixels(NamedTuple):
    """One of the two, small, and what is asked of it again and again, for each pixel: its colour
    in Lab, how far that is from grey, its cell in the table of colours, and its gradient."""

    rgb: Array
    lab: Array
    chroma: Array
    cells: Array
    steep: Array

    @classmethod
    def of(cls, rgb: Array, lab: Array) -> Pixels:
        chroma = cv2.magnitude(*cv2.split(lab)[1:])
        return cls(rgb, lab, chroma, cells(rgb), gradient(lab))

    def part(self, rows: slice, columns: slice) -> Pixels:
        return Pixels(*(values[rows, columns] for values in self))


@dataclass(frozen=True, slots=True)
class Both:
    """Both pictures."""

    before: Pixels
    after: Pixels

    def region(self, mask: Array, distances: Array) -> Region:
        """How the part of a mask (1 inside) looks in both pictures."""
        height, width = mask.shape
        moments = cv2.moments(mask, binaryImage=True)
        left, top, across, down = cv2.boundingRect(mask)
        # All that is looked at lies no farther from the mask than its ring.
        rows = slice(max(0, top - _RING), top + down + _RING)
        columns = slice(max(0, left - _RING), left + across + _RING)
        part = np.ascontiguousarray(mask[rows, columns])
        core = cv2.erode(part, np.ones((3, 3), np.uint8))
        if cv2.countNonZero(core) < 0.4 * moments["m00"]:
            core = part
        wide = cv2.dilate(part, np.ones((5, 5), np.uint8))
        edge = wide - cv2.erode(part, np.ones((5, 5), np.uint8), borderValue=1)
        ring = cv2.dilate(part, np.ones((_RING, _RING), np.uint8)) - wide
        around = wide.astype(bool)
        before, after = (one.part(rows, columns) for one in (self.before, self.after))
        return Region(
            share=moments["m00"] / mask.size,
            centre=(
                (moments["m10"] / moments["m00"] + 0.5) / width,
                (moments["m01"] / moments["m00"] + 0.5) / height,
            ),
            box=(left / width, top / height, (left + across) / width, (top + down) / height),
            distance=cv2.mean(distances[rows, columns], part)[0],
            kept=_correlation(before.steep[around], after.steep[around]),
            before=_look(before, core, edge, ring),
            after=_look(after, core, edge, ring),
            outline=outline(part),
        )


def regions_of(
    mask: Array, distances: Array, limit: float, both: Both, thin: float = THIN
) -> tuple[Region, ...]:
    """The connected parts of a mask; those close to each other are one.

    Args:
        thin: Half the width, in pixels, that a small region has at least.
    """
    joined = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    labels = labels * mask
    sizes = np.bincount(labels.ravel(), minlength=count).astype(float)
    sums = np.bincount(labels.ravel(), weights=distances.ravel().astype(float), minlength=count)
    regions = []
    for number in sorted(range(1, count), key=lambda number: -sums[number])[:_MOST_REGIONS]:
        mean = sums[number] / max(sizes[number], 1)
        if sizes[number] < _SMALLEST * mask.size or mean < 1.15 * limit:
            continue
        part = (labels == number).astype(np.uint8)
        thick = float(cv2.distanceTransform(part, cv2.DIST_L2, 3).max())
        if thick < thin and sizes[number] < _SLIVER * mask.size:
            continue  # the edge of a thing that stands a little aside
        regions.append(both.region(part, distances))
    return tuple(sorted(regions, key=lambda region: -region.weight))


def _look(picture: Pixels, core: Array, outline: Array, ring: Array) -> Look:
    mean = np.array(cv2.mean(picture.lab, core)[:3])
    around = np.array(cv2.mean(picture.lab, ring)[:3])
    shares = share_of_groups(picture.cells[core.astype(bool)])
    return Look(
        lab=(float(mean[0]), float(mean[1]), float(mean[2])),
        chroma=cv2.mean(picture.chroma, core)[0],
        colours=dict(zip(groups(), shares.tolist(), strict=True)),
        detail=cv2.mean(picture.steep, core)[0],
        edge=cv2.mean(picture.steep, outline)[0],
        apart=float(np.linalg.norm(mean - around)) if cv2.countNonZero(ring) else 0.0,
    )


def _correlation(one: Array, other: Array) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / norm if norm > 1e-6 else 1.0


def summed(values: Array) -> Array:
    """The sum of three channels; numpy takes ten times as long along a short axis."""
    summed: Array = cv2.transform(values, np.ones((1, 3), np.float32))
    return summed


def gradient(lab: Array) -> Array:
    """How much a picture of one or three channels changes from pixel to pixel."""
    across, down = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    squares = cv2.multiply(across, across) + cv2.multiply(down, down)
    size: Array = np.sqrt(summed(squares) if squares.ndim == 3 else squares) / 8
    return size
