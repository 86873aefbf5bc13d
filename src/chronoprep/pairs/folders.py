"""Folders as lists of names: one `scandir` a folder, plain strings, nothing opened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from chronoprep.data import LOCK
from chronoprep.errors import ConfigError

# HEIC is not read, but a picture all the same: loading it says so.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif", ".jp2", ".ppm"}
    | {".heic", ".heif"}
)
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg")


class Listing(NamedTuple):
    """Names in a folder, sorted, hidden ones left out.

    What is named like an image counts as one, also a broken link or a folder: loading it says what
    is wrong, where leaving it out would only report its partner.
    """

    images: list[str]
    folders: list[str]
    others: list[str]


def listing(folder: str) -> Listing:
    """List a folder.

    Raises:
        ConfigError: It can't be listed.
    """
    images, folders, others = [], [], []
    is_dataset = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    is_dataset |= name == LOCK
                    continue
                if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES:
                    images.append(name)
                elif entry.is_dir():
                    folders.append(name)
                else:
                    others.append(name)
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't list the folder: {error.strerror}.", hint="Check its permissions."
        ) from None
    if is_dataset and "videos" in folders:
        folders.remove("videos")  # what came of clips is no clip
    return Listing(sorted(images), sorted(folders), sorted(others))


def walk(top: str) -> Iterator[tuple[str, Listing]]:
    """Each folder below, relative ("" or with a final `/`), and its listing. Links are followed,
    loops not."""
    # Each with the folders that lead there: one that is among its own is a loop.
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        relative, above = pending.pop()
        folder = os.path.join(top, relative)
        here, status = listing(folder), os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place not in above:
            yield relative, here
            pending += [(f"{relative}{name}/", above | {place}) for name in reversed(here.folders)]


def stem(name: str) -> str:
    """A name without its suffix, in composed form: macOS writes names decomposed."""
    text = name[: name.rindex(".")]
    return text if text.isascii() else unicodedata.normalize("NFC", text)
