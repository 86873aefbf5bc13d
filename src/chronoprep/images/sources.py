"""Where the bytes of an image come from: a file, a cell of a table, an archive, a web address."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from chronoprep import digest
from chronoprep.data import Cell, Frame, ImageRef, Member, Remote
from chronoprep.errors import PairError
from chronoprep.images.reading import AGAIN, MOST_BYTES, read_file, require_file, unreadable
from chronoprep.images.refs import file_of, is_address


def read_source(ref: Path | Cell | Member | Remote) -> bytes:
    """An image's bytes.

    Raises:
        PairError: The image is missing or can't be read.
        BackendError: A download can't be kept.
    """
    if isinstance(ref, Cell):
        from chronoprep.images.cells import read_cell

        return read_cell(ref)
    if isinstance(ref, Member):
        from chronoprep.images.archives import read_member

        if not (data := read_member(ref)):
            raise PairError(f"{ref}: the file is empty (0 bytes).", hint=AGAIN)
        return data
    if isinstance(ref, Remote):
        if ref.url.startswith(("http://", "https://")):
            from chronoprep.images.downloads import downloaded

            return read_file(downloaded(ref))
        from chronoprep.images.remote import read

        return read(ref.url)
    return read_file(ref)


def content_digest(ref: ImageRef) -> str:
    """Digest of an image's bytes; of a frame, of its clip's bytes and its time.

    Raises:
        PairError: It is missing or unreadable.
    """
    if isinstance(ref, Path):
        require_file(ref, MOST_BYTES)
        return _file_digest(ref)
    if isinstance(ref, Frame):
        require_file(ref.clip)
        status = ref.clip.stat()
        clip = _clip_digest(ref.clip, status.st_size, status.st_mtime_ns)
        return digest.of_text(f"{clip}{ref.at}", 16)
    return digest.of_bytes(read_source(ref))


def _file_digest(path: Path) -> str:
    try:
        return digest.of_file(path)
    except OSError as error:
        raise unreadable(path, error) from None


@lru_cache(maxsize=256)
def _clip_digest(clip: Path, size: int, changed: int) -> str:  # noqa: ARG001 - they renew it
    """A clip is read once for its two frames."""
    return _file_digest(clip)


def files_stamp(source: str, target: str) -> str | None:
    """How the files of a pair's images look from outside: their sizes, times of change and names.

    Equal stamps mean equal bytes, as for make and git. None where that can't be told: an image is
    missing, or is not on this machine. Folders are not in it, so that a set may move.
    """
    files = file_of(source), file_of(target)
    if is_address(source) or is_address(target):
        from chronoprep.images.remote import look

        looks = [look(file) if is_address(file) else _look(file) for file in files]
        known = [each for each in looks if each is not None]
        return None if len(known) < 2 else "|".join([*known, _name_in(source), _name_in(target)])
    try:
        one, two = map(os.stat, files)
    except (OSError, ValueError):
        return None
    before, after = f"{one.st_size}-{one.st_mtime_ns}", f"{two.st_size}-{two.st_mtime_ns}"
    # Pictures without compression, unpacked with one time: only that tells if they changed places.
    which = f"|{one.st_ino}-{two.st_ino}" if before == after and files[0] != files[1] else ""
    names = [_name_in(source), _name_in(target)]  # with the row or the time
    return f"{before}|{after}|{names[0]}|{names[1]}{which}"


def _look(file: str) -> str | None:
    try:
        status = Path(file).stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size}-{status.st_mtime_ns}"


def _name_in(text: str) -> str:
    """Of a reference, all behind its folders."""
    part = text.find("#")
    return text[text.rfind(os.sep, 0, part if part >= 0 else len(text)) + 1 :]
