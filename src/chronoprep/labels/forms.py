"""Plain forms that a label names, held against the forms of what changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chronoprep.labels.claims import Claim

if TYPE_CHECKING:
    from chronoprep.images.regions import Region

# The thing of an edit itself: "Remove the small red star ...", and not "the dog beside the star".
_NAMED = re.compile(
    r"(?:\w+ly |now |then )?\w+ (?:an?|the|one|another) (?:\w+ ){0,3}?"
    r"(circle|disc|disk|square|triangle|star|ring)\b"
)
_ROUND = ("circle", "disc", "disk", "ring")
_HOLE, _NO_HOLE = 0.1, 0.04  # share of a ring's area within its outline, and of a disc's


def misshapen(claim: Claim, regions: Sequence[Region], *, holes: bool) -> str | None:
    """What form a thing has that is said to have another one; None where nothing speaks against
    it.

    Args:
        regions: Those that the claim may speak of.
        holes: Whether holes in them are those of things.
    """
    named = _NAMED.match(claim.text)
    if named is None or claim.kind not in ("add", "remove", "recolour", "move", "resize"):
        return None
    said, seen = named.group(1), ""
    for region in regions:
        form, hole = _form(region)
        if form is None:
            return None
        outer = "circle" if said in _ROUND else said
        # Of a thing that grows, the region itself is a ring.
        holed = holes and claim.kind != "resize" and outer == form == "circle"
        if form == outer and not (holed and (hole < _NO_HOLE if said == "ring" else hole > _HOLE)):
            return None
        seen = "ring" if holed and hole > _HOLE else form
    return seen or None


def _form(region: Region) -> tuple[str | None, float]:
    outline = region.outline
    return (None, 0.0) if outline is None else (outline.form, outline.hole)
