"""Whether a picture is another one seen in another way. A leaf: imports OpenCV at its top."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from chronoprep.images.colours import to_lab

Array = np.ndarray[Any, Any]

MOST_SHIFT = 0.03  # share of the side by which a picture may lie off and be the same


def view(before: Array, after: Array) -> str | None:
    """How the source was looked at to give the target, if that explains a change of nearly all."""
    small = [
        cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA) for picture in (before, after)
    ]
    one, other = (to_lab(picture) for picture in small)

    def far(turned: Array) -> float:
        return float(np.linalg.norm(turned - other, axis=2).mean())

    straight = far(one)
    if min(far(one[:, ::-1]), far(one[::-1])) < 0.5 * straight:
        return "mirrored"
    if min(far(np.rot90(one, turns)) for turns in (1, 2, 3)) < 0.5 * straight:
        return "turned"
    finder = cv2.ORB.create(400)
    grays = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after)]
    (points, marks), (others, other_marks) = (finder.detectAndCompute(g, None) for g in grays)
    if not points or not others:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(marks, other_marks)
    if len(matches) < 12:
        return None
    start = np.array([points[match.queryIdx].pt for match in matches], np.float32)
    end = np.array([others[match.trainIdx].pt for match in matches], np.float32)
    cv2.setRNGSeed(0)
    turn, fits = cv2.estimateAffinePartial2D(start, end, ransacReprojThreshold=3)
    if turn is None or fits.sum() < max(12, 0.25 * len(matches)):
        return None
    scale = float(np.hypot(turn[0, 0], turn[1, 0]))
    angle = float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
    centre = np.array([before.shape[1] / 2, before.shape[0] / 2, 1])
    shift = float(np.abs(turn @ centre - centre[:2]).max())
    if abs(angle) > 4:
        return "turned"
    moved = shift > MOST_SHIFT * max(before.shape)
    return "zoomed" if abs(scale - 1) > 0.04 or moved else None
