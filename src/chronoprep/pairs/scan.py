"""What layouts and tables hand to discovery: candidates one by one, and what they passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from chronoprep.data import Outcome, Pair
from chronoprep.errors import PairError
from chronoprep.keys import safe_key
from chronoprep.pairs.folders import Listing, Tree, stem


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


class Passed(NamedTuple):
    """Something that is in no pair.

    Attributes:
        what: The file or the row, or several.
        why: What it is, or why it is in no pair.
        files: How many it stands for.
    """

    what: str
    why: str
    files: int = 1


def key_of(name: str) -> str:
    """The key of a pair that its layout names so."""
    return safe_key(name.replace("/", "__"))


# A folder and a name in it → the part of that image, or None where it has none.
Classify = Callable[[str, str], Part | None]


@dataclass(slots=True)
class Scan:
    """Candidates, read once; what lies beside them is known when they are all read.

    Paths are below the top of `tree`. Each file that was seen goes one way: into a candidate, or
    into one of the lists here.

    Attributes:
        tree: The files; None where rows of a table are the pairs.
        candidates: Pairs in the order of the disk or the table.
        ordered: Whether that order means something; if not, pairs are sorted by key.
        beside: By folder, files that are no images: captions of pairs, or passed over.
        unmatched: Images without a partner.
        ambiguous: Lines that name files of which no one pair can be made; `clashing` counts them.
        refused: Those of the `bad` pairs whose images were found.
        odd: Paths that are named like images and are special files.
        folders: Paths that are named like images and are folders.
        passed: What lies in no pair for a reason of its own.
        aside: By folder, how many images lie in it that are no side of a pair.
        clips: Whether the pairs are frames of the videos in `beside`.
        read: Files beside the images that a layout has read.
        seen: How many files, or rows.
        system: How many files the system keeps for itself; `skipped` are folders.
        nothings: Words that stand for no text where one could be, and how often.
        respelled: How many paths led to a file in another spelling; `respelling` is one of them.
        remarks: What was read otherwise than it is written, readable.
    """

    tree: Tree | None = None
    candidates: Iterable[Candidate] = ()
    layouts: set[str] = field(default_factory=set)
    ordered: bool = False
    beside: dict[str, list[str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    clashing: int = 0
    bad: list[Outcome[Pair]] = field(default_factory=list)
    refused: list[Candidate] = field(default_factory=list)
    odd: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    passed: list[Passed] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)
    clips: bool = False
    read: set[str] = field(default_factory=set)
    seen: int = 0
    system: int = 0
    skipped: list[str] = field(default_factory=list)
    nothings: Counter[str] = field(default_factory=Counter)
    respelled: int = 0
    respelling: str = ""
    remarks: list[str] = field(default_factory=list)

    def slots(self, tree: Tree, classify: Classify | None, start: str = "") -> list[str]:
        """The images from a folder on, each as one text, `group NUL side NUL text NUL path`:
        sorting brings pairs together without an object a file.

        Args:
            classify: None where the folder is no side of any pair.
        """
        slots = []
        for folder, here in tree.walk(start):
            self.take(tree, folder, here)
            if classify is None:
                self.aside[start] += len({*here.images}.difference(here.folders))
                continue
            for name in here.images:
                part = classify(folder, name)
                if part:
                    slots.append("\0".join((*part, folder + name)))
                else:
                    self.unmatched.append(folder + name)
        return slots

    def take(self, tree: Tree, folder: str, here: Listing) -> None:
        """Note what a folder holds beside its images."""
        self.seen += len(here.images) + len(here.others) + here.system
        self.system += here.system
        self.skipped += here.skipped
        for name in here.odd:
            if name not in here.others:
                self.odd.add(folder + name)
            else:
                self._pass_by(tree, folder, name, here, "neither a file nor a folder")
        for name in here.broken:
            self._pass_by(tree, folder, name, here, "a link that leads nowhere")
        if both := set(here.images).intersection(here.folders) if here.folders else None:
            self.folders.update(folder + name for name in both)
            self.seen -= len(both)
        if here.others:
            self.beside[folder] = here.others
        if here.error is not None:
            what = Passed(tree.shown(folder), f"can't be opened: {here.error}", 0)
            self.passed.append(what)

    def _pass_by(self, tree: Tree, folder: str, name: str, here: Listing, why: str) -> None:
        """Note what can't be opened: no caption is to be read from it."""
        here.others.remove(name)
        self.passed.append(Passed(tree.shown(folder + name), why))

    def match(
        self,
        tree: Tree,
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
            afters = [path for paths in targets.values() for path in paths]
            if len(befores) > 1 or len(afters) > len(targets):
                self._clash(tree, befores, targets)
            for name, paths in targets.items():
                if len(befores) == len(paths) == 1:
                    self.layouts.update(filter(None, sources))
                    yield Candidate(name, tree.ref(befores[0]), tree.ref(paths[0]))
        if regroup:
            yield from self.match(tree, regroup(slots, lone))
        else:
            self.unmatched += [slot.rpartition("\0")[2] for slot in lone]

    def _clash(self, tree: Tree, befores: list[str], targets: dict[str, list[str]]) -> None:
        """Note the files of a group of which no one pair can be made."""
        several = len(befores) > 1
        lost = [paths for paths in targets.values() if several or len(paths) > 1]
        sides = [("source", befores)] if several else []
        sides += [("target", paths) for paths in lost if len(paths) > 1]
        lines = [_said(side, list(map(tree.shown, paths))) for side, paths in sides]
        if alone := [tree.shown(path) for paths in lost if len(paths) == 1 for path in paths]:
            lines.append(f"so {_listed(alone)} can't be used")
        self.ambiguous.append("; ".join(lines))
        files = [path for paths in lost for path in paths]
        files += befores if len(lost) == len(targets) else []
        self.clashing += len(set(files) - self.folders)

    def respell(self, text: str, ref: str) -> None:
        """Note that a path is spelled otherwise than its file."""
        self.respelled += 1
        self.respelling = self.respelling or f"{text} → {ref}"

    def refuse(self, name: str, error: PairError, row: Candidate | None = None) -> None:
        """Note that a pair can't be used.

        Args:
            row: The pair, where its images were found.
        """
        self.bad.append(Outcome(key_of(name), error=error))
        self.refused += [row] if row else []


def _said(side: str, files: list[str]) -> str:
    """Says that several files are one side of one pair."""
    same = len(set(map(stem, files))) == 1
    why = "differ only in their suffix" if same else f"are both the {side}"
    return f"{_listed(files)} {why}: keep one"


def _listed(files: list[str]) -> str:
    return " and ".join(sorted(files))
