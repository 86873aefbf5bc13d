"""What layouts and tables hand to discovery: candidates one by one, and what they passed over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from chronoprep.data import Outcome, Pair
from chronoprep.errors import PairError
from chronoprep.images.refs import of_path
from chronoprep.keys import safe_key
from chronoprep.pairs.folders import stem, walk


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


class Part(NamedTuple):
    """What a file is in its pair.

    Attributes:
        group: What the images of a pair share; one source may have many targets.
        side: `source` or `target`.
        text: Of a target, what its pair is called. Of a source, the layout, where files tell it.
    """

    group: str
    side: str
    text: str = ""


def key_of(name: str) -> str:
    """The key of a pair that its layout names so."""
    return safe_key(name.replace("/", "__"))


# Path below a folder, with `/` → its part, or None where it has none.
Classify = Callable[[str], Part | None]


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

    def slots(self, top: str, classify: Classify) -> list[str]:
        """The images below a folder, each as one text, `group NUL side NUL text NUL path`: sorting
        brings pairs together without an object a file."""
        slots = []
        for relative, here in walk(top):
            for name in here.images:
                path = f"{top}{os.sep}{relative}{name}"
                part = classify(relative + name)
                if part:
                    slots.append("\0".join((*part, path)))
                else:
                    self.unmatched.append(path)
        return slots

    def match(
        self,
        slots: list[str],
        regroup: Callable[[list[str], list[str]], list[str]] | None = None,
    ) -> Iterator[Candidate]:
        """The pairs among slots: a source and each of its targets.

        Args:
            regroup: Given all slots and those of groups without a pair, puts these into other
                groups, which are matched again.
        """
        slots.sort()
        lone: list[str] = []
        for _, group in groupby(slots, key=lambda slot: slot.partition("\0")[0]):
            members = list(group)
            sources: dict[str, list[str]] = {}
            targets: dict[str, list[str]] = {}
            for member in members:
                _, side, text, path = member.split("\0")
                (sources if side == "source" else targets).setdefault(text, []).append(path)
            if not sources or not targets:
                lone += members
                continue
            befores = [path for paths in sources.values() for path in paths]
            sides = [("source", befores), *(("target", afters) for afters in targets.values())]
            if clashes := [_clash(side, files) for side, files in sides if len(files) > 1]:
                self.ambiguous.append("; ".join(clashes))
            for name, afters in targets.items():
                if len(befores) == len(afters) == 1:
                    self.layouts.update(filter(None, sources))
                    yield Candidate(name, of_path(befores[0]), of_path(afters[0]))
        if regroup:
            yield from self.match(regroup(slots, lone))
        else:
            self.unmatched += [slot.rpartition("\0")[2] for slot in lone]

    def refuse(self, name: str, error: PairError) -> None:
        """Note that a pair can't be used."""
        self.bad.append(Outcome(key_of(name), error=error))


def _clash(side: str, files: list[str]) -> str:
    """Says that several files are one side of one pair."""
    same = len(set(map(stem, files))) == 1
    why = "differ only in their suffix" if same else f"are both the {side}"
    return f"{' and '.join(sorted(files))} {why}: keep one"
