"""Where the bytes of an image come from: a file, a cell of a table, an archive, a web address."""

from __future__ import annotations

import codecs
import os
import stat
from functools import lru_cache
from pathlib import Path

from chronoprep import digest
from chronoprep.config import ImageSettings
from chronoprep.data import Cell, Frame, ImageRef, Member, Remote
from chronoprep.errors import PairError
from chronoprep.images.formats import has, plugin_of
from chronoprep.images.refs import file_of, is_address

RESAVE = "Open and save it again as PNG or JPEG, or remove the pair."
MOST_BYTES = 1 << 31  # of the file of a picture, whose pixels are bounded too
AGAIN = "Copy or download the file again, or remove the pair."


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


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        PairError: As `require_file`; or it can't be read.
    """
    require_file(path, MOST_BYTES)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


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


def require_file(path: Path, most: int | None = None) -> None:
    """Refuse what can't be read as a file before anything opens it: a FIFO would block forever, and
    a device never end.

    Raises:
        PairError: It is missing, empty, no file, or larger than `most` bytes.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        what = "a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise PairError(f"{path}: {what}.", hint="Restore the file or remove the pair.") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
        raise PairError(f"{path}: {what}, not an image.", hint="Rename it or remove the pair.")
    if status.st_size == 0:
        raise PairError(f"{path}: the file is empty (0 bytes).", hint=AGAIN)
    if most is not None and status.st_size > most:
        raise PairError(
            f"{path}: {status.st_size / 1e9:.1f} GB are too many for a picture.", hint=RESAVE
        )


def require_size(ref: ImageRef, size: tuple[int, int], settings: ImageSettings) -> None:
    """Refuse what is too large to be decoded.

    Raises:
        PairError: It has more than `max_pixels`.
    """
    width, height = size
    if width * height > settings.max_pixels:
        raise PairError(
            f"{ref}: {width}×{height} pixels are more than the limit of "
            f"{settings.max_pixels:,} pixels.",
            hint="Shrink it, or raise max_pixels in [images].",
        )


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().partition("\n")[0].rstrip(".") or type(error).__name__


def unreadable(path: Path, error: OSError | ValueError) -> PairError:
    return PairError(
        f"{path}: can't read the file: {getattr(error, 'strerror', None) or error}.",
        hint="Check its permissions and its disk, or remove the pair.",
    )


def cache() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/chronoprep`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "chronoprep"


_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image", "Run `git lfs pull`."),
    (b"%PDF", "a PDF, not an image", RESAVE),
    (b"PK\x03\x04", "a ZIP archive, not an image", "Unpack it first, or remove the pair."),
    (b"<svg", "an SVG drawing, not a pixel image", "Render it to PNG first."),
    (b"<!doctype html", "a web page, not an image", "The download failed: fetch it again."),
    (b"<html", "a web page, not an image", "The download failed: fetch it again."),
)
_IMAGE_STARTS = (
    b"\x89PNG",
    b"\xff\xd8",
    b"GIF8",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"8BPS",
    b"qoif",
    b"DDS ",
)
_PLUGINS = {"HEIF": "a HEIC image", "JXL": "a JPEG XL image"}
_EXTRA = 'pip install "chronoprep[formats]"'


def sniff(data: bytes) -> tuple[str, str]:
    """What a file is that Pillow does not know, and what to do about it."""
    head = data[:512]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what, hint in _SIGNATURES:
        if start.startswith(signature.lower()):
            return what, hint
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "an SVG drawing, not a pixel image", "Render it to PNG first."
    if (plugin := plugin_of(head)) is not None:
        if has(plugin):
            return f"{_PLUGINS[plugin]} whose header is damaged or cut off", AGAIN
        return f"{_PLUGINS[plugin]}, which takes a plug-in that is not installed", _EXTRA
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        return "a video, not an image", "Extract the frame first, or remove the pair."
    if not head.strip(b"\0"):
        return "nothing but zero bytes, not an image", AGAIN
    if head.startswith(_IMAGE_STARTS):
        return "an image whose header is damaged or cut off", AGAIN
    # The cut at the end of `head` may split a character: an incremental decoder waits for the rest.
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = "\0"
    if all(char.isprintable() or char.isspace() for char in text):
        return "a text file, not an image", AGAIN
    return "not an image, or its header is damaged", AGAIN
