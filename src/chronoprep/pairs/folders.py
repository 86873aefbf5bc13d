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


def walk(*tops: str) -> Iterator[tuple[str, tuple[Listing, ...]]]:
    """Several trees in step: each relative folder ("" or with a final `/`) and its listing in each
    tree, empty where a tree lacks it. Links are followed, loops not."""
    # Each with the folders that lead there: one that is among its own is a loop.
    pending: list[tuple[str, frozenset[tuple[int, int, int]]]] = [("", frozenset())]
    while pending:
        relative, above = pending.pop()
        sides, places = [], []
        for number, top in enumerate(tops):
            folder = os.path.join(top, relative)
            try:
                status = os.stat(folder)
            except (FileNotFoundError, NotADirectoryError):
                sides.append(Listing([], [], []))
                continue
            places.append((number, status.st_dev, status.st_ino))
            sides.append(Listing([], [], []) if places[-1] in above else listing(folder))
        yield relative, tuple(sides)
        folders = {name for side in sides for name in side.folders}
        here = above.union(places)
        pending += [(f"{relative}{name}/", here) for name in sorted(folders, reverse=True)]


def stem(name: str) -> str:
    """A name without its suffix, in composed form: macOS writes names decomposed."""
    text = name[: name.rindex(".")]
    return text if text.isascii() else unicodedata.normalize("NFC", text)
