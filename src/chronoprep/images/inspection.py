"""What a pair's images say about it before anything runs, and which pairs are much alike.

A leaf: imports Pillow, numpy and OpenCV at its top.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from PIL import Image, ImageChops

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.images import likeness
from chronoprep.images.alignment import UNKNOWN, Alignment, measure
from chronoprep.images.load import load_image
from chronoprep.images.refs import parse
from chronoprep.images.room import room

# Shapes may differ by so much: a resize to whole pixels, or to multiples of 16, does it.
ASPECT = 0.02
_STRIP = 256  # rows


@dataclass(frozen=True, slots=True)
class Inspection:
    """One pair, looked at.

    Attributes:
        sizes: (width, height) of source and of target, upright.
        digests: Of the bytes of source and of target.
        thumbnails: Of source and of target, as `likeness` makes them.
        identical: Whether both show the same pixels.
        colours: The colour spaces that they name.
        alignment: How the target lies over the source, where their shapes are the same.
    """

    sizes: tuple[tuple[int, int], tuple[int, int]]
    digests: tuple[str, str]
    thumbnails: tuple[bytes, bytes]
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
        thumbnails=(likeness.thumbnail(source), likeness.thumbnail(target)),
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


@dataclass
class Lookalikes:
    """Finds pairs of equal and of nearly equal content among many, in 1.6 kB a pair."""

    keys: list[str] = field(default_factory=list)
    _digests: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    _sources: bytearray = field(default_factory=bytearray)
    _targets: bytearray = field(default_factory=bytearray)

    def add(self, key: str, seen: Inspection) -> None:
        self._digests[bytes.fromhex("".join(seen.digests))].append(len(self.keys))
        self._sources += seen.thumbnails[0]
        self._targets += seen.thumbnails[1]
        self.keys.append(key)

    def equal(self) -> list[list[str]]:
        """Keys of pairs whose images are byte for byte the same."""
        groups = [rows for rows in self._digests.values() if len(rows) > 1]
        return [[self.keys[row] for row in rows] for rows in groups]

    def near(self) -> list[tuple[str, str]]:
        """Keys of two pairs that show the same edit of the same picture without being equal: saved
        again, cropped a little, a little lighter. Two edits of one source are none."""
        equal = {row: rows[0] for rows in self._digests.values() for row in rows}
        sources, targets = map(likeness.stacked, (self._sources, self._targets))
        couples = likeness.alike(sources)
        same = likeness.same_change(sources, targets, couples)
        return [
            (self.keys[one], self.keys[other])
            for one, other in couples[same].tolist()
            if equal[one] != equal[other]
        ]
