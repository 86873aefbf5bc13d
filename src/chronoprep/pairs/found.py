"""What layouts and tables hand to discovery: candidates one by one, and what they passed over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from chronoprep.data import Outcome, Pair


class Candidate(NamedTuple):
    """A pair as its layout names it, before keys are made safe and unique.

    Attributes:
        name: Relative name with `/` between folders.
        source, target: References to images as text: a million of them stay cheap.
        wider: A longer name, for when another pair has the same `name`.
    """

    name: str
    source: str
    target: str
    caption: str | None = None
    prompt: str | None = None
    wider: str | None = None


@dataclass(slots=True)
class Found:
    """Candidates, read once; what lies beside them is known when they are all read.

    Attributes:
        candidates: Pairs in the order of the disk or the table.
        ordered: Whether that order means something; if not, pairs are sorted by key.
        sidecars: Whether captions may lie in files beside the images.
    """

    candidates: Iterable[Candidate] = ()
    layouts: set[str] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    bad: list[Outcome[Pair]] = field(default_factory=list)
    ordered: bool = False
    sidecars: bool = True
