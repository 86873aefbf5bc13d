"""Files that are whole or not there: atomic writes, links, names in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chronoprep.errors import BackendError

TEMPORARY = ".tmp"  # ends the name of a file being written, which begins with a dot


def file_names(folder: Path) -> set[str]:
    """File names in a folder; one directory scan is far cheaper than a look at each name.

    Raises:
        BackendError: When it is no folder, or can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise BackendError(
            f"{folder}: can't read the folder: {error.strerror or error}.",
            hint="Move away what lies there, or choose another --dataset.",
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def linked(source: Path, path: Path) -> bool:
    """Make `path` another name of a file, atomically; False where the file system does not let."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        temporary.replace(path)
    except OSError:
        return False
    finally:
        # Where both are one file already, renaming does nothing.
        temporary.unlink(missing_ok=True)
    return True


def unwritable(path: Path, error: OSError) -> BackendError:
    return BackendError(
        f"{path}: can't write: {error.strerror or error}",
        hint="Free some space or choose another --dataset; what was done so far is kept.",
    )
