"""Scenes: a backdrop, and flat shapes on the cells of a 3×3 grid. Values, names and geometry."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import ClassVar

# Colours as RGB, cells row by row, and what is said of each kind of edit.
WORDS = json.loads((files(__package__) / "words.json").read_text("utf-8"))
COLOURS: dict[str, list[int]] = WORDS["colours"]
TONES: dict[str, list[int]] = WORDS["tones"]
PLACES: list[str] = WORDS["places"]
SIZES = ("small", "large")
SHAPES = ("circle", "square", "triangle", "star", "ring")
PATTERNS = ("plain", "striped", "checked")
_PREPOSITIONS = {"left": "on", "right": "on", "centre": "in"}
# Radius as a share of the picture's side. A cell is a third wide: a large shape just fits.
_RADIUS = {"small": 0.082, "large": 0.143}
# Corners as (share of the radius, angle from the top, clockwise).
_CORNERS = {
    "square": [(1.15, math.pi * (0.25 + i / 2)) for i in range(4)],
    "triangle": [(1.15, math.pi * 2 * i / 3) for i in range(3)],
    "star": [(1.12 if i % 2 == 0 else 0.45, math.pi * i / 5) for i in range(10)],
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One flat shape.

    Attributes:
        place: Cell of the grid, 0 (top left) to 8 (bottom right), row by row.
        shift: Of its centre from the cell's, as shares of the picture's side.
        turn: Degrees, clockwise.
        tint: Added to each channel of its colour.
        scale: Of its radius, around 1.
    """

    size: str
    colour: str
    shape: str
    place: int
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    tint: tuple[int, int, int] = (0, 0, 0)
    scale: float = 1.0

    @property
    def noun(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def named(self) -> str:
        return f"the {self.noun} {self.where}"

    @property
    def where(self) -> str:
        """Its cell as a place: "at the top left", "in the centre"."""
        return f"{_PREPOSITIONS.get(self.cell, 'at')} the {self.cell}"

    @property
    def cell(self) -> str:
        return PLACES[self.place]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as shares of the picture's sides."""
        points = self.outline
        if points is None:
            (x, y), r = self.centre, self.radius
            points = [(x - r, y - r), (x + r, y + r)]
        across, down = zip(*points, strict=True)
        left, top = max(0.0, min(across)), max(0.0, min(down))
        return left, top, min(1.0, max(across)), min(1.0, max(down))

    @property
    def radius(self) -> float:
        """As a share of the picture's side."""
        return _RADIUS[self.size] * self.scale

    @property
    def outline(self) -> list[tuple[float, float]] | None:
        """The corners as shares of the picture's sides; None for what is round."""
        if self.shape not in _CORNERS:
            return None
        (x, y), turn = self.centre, math.radians(self.turn)
        return [
            (x + self.radius * r * math.sin(a + turn), y - self.radius * r * math.cos(a + turn))
            for r, a in _CORNERS[self.shape]
        ]

    @property
    def centre(self) -> tuple[float, float]:
        row, column = divmod(self.place, 3)
        return ((column + 0.5) / 3 + self.shift[0], (row + 0.5) / 3 + self.shift[1])

    def mirrored(self) -> Thing:
        place = self.place + 2 - 2 * (self.place % 3)
        return replace(self, place=place, shift=(-self.shift[0], self.shift[1]), turn=-self.turn)


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What lies behind the shapes, in the whole picture."""

    place: ClassVar = -1
    box: ClassVar = (0.0, 0.0, 1.0, 1.0)

    tone: str
    pattern: str
    tint: tuple[int, int, int] = (0, 0, 0)
    bands: int = 8

    @property
    def noun(self) -> str:
        return f"{self.pattern} {self.tone}"

    def mirrored(self) -> Backdrop:
        return self


@dataclass(frozen=True, slots=True)
class Scene:
    """A backdrop and shapes, at most one a cell, in the order of their cells."""

    backdrop: Backdrop
    things: tuple[Thing, ...]

    @classmethod
    def of(cls, backdrop: Backdrop, things: Iterable[Thing]) -> Scene:
        return cls(backdrop, tuple(sorted(things, key=lambda thing: thing.place)))

    def mirrored(self) -> Scene:
        return Scene.of(self.backdrop, (thing.mirrored() for thing in self.things))
