"""Digests: short stable names of contents, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_CHUNK = 1 << 18  # bytes: what a core's own cache holds


def of_bytes(data: bytes | memoryview, size: int = 16) -> str:
    """Of bytes, as hex digits: two for each of `size` bytes."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def of_text(text: str, size: int = 12) -> str:
    """Of a text, also of one that holds half a character."""
    return of_bytes(text.encode("utf-8", "surrogatepass"), size)


def of_values(*parts: object) -> str:
    """Of JSON values; the order of an object's members does not count."""
    return of_text(json.dumps(parts, sort_keys=True, ensure_ascii=False))


def of_file(path: Path) -> str:
    """Of a file's content.

    Raises:
        OSError: It can't be read.
    """
    digest, chunk = hashlib.blake2b(digest_size=16), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
    return digest.hexdigest()
