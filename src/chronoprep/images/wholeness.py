"""Whether a clip's file is as long as its container says: one that a copy or a download cut off
still opens, and some frame from its middle would pass for its last."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from chronoprep.images.boxes import boxes

# Of mp4 and mov. What cameras append behind the last box looks like others.
_BOXES = frozenset(b"ftyp styp moov moof mdat mfra sidx free skip wide uuid udta meta pnot".split())
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska and WebM: RFC 8794, 9559
_TS_PACKETS = ((0, 188), (4, 192))  # where the first sync byte is, and the packets' size
_SYNC = 0x47
_PACK, _TAIL = b"\0\0\1\xba", 1 << 17  # of an MPEG program stream: ISO/IEC 13818-1, 2.5


def promised_size(path: Path, size: int) -> int:
    """The bytes that a file has to have for its container to be whole; as many as it has, where the
    container does not say.

    Args:
        size: The file's.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        head = file.read(256)
        if head[4:8] in _BOXES:
            return _of_boxes(file, size)
        if head[:4] == _EBML:
            return _of_matroska(file, size)
        if head[:4] == b"RIFF":
            return _of_riff(file, size)
        if head[:4] == _PACK:
            return _of_program(file, size)
    for sync, packet in _TS_PACKETS:
        if head[sync : sync + 1] == head[sync + packet : sync + packet + 1] == bytes([_SYNC]):
            return -(-size // packet) * packet
    return size


def _of_boxes(file: BinaryIO, size: int) -> int:
    end = 0
    for box in boxes(file, 0, size):
        if box.kind not in _BOXES:
            return end
        end = box.end
    return end


def _of_matroska(file: BinaryIO, size: int) -> int:
    at = 0
    for wanted in (_EBML, _SEGMENT):
        file.seek(at)
        if file.read(4) != wanted:
            return size
        first = (file.read(1) or b"\0")[0]
        if first == 0:
            return size
        more = 8 - first.bit_length()  # bytes: the number of leading zeros
        length = int.from_bytes(bytes([first]) + file.read(more), "big") - (1 << 7 * (more + 1))
        if length == (1 << 7 * (more + 1)) - 1:  # unknown: it was streamed
            return size
        at += 4 + 1 + more + length
    return at


def _of_riff(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length == 0:  # an index, or what follows; or never finished
            break
        at += 8 + length
    return at


def _of_program(file: BinaryIO, size: int) -> int:
    """By the packets from the last pack on, each of which tells its length."""
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    at = tail.rfind(_PACK)
    while 0 <= at < len(tail) - 6 and tail[at : at + 3] == _PACK[:3]:
        if tail[at : at + 4] != _PACK:
            if tail[at + 3] == 0xB9:  # the end
                return size
            at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
        elif tail[at + 4] >> 6 == 1:  # of MPEG-2, which may be stuffed
            at += 14 + (tail[at + 13] & 7 if at + 13 < len(tail) else 0)
        else:
            at += 12
    # What is left over is a packet's beginning.
    return max(size, start + at + (6 if 0 <= at < len(tail) else 0))
