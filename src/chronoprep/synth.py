"""Synthetic before/after pairs with exact labels: for trying things out, and as ground truth.

A scene is a backdrop and one to four flat shapes, at most one in each cell of a 3×3 grid. A sample
is two scenes and the edits between them, and everything else follows from that: the pictures, the
instruction, the chain-of-thought prompt, the changed region, and the labels of the swapped and of
the mirrored pair. Noise, exposure, a slight shift of the frame and JPEG artefacts differ between
source and target, so that "no change" is never a matter of equal bytes.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Kind = Literal["recolour", "move", "remove", "add", "replace", "resize", "background", "no change"]

SIZES = ("small", "large")
COLOURS = {
    "red": (214, 38, 42),
    "orange": (245, 140, 20),
    "yellow": (246, 224, 44),
    "green": (34, 150, 62),
    "blue": (38, 84, 214),
    "purple": (134, 52, 172),
    "white": (246, 246, 246),
    "black": (22, 22, 24),
}
SHAPES = ("circle", "square", "triangle", "star", "ring")
TONES = {
    "grey": (150, 152, 155),
    "beige": (222, 202, 166),
    "mint": (172, 222, 200),
    "brown": (116, 82, 60),
}
PATTERNS = ("plain", "striped", "checked")
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
_PREPOSITIONS = {"left": "on", "right": "on", "centre": "in"}
_MIRRORED_PLACE = (2, 1, 0, 5, 4, 3, 8, 7, 6)

# Radius as a share of the picture's side. A cell is a third wide: a large shape just fits.
_RADIUS = {"small": 0.082, "large": 0.143}
# Corners as (share of the radius, angle from the top, clockwise).
_CORNERS = {
    "square": [(1.15, math.pi * (0.25 + i / 2)) for i in range(4)],
    "triangle": [(1.15, math.pi * 2 * i / 3) for i in range(3)],
    "star": [(1.12 if i % 2 == 0 else 0.45, math.pi * i / 5) for i in range(10)],
}
_OBJECT_KINDS: tuple[Kind, ...] = ("recolour", "move", "remove", "add", "replace", "resize")


@dataclass(frozen=True, slots=True)
class Thing:
    """One flat shape.

    Attributes:
        place: Cell of the grid, 0 (top left) to 8 (bottom right), row by row.
        shift: Of its centre from the cell's, as shares of the picture's side.
        turn: Degrees, clockwise.
        tint: Added to each channel of its colour.
        scale: Of its radius, around 1.
    """

    size: str
    colour: str
    shape: str
    place: int
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    tint: tuple[int, int, int] = (0, 0, 0)
    scale: float = 1.0

    @property
    def noun(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def named(self) -> str:
        return f"the {self.noun} {where(self.place)}"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as shares of the picture's sides."""
        points = self.outline
        if points is None:
            (x, y), r = self.centre, self.radius
            points = [(x - r, y - r), (x + r, y + r)]
        across, down = zip(*points, strict=True)
        return (
            max(0.0, min(across)),
            max(0.0, min(down)),
            min(1.0, max(across)),
            min(1.0, max(down)),
        )

    @property
    def radius(self) -> float:
        """As a share of the picture's side."""
        return _RADIUS[self.size] * self.scale

    @property
    def outline(self) -> list[tuple[float, float]] | None:
        """The corners as shares of the picture's sides; None for what is round."""
        if self.shape not in _CORNERS:
            return None
        (x, y), turn = self.centre, math.radians(self.turn)
        return [
            (x + self.radius * r * math.sin(a + turn), y - self.radius * r * math.cos(a + turn))
            for r, a in _CORNERS[self.shape]
        ]

    @property
    def centre(self) -> tuple[float, float]:
        row, column = divmod(self.place, 3)
        return ((column + 0.5) / 3 + self.shift[0], (row + 0.5) / 3 + self.shift[1])


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What lies behind the shapes."""

    tone: str
    pattern: str
    tint: tuple[int, int, int] = (0, 0, 0)
    bands: int = 8

    @property
    def noun(self) -> str:
        return f"{self.pattern} {self.tone}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A backdrop and shapes, at most one a cell, in the order of their cells."""

    backdrop: Backdrop
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """One difference between two scenes: what was there before, what is there after."""

    before: Thing | Backdrop | None
    after: Thing | Backdrop | None

    @property
    def kind(self) -> Kind:
        before, after = self.before, self.after
        if isinstance(before, Backdrop):
            return "background"
        if before is None:
            return "add"
        if after is None or isinstance(after, Backdrop):
            return "remove"
        if before.place != after.place:
            return "move"
        if before.shape != after.shape:
            return "replace"
        return "recolour" if before.colour != after.colour else "resize"

    @property
    def place(self) -> int:
        """Cell of the edit, -1 for the backdrop: edits are told in this order."""
        return next((t.place for t in (self.before, self.after) if isinstance(t, Thing)), -1)

    @property
    def phrase(self) -> str:
        """The edit as words, without a capital or a full stop."""
        before, after = self.before, self.after
        if isinstance(before, Backdrop) and isinstance(after, Backdrop):
            return f"change the background from {before.noun} to {after.noun}"
        if isinstance(before, Thing) and isinstance(after, Thing):
            if self.kind == "move":
                return (
                    f"move the {before.noun} from the {PLACES[before.place]} "
                    f"to the {PLACES[after.place]}"
                )
            if self.kind == "replace":
                return f"replace {before.named} with a {after.noun}"
            if self.kind == "recolour":
                return f"recolour {before.named} {after.colour}"
            return f"{'enlarge' if after.size == 'large' else 'shrink'} {before.named}"
        if isinstance(before, Thing):
            return f"remove {before.named}"
        assert isinstance(after, Thing)
        return f"add a {after.noun} {where(after.place)}"


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
        kept = [t for t in self.source.things if t in self.target.things]
        sentences = [self.opening]
        sentences += [_RESULTS[self.edits[0].kind] if len(self.edits) == 1 else _TWO_EDITS]
        sentences += [_kept(kept)]
        if self.source.backdrop == self.target.backdrop:
            sentences += [f"The background stays {self.source.backdrop.noun}."]
        for closing in _CLOSINGS:
            if _words(sentences) < 82:
                sentences.append(closing)
        return " ".join(sentences)

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """Smallest box around all that changed: left, top, right, bottom as shares of the sides."""
        if not self.edits:
            return None
        boxes = [
            (0.0, 0.0, 1.0, 1.0) if isinstance(part, Backdrop) else part.box
            for edit in self.edits
            for part in (edit.before, edit.after)
            if part is not None
        ]
        left, top, right, bottom = zip(*boxes, strict=True)
        return (min(left), min(top), max(right), max(bottom))

    def swapped(self) -> Sample:
        """The pair backwards, with its own true labels."""
        edits = [Edit(edit.after, edit.before) for edit in self.edits]
        return Sample(self.seed, self.target, self.source, _ordered(edits))

    def mirrored(self) -> Sample:
        """The pair seen in a mirror: left and right change places."""
        edits = [Edit(_mirror(edit.before), _mirror(edit.after)) for edit in self.edits]
        return Sample(
            self.seed, _mirror_scene(self.source), _mirror_scene(self.target), _ordered(edits)
        )

    def pictures(self, size: int = 256) -> tuple[Image, Image]:
        """Source and target as RGB images of `size`² pixels; the same on every call."""
        return (
            render(self.source, size, random.Random(f"{self.seed} source")),
            render(self.target, size, random.Random(f"{self.seed} target")),
        )


