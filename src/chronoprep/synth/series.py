"""The endless seeded series of samples."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chronoprep.synth.samples import Edit, Kind, Sample, ordered
from chronoprep.synth.scenes import COLOURS, PATTERNS, SHAPES, SIZES, TONES, Backdrop, Scene, Thing

_OBJECT_KINDS: tuple[Kind, ...] = ("recolour", "move", "remove", "add", "replace", "resize")


def sample(seed: int, index: int) -> Sample:
    """The sample number `index` of the endless series `seed`; any order, any subset.

    About one in seven shows no change, one in ten a new background, one in six two edits.
    """
    name = f"{seed}/{index}"
    rng = random.Random(name)
    source = _scene(rng)
    drawn = rng.random()
    if drawn < 0.14:
        return Sample(name, source, source, ())
    first: Kind = "background" if drawn < 0.24 else rng.choice(_OBJECT_KINDS)
    kinds = [first]
    if rng.random() < 0.2:
        kinds.append(rng.choice([k for k in (*_OBJECT_KINDS, "background") if k != first]))
    target, edits = source, list[Edit]()
    for kind in kinds:
        edit = _edit(kind, target, edits, rng)
        if edit is None or _confusable(edit, edits):
            continue
        edits.append(edit)
        target = _apply(target, edit)
    return Sample(name, source, target, ordered(edits))


def _scene(rng: random.Random) -> Scene:
    places = rng.sample(range(9), rng.randint(1, 4))
    return Scene.of(_backdrop(rng), [_thing(place, rng) for place in places])


def _backdrop(rng: random.Random) -> Backdrop:
    return Backdrop(
        rng.choice(list(TONES)), rng.choice(PATTERNS), _tint(rng, 8), rng.choice((6, 8, 10, 12))
    )


def _thing(place: int, rng: random.Random) -> Thing:
    return Thing(
        size=rng.choice(SIZES),
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        place=place,
        shift=_shift(rng),
        turn=rng.uniform(-12, 12),
        tint=_tint(rng, 12),
        scale=rng.uniform(0.93, 1.07),
    )


def _shift(rng: random.Random) -> tuple[float, float]:
    return (rng.uniform(-0.026, 0.026), rng.uniform(-0.026, 0.026))


def _tint(rng: random.Random, most: int) -> tuple[int, int, int]:
    return (rng.randint(-most, most), rng.randint(-most, most), rng.randint(-most, most))


def _edit(kind: Kind, scene: Scene, done: Sequence[Edit], rng: random.Random) -> Edit | None:
    if kind == "background":
        while (backdrop := _backdrop(rng)).noun == scene.backdrop.noun:
            pass
        return Edit(kind, scene.backdrop, backdrop)
    # A second edit leaves the first one's cells alone, so that the two read as two.
    touched = {part.place for edit in done for part in edit.parts}
    taken = touched | {thing.place for thing in scene.things}
    free = [place for place in range(9) if place not in taken]
    if kind == "add":
        return Edit(kind, None, _thing(rng.choice(free), rng))
    candidates = [thing for thing in scene.things if thing.place not in touched]
    if not candidates:
        return None
    old = rng.choice(candidates)
    new: Thing | None = None
    if kind == "move":
        new = replace(old, shift=_shift(rng), place=rng.choice(free))
    elif kind == "recolour":
        new = replace(old, colour=_other(COLOURS, old.colour, rng))
    elif kind == "replace":
        new = replace(old, shape=_other(SHAPES, old.shape, rng))
    elif kind == "resize":
        new = replace(old, size="small" if old.size == "large" else "large")
    return Edit(kind, old, new)


def _other(values: Iterable[str], old: str, rng: random.Random) -> str:
    return rng.choice([value for value in values if value != old])


def _confusable(edit: Edit, done: Sequence[Edit]) -> bool:
    """Whether two edits concern things of one name, and so can be told in another way: a star that
    goes here and one that comes there are also a star that moves."""
    names = {part.noun for part in edit.parts}
    return any(part.noun in names for other in done for part in other.parts)


def _apply(scene: Scene, edit: Edit) -> Scene:
    if isinstance(edit.after, Backdrop):
        return Scene(edit.after, scene.things)
    things = [thing for thing in scene.things if thing != edit.before]
    return Scene.of(scene.backdrop, [*things, edit.after] if edit.after else things)
