"""The bytes of a file that may be an image, and what is refused before it is opened."""

from __future__ import annotations

import stat
from pathlib import Path

from chronoprep.config import ImageSettings
from chronoprep.data import ImageRef
from chronoprep.errors import PairError

RESAVE = "Open and save it again as PNG or JPEG, or remove the pair."
MOST_BYTES = 1 << 31  # of the file of a picture, whose pixels are bounded too
AGAIN = "Copy or download the file again, or remove the pair."


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
