"""Files that are whole or not there: atomic writes, links, names in a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in.

    Raises:
        BackendError: It can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Its folder has to be there: a dataset that was moved or removed under a run must not come into
    being again. A link to a file stays one. What is no file, a device or a pipe, is never replaced.

    Args:
        sync: Wait until the disk has it: not worth it for what the next run would write anew.

    Raises:
        BackendError: When the disk is full, the folder can't be written, the file is read-only, or
            something else than a file lies there.
    """
    with suppress(OSError, RuntimeError):  # a link that leads to itself is replaced
        path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        there = path.exists()
        if there and not path.is_file():
            raise OSError(errno.EEXIST, "something that is no file lies there")
        if there and not path.stat().st_mode & 0o222:
            raise PermissionError(errno.EACCES, "it is read-only")
        try:
            temporary.unlink(missing_ok=True)  # whatever it is, it is not to be opened
            yield temporary
            if sync:
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
        os.link(source, temporary)
        temporary.replace(path)
    except OSError:
        return False
    finally:
        # Where both are one file already, renaming does nothing.
        temporary.unlink(missing_ok=True)
    return True


_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EACCES: "Change its permissions",
    errno.EPERM: "Change its permissions",
    errno.EROFS: "Mount it writable",
    errno.EEXIST: "Move away what lies there",
    errno.ENOENT: "Put its folder back",
    errno.ENOLCK: "Mount this file system with locks (for NFS: without `nolock`)",
    errno.ENOTSUP: "Mount this file system with locks (for NFS: without `nolock`)",
    errno.ENOSYS: "Mount this file system with locks (for NFS: without `nolock`)",
}


def unwritable(path: Path, error: OSError) -> BackendError:
    remedy = _REMEDIES.get(error.errno or 0, "Put that right")
    return BackendError(
        f"{path}: can't write: {error.strerror or error}.",
        hint=f"{remedy}, or choose another --dataset; what was done so far is kept.",
    )


@contextmanager
def locked(path: Path, busy: BackendError, *, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock, whose file is made where there is none.

    Args:
        busy: Is raised where another process does not let go of it for so many seconds.

    Raises:
        BackendError: That; or the file can't be written or locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def cache() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/chronoprep`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "chronoprep"
