"""Edits between two scenes, and all that is said of them: instruction, chain-of-thought, region."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chronoprep.synth.drawing import render
from chronoprep.synth.scenes import WORDS, Backdrop, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["recolour", "move", "remove", "add", "replace", "resize", "background"]
_INVERSE: dict[Kind, Kind] = {"add": "remove", "remove": "add"}  # others are their own


@dataclass(frozen=True, slots=True)
class Edit:
    """One difference between two scenes: what was there before, what is there after."""

    kind: Kind
    before: Thing | Backdrop | None
    after: Thing | Backdrop | None

    @property
    def parts(self) -> list[Thing | Backdrop]:
        """What is there on either side."""
        return [part for part in (self.before, self.after) if part is not None]

    @property
    def phrase(self) -> str:
        """The edit as words, without a capital or a full stop."""
        size = self.after.size if isinstance(self.after, Thing) else ""
        verb = "enlarge" if size == "large" else "shrink"
        phrase: str = WORDS["edits"][self.kind]["phrase"]
        return phrase.format(before=self.before, after=self.after, verb=verb)

    def swapped(self) -> Edit:
        return Edit(_INVERSE.get(self.kind, self.kind), self.after, self.before)

    def mirrored(self) -> Edit:
        before, after = (part and part.mirrored() for part in (self.before, self.after))
        return Edit(self.kind, before, after)


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled pair of scenes.

    Attributes:
        seed: Of the pictures' noise.
        edits: None, one or two, in the order in which the labels tell them.
    """

    seed: str
    source: Scene
    target: Scene
    edits: tuple[Edit, ...]

    @property
    def kind(self) -> str:
        """The kind of edit; two edits are named with a plus between."""
        return " + ".join(edit.kind for edit in self.edits) or "no change"

    @property
    def instruction(self) -> str:
        """Stage 1: one sentence, two edits joined by a semicolon, or "no change"."""
        if not self.edits:
            return "no change"
        text = "; ".join(edit.phrase for edit in self.edits)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def opening(self) -> str:
        """How the chain-of-thought prompt begins: it names exactly the instruction's edits."""
        return "The user wants to " + " and ".join(edit.phrase for edit in self.edits) + "."

    @property
    def cot(self) -> str | None:
        """Stage 2: 80 to 100 words on what changes and what stays; None for "no change"."""
        if not self.edits:
            return None
        kept = [thing for thing in self.source.things if thing in self.target.things]
        one = WORDS["edits"][self.edits[0].kind]["result"]
        sentences = [self.opening, one if len(self.edits) == 1 else WORDS["two edits"], _kept(kept)]
        if self.source.backdrop == self.target.backdrop:
            sentences.append(f"The background stays {self.source.backdrop.noun}.")
        for closing in WORDS["closings"]:
            if sum(len(sentence.split()) for sentence in sentences) < 82:
                sentences.append(closing)
        return " ".join(sentences)

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """Smallest box around all that changed: left, top, right, bottom as shares of the sides."""
        if not self.edits:
            return None
        boxes = (part.box for edit in self.edits for part in edit.parts)
        left, top, right, bottom = zip(*boxes, strict=True)
        return (min(left), min(top), max(right), max(bottom))

    def swapped(self) -> Sample:
        """The pair backwards, with its own true labels."""
        edits = ordered(edit.swapped() for edit in self.edits)
        return Sample(self.seed, self.target, self.source, edits)

    def mirrored(self) -> Sample:
        """The pair seen in a mirror: left and right change places."""
        edits = ordered(edit.mirrored() for edit in self.edits)
        return Sample(self.seed, self.source.mirrored(), self.target.mirrored(), edits)

    def pictures(self, size: int = 256) -> tuple[Image, Image]:
        """Source and target as RGB images of `size`² pixels; the same on every call."""
        source, target = (random.Random(f"{self.seed} {side}") for side in ("source", "target"))
        return render(self.source, size, source), render(self.target, size, target)


def _kept(things: Sequence[Thing]) -> str:
    if not things:
        return "No other object is in the picture."
    names = [thing.named for thing in things]
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    verb = "stays exactly as it is" if len(names) == 1 else "stay exactly as they are"
    return f"{text[0].upper()}{text[1:]} {verb}."


def ordered(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Edits by their cells, the backdrop's first: the order in which they are told."""
    return tuple(sorted(edits, key=lambda edit: edit.parts[0].place))
