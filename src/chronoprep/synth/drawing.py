"""From a scene to a picture, as if a flat print had been photographed."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chronoprep.synth.scenes import COLOURS, TONES, Backdrop, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


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


def _tinted(colour: Sequence[int], tint: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, c + t)) for c, t in zip(colour, tint, strict=True))
    return (red, green, blue)


def _draw_pattern(draw: ImageDraw, backdrop: Backdrop, side: int) -> None:
    if backdrop.pattern == "plain":
        return
    shade = _tinted(TONES[backdrop.tone], backdrop.tint)
    dark = (round(shade[0] * 0.84), round(shade[1] * 0.84), round(shade[2] * 0.84))
    step = side / backdrop.bands
    edges = [round(i * step) for i in range(backdrop.bands + 1)]
    for i, j in itertools.product(range(backdrop.bands), repeat=2):
        if i % 2 == 1 if backdrop.pattern == "striped" else (i + j) % 2 == 0:
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
