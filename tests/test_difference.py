"""The difference map, on pictures whose change is known."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from chronoprep.images.colours import cells, groups, names, nearest, share_of_groups, to_lab
from chronoprep.images.difference import Difference, measure
from conftest import photo

SIZE = (512, 384)


def picture(seed: int = 3) -> np.ndarray:
    """A smooth picture of middling colours with fine texture."""
    base = np.asarray(photo(seed, SIZE), np.float32) * 0.35 + 90
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(0, 40, base.shape[:2]).astype(np.float32), (0, 0), 2.5)
    return (base + 2 * texture[..., None]).clip(0, 255).astype(np.uint8)


def saved_again(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def with_disc(pixels: np.ndarray, at: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    return cv2.circle(pixels.copy(), at, 40, colour, -1)


def test_the_same_picture_is_identical() -> None:
    seen = measure(picture(), picture())
    assert (seen.identical, seen.regions, seen.changed, seen.view) == (True, (), 0.0, None)


@pytest.mark.parametrize("how", ["jpeg", "half size", "light", "shifted"])
def test_what_an_encoder_does_is_no_change(how: str) -> None:
    before = picture()
    after = {
        "jpeg": lambda: saved_again(before),
        "half size": lambda: cv2.resize(cv2.resize(before, None, fx=0.5, fy=0.5), SIZE),
        "light": lambda: (before * 1.07).clip(0, 255).astype(np.uint8),
        "shifted": lambda: np.pad(before, ((0, 0), (3, 0), (0, 0)), "edge")[:, :-3],
    }[how]()
    seen = measure(before, after)
    assert not seen.identical
    assert seen.regions == ()


def test_a_thing_that_is_added_and_one_that_is_gone() -> None:
    plain, disc = picture(), with_disc(picture(), (400, 100), (220, 30, 30))
    for before, after, sign in ((plain, saved_again(disc), 1), (disc, saved_again(plain), -1)):
        (region,) = measure(before, after).regions
        assert region.centre == pytest.approx((400 / 512, 100 / 384), abs=0.01)
        assert region.share == pytest.approx(np.pi * 40**2 / (512 * 384), rel=0.3)
        assert sign * region.appears > 0.3
        look = region.after if sign > 0 else region.before
        assert nearest(look.lab) == "red"
        assert look.colours["red"] > 0.9
        assert look.colours["blue"] < 0.1


def test_another_colour_keeps_the_forms() -> None:
    red = with_disc(picture(), (120, 250), (220, 30, 30))
    blue = with_disc(picture(), (120, 250), (40, 80, 220))
    (region,) = measure(red, blue).regions
    assert (nearest(region.before.lab), nearest(region.after.lab)) == ("red", "blue")
    assert abs(region.appears) < 0.15
    assert region.kept > 0.8


def test_two_changes_are_two_regions() -> None:
    after = with_disc(with_disc(picture(), (100, 100), (250, 230, 40)), (400, 300), (20, 20, 20))
    regions = measure(picture(), after).regions
    assert sorted(round(region.centre[0], 1) for region in regions) == [0.2, 0.8]


def test_a_change_beside_another_background() -> None:
    """A disc goes while all that is grey becomes green: it is found beside the background."""
    before = with_disc(np.full((384, 512, 3), (150, 152, 155), np.uint8), (400, 100), (220, 30, 30))
    before = with_disc(before, (120, 250), (40, 80, 220))
    after = np.full((384, 512, 3), (60, 150, 80), np.uint8)
    after = with_disc(after, (120, 250), (40, 80, 220))
    seen = measure(before, after)
    assert seen.changed > 0.9
    (region,) = seen.beside
    assert region.centre == pytest.approx((400 / 512, 100 / 384), abs=0.02)


@pytest.mark.parametrize(
    ("view", "how"),
    [
        ("mirrored", lambda p: p[:, ::-1]),
        ("turned", lambda p: p[::-1, ::-1]),
        ("zoomed", lambda p: cv2.resize(p[60:324, 80:432], SIZE)),
    ],
)
def test_another_view(view: str, how: object) -> None:
    before = picture(5)
    for number, colour in enumerate(((220, 30, 30), (40, 80, 220), (250, 230, 40), (20, 20, 20))):
        before = with_disc(before, (90 + 100 * number, 80 + 60 * (number % 3)), colour)
    assert measure(before, np.ascontiguousarray(how(before))).view == view  # type: ignore[operator]


def test_light_and_detail() -> None:
    before = picture()
    dark = measure(before, (before * 0.5).astype(np.uint8))
    assert dark.whole.after.lab[0] - dark.whole.before.lab[0] < -10
    blurred = cv2.GaussianBlur(before, (0, 0), 8)
    soft, sharp = measure(before, blurred), measure(blurred, before)
    assert soft.softer is not None
    assert soft.softer.share > 0.05
    assert sharp.sharper is not None
    assert (soft.sharper, sharp.softer) == (None, None)


@pytest.mark.parametrize("size", [(8, 8), (1, 300), (300, 1), (2000, 40)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size[::-1], 3), np.uint8)
    assert measure(pixels, pixels + 200).changed == 1.0
    assert isinstance(measure(pixels, np.zeros((50, 50, 3), np.uint8)), Difference)


def test_names_of_colours() -> None:
    assert len(groups()) == 13
    assert (names()["navy"], names()["crimson"], names()["sky blue"]) == ("blue", "red", "blue")
    for group in groups():
        assert names()[group] == group
    red = np.full((1, 1, 3), (214, 38, 42), np.uint8)
    shares = dict(zip(groups(), share_of_groups(cells(red)), strict=True))
    assert (shares["red"], shares["green"], shares["blue"]) == (1, 0, 0)
    assert nearest(to_lab(red)[0, 0]) == "red"
