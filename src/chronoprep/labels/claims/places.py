"""Places of the picture in a text: "on the left", "in the upper right corner of the image".

A side of a thing ("the left of the cup", "her left hand") says nothing of the picture and is left
out; so is "to the left of".
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Across = Literal["left", "centre", "right"]
Down = Literal["top", "middle", "bottom"]


class Place(NamedTuple):
    """A part of the picture; None where nothing is said of that direction."""

    across: Across | None
    down: Down | None

    def __str__(self) -> str:
        if self == ("centre", "middle"):
            return "centre"
        words = [self.down, self.across]
        return " ".join(word for word in words if word)

    def meets(self, other: Place) -> bool:
        """Whether both may be the same place."""
        return all(
            one is None or two is None or one == two or {one, two} & {"centre", "middle"}
            for one, two in zip(self, other, strict=True)
        )

    def off(self, centre: tuple[float, float]) -> float:
        """How far a thing is from where the place is meant most of all."""
        total = 0.0
        for word, at in zip(self, centre, strict=True):
            total += abs(at - (0.17 + 0.66 * _FAR[word])) if word else 0.4 * abs(at - 0.5)
        return total

    def misses(self, centre: tuple[float, float], box: tuple[float, float, float, float]) -> float:
        """How wrong it is of a region: 0 right, 1 on the other side.

        Args:
            centre, box: As of an `images.regions.Region`.
        """
        return max(
            _misses(self.across, centre[0], box[0], box[2]),
            _misses(self.down, centre[1], box[1], box[3]),
        )


_FAR = {"left": 0, "top": 0, "centre": 0.5, "middle": 0.5, "right": 1, "bottom": 1}


def _misses(word: str | None, at: float, first: float, last: float) -> float:
    if word is None:
        return 0.0
    if word in ("centre", "middle"):
        # A large thing beside the middle still stands in it.
        reach = max(0.0, first - 0.5, 0.5 - last)
        return min(1.0, max(0.0, (abs(at - 0.5) - 0.2) / 0.1)) if reach > 0 else 0.0
    away = abs(at - _FAR[word])
    nearest = first if _FAR[word] == 0 else 1 - last
    # From just beyond the middle on; a region that reaches far over to the side is on it, too.
    return min(1.0, max(0.0, (away - 0.53) / 0.12)) * min(1.0, max(0.0, (nearest - 0.2) / 0.12))


_IMAGE = (
    r"(?:(?:\w+ ){0,2}(?:image|picture|photo|photograph|frame|scene|shot|canvas|composition|view|"
    r"screen|portrait|painting))"
)
_PART = (
    r"(?: (?:corner|side|part|area|edge|region|portion|third|quadrant|section|half|border|margin)"
    r"s?)"
)
_OF = rf"(?P<of> (?:of|in) (?:the|this|an?|her|his|its|their) (?:(?P<image>{_IMAGE})\b|\w+))?"
# What may follow a place: with a noun it is a thing's ("the left eye", "the top shelf").
_END = (
    r"(?=$|[,.;:)]| (?:of|in|on|at|to|and|or|so|is|are|was|were|has|have|that|which|who|from|with|"
    r"behind|below|above|beneath|under|beside|next|near|by|while|without|where|into|for|as|now|"
    r"instead|between|just|but|over|against|alone|only|becomes?|turns?|stays?|remains?|an?|the|"
    r"bigger|larger|smaller|tinier|taller|shorter|wider|narrower|thicker|thinner|brighter|darker|"
    r"lighter|sharper|{colours})\b)"
)
_BEFORE = r"\b(?:on|at|in|to|from|along|near|towards?|off|against|across) (?:the |this )?"
_VERY = r"(?:very |far |extreme |outer |exact |mid )?"
_PATTERNS = (
    rf"\b(?P<down>top|upper|bottom|lower|middle|centre|center|central)(?: (?:and|or))?[ ,]+{_VERY}"
    rf"(?P<across>left|right|centre|center|middle)\b(?: most)?(?: hand)?{_PART}?{_OF}{_END}",
    rf"\b(?P<down>up|down) (?:on|at|in) the (?P<across>left|right)(?: hand)?{_PART}?{_OF}{_END}",
    rf"\b(?P<across>left|right)(?: hand)? (?P<down>top|upper|bottom|lower)\b{_PART}?{_OF}{_END}",
    rf"{_BEFORE}{_VERY}(?P<across>left|right)(?: most)?(?: hand)?{_PART}?{_OF}{_END}",
    rf"\b(?P<across>left|right)(?: hand)?{_PART}{_OF}{_END}",
    r"\b(?P<across>left|right) ?most\b",
    rf"\bfar (?P<across>left|right){_OF}{_END}",
    rf"{_BEFORE}{_VERY}(?P<down>top|bottom|upper|lower){_PART}?{_OF}{_END}",
    rf"\b(?P<down>top|bottom|upper|lower){_PART}{_OF}{_END}",
    rf"{_BEFORE}{_VERY}(?P<across>(?P<down>centre|center|middle)){_PART}?{_OF}{_END}",
    rf"\bcent(?:re|er) of the (?P<image>{_IMAGE})\b(?P<across>)(?P<down>)(?P<of>)",
)
_DOWN: dict[str, Down] = {
    **{"top": "top", "upper": "top", "up": "top"},
    **{"bottom": "bottom", "lower": "bottom", "down": "bottom"},
}
_ACROSS: dict[str, Across] = {"left": "left", "right": "right"}


class Found(NamedTuple):
    """A place, and where in the text it stands."""

    place: Place
    start: int
    end: int


class Finder:
    """Finds places in text.

    Args:
        colours: Their names, which may follow a place.
    """

    def __init__(self, colours: frozenset[str]) -> None:
        names = "|".join(sorted(colours))
        self._patterns = [re.compile(p.replace("{colours}", names)) for p in _PATTERNS]

    def find(self, text: str) -> list[Found]:
        """The places in a text of lower case without hyphens, in their order."""
        found: list[Found] = []
        taken: list[tuple[int, int]] = []
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                if any(start < match.end() and match.start() < end for start, end in taken):
                    continue
                taken.append(match.span())
                words = match.groupdict()
                if words.get("of") and not words.get("image"):
                    continue  # of a thing
                found.append(Found(_place(words), *match.span()))
        return sorted(found, key=lambda found: found.start)


def _place(words: dict[str, str | None]) -> Place:
    across, down = words.get("across"), words.get("down")
    if across is None:
        return Place(None, _DOWN.get(down or "", "middle"))
    if down is None:
        return Place(_ACROSS.get(across, "centre"), None)
    return Place(_ACROSS.get(across, "centre"), _DOWN.get(down, "middle"))
