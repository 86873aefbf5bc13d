"""What is seen, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from chronoprep.images.colours import nearest

if TYPE_CHECKING:
    from chronoprep.images.regions import Region


def told_where(region: Region) -> str:
    """Where a region is, and how large."""
    (x, y), names = region.centre, ("left", "centre", "right")
    across = names[min(2, int(3 * x))]
    down = ("upper", "middle", "lower")[min(2, int(3 * y))]
    word = "at the centre" if (across, down) == ("centre", "middle") else f"at the {down} {across}"
    if down == "middle" and across != "centre":
        word = f"on the {across}"
    share = f"{region.share:.1%}" if region.share < 0.1 else f"{region.share:.0%}"
    return f"{word}, {share} of the area"


def told(region: Region) -> str:
    """Where a region is, and its colours."""
    colours = f"{nearest(region.before.lab)} → {nearest(region.after.lab)}"
    return f"the change is {told_where(region)} ({colours})"


def either(words: Iterable[object]) -> str:
    """Words with "or" between."""
    return " or ".join(sorted(map(str, words)))
