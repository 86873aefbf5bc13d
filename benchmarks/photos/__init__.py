"""Pairs made of photos that ship in wheels, by edits that are known, with captions by hand.

    pip download --no-deps --dest wheels \\
        scikit-image scikit-learn matplotlib gradio imgaug ultralytics

The captions lie beside this file: `kept.txt` was written before the rules of `verify` were tuned
and tuning never saw it; `tuning.txt` is what they were tuned on.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

FOLDER = Path(__file__).parent
# Where each photo lies: the beginning of the wheel's name, and the path in it.
PHOTOS = {
    "astronaut": ("scikit_image", "skimage/data/astronaut.png"),
    "cat": ("scikit_image", "skimage/data/chelsea.png"),
    "coffee": ("scikit_image", "skimage/data/coffee.png"),
    "rocket": ("scikit_image", "skimage/data/rocket.jpg"),
    "motorcycle": ("scikit_image", "skimage/data/motorcycle_left.png"),
    "hopper": ("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    "china": ("scikit_learn", "sklearn/datasets/images/china.jpg"),
    "flower": ("scikit_learn", "sklearn/datasets/images/flower.jpg"),
    "cheetah": ("gradio", "gradio/media_assets/images/cheetah.jpg"),
    "lion": ("gradio", "gradio/media_assets/images/lion.jpg"),
    "tower": ("gradio", "gradio/media_assets/images/tower.jpg"),
    "quokka": ("imgaug", "imgaug/quokka.jpg"),
    "bus": ("ultralytics", "ultralytics/assets/bus.jpg"),
    "zidane": ("ultralytics", "ultralytics/assets/zidane.jpg"),
}
SIDE = 1024  # the longer one, pixels


@dataclass
class PhotoPair:
    """One edit of a photo, and what is said of it.

    Attributes:
        edit: The photo and its edits, in the words of the file.
        right: True captions.
        wrong: False ones, each with its kind of error.
    """

    name: str
    edit: str
    right: list[str] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)


def pairs_of(part: str) -> list[PhotoPair]:
    """The pairs of `kept` or `tuning`."""
    pairs: list[PhotoPair] = []
    for line in (FOLDER / f"{part}.txt").read_text("utf-8").splitlines():
        head, _, rest = line.partition(" ")
        if head == "@":
            name, _, edit = rest.partition(" | ")
            pairs.append(PhotoPair(name, edit))
        elif head == "+":
            pairs[-1].right.append(rest)
        elif head == "-":
            kind, _, text = rest.partition(": ")
            pairs[-1].wrong.append((kind, text))
    return pairs


def pictures(pair: PhotoPair, wheels: Path, *, redrawn: bool) -> tuple[np.ndarray, np.ndarray]:
    """Source and target in RGB.

    Args:
        redrawn: Whether the target is coded again as an editor's autoencoder would: blurred, with
            grain, slightly other light, and 1 pixel off.
    """
    photo, *words = pair.edit.split()
    source = _photo(wheels, photo)
    target = source.copy()
    for edit in _split(words):
        target = _edited(target, *edit)
    if redrawn:
        target = _redrawn(target, random.Random(pair.name))
    return source, target


def _photo(wheels: Path, name: str) -> np.ndarray:
    wheel, path = PHOTOS[name]
    found = sorted(wheels.glob(f"{wheel}-*.whl"))
    if not found:
        raise SystemExit(f"{wheels}: no wheel of {wheel}.\n\n{__doc__}")
    with zipfile.ZipFile(found[0]) as archive:
        data = np.frombuffer(archive.read(path), np.uint8)
    image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    scale = SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _split(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    for part in " ".join(words).split(" ; "):
        first, *rest = part.split()
        if first in PHOTOS:
            first, *rest = rest
        yield first, rest


def _edited(image: np.ndarray, edit: str, words: list[str]) -> np.ndarray:
    options = dict(word.split("=") for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    outside = "outside" in plain
    if outside:
        plain.remove("outside")
    mask, rest = _mask(image, plain)
    if outside:
        mask = 1 - mask
    if edit in ("recolour", "background"):
        colour = _rgb(options["to"] if "to" in options else rest[0])
        if edit == "background":
            flat = np.full_like(image, colour)
            return _mixed(image, flat, 1 - mask)
        return _recoloured(image, mask, colour, options.get("from"))
    if edit == "blur":
        return _mixed(image, cv2.GaussianBlur(image, (0, 0), float(options["r"])), mask)
    if edit == "remove":
        return _removed(image, mask)
    if edit in ("move", "resize"):
        return _moved(image, plain, mask, rest, edit)
    if edit == "paste":
        return _pasted(image, *plain)
    if edit == "light":
        gain, warm = float(options.get("gain", 1)), float(options.get("warm", 0))
        factors = np.array([1 + 0.22 * warm, 1 + 0.03 * warm, 1 - 0.28 * warm]) * gain
        return (image * factors).clip(0, 255).astype(np.uint8)
    if edit == "crop":
        (height, width), (left, top, right, bottom) = image.shape[:2], map(float, plain)
        part = image[
            int(top * height) : int(bottom * height), int(left * width) : int(right * width)
        ]
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)
    if edit == "mirror":
        return image[:, ::-1].copy()
    if edit in ("grey", "sepia"):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        tone = np.array([1.07, 0.9, 0.68]) if edit == "sepia" else np.ones(3)
        return (grey * tone).clip(0, 255).astype(np.uint8)
    if edit == "style":
        return _styled(image, plain[0])
    if edit == "same":
        return image
    raise ValueError(edit)


def _mask(image: np.ndarray, words: list[str]) -> tuple[np.ndarray, list[str]]:
    """A soft mask of the box or ellipse that words name, and the words after it."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.float32)
    for at, word in enumerate(words):
        if word not in ("box", "ellipse"):
            continue
        a, b, c, d = map(float, words[at + 1 : at + 5])
        if word == "box":
            mask[int(b * height) : int(d * height), int(a * width) : int(c * width)] = 1
        else:
            centre, axes = (int(a * width), int(b * height)), (int(c * width), int(d * height))
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1)
        return cv2.GaussianBlur(mask, (0, 0), 2), words[:at] + words[at + 5 :]
    return mask + 1, words


