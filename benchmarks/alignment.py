"""How exactly a target's place over its source is measured, and how well `--align` mends it.

Real photos, from the wheels of scikit-image, scikit-learn, matplotlib, … (`pip install --target
FOLDER --no-deps scikit-image scikit-learn matplotlib`), at 1024 pixels. A part of up to a fifth of
the area is edited (painted over, taken from another photo, blurred, inverted); the whole is moved
by up to 24 pixels and zoomed by 0.97 to 1.03; every third gets a border, every other another
exposure.

    python benchmarks/alignment.py FOLDER [--pairs 200]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from chronoprep.images.alignment import aligned, flaws_of, measure
from chronoprep.images.registration import matrix_of

SIDE = 1024
SHIFT = 0.5  # pixels
ZOOM = 0.001
SUFFIXES = (".jpg", ".jpeg", ".png")
EDGES = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT, cv2.BORDER_REPLICATE)


def photos(folder: Path) -> list[Image.Image]:
    """The pictures of a folder that are photographs by their size on disk and their detail."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.stat().st_size < 60_000:
            continue
        with Image.open(path) as opened:
            if opened.mode not in ("RGB", "L") or min(opened.size) < 256:
                continue
            image = opened.convert("RGB")
        scale = SIDE / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        found.append(image.resize(size, Image.Resampling.LANCZOS))
    return found


def edited(image: Image.Image, other: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """With up to a fifth of the area changed."""
    pixels = np.asarray(image).copy()
    height, width = pixels.shape[:2]
    area, ratio = rng.uniform(0.01, 0.2) * height * width, rng.uniform(0.5, 2)
    tall = int(min(height - 1, np.sqrt(area * ratio)))
    wide = int(min(width - 1, area / tall))
    top, left = rng.integers(0, height - tall), rng.integers(0, width - wide)
    part = np.s_[top : top + tall, left : left + wide]
    kind = rng.integers(0, 4)
    if kind == 0:
        pixels[part] = rng.integers(0, 256, 3)
    elif kind == 1:
        pixels[part] = np.asarray(other.resize(image.size))[part]
    elif kind == 2:
        pixels[part] = cv2.GaussianBlur(pixels[part], (0, 0), 9)
    else:
        pixels[part] = 255 - pixels[part]
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(given.seed)
    pictures = photos(given.folder)
    print(f"{len(pictures)} photos, {given.pairs} pairs of {SIDE} pixels")
    shifts, zooms, seconds, rest, plain, named = [], [], 0.0, [], [], 0
    for number in range(given.pairs):
        source = pictures[number % len(pictures)]
        target = edited(source, pictures[rng.integers(len(pictures))], rng)
        angle, length, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0, 24), rng.uniform(0.97, 1.03)
        shift = complex(length * np.cos(angle), length * np.sin(angle))
        matrix = matrix_of(complex(zoom), shift, source.size, source.size)
        edge = EDGES[rng.integers(0, 3)]
        moved = cv2.warpAffine(target, matrix, source.size, flags=cv2.INTER_CUBIC, borderMode=edge)
        if number % 3 == 0:
            bar, grey = rng.integers(8, 60), rng.choice([0, 128, 255])
            sides = (np.s_[:, :bar], np.s_[:bar], np.s_[:, -bar:], np.s_[-bar:])
            moved[sides[rng.integers(0, 4)]] = grey
        if number % 2:
            light = moved * rng.uniform(0.85, 1.15, 3) + rng.uniform(-12, 12, 3)
            moved = light.clip(0, 255).astype(np.uint8)
        began = time.process_time()
        found = measure(source, Image.fromarray(moved))
        seconds += time.process_time() - began
        true = (shift.real, shift.imag)
        off = float(np.hypot(*np.subtract(found.shift, true))) if found.sure else np.inf
        shifts.append(off)
        zooms.append(abs(found.zoom - zoom) if found.sure else np.inf)
        named += bool({"shifted", "zoomed"} & {f.code for f in flaws_of(found, source.size)})
        one, other, _ = aligned(source, Image.fromarray(moved))
        rest.append(measure(one, other).outside)
        back = cv2.warpAffine(
            cv2.warpAffine(target, matrix, source.size, flags=cv2.INTER_CUBIC, borderMode=EDGES[1]),
            matrix, source.size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        plain.append(measure(source, Image.fromarray(back)).outside)
    shift, zoom = np.array(shifts), np.array(zooms)
    good = (shift <= SHIFT) & (zoom <= ZOOM)
    print(f"shift within {SHIFT} px and zoom within {ZOOM:.1%}: {good.mean():.1%}")
    print(
        f"error of the shift: median {np.median(shift):.3f} px, 95 % {np.quantile(shift, 0.95):.3f}"
    )
    print(f"error of the zoom: median {np.median(zoom):.5f}, 95 % {np.quantile(zoom, 0.95):.5f}")
    print(f"named as shifted or zoomed: {named / given.pairs:.1%}")
    print(f"not told: {np.isinf(shift).mean():.1%}")
    worse = np.mean(np.array(rest) > np.array(plain) + 0.5)
    print(
        f"outside the edit, aligned pairs differ by {np.mean(rest):.2f} levels, unwarped ones that "
        f"were resampled by {np.mean(plain):.2f}; by half a level more: {worse:.1%}"
    )
    print(f"CPU: {1000 * seconds / given.pairs:.0f} ms a pair")


if __name__ == "__main__":
    main()