def where(place: int) -> str:
    """A cell in words: "at the top left", "in the centre"."""
    name = PLACES[place]
    return f"{_PREPOSITIONS.get(name, 'at')} the {name}"


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
    if not edits:
        return Sample(name, source, source, ())
    return Sample(name, source, target, _ordered(edits))


def render(scene: Scene, size: int, rng: random.Random) -> Image:
    """Draw a scene as a photograph of a flat picture: shifted, exposed, grainy, compressed."""
    import numpy as np
    from PIL import Image, ImageDraw

    fine = 2 * size  # drawn at twice the size, then halved: smooth edges
    image = Image.new("RGB", (fine, fine), _tinted(TONES[scene.backdrop.tone], scene.backdrop.tint))
    draw = ImageDraw.Draw(image)
    _draw_pattern(draw, scene.backdrop, fine)
    dx, dy = (rng.uniform(-0.008, 0.008) for _ in range(2))
    for thing in scene.things:
        _draw_thing(draw, thing, fine, dx, dy)
    image = image.reduce(2)

    grain = rng.choice((0, 6, 12, 20))
    exposure = rng.uniform(0.96, 1.04)
    pixels = np.asarray(image, np.float32) * np.float32(exposure)
    if grain:
        noise = np.frombuffer(rng.randbytes(pixels.size), np.uint8).reshape(pixels.shape)
        pixels += (noise.astype(np.float32) - 127.5) * np.float32(grain / 127.5)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.7:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(70, 95))
        image = Image.open(buffer).convert("RGB")
    return image


