"""Whether an mp4 is what was written: two whole frames, by its own boxes and without decoding.

A file that was cut, emptied or overwritten with zeros, or whose lengths were damaged, is found for
a hundredth of what decoding costs; a bit that flipped within a picture is not. Only what
`chronoprep.video` writes is read: one track whose two samples fill the file's content. Sources:
ISO/IEC 14496-12 (boxes), 14496-15 (H.264 in them), ITU-T H.264 Annex B (no unit holds three zero
bytes in a row).
"""

from __future__ import annotations

import io
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from chronoprep import digest
from chronoprep.config import Check
from chronoprep.images.boxes import Box, boxes

Codec = Literal["h264", "mjpeg"]

_TOP = (b"ftyp", b"free", b"mdat", b"moov")
_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_ENTRIES = {"h264": (b"avc1", b"avcC"), "mjpeg": (b"mp4v", b"esds")}
_ENTRY = 78  # bytes of a sample entry before its own boxes
_SLICE, _IDR = 1, 5  # kinds of units that hold a picture; the latter stands alone
_EVERY = 20  # of a run's videos, one in so many is decoded back, by its key
_KINDS = 256  # of which the first is; pictures of a thousand sizes are no thousand kinds
_TWO = (2).to_bytes(4, "big")


class BrokenError(ValueError):
    """A file is not two whole frames; the message says what is wrong."""


@dataclass(frozen=True)
class Sample:
    """Which videos of a run are decoded back before they count: the first, the last, the first of
    each kind and one in 20. It is the same sample whenever the run is repeated.

    Attributes:
        check: As the settings say.
        ends: The keys of the first and the last video.
    """

    check: Check
    ends: frozenset[str] = frozenset()
    _seen: dict[Hashable, str] = field(default_factory=dict, compare=False)

    def holds(self, key: str, *kind: Hashable) -> bool:
        """Whether a video is in it.

        Args:
            kind: What an encoder or a reader may treat otherwise than what came before: the shape,
                the codec, the kind of the source.
        """
        if self.check != "sample":
            return self.check == "all"
        new = len(self._seen) < _KINDS and self._seen.setdefault(kind, key) == key
        return new or key in self.ends or int(digest.of_text(key), 16) % _EVERY == 0


ALL = Sample("all")


def frames(data: bytes, codec: Codec, size: tuple[int, int]) -> list[bytes]:
    """The packets of a file that shows two frames of this size, a second each.

    A JPEG packet is not looked into: whoever wrote it has its bytes to compare.

    Raises:
        BrokenError: It is another file, or not whole.
    """
    content, table = _tables(data, codec, size)
    sizes, places = (_named(data, table, kind) for kind in (b"stsz", b"stco"))
    each = sizes[4:8]  # where both are as long; else zero, and a length each follows
    first, second = (
        int.from_bytes(length, "big")
        for length in ((each, each) if any(each) else (sizes[12:16], sizes[16:20]))
    )
    start = int.from_bytes(places[8:12], "big")
    if (start, start + first + second) != content[1:]:
        raise BrokenError("the frames do not lie where its index says")
    packets = [data[start : start + first], data[start + first : content.end]]
    if codec == "h264":
        kinds = [_units(packet) for packet in packets]
        if _IDR not in kinds[0] or not {_SLICE, _IDR} & set(kinds[1]):
            raise BrokenError("a frame is missing its picture")
    return packets


def _tables(data: bytes, codec: Codec, size: tuple[int, int]) -> tuple[Box, dict[bytes, Box]]:
    """The content of a file, and the tables of its samples, whose kind and times are right."""
    found = top = _parts(data, Box(b"", 0, len(data)))
    if tuple(top) != _TOP:
        raise BrokenError("its parts are not those that were written")
    scale = b""
    for kind in _PATH:
        found = _parts(data, _one(found, kind))
        if b"mdhd" in found:
            scale = _named(data, found, b"mdhd")[12:16]
    if (count := _named(data, found, b"stsz")[8:12]) != _TWO:
        raise BrokenError(f"it has {int.from_bytes(count, 'big')} frames and not 2")
    if _named(data, found, b"stts")[8:] != _TWO + scale:
        raise BrokenError("its frames are not shown for a second each")
    described = _one(found, b"stsd")
    entry, inner = _ENTRIES[codec]
    entries = _parts(data, Box(b"", described.begin + 8, described.end))
    kind, begin, end = _one(entries, entry)
    if data[begin + 24 : begin + 28] != b"".join(side.to_bytes(2, "big") for side in size):
        raise BrokenError("its frames are of another size")
    _one(_parts(data, Box(kind, begin + _ENTRY, end)), inner)
    return _one(top, b"mdat"), found


def _parts(data: bytes, box: Box) -> dict[bytes, Box]:
    """The boxes within a box, by kind; they fill it."""
    parts = list(boxes(io.BytesIO(data), box.begin, box.end))
    ends = [box.begin, *(part.end for part in parts)]
    if ends[-1] != box.end or max(ends) > box.end:
        raise BrokenError(f"{max(ends) - box.end:+} bytes at the end of a part")
    return {part.kind: part for part in parts}


def _one(among: dict[bytes, Box], kind: bytes) -> Box:
    if kind not in among:
        raise BrokenError(f"its {kind.decode()} is missing")
    return among[kind]


def _named(data: bytes, among: dict[bytes, Box], kind: bytes) -> bytes:
    box = _one(among, kind)
    return data[box.begin : box.end]


def _units(packet: bytes) -> list[int]:
    """The kinds of an H.264 packet's units, which fill it."""
    kinds, at = list[int](), 0
    while at < len(packet):
        begin = at + 4
        at = begin + int.from_bytes(packet[at:begin], "big")
        if not begin < at <= len(packet) or packet.find(b"\0\0\0", begin, at) >= 0:
            raise BrokenError("a frame is not whole")
        kinds.append(packet[begin] & 0x1F)
    return kinds
