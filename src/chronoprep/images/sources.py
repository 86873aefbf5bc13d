"""Where the bytes of an image come from: a file, a cell of a table, a web address."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
import string
import threading
import urllib.request
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit, urlunsplit

from chronoprep.data import Cell, Frame, ImageRef, Remote
from chronoprep.errors import BackendError, PairError
from chronoprep.images.cells import read_cell
from chronoprep.images.refs import place

RESAVE = "Open and save it again as PNG or JPEG, or remove the pair."
AGAIN = "Copy or download the file again, or remove the pair."

_MIB = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_MOST = 1 << 28  # bytes of one download


def open_source(ref: ImageRef) -> BinaryIO:
    """Open an image's bytes; not those of a video's frame, which has none of its own.

    Raises:
        PairError: The image is missing or can't be read.
        BackendError: A download can't be kept.
    """
    if isinstance(ref, Cell):
        return io.BytesIO(read_cell(ref))
    path = _downloaded(ref) if isinstance(ref, Remote) else Path(str(ref))
    require_file(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise PairError(
            f"{path}: can't read the file: {error.strerror or error}.",
            hint="Check its permissions and its disk, or remove the pair.",
        ) from None


def content_digest(ref: ImageRef) -> bytes:
    """Digest of an image's bytes, 16 bytes long.

    Raises:
        PairError: It is missing or unreadable.
    """
    if isinstance(ref, Frame):
        require_file(ref.clip)
        status = ref.clip.stat()
        whole = _clip_digest(ref.clip, status.st_size, status.st_mtime_ns)
        return hashlib.blake2b(whole + str(ref.at).encode(), digest_size=16).digest()
    digest = hashlib.blake2b(digest_size=16)
    with open_source(ref) as file:
        try:
            while chunk := file.read(_MIB):
                digest.update(chunk)
        except OSError as error:
            raise PairError(
                f"{ref}: can't read the file: {error.strerror or error}.",
                hint="Check its permissions and its disk, or remove the pair.",
            ) from None
    return digest.digest()


@lru_cache(maxsize=256)
def _clip_digest(clip: Path, size: int, changed: int) -> bytes:  # noqa: ARG001 - they renew it
    """A clip is read once for its two frames."""
    return content_digest(clip)


def files_stamp(source: str, target: str) -> str | None:
    """How the files of a pair's images look from outside: their sizes, times of change and names.

    Equal stamps mean equal bytes, as for make and git. None where that can't be told: an image is
    missing, or is not on this machine. Folders are not in it, so that a set may move.
    """
    first, second = place(source), place(target)
    try:
        one, two = os.stat(first), os.stat(second)  # noqa: PTH116 - half the time of Path.stat
    except (OSError, ValueError):
        return None
    before, after = f"{one.st_size}-{one.st_mtime_ns}", f"{two.st_size}-{two.st_mtime_ns}"
    # Pictures without compression, unpacked with one time: only that tells if they changed places.
    which = f"|{one.st_ino}-{two.st_ino}" if before == after and first != second else ""
    names = source[first.rfind(os.sep) + 1 :], target[second.rfind(os.sep) + 1 :]
    return f"{before}|{after}|{names[0]}|{names[1]}{which}"


def require_file(path: Path) -> None:
    """Refuse what can't be read as a file before anything opens it: a FIFO would block forever.

    Raises:
        PairError: It is missing, empty or no file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        what = "a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise PairError(f"{path}: {what}.", hint="Restore the file or remove the pair.") from None
    except (OSError, ValueError) as error:
        raise PairError(
            f"{path}: can't read the file: {getattr(error, 'strerror', None) or error}.",
            hint="Check the path and its permissions, or remove the pair.",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
        raise PairError(f"{path}: {what}, not an image.", hint="Rename it or remove the pair.")
    if status.st_size == 0:
        raise PairError(f"{path}: the file is empty (0 bytes).", hint=AGAIN)


def cache() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/chronoprep`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "chronoprep"


def _downloaded(ref: Remote) -> Path:
    """The file of a web address, fetched once and kept.

    Raises:
        PairError: It can't be fetched, or is no image.
        BackendError: It can't be kept.
    """
    digest = hashlib.blake2b(ref.url.encode(), digest_size=16).hexdigest()
    path = cache() / "urls" / digest[:2] / digest
    if os.path.isfile(path):  # noqa: PTH113 - False where Path's may raise
        return path
    data = _fetched(ref.url)
    temporary = path.with_name(f".{digest}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BackendError(
            f"{path}: can't keep a download: {error.strerror or error}.",
            hint="Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
        ) from None
    return path


def _fetched(url: str) -> bytes:
    """The image at a web address. What is cut off or no image is refused, since what is kept is
    never asked for again."""
    from chronoprep.images.load import is_image

    try:
        request = urllib.request.Request(
            _percent_encoded(url), headers={"User-Agent": "chronoprep"}
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read(_MOST + 1)
            missing: int = answer.length or 0  # of what Content-Length promises
    except (OSError, ValueError, HTTPException) as error:
        raise PairError(
            f"{url}: can't download it: {error}.",
            hint="Check the address, and run it again to try again.",
        ) from None
    if len(data) > _MOST:
        raise PairError(f"{url}: larger than {_MOST >> 20} MiB.", hint="Remove the pair.")
    if missing:
        raise PairError(
            f"{url}: the download broke off, {missing} bytes are missing.",
            hint="Run it again to try again.",
        )
    if not is_image(data):
        what, hint = sniff(io.BytesIO(data))
        raise PairError(f"{url}: {what}.", hint=hint)
    return data


def _percent_encoded(url: str) -> str:
    """An address in ASCII and without spaces, as HTTP takes it; what is encoded already stays."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))


_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image", "Run `git lfs pull`."),
    (b"%PDF", "a PDF, not an image", RESAVE),
    (b"PK\x03\x04", "a ZIP archive, not an image", "Unpack it first, or remove the pair."),
    (b"8BPS", "a Photoshop document, not an image", RESAVE),
    (b"<svg", "an SVG drawing, not a pixel image", "Render it to PNG first."),
    (b"<!doctype html", "a web page, not an image", "The download failed: fetch it again."),
    (b"<html", "a web page, not an image", "The download failed: fetch it again."),
)
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def sniff(file: BinaryIO) -> tuple[str, str]:
    """What a file is that Pillow does not know, and what to do about it."""
    file.seek(0)
    head = file.read(512)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what, hint in _SIGNATURES:
        if start.startswith(signature.lower()):
            return what, hint
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "an SVG drawing, not a pixel image", "Render it to PNG first."
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "a HEIC image, which is not supported", "Convert it to JPEG or PNG first."
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
