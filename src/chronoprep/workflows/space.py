"""Room on the disk: whether what is still to be written will fit."""

from __future__ import annotations

import shutil
from pathlib import Path

from chronoprep.errors import BackendError

SURE = 16  # videos after which an estimate is good enough to stop a run


class Room:
    """Judges by what was written so far, in proportion to the images that it was made from.

    Args:
        folder: On the disk in question; it exists.
        waiting: Bytes of all the image files that videos will be made from.
    """

    def __init__(self, folder: Path, waiting: int) -> None:
        self._folder, self._waiting = folder, waiting
        self._images = self._videos = self._count = 0
        self._warned = False

    def wrote(self, images: int, video: int) -> str | None:
        """Count a video of so many bytes, made from so many.

        Returns:
            A warning, once, when the disk is about to be filled.

        Raises:
            BackendError: The same after `SURE` videos: better now than with a full disk.
        """
        self._waiting -= images
        self._images += images
        self._videos += video
        self._count += 1
        doubled = self._count & (self._count - 1) == 0
        if not doubled and self._count % 256:
            return None
        needed = self._waiting * self._videos / max(self._images, 1)
        free = shutil.disk_usage(self._folder).free
        if needed <= free:
            return None
        message = (
            f"{self._folder}: the videos still to be written need about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free."
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
