"""What layouts and tables hand to discovery: candidates one by one, and what they passed over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from chronoprep.data import Outcome, Pair
from chronoprep.images.refs import of_path


class Candidate(NamedTuple):
    """A pair as its layout names it, before keys are made safe and unique.

    Attributes:
        name: Relative name with `/` between folders.
        source, target: References to images.
        wider: A longer name, for when another pair has the same `name`.
    """

    name: str
    source: str
    target: str
    caption: str | None = None
    prompt: str | None = None
    wider: str | None = None

    @classmethod
    def of_files(cls, name: str, source: str, target: str, caption: str | None = None) -> Candidate:
        return cls(name, of_path(source), of_path(target), caption)


@dataclass(slots=True)
class Scan:
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

    def refuse(self, *sides: list[str]) -> None:
        """Note that several files are one side of one pair."""
        clashes = (" and ".join(sorted(files)) for files in sides if len(files) > 1)
        self.ambiguous.append(
            "; ".join(f"{files} differ only in their suffix: keep one" for files in clashes)
        )
