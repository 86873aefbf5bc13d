"""What a pair's images say about it before anything runs, and which pairs are much alike.

A leaf: imports Pillow, numpy and dhash at its top.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import dhash
import numpy as np
from PIL import Image, ImageChops

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.images.alignment import UNKNOWN, Alignment, measure
from chronoprep.images.load import load_image
from chronoprep.images.refs import parse
from chronoprep.images.room import room

# Bits that two difference hashes of 128 may differ in where one image is the other saved again.
NEAR = 4
# Shapes may differ by so much: a resize to whole pixels, or to multiples of 16, does it.
ASPECT = 0.02
_MOST_ALIKE = 200
_STRIP = 256  # rows


@dataclass(frozen=True, slots=True)
class Inspection:
    """One pair, looked at.

    Attributes:
        sizes: (width, height) of source and of target, upright.
        digests: Of the bytes of source and of target.
        hashes: Difference hashes of 128 bits; images that look alike have close ones.
        identical: Whether both show the same pixels.
        colours: The colour spaces that they name.
        alignment: How the target lies over the source, where their shapes are the same.
    """

    sizes: tuple[tuple[int, int], tuple[int, int]]
    digests: tuple[str, str]
    hashes: tuple[int, int]
    identical: bool
    colours: tuple[str, str] = ("sRGB", "sRGB")
    alignment: Alignment = UNKNOWN

    @property
    def mismatch(self) -> str | None:
        """How the sizes differ, if so: "size", or "aspect" where the shapes do."""
        (width, height), (other_width, other_height) = self.sizes
        if self.sizes[0] == self.sizes[1]:
            return None
        ratio = width * other_height / (height * other_width)
        return "size" if abs(ratio - 1) <= ASPECT else "aspect"


@room()
def inspect(pair: Pair, settings: ImageSettings) -> Inspection:
    """Look at a pair's images.

    Raises:
        PairError: One of them can't be used.
    """
    before = load_image(parse(pair.source), settings)
    after = load_image(parse(pair.target), settings)
    source, target = before.image, after.image
    seen = Inspection(
        sizes=(source.size, target.size),
        digests=(before.digest, after.digest),
        hashes=(_hash(source), _hash(target)),
        identical=before.digest == after.digest or _same(source, target),
        colours=(before.colours, after.colours),
    )
    if seen.identical or seen.mismatch == "aspect":
        return seen
    return replace(seen, alignment=measure(source, target))


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two images have the same pixels: strip by strip, so that most are told at once."""
    if one.size != other.size:
        return False
    width, height = one.size
    strips = ((0, top, width, min(top + _STRIP, height)) for top in range(0, height, _STRIP))
    return all(
        ImageChops.difference(one.crop(strip), other.crop(strip)).getbbox() is None
        for strip in strips
    )


def _hash(image: Image.Image) -> int:
    # A box filter first: as good for 9×9 grey values, and many times quicker.
    grays = image.reduce(max(1, min(image.size) // 64)).convert("L")
    small = grays.resize((9, 9), Image.Resampling.LANCZOS)
    row, column = dhash.dhash_row_col(list(small.tobytes()), size=8)
    return int(row << 64 | column)


@dataclass
class Lookalikes:
    """Finds pairs of equal and of nearly equal content among many, in 100 bytes a pair."""

    keys: list[str] = field(default_factory=list)
    _digests: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    _sources: array[int] = field(default_factory=lambda: array("q"))
    _words: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, key: str, seen: Inspection) -> None:
        self._digests[bytes.fromhex("".join(seen.digests))].append(len(self.keys))
        self._sources.append(hash(seen.digests[0]))
        for value in seen.hashes:
            self._words.extend((value >> 64, value & (2**64 - 1)))
        self.keys.append(key)

    def equal(self) -> list[list[str]]:
        """Keys of pairs whose images are byte for byte the same."""
        groups = [rows for rows in self._digests.values() if len(rows) > 1]
        return [[self.keys[row] for row in rows] for rows in groups]

    def near(self) -> list[tuple[str, str]]:
        """Keys of two pairs whose images look the same without being it: saved again or resized.

        Pairs of one source are left out: its edits are meant to look alike.
        """
        words = np.frombuffer(self._words, dtype=np.uint64).reshape(-1, 4)
        sources = np.frombuffer(self._sources, dtype=np.int64)
        found: set[tuple[int, int]] = set()
        for band in self._bands(words):
            order = np.argsort(band, kind="stable")
            for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
                if not 1 < len(group) <= _MOST_ALIKE:
                    continue
                differ = np.bitwise_count(words[group, None] ^ words[group])
                close = (differ[..., :2].sum(2) <= NEAR) & (differ[..., 2:].sum(2) <= NEAR)
                close &= sources[group, None] != sources[group]
                close[~words[group, :2].any(1)] = False  # an even image: any other one is "close"
                found |= {(group[one], group[other]) for one, other in np.argwhere(np.triu(close))}
        return [(self.keys[one], self.keys[other]) for one, other in sorted(found)]

    def _bands(self, words: np.ndarray) -> Iterator[np.ndarray]:
        """Parts of the sources' hashes: of `NEAR` + 1 parts, close ones share at least one."""
        bits = np.unpackbits(words[:, :2].astype(">u8").view(np.uint8).reshape(-1, 16), axis=1)
        for part in np.array_split(bits, NEAR + 1, axis=1):
            yield part.astype(np.int64) @ (1 << np.arange(part.shape[1], dtype=np.int64))
