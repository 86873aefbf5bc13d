"""Zip archives of images, read in place: nothing is unpacked onto the disk.

What comes out of one is bounded: what an archive says of its sizes is not believed.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from chronoprep.data import Member
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.reading import reason, require_file

MOST_BYTES = 1 << 29  # of a file in an archive: more than any picture within `max_pixels` takes

# What damage makes zipfile and its decompressors raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, RuntimeError,
    IndexError, NotImplementedError, OverflowError, MemoryError,
)  # fmt: skip


def members(path: Path) -> Iterator[str]:
    """The names of an archive's files, with `/` between folders, each once.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        require_file(path)
        names = _opened(path)
    except PairError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    except _DAMAGE as error:
        raise ConfigError(
            f"{path}: can't read the archive: {reason(error)}.",
            hint="Copy or download it again, or unpack it and give the folder.",
        ) from None
    yield from names.files


def read_member(ref: Member, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file in an archive.

    Raises:
        PairError: There is no such file, or it can't be read, or is larger than `most` bytes.
    """
    require_file(ref.archive)
    with _damage(ref):
        archive = _opened(ref.archive)
        entry = archive.files.get(ref.name)
        if entry is None:
            raise PairError(
                f"{ref.archive}: no file {ref.name} in this archive.",
                hint="Check its name, with the folders in the archive.",
            )
        # The decompressors of other methods can't be told to stop.
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise PairError(
                f"{ref}: encrypted, or compressed in a way that can't be read in place.",
                hint="Unpack the archive, and give the folder.",
            )
        with archive.zip.open(entry) as file:
            data = file.read(most + 1)
    if len(data) > most:
        raise PairError(
            f"{ref}: larger than {most >> 20} MB.", hint="Unpack the archive, or remove the pair."
        )
    return data


@contextmanager
def _damage(ref: Member) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise PairError(
            f"{ref}: can't read it: {reason(error)}.",
            hint="Copy or download the archive again, or remove the pair.",
        ) from None


class _Archive:
    """An open archive, and its files by name."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.files = {
            _name_of(entry): entry
            for entry in self.zip.infolist()
            if not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16)
        }


def _opened(path: Path) -> _Archive:
    status = path.stat()
    return _kept(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _kept(path: Path, size: int, changed: int) -> _Archive:  # noqa: ARG001 - they renew it
    return _Archive(path)


def _name_of(entry: zipfile.ZipInfo) -> str:
    """A file's name. macOS and others write UTF-8 without saying so."""
    name = entry.filename
    if not entry.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