def _mixed(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mask = mask[..., None]
    return (image * (1 - mask) + other * mask).clip(0, 255).astype(np.uint8)


def _recoloured(
    image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], old: str | None
) -> np.ndarray:
    """Another colour under the old light and shade; with `old`, only what has that one's hue."""
    lab = _lab(image)
    new = _lab(np.array([[colour]], np.uint8))[0, 0]
    if old is not None:
        was = _lab(np.array([[_rgb(old)]], np.uint8))[0, 0]
        away = np.hypot(lab[..., 1] - was[1], lab[..., 2] - was[2])
        like = np.clip((34 - away) / 8, 0, 1).astype(np.float32)
        mask = mask * cv2.GaussianBlur(like, (0, 0), 1)
    inside = mask > 0.5
    mean = float(lab[..., 0][inside].mean()) if inside.any() else 50.0
    result = lab.copy()
    result[..., 0] = new[0] + (lab[..., 0] - mean) * 0.8
    result[..., 1:] = new[1:] + (lab[..., 1:] - lab[..., 1:][inside].mean(0)) * 0.15
    result[..., 0] = result[..., 0].clip(0, 100)
    rgb = cv2.cvtColor(result.astype(np.float32), cv2.COLOR_LAB2RGB) * 255
    return _mixed(image, rgb.clip(0, 255), mask)


def _removed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    hole = (cv2.resize(mask, small.shape[1::-1]) > 0.05).astype(np.uint8)
    filled = cv2.inpaint(small, cv2.dilate(hole, np.ones((3, 3))), 4, cv2.INPAINT_TELEA)
    large = cv2.resize(filled, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 2.5, image.shape)
    return _mixed(image, (large + grain).clip(0, 255), mask)


def _moved(
    image: np.ndarray, words: list[str], mask: np.ndarray, rest: list[str], edit: str
) -> np.ndarray:
    """What lies in the mask stands elsewhere, or is larger."""
    height, width = image.shape[:2]
    at = words.index("box") + 1
    left, top, right, bottom = map(float, words[at : at + 4])
    scale, (dx, dy) = 1.0, (0.0, 0.0)
    if edit == "move":
        dx, dy = map(float, rest)
    else:
        scale = float(rest[0])
    centre = ((left + right) / 2 * width, (top + bottom) / 2 * height)
    turn = cv2.getRotationMatrix2D(centre, 0, scale)
    turn[:, 2] += dx * width, dy * height
    there = cv2.warpAffine(image, turn, (width, height))
    where = cv2.GaussianBlur(cv2.warpAffine(mask, turn, (width, height)), (0, 0), 5)
    return _mixed(_removed(image, mask), there, where)


