"""Near-duplicates: copies are found, other pictures and other edits are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from chronoprep.images import likeness

SIZE = 256


def scene(seed: int) -> Image.Image:
    """A picture with large and small forms, none like another's."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y = rng.integers(0, 210, 2).tolist()
        draw.ellipse((x, y, x + 40, y + 40), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def edited(image: Image.Image, at: tuple[int, int], colour: str) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((*at, at[0] + 50, at[1] + 50), fill=colour)
    return image


def saved_again(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


def lighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.07)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((10, 6, SIZE - 4, SIZE - 11))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": saved_again,
    "resized": lambda image: image.resize((90, 80)),
    "lighter": lighter,
    "cropped": cropped,
    "all of it": lambda image: saved_again(lighter(cropped(image))),
}


def stacked(images: list[Image.Image]) -> np.ndarray:
    return likeness.stacked(b"".join(map(likeness.thumbnail, images)))


def couples(images: list[Image.Image]) -> set[tuple[int, int]]:
    return {(one, other) for one, other in likeness.alike(stacked(images)).tolist()}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_alike_and_nothing_else_is(way: str) -> None:
    images = [scene(seed) for seed in range(12)]
    found = couples([*images, *map(COPIES[way], images)])
    assert found == {(number, number + 12) for number in range(12)}


def test_pictures_that_show_nothing_are_like_none() -> None:
    plain = [Image.new("RGB", (64, 64), "grey") for _ in range(3)]
    assert couples(plain) == set()
    assert couples([]) == set()


def test_of_very_many_copies_each_is_told_of() -> None:
    image = scene(1)
    found = couples([image] * 40)
    assert {at for couple in found for at in couple} == set(range(40))


@pytest.mark.parametrize("even", [False, True])
def test_what_is_looked_up_is_what_holding_all_against_all_finds(
    even: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand pictures, all as light as each other or not, and copies of one in five."""
    drawn = np.random.default_rng(7)
    rough = drawn.normal(0, 30, (1000, 5, 5, 3)) + drawn.normal(0, 10, (1000, 1, 1, 3)) + 128
    if even:
        rough += 128 - rough.mean((1, 2), keepdims=True)
    smooth = np.stack([cv2.resize(picture, (16, 16)) for picture in rough])
    copies = smooth[:200] + drawn.normal(0, 2, (200, 16, 16, 3))
    copies += drawn.normal(0, 1.5, (200, 1, 1, 3))
    pictures = np.concatenate([smooth, copies]).clip(0, 255).astype(np.uint8)
    found = {size: set[tuple[int, ...]]() for size in (16, len(pictures))}
    for size in found:
        monkeypatch.setattr(likeness, "_LEAF", size)
        found[size] = {tuple(couple) for couple in likeness.alike(pictures).tolist()}
    assert found[16] == found[len(pictures)]
    assert {(at, 1000 + at) for at in range(200)} <= found[16]


@pytest.mark.parametrize("way", COPIES)
def test_one_source_and_two_edits_are_no_duplicates_one_edit_and_its_copy_are(way: str) -> None:
    source, copy = scene(3), COPIES[way]
    first = edited(source, (30, 150), "red")
    others = [edited(source, (150, 40), "red"), edited(source, (30, 150), "lime"), source]
    sources = stacked([source, *[copy(source)] * 4])
    targets = stacked([first, copy(first), *map(copy, others)])
    pairs = np.array(list(combinations(range(5), 2)))
    same = likeness.same_change(sources, targets, pairs)
    assert pairs[same].tolist() == [[0, 1]]
