"""Synthetic pairs with true labels, and ten kinds of errors to plant in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from chronoprep import synth
from chronoprep.synth.samples import Edit, Sample
from chronoprep.synth.scenes import COLOURS, SHAPES, Backdrop, Thing

KINDS = (
    "side", "colour", "object", "swapped", "no change on a change", "change on identical",
    "degenerate", "kind", "edit missing", "edit invented",
)  # fmt: skip
DEGENERATE = (
    "!" * 120,
    "{} {} {} {} {} {} {} {} {} {}",
    "I'm sorry, but I can't help with editing this image.",
    "Here is the edit instruction you asked for: {}",
    "{} red red red red red red red red red red red red red",
    "**Edit:** {}",
    "ändere den Hintergrund und füge einen roten Kreis hinzu",
    "<|im_start|>assistant {}",
)


class Planted(NamedTuple):
    """A pair and a label.

    Attributes:
        error: The kind of error; None of a true label.
    """

    sample: Sample
    caption: str
    cot: str | None
    error: str | None


def planted(seed: int, clean: int, each: int) -> Iterator[Planted]:
    """`clean` pairs with true labels, then `each` of every kind of error."""
    index = 0
    for _ in range(clean):
        sample = synth.sample(seed, index)
        index += 1
        yield Planted(sample, sample.instruction, sample.cot, None)
    for kind in KINDS:
        done = 0
        while done < each:
            sample, rng = synth.sample(seed, index), random.Random(f"{seed} {index}")
            other = synth.sample(seed + 1, index)
            index += 1
            wrong = _wrong(kind, sample, other, rng)
            if wrong is not None:
                done += 1
                yield Planted(wrong[0], wrong[1], None, kind)


def _wrong(
    kind: str, sample: Sample, other: Sample, rng: random.Random
) -> tuple[Sample, str] | None:
    if kind == "change on identical":
        same = Sample(sample.seed, sample.source, sample.source, ())
        return (same, other.instruction) if other.edits else None
    if not sample.edits:
        return None
    if kind == "degenerate":
        return sample, rng.choice(DEGENERATE).replace("{}", sample.instruction)
    if kind == "no change on a change":
        return sample, "no change"
    if kind == "swapped":
        text = sample.swapped().instruction
        return (sample, text) if text != sample.instruction else None
    if kind == "edit missing":
        kept = sample.edits[rng.randrange(2)] if len(sample.edits) == 2 else None
        return (sample, _said([kept])) if kept else None
    if kind == "edit invented":
        touched = {part.place for edit in sample.edits for part in edit.parts}
        extra = [
            edit
            for edit in other.edits
            if edit.kind != "background" and not {p.place for p in edit.parts} & touched
        ]
        return (sample, _said([*sample.edits, extra[0]])) if extra else None
    edits = list(sample.edits)
    number = rng.randrange(len(edits))
    changed = _changed(kind, edits[number], rng)
    if changed is None:
        return None
    edits[number] = changed
    text = _said(edits)
    return (sample, text) if text != sample.instruction else None


def _changed(kind: str, edit: Edit, rng: random.Random) -> Edit | None:
    before, after = edit.before, edit.after
    if isinstance(before, Backdrop) or isinstance(after, Backdrop):
        if kind != "kind":
            return None
        shapes = Thing("large", rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.randrange(9))
        return Edit("add", None, shapes)
    if kind == "side":
        step = rng.randrange(1, 9)
        moved = [part and replace(part, place=(part.place + step) % 9) for part in (before, after)]
        return Edit(edit.kind, *moved)
    if kind == "colour":
        part = after if edit.kind in ("recolour", "add") else before
        if part is None:
            return None
        colour = rng.choice([c for c in COLOURS if c not in {p.colour for p in edit.parts}])
        if part is after and edit.kind == "recolour":
            return Edit(edit.kind, before, replace(part, colour=colour))
        both = [p and replace(p, colour=colour) for p in (before, after)]
        return Edit(edit.kind, *(both if edit.kind != "recolour" else (both[0], after)))
    if kind == "object":
        if edit.kind == "replace":
            names = {part.shape for part in edit.parts}
            shape = rng.choice([s for s in SHAPES if s not in names])
            return Edit(edit.kind, before, after and replace(after, shape=shape))
        was = edit.parts[0].shape
        shape = rng.choice([s for s in SHAPES if s != was])
        return Edit(edit.kind, *(p and replace(p, shape=shape) for p in (before, after)))
    # Another kind of edit of the same thing.
    thing = before or after
    assert thing is not None
    free = replace(thing, place=(thing.place + rng.randrange(1, 9)) % 9)
    others = {
        "remove": Edit("remove", thing, None),
        "move": Edit("move", thing, free),
        "recolour": Edit(
            "recolour",
            thing,
            replace(thing, colour=rng.choice(sorted(set(COLOURS) - {thing.colour}))),
        ),
        "resize": Edit(
            "resize", thing, replace(thing, size="small" if thing.size == "large" else "large")
        ),
        "background": Edit("background", Backdrop("grey", "plain"), Backdrop("mint", "striped")),
        "add": Edit("add", None, thing),
    }
    close = {edit.kind, "replace"}
    if edit.kind == "add":
        close.add("recolour")
    return rng.choice([made for name, made in others.items() if name not in close])


def _said(edits: list[Edit]) -> str:
    text = "; ".join(edit.phrase for edit in synth.samples.ordered(edits))
    return f"{text[0].upper()}{text[1:]}."


def pictures(sample: Sample, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A sample's pictures; two of three targets are coded again as an editor would."""
    source, target = (np.asarray(picture) for picture in sample.pictures(256))
    rng = np.random.default_rng(number)
    if number % 3 == 1:
        target = cv2.GaussianBlur(target, (0, 0), 0.8)
        target = (target * rng.uniform(0.97, 1.03) + rng.normal(0, 3, target.shape)).clip(0, 255)
    elif number % 3 == 2:
        half = cv2.resize(target, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        half = cv2.resize(half, target.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".jpg", half[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
        target = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    if sample.source == sample.target and not sample.edits and number % 2:
        target = source  # some that changed nothing changed nothing at all
    return source, np.ascontiguousarray(target.astype(np.uint8))
