"""Room for pixels: how many may be in memory at once, however many threads there are.

What is counted is pixels and not pairs: four pictures of 10,000×10,000 take turns, a hundred small
ones do not. A thread opens a `room` around all that it does with full-size pictures; decoding one
claims its pixels, and the end of the room gives them back. A thread waits only while it holds
nothing, so that two can't wait for each other: what is in memory may be twice the limit, since a
pair has two pictures.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# One picture of the size that `max_pixels` allows by default, or 12 megapixels a core.
_MOST = max(100_000_000, 12_000_000 * (os.cpu_count() or 1))
# Pixels that are worth giving back to the system at once: glibc keeps what each thread freed.
_LARGE = 50_000_000


class _Mine(threading.local):
    """Of a thread: how deep it stands in rooms, and the pixels that it holds."""

    depth = 0
    pixels = 0


_mine = _Mine()
_given_back = threading.Condition()
_in_use = 0


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _trim() -> None:
    """Give freed memory back to the system, where that is glibc's affair."""
    if sys.platform == "linux" and hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(0)


@contextmanager
def room() -> Iterator[None]:
    """What this thread decodes within counts until the end; of rooms in rooms, the outermost's.

    As `@room()` before a function, its pictures are gone before their room is given back.
    """
    global _in_use
    _mine.depth += 1
    try:
        yield
    finally:
        _mine.depth -= 1
        if _mine.depth == 0 and _mine.pixels:
            if _mine.pixels >= _LARGE:
                _trim()
            with _given_back:
                _in_use -= _mine.pixels
                _mine.pixels = 0
                _given_back.notify_all()


def claim(pixels: int) -> None:
    """Wait until there is room for a picture; what is larger than all of it goes alone. Outside of
    a room this does nothing."""
    global _in_use
    if _mine.depth == 0:
        return
    with _given_back:
        if not _mine.pixels:
            _given_back.wait_for(lambda: _in_use == 0 or _in_use + pixels <= _MOST)
        _in_use += pixels
        _mine.pixels += pixels
