"""What places mean in one dataset, learned from its own labels.

A captioner has habits: "left" may be the whole left half, or the middle of the left edge beside a
"top left". Where many labels of one change and one place agree, that is what the words mean there;
the few that are wrong don't move a median.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

_FEWEST = 30  # labels of a place
_MOST = 4000  # labels that are kept of a place: more teach nothing
_VAGUE = 0.16  # a direction in which its places lie farther apart says nothing
_LOOSE = 0.05  # how far beside its place a thing may always be, as a share of the side


class Spot(NamedTuple):
    """A changed region, as far as places go: its box, its weight and its share of the area; 0 of
    what may be the edge of a thing that moved a little, which no label has to speak of."""

    left: float
    top: float
    right: float
    bottom: float
    weight: float
    share: float


class _Meaning(NamedTuple):
    """Where a place is, and how far around it; None in a direction that it says nothing of."""

    x: tuple[float, float] | None
    y: tuple[float, float] | None


@dataclass
class Vocabulary:
    """The places of a dataset's labels."""

    _seen: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _meanings: dict[str, _Meaning] = field(default_factory=dict)

    def add(self, places: Sequence[str], spots: Sequence[Spot]) -> None:
        """Take in a label; only one of one place and one change teaches anything."""
        told = [spot for spot in spots if spot.share]
        if len(places) == len(told) == 1 and len(self._seen[places[0]]) < _MOST:
            left, top, right, bottom = told[0][:4]
            self._seen[places[0]].append(((left + right) / 2, (top + bottom) / 2))

    def learn(self) -> None:
        """Make meanings of what was taken in."""
        for place, seen in self._seen.items():
            if len(seen) >= _FEWEST:
                x, y = ([at[axis] for at in seen] for axis in (0, 1))
                self._meanings[place] = _Meaning(_range(x), _range(y))

    def misses(self, places: Sequence[str], spots: Sequence[Spot]) -> float:
        """How surely one of the places is none where something changed: 0 to 1."""
        known = [place for place in places if place in self._meanings]
        if not spots:
            return 0.0
        return max((min(self._away(p, spot) for spot in spots) for p in known), default=0.0)

    def unclaimed(self, places: Sequence[str], spots: Sequence[Spot]) -> float:
        """How surely something changed where none of the places is: 0 to 1."""
        if not places or any(place not in self._meanings for place in places):
            return 0.0
        top = max((spot.weight for spot in spots), default=0.0)
        heavy = [s for s in spots if s.weight >= 0.1 * top and s.share >= 0.008]
        return max((min(self._away(p, spot) for p in places) for spot in heavy), default=0.0)

    def _away(self, place: str, spot: Spot) -> float:
        meaning, far = self._meanings[place], 0.0
        for at, first, last in (
            (meaning.x, spot.left, spot.right),
            (meaning.y, spot.top, spot.bottom),
        ):
            if at is not None:
                middle, around = at
                # A large region is also where its middle is not.
                gap = max(first - middle, middle - last, 0.0)
                off = abs((first + last) / 2 - middle) - around
                far = max(far, min(1.0, max(0.0, min(gap / 0.04, off / 0.08))))
        return far


def _range(values: list[float]) -> tuple[float, float] | None:
    middle = median(values)
    around = 3 * 1.4826 * median(abs(value - middle) for value in values)
    return (middle, around + _LOOSE) if around <= _VAGUE else None