_RESULTS: dict[str, str] = {
    "recolour": "Only its colour changes; its size, shape and place stay the same.",
    "move": "It leaves its old place empty and keeps its size, colour and shape.",
    "remove": "The background fills the place where it was.",
    "add": "It appears on the empty background and covers nothing else.",
    "replace": "Only its shape changes; its size, colour and place stay the same.",
    "resize": "Only its size changes; its colour, shape and place stay the same.",
    "background": "Every object stays in front of the new background, unchanged.",
}
_TWO_EDITS = "These two edits are the only ones and do not touch each other."
_CLOSINGS = (
    "The framing, the viewpoint and the flat graphic style are kept.",
    "No further object appears, and nothing else is moved, resized or recoloured.",
    "Edges remain crisp, and the light and the fine grain of the picture do not change.",
    "The result looks like the same picture with only this request carried out cleanly.",
    "All proportions and distances between the remaining parts are preserved.",
    "There are no borders, no text and no visible traces of the editing.",
)


def _kept(things: Sequence[Thing]) -> str:
    if not things:
        return "No other object is in the picture."
    names = [thing.named for thing in things]
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    verb = "stays exactly as it is" if len(names) == 1 else "stay exactly as they are"
    return f"{text[0].upper()}{text[1:]} {verb}."


