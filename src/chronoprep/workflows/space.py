"""Room on the disk: whether what is still to be written will fit."""

from __future__ import annotations

import shutil
from pathlib import Path

from chronoprep.errors import BackendError

SURE = 16  # videos after which their mean size is ground enough to stop a run


class Room:
    """Judges by the mean size of what was written so far.

    Args:
        folder: On the disk in question; it exists.
        waiting: How many videos are to be written.
    """

    def __init__(self, folder: Path, waiting: int) -> None:
        self._folder, self._waiting = folder, waiting
        self._bytes = self._count = 0
        self._warned = False

    def wrote(self, size: int) -> str | None:
        """Count a video of so many bytes.

        Returns:
            A warning, once, when the disk is about to be filled.

        Raises:
            BackendError: The same after `SURE` videos: better now than with a full disk.
        """
        self._bytes += size
        self._count += 1
        doubled = self._count & (self._count - 1) == 0
        if not doubled and self._count % 256:
            return None
        left = self._waiting - self._count
        needed, free = left * self._bytes // self._count, shutil.disk_usage(self._folder).free
        if needed <= free:
            return None
        message = (
            f"{self._folder}: the {left} videos still to be written need about "
            f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free."
        )
        if self._count >= SURE:
            raise BackendError(
                message,
                hint="Free some space, choose another --dataset, or --codec copy or h264, which "
                "are smaller; what was done so far is kept.",
            )
        if self._warned:
            return None
        self._warned = True
        return message
