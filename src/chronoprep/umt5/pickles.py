"""An embedding as a file: what the trainer's plain `pickle.load` reads.

Such a file is never unpickled here, since unpickling a stranger's file runs the stranger's code:
whether a file is still the one that was written shows by its content's digest.
"""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep import digest
from chronoprep.files import linked, replacing

if TYPE_CHECKING:
    from torch import Tensor

OVERHEAD = 1024  # bytes, at most, that a pickle takes beside the numbers; seen were 418


class _Pickler(pickle.Pickler):
    """Pickles the same numbers to the same bytes, so that one run's file is any other's.

    torch names a storage by its place in memory, which no reader looks at: here it is called 0.
    """

    def reducer_override(self, obj: Any) -> Any:
        from torch.storage import TypedStorage

        if not isinstance(obj, TypedStorage):
            return NotImplemented
        load, (data,) = obj.__reduce__()  # type: ignore[no-untyped-call]
        head = len(data) - obj._size() * obj.dtype.itemsize  # type: ignore[no-untyped-call]
        name = _text(str(obj._cdata))
        return load, (data[:head].replace(name, _text("0")) + data[head:],)


def _text(text: str) -> bytes:
    """A text as protocol 2 of pickle writes it."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def save(tensor: Tensor, path: Path) -> str:
    """Pickle an embedding, atomically.

    Args:
        tensor: bfloat16 on the CPU, contiguous, [n_tokens ≤ 512, width], in storage of its own: a
            slice would be pickled with the storage of its whole batch.

    Returns:
        The digest of the file's content.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=4).dump(tensor)
    data = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return digest.of_bytes(data)


def share(source: Path, path: Path) -> bool:
    """Give `path` the content of `source`, by a hard link where the disk allows it.

    Returns:
        Whether it is a link; else it is a copy.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    if linked(source, path):
        return True
    # A file system without links, or more links than it allows.
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)
    return False


def can_share(folder: Path) -> bool:
    """Whether the file system knows hard links."""
    probe, other = folder / ".probe.tmp", folder / ".link.tmp"
    try:
        probe.touch()
        return linked(probe, other)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