def _words(sentences: Sequence[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def _ordered(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    return tuple(sorted(edits, key=lambda edit: edit.place))


def _mirror(part: Thing | Backdrop | None) -> Thing | Backdrop | None:
    if not isinstance(part, Thing):
        return part
    shift = (-part.shift[0], part.shift[1])
    return replace(part, place=_MIRRORED_PLACE[part.place], shift=shift, turn=-part.turn)


def _mirror_scene(scene: Scene) -> Scene:
    things = [thing for t in scene.things if isinstance(thing := _mirror(t), Thing)]
    return _of(scene.backdrop, things)


def _of(backdrop: Backdrop, things: Sequence[Thing]) -> Scene:
    return Scene(backdrop, tuple(sorted(things, key=lambda thing: thing.place)))


def _scene(rng: random.Random) -> Scene:
    places = rng.sample(range(9), rng.randint(1, 4))
    return _of(_backdrop(rng), [_thing(place, rng) for place in places])


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
        shift=(rng.uniform(-0.026, 0.026), rng.uniform(-0.026, 0.026)),
        turn=rng.uniform(-12, 12),
        tint=_tint(rng, 12),
        scale=rng.uniform(0.93, 1.07),
    )


def _tint(rng: random.Random, most: int) -> tuple[int, int, int]:
    return (rng.randint(-most, most), rng.randint(-most, most), rng.randint(-most, most))


def _confusable(edit: Edit, done: Sequence[Edit]) -> bool:
    """Whether two edits concern things of one name, and so can be told in another way: a star that
    goes here and one that comes there are also a star that moves."""

    def names(one: Edit) -> set[str]:
        return {part.noun for part in (one.before, one.after) if isinstance(part, Thing)}

    return any(names(edit) & names(other) for other in done)


def _edit(kind: Kind, scene: Scene, done: Sequence[Edit], rng: random.Random) -> Edit | None:
    if kind == "background":
        old = scene.backdrop
        new = _other(lambda: _backdrop(rng), lambda b: b.noun != old.noun)
        return Edit(old, new)
    # A second edit leaves the first one's cells alone, so that the two read as two.
    parts = [part for edit in done for part in (edit.before, edit.after)]
    touched = {part.place for part in parts if isinstance(part, Thing)}
    taken = touched | {thing.place for thing in scene.things}
    free = [place for place in range(9) if place not in taken]
    if kind == "add":
        return Edit(None, _thing(rng.choice(free), rng))
    candidates = [thing for thing in scene.things if thing.place not in touched]
    if not candidates:
        return None
    old_thing = rng.choice(candidates)
    if kind == "remove":
        return Edit(old_thing, None)
    if kind == "move":
        shift = (rng.uniform(-0.026, 0.026), rng.uniform(-0.026, 0.026))
        return Edit(old_thing, replace(old_thing, place=rng.choice(free), shift=shift))
    if kind == "recolour":
        colour = rng.choice([c for c in COLOURS if c != old_thing.colour])
        return Edit(old_thing, replace(old_thing, colour=colour))
    if kind == "replace":
        shape = rng.choice([s for s in SHAPES if s != old_thing.shape])
        return Edit(old_thing, replace(old_thing, shape=shape))
    size = "small" if old_thing.size == "large" else "large"
    return Edit(old_thing, replace(old_thing, size=size))


def _other(draw: Callable[[], Backdrop], fits: Callable[[Backdrop], bool]) -> Backdrop:
    while not fits(drawn := draw()):
        pass
    return drawn


def _apply(scene: Scene, edit: Edit) -> Scene:
    if isinstance(edit.after, Backdrop):
        return Scene(edit.after, scene.things)
    things = [thing for thing in scene.things if thing != edit.before]
    return _of(scene.backdrop, [*things, edit.after] if edit.after else things)


def _tinted(colour: tuple[int, int, int], tint: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, c + t)) for c, t in zip(colour, tint, strict=True))
    return (red, green, blue)


def _draw_pattern(draw: ImageDraw, backdrop: Backdrop, side: int) -> None:
    if backdrop.pattern == "plain":
        return
    shade = _tinted(TONES[backdrop.tone], backdrop.tint)
    dark = (round(shade[0] * 0.84), round(shade[1] * 0.84), round(shade[2] * 0.84))
    step = side / backdrop.bands
    edges = [round(i * step) for i in range(backdrop.bands + 1)]
    for i in range(backdrop.bands):
        if backdrop.pattern == "striped":
            if i % 2:
                draw.rectangle((0, edges[i], side, edges[i + 1] - 1), fill=dark)
            continue
        for j in range(i % 2, backdrop.bands, 2):
            draw.rectangle((edges[j], edges[i], edges[j + 1] - 1, edges[i + 1] - 1), fill=dark)


def _draw_thing(draw: ImageDraw, thing: Thing, side: int, dx: float, dy: float) -> None:
    fill = _tinted(COLOURS[thing.colour], thing.tint)
    if thing.outline is not None:
        draw.polygon([((x + dx) * side, (y + dy) * side) for x, y in thing.outline], fill=fill)
        return
    x, y = ((c + d) * side for c, d in zip(thing.centre, (dx, dy), strict=True))
    radius = thing.radius * side
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape == "circle":
        draw.ellipse(box, fill=fill)
    else:
        draw.ellipse(box, outline=fill, width=round(radius * 0.42))
