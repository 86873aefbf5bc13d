"""The boxes of ISO media files (mp4, mov, AVIF, HEIC, JPEG XL): ISO/IEC 14496-12 and 23008-12."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Box(NamedTuple):
    """A box: its kind, and where its content begins and ends: behind the file's end, if cut."""

    kind: bytes
    begin: int
    end: int


def boxes(file: BinaryIO, begin: int, end: int) -> Iterator[Box]:
    """The boxes of a part of a file, in their order, up to the first that is none."""
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], begin + 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), content + 8
        elif size == 0:  # to the end
            size = end - begin
        if size < content - begin:
            return
        yield Box(kind, content, begin + size)
        begin += size


def picture_colours(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of the primary picture of an AVIF or HEIC file, as ITU-T H.273 numbers
    them, where it says them so (`colr` of kind `nclx`)."""
    file = io.BytesIO(data)

    def within(box: Box | None, skip: int = 0) -> list[Box]:
        return list(boxes(file, box.begin + skip, min(box.end, len(data)))) if box else []

    def first(kind: bytes, among: list[Box]) -> Box | None:
        return next((box for box in among if box.kind == kind), None)

    meta = within(first(b"meta", list(boxes(file, 0, len(data)))), skip=4)
    named, properties = first(b"pitm", meta), within(first(b"iprp", meta))
    listed, places = within(first(b"ipco", properties)), first(b"ipma", properties)
    if named is None or places is None:
        return None
    wide = data[named.begin] > 0
    item = int.from_bytes(data[named.begin + 4 : named.begin + (8 if wide else 6)], "big")
    for number in _associated(data[places.begin : places.end], item):
        if not 1 <= number <= len(listed) or listed[number - 1].kind != b"colr":
            continue
        colour = data[listed[number - 1].begin : listed[number - 1].end]
        if colour[:4] == b"nclx" and len(colour) >= 8:
            return int.from_bytes(colour[4:6], "big"), int.from_bytes(colour[6:8], "big")
    return None


def _associated(data: bytes, wanted: int) -> list[int]:
    """The numbers, from 1, of an item's properties in the content of an `ipma` box."""
    wide, step = data[:1] > b"\0", 2 if data[3:4] and data[3] & 1 else 1
    at = 8
    for _ in range(int.from_bytes(data[4:8], "big")):
        head = data[at : at + (5 if wide else 3)]
        if not head:
            break
        at += len(head)
        ends = at + head[-1] * step
        if int.from_bytes(head[:-1], "big") == wanted:
            mask = 0x7FFF if step == 2 else 0x7F
            return [
                int.from_bytes(data[place : place + step], "big") & mask
                for place in range(at, ends, step)
            ]
        at = ends
    return []


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL file, which its plug-in tells only after it has decoded it.

    (0, 0) where the header is damaged. ISO/IEC 18181-1, Annex A.
    """
    start = 0
    if data[:2] != b"\xff\x0a":
        for box in boxes(io.BytesIO(data), 0, len(data)):
            if box.kind in (b"jxlc", b"jxlp"):
                start = box.begin + (4 if box.kind == b"jxlp" else 0)
                break
    if data[start : start + 2] != b"\xff\x0a":
        return 0, 0
    bits = int.from_bytes(data[start + 2 : start + 18], "little")

    def read(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = read(1)

    def side() -> int:
        return 8 * (read(5) + 1) if small else 1 + read((9, 13, 18, 30)[read(2)])

    height, ratio = side(), read(3)
    if ratio == 0:
        return side(), height
    over, under = _JXL_RATIOS[ratio - 1]
    return height * over // under, height