def _pasted(image: np.ndarray, shape: str, *words: str) -> np.ndarray:
    height, width = image.shape[:2]
    x, y, r = float(words[0]) * width, float(words[1]) * height, float(words[2]) * width
    layer, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    colour = _rgb(words[3])

    def draw(onto: np.ndarray, paint: tuple[float, ...] | float) -> None:
        centre = (int(x), int(y))
        if shape in ("ball", "balloon"):
            tall = 1.0 if shape == "ball" else 1.25
            cv2.ellipse(onto, centre, (int(r), int(r * tall)), 0, 0, 360, paint, -1, cv2.LINE_AA)
            if shape == "balloon":
                end = (int(x), int(min(height - 1, y + r * 2.6)))
                cv2.line(onto, centre, end, paint, 3, cv2.LINE_AA)
        elif shape == "hat":
            points = [(x - 0.75 * r, y + r), (x + 0.75 * r, y + r), (x, y - r)]
            cv2.fillPoly(onto, [np.int32(points)], paint, cv2.LINE_AA)
        elif shape == "star":
            radii = [r if i % 2 == 0 else 0.45 * r for i in range(10)]
            points = [
                (x + q * np.sin(np.pi * i / 5), y - q * np.cos(np.pi * i / 5))
                for i, q in enumerate(radii)
            ]
            cv2.fillPoly(onto, [np.int32(points)], paint, cv2.LINE_AA)
        elif shape == "glasses":
            for side in (-1, 1):
                eye = (int(x + side * 0.5 * r), int(y))
                cv2.ellipse(onto, eye, (int(0.42 * r), int(0.34 * r)), 0, 0, 360, paint, -1)
            cv2.line(onto, (int(x - 0.9 * r), int(y)), (int(x + 0.9 * r), int(y)), paint, 6)
        elif shape == "text":
            size = r / 60
            at = (int(x - r), int(y))
            cv2.putText(onto, "HELLO", at, cv2.FONT_HERSHEY_SIMPLEX, size, paint, 8, cv2.LINE_AA)
        else:
            raise ValueError(shape)

    draw(layer, colour)
    draw(mask, 255)
    shade = np.linspace(1.12, 0.8, height)[:, None, None] if shape != "text" else 1.0
    local = (layer * shade).clip(0, 255)
    return _mixed(image, local, cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 1))


def _styled(image: np.ndarray, style: str) -> np.ndarray:
    if style == "pencil":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        soft = cv2.GaussianBlur(255 - grey, (0, 0), 8)
        return cv2.cvtColor(cv2.divide(grey, 255 - soft, scale=256), cv2.COLOR_GRAY2RGB)
    if style == "painting":
        smooth = image
        for _ in range(3):
            smooth = cv2.bilateralFilter(cv2.medianBlur(smooth, 11), 15, 60, 12)
        return np.minimum(smooth.astype(int) // 28 * 28 + 14, 255).astype(np.uint8)
    smooth = cv2.bilateralFilter(image, 13, 80, 13).astype(int) // 40 * 40 + 20
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 11, 5)
    return np.where(lines[..., None] == 0, 20, smooth).clip(0, 255).astype(np.uint8)


def _redrawn(image: np.ndarray, rng: random.Random) -> np.ndarray:
    height, width = image.shape[:2]
    scale = rng.uniform(0.5, 0.8)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    shift = np.float32([[1, 0, rng.uniform(-1.5, 1.5)], [0, 1, rng.uniform(-1.5, 1.5)]])
    image = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    grain = np.random.default_rng(rng.randrange(2**32)).normal(0, 2, image.shape)
    light = np.array([rng.uniform(0.98, 1.02) for _ in range(3)])
    redrawn = (image * light + grain).clip(0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randint(80, 95)]
    jpeg = cv2.imencode(".jpg", redrawn[..., ::-1], quality)[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _rgb(text: str) -> tuple[int, int, int]:
    value = int(text.removeprefix("#"), 16)
    return (value >> 16, value >> 8 & 255, value & 255)
