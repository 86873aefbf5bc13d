"""How a target lies over its source: measured against warps of known size, on real photos."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from chronoprep.images.alignment import GROSS, aligned, flaws_of, measure
from chronoprep.images.registration import matrix_of
from conftest import EXAMPLES, label_of, photo, write_pairs
from test_cli import Run
from trainer import read_dataset

PHOTOS = sorted(EXAMPLES.glob("input/*.jpg"))


def opened(number: int = 0) -> Image.Image:
    with Image.open(PHOTOS[number % len(PHOTOS)]) as image:
        return image.convert("RGB")


def edited(image: Image.Image) -> Image.Image:
    """With a fifth of its area painted over."""
    copy = image.copy()
    width, height = image.size
    box = (width // 2, height // 4, width // 2 + width * 4 // 10, height // 4 + height // 2)
    ImageDraw.Draw(copy).ellipse(box, fill=(200, 40, 40))
    return copy


def warped(
    image: Image.Image, shift: tuple[float, float] = (0, 0), zoom: float = 1, turn: float = 0,
    gain: float = 1, offset: float = 0,
) -> Image.Image:  # fmt: skip
    scale = zoom * complex(math.cos(math.radians(turn)), math.sin(math.radians(turn)))
    matrix = matrix_of(scale, complex(*shift), image.size, image.size)
    pixels: Any = cv2.warpAffine(
        np.asarray(image), matrix, image.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return Image.fromarray(np.clip(pixels * gain + offset, 0, 255).astype(np.uint8))


def codes(source: Image.Image, target: Image.Image) -> set[str]:
    return {flaw.code for flaw in flaws_of(measure(source, target), source.size)}


@pytest.mark.parametrize("number", range(len(PHOTOS)))
@pytest.mark.parametrize(
    ("shift", "zoom", "turn", "gain"),
    [
        ((0.0, 0.0), 1.0, 0.0, 1.0),
        ((7.3, -4.6), 1.0, 0.0, 1.0),
        ((-0.8, 1.1), 1.028, 0.0, 1.0),
        ((3.0, 9.0), 0.972, 0.8, 1.12),
    ],
)
def test_a_known_warp_is_measured(
    number: int, shift: tuple[float, float], zoom: float, turn: float, gain: float
) -> None:
    source = opened(number)
    found = measure(source, warped(edited(source), shift, zoom, turn, gain))
    assert found.sure
    longer = max(source.size)
    assert math.dist(found.shift, shift) <= 0.5 * longer / 1024
    assert abs(found.zoom - zoom) <= 0.001
    assert abs(found.turn - turn) <= 0.05
    assert np.allclose(found.gain, gain, atol=0.04)


def test_what_is_wrong_is_named_with_numbers() -> None:
    source = opened()
    target = edited(source)
    assert codes(source, target) == set()
    assert codes(source, warped(target, (6, 0))) == {"shifted"}
    assert codes(source, warped(target, zoom=1.02)) == {"zoomed"}
    assert codes(source, warped(target, turn=1)) == {"turned"}
    assert codes(source, warped(target, gain=1.15)) == {"exposure-drift"}
    (flaw,) = flaws_of(measure(source, warped(target, (6, -9))), source.size)
    assert "+6.0 px to the right and -9.0 px down" in flaw.message
    framed = target.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, source.width, 29), fill="black")
    found = measure(source, framed)
    assert found.border[1] == pytest.approx(30, abs=2)
    assert (found.border[0], *found.border[2:]) == (0, 0, 0)
    assert codes(source, framed) == {"border"}
    assert flaws_of(measure(source, warped(target, (2, 2))), source.size, GROSS) == []


def test_what_no_editor_means_is_no_misalignment() -> None:
    rng = np.random.default_rng(0)
    for number in range(len(PHOTOS)):
        source = opened(number)
        target = edited(source)
        target.save("x.jpg", quality=60)
        half = target.resize((target.width // 2, target.height // 2), Image.Resampling.LANCZOS)
        noise = np.asarray(target) + rng.normal(0, 6, (target.height, target.width, 3))
        with Image.open("x.jpg") as coded:
            assert codes(source, coded.convert("RGB")) == set()
        assert codes(source, half) == set()
        assert codes(source, Image.fromarray(noise.clip(0, 255).astype(np.uint8))) == set()


def test_pictures_of_different_things_say_nothing() -> None:
    for number in range(12):
        source, target = photo(2 * number, (256, 192)), photo(2 * number + 1, (256, 192))
        assert not measure(source, target).sure
        assert codes(source, target) == set()
    mirrored = opened().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert not measure(opened(), mirrored).sure
    assert not measure(photo(0, (20, 20)), photo(0, (20, 20))).sure


def test_a_thing_that_moves_is_not_the_picture() -> None:
    pictures = []
    for place in (40, 60):
        picture = Image.new("RGB", (256, 256), (90, 110, 90))
        ImageDraw.Draw(picture).regular_polygon((place + 50, 120, 40), 5, fill=(200, 30, 30))
        pictures.append(picture)
    assert codes(*pictures) == set()


def test_stripes_do_not_tell_of_what_runs_along_them() -> None:
    rows = np.repeat(np.where(np.arange(256) % 32 < 16, 90, 160), 256).reshape(256, 256, 1)
    grain = np.random.default_rng(1).integers(-9, 9, (2, 256, 256, 3))
    pictures = [Image.fromarray((rows + part).astype(np.uint8)) for part in grain]
    assert codes(*pictures) == set()


@pytest.mark.parametrize("border", [0, 25])
def test_an_aligned_pair_differs_no_more_than_by_resampling(border: int) -> None:
    source = opened()
    target = warped(edited(source), (8.4, -5.7), 1.015)
    if border:
        ImageDraw.Draw(target).rectangle((0, 0, border - 1, source.height), fill="white")
    one, other, note = aligned(source, target)
    assert note is not None
    assert note.startswith("aligned: moved by -8.4")
    assert one.size == other.size
    assert min(one.width / source.width, one.height / source.height) > 0.9
    found = measure(one, other)
    assert math.hypot(*found.shift) < 0.1
    assert abs(found.zoom - 1) < 2e-4
    assert found.border == (0, 0, 0, 0)
    resampled = measure(source, warped(warped(edited(source), (0.5, 0.5)), (-0.5, -0.5)))
    assert found.outside <= resampled.outside + 0.5
    assert codes(one, other) == set()


def test_a_pair_that_lies_well_is_not_touched() -> None:
    source = opened()
    target = edited(source)
    assert aligned(source, target) == (source, target, None)
    other = photo(3, source.size)
    same, still, note = aligned(source, other)
    assert (same is source, still is other) == (True, True)
    assert note == "not aligned: too little of it is like the source"


def test_pairs_are_aligned_on_the_way_to_the_trainer(run: Run, tmp_path: Path) -> None:
    source = opened()
    write_pairs(tmp_path / "pairs", ["other"], (128, 96))
    for name, target in (("well", edited(source)), ("moved", warped(edited(source), (12, 0)))):
        source.save(tmp_path / f"pairs/input/{name}.png")
        target.save(tmp_path / f"pairs/output/{name}.png")
    found = {f["code"]: f for f in run("pairs", "pairs", "--json").json["findings"]}
    assert found["shifted"]["key"] == "moved"
    assert "--align" in found["shifted"]["remedy"]
    args = ("prepare", "pairs", "-d", "data", "--prompt", "Add a disc.")
    assert run(*args).code == 0
    (gross,) = run("check", "data", "--json").json
    assert (gross["code"], gross["key"]) == ("shifted", "moved")
    again = run(*args, "--align", "--codec", "copy", "--json")
    assert again.code == 0, again.stderr
    (videos,) = [part for part in again.json if part["what"] == "videos"]
    assert videos["done"] == 3, "all of it is another recipe"
    assert any("moved: target aligned: moved by -12.0" in note for note in videos["notes"])
    shapes = {sample.key: sample.frames[1].shape[:2] for sample in read_dataset(Path("data"))}
    assert shapes["well"] == (source.height, source.width)
    assert source.width - 20 < shapes["moved"][1] < source.width - 10
    (lone,) = run("check", "data", "--json").json
    assert (lone["code"], lone["severity"], lone["key"]) == ("not-aligned", "warning", "other")
    assert label_of("data", "moved") is not None
    assert run(*args, "--align", "--codec", "copy", "--json").json[2]["skipped"] == 3
