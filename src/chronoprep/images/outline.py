"""What plain form a region has. A leaf: imports OpenCV at its top.

The bounds lie between what flat circles, squares, triangles, stars and rings of 21 to 37 pixels'
radius measured, coded again or not; nothing in between is any of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

Array = np.ndarray[Any, Any]


class Outline(NamedTuple):
    """The outline of a region's largest part.

    Attributes:
        hole: Share of the area within it that is no part of the region.
        solid: Its area to that of its convex hull.
        circle, square, triangle: The hull's area to that of the smallest one around it.
    """

    hole: float
    solid: float
    circle: float
    square: float
    triangle: float

    @property
    def form(self) -> str | None:
        """What it is, whatever holes are in it: "circle", "square", "triangle", "star" or None."""
        if self.solid < 0.78:
            star = 0.7 < self.circle < 0.82 and self.solid > 0.5 and self.triangle < 0.63
            return "star" if star else None
        if self.solid > 0.92:
            for form, least in (("circle", 0.88), ("square", 0.89), ("triangle", 0.86)):
                if getattr(self, form) > least:
                    return form
        return None


def outline(mask: Array) -> Outline | None:
    """The outline of a mask (1 inside); None where it is too small to have a form."""
    parts, nested = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    sizes = [cv2.contourArea(part) for part in parts]
    outer = [at for at in range(len(parts)) if nested[0][at][3] < 0]
    largest = max(outer, key=lambda at: sizes[at], default=None)
    if largest is None or sizes[largest] < 64:
        return None
    holes = sum(sizes[at] for at in range(len(parts)) if nested[0][at][3] == largest)
    hull = cv2.convexHull(parts[largest])
    area = cv2.contourArea(hull)
    _, radius = cv2.minEnclosingCircle(hull)
    _, (width, height), _ = cv2.minAreaRect(hull)
    triangle, _ = cv2.minEnclosingTriangle(hull)
    return Outline(
        hole=holes / sizes[largest],
        solid=sizes[largest] / area,
        circle=area / (np.pi * radius**2),
        square=area / max(width, height) ** 2,
        triangle=area / triangle,
    )
