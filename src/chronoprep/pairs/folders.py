"""Trees of files by name: one `scandir` a folder, plain strings, nothing opened.

What belongs to a system and not to its user is told from the rest here, by one list.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from chronoprep.data import LOCK
from chronoprep.errors import ConfigError
from chronoprep.images.formats import SUFFIXES as IMAGES
from chronoprep.images.refs import file_of, of_path

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg")

# Folders that a NAS, a cloud, an operating system or an editor keeps for itself, often with
# thumbnails in them; those whose name begins with a dot are theirs anyway. Without case.
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@snapshot", "@snapshots"),
        *("@sharebin", "@transcode", "@quarantine", "@__thumb", "#recycle", "#snapshot"),
        *("~snapshot", "lost+found", "network trash folder", "trashbox", "$recycle.bin"),
        *("recycler", "recycled", "system volume information", "__macosx", "temporary items"),
        *("backups.backupdb", "captureone", "[originals]", "adobe bridge cache", "_gsdata_"),
        *("__pycache__", "node_modules"),
    )
)
_SYSTEM_FOLDER_ENDS = (
    *(".lrdata", ".lrcat-data", ".cosessiondb", ".cocatalogdb", ".photoslibrary", ".aplibrary"),
    *(".photolibrary", ".fcpbundle", ".imovielibrary"),
)
# Files of the same, and what editors of pictures write beside them.
_SYSTEM_FILES = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "thumbs.db:encryptable", "desktop.ini"),
        *("icon\r", "thumbnails-digikam.db", "digikam4.db", "picasa.ini", "zbthumbnail.info"),
        "pspbrwse.jbf",
    )
)
_SYSTEM_FILE_ENDS = (
    *("zone.identifier", "@synoeastream", "@synoresource", "~", ".xmp", ".pp3", ".dop", ".cos"),
    *(".cot", ".on1", ".aae", ".thm", ".lrv", ".lrcat", ".swp", ".swo"),
)
_SYSTEM_STARTS = (".", "~$", "SYNOPHOTO_THUMB_", "SYNOFILE_THUMB_", "SYNOINDEX_")
# What came of a run that was told to write its dataset here.
_OURS = frozenset(
    {"videos", "umt5", "shards", "quarantine", "labels.jsonl", "metadata.csv", "pairs.parquet"}
)

# A folder that can't be listed for one of these reasons costs itself; for another one, such as
# missing rights or a broken disk, the user has to know before its pairs count as gone.
_COSTS_ITSELF = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR)
_MOST_BYTES = 1 << 20  # of a text beside an image


class Listing(NamedTuple):
    """Names in a folder, sorted. Each file in it stands in `images` or `others`, or is counted.

    What is named like an image counts as one, also a broken link or a folder, which stands in
    both: its pair then says what is wrong, where leaving it out would only report its partner.

    Attributes:
        folders: Those to look into.
        others: Files that are no images.
        odd: Of images and others, special files, such as a FIFO.
        broken: Of others, links that lead nowhere. Those of images say so when they are loaded.
        system: How many files the system keeps for itself.
        skipped: Folders that it keeps for itself.
        error: Why it could not be listed.
    """

    images: list[str]
    folders: list[str]
    others: list[str]
    odd: Sequence[str] = ()
    broken: Sequence[str] = ()
    system: int = 0
    skipped: Sequence[str] = ()
    error: str | None = None


class Tree(Protocol):
    """A tree of files, as layouts see it. Paths are below its top, with `/` between folders; that
    of a folder ends in one, or is "", the top."""

    def listing(self, folder: str = "") -> Listing:
        """Names in a folder."""

    def walk(self, start: str = "") -> Iterator[tuple[str, Listing]]:
        """Each folder from one on, and its listing."""

    def read(self, path: str) -> bytes:
        """A small file; OSError if it can't be read."""

    def ref(self, path: str) -> str:
        """The reference to an image."""

    def below(self, ref: str) -> str:
        """The path of the file that a reference leads to."""

    def shown(self, path: str) -> str:
        """A path as people know it."""


class Folder:
    """A folder on disk."""

    def __init__(self, top: str) -> None:
        self._top = top if top.endswith(os.sep) else top + os.sep

    def listing(self, folder: str = "") -> Listing:
        """Names in a folder.

        Raises:
            ConfigError: It can't be listed.
        """
        try:
            return _listed(self._top + folder)
        except OSError as error:
            raise self._unlisted(folder, error) from None

    def walk(self, start: str = "") -> Iterator[tuple[str, Listing]]:
        """Each folder from one on, and its listing. Links are followed, loops not.

        Raises:
            ConfigError: One can't be listed.
        """
        # Each with the folders that lead there: one that is among its own is a loop.
        top = os.stat(self._top) if start else None
        known = frozenset([(top.st_dev, top.st_ino)] if top else [])
        pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(start, known)]
        while pending:
            relative, above = pending.pop()
            try:
                status = os.stat(self._top + relative)
                place = (status.st_dev, status.st_ino)
                if place in above:
                    continue
                here = _listed(self._top + relative)
            except OSError as error:
                if error.errno not in _COSTS_ITSELF:
                    raise self._unlisted(relative, error) from None
                here, place = Listing([], [], [], error=error.strerror), (0, 0)
            yield relative, here
            pending += [(f"{relative}{name}/", above | {place}) for name in reversed(here.folders)]

    def read(self, path: str) -> bytes:
        file = os.open(self._top + path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            data = opened.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {_MOST_BYTES >> 20} MB")
        return data

    def ref(self, path: str) -> str:
        return of_path(self._top + path)

    def below(self, ref: str) -> str:
        return file_of(ref)[len(self._top) :]

    def shown(self, path: str) -> str:
        return self._top + path

    def _unlisted(self, folder: str, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self._top}{folder}: can't list the folder: {error.strerror}.",
            hint="Check its permissions and its disk.",
        )


def sorted_out(names: Iterator[tuple[str, str]]) -> Listing:
    """A folder's listing.

    Args:
        names: Of its entries, each with its kind: `file`, `folder`, `special` for what is neither,
            or `broken` for a link that leads nowhere.
    """
    images, folders, others = list[str](), list[str](), list[str]()
    odd: dict[str, list[str]] = {"special": [], "broken": []}
    skipped, ours = list[str](), list[str]()
    system, is_dataset = 0, False
    for name, kind in names:
        dot = name.rfind(".")
        image = dot > 0 and name[dot:].lower() in IMAGES
        if kind == "folder":
            (skipped if _is_system_folder(name) else folders).append(name)
        elif name.startswith(_SYSTEM_STARTS) or (not image and _is_system_file(name)):
            is_dataset |= name == LOCK
            system += 1
            continue
        elif not image:
            others.append(name)
        if image:
            images.append(name)
        if kind in odd and not (image and kind == "broken"):
            odd[kind].append(name)
    if is_dataset:
        # What came of clips is no clip, and a table of ours none of the user's.
        ours = [name for name in folders if name in _OURS]
        folders = [name for name in folders if name not in _OURS]
        system += len(others)
        others = [name for name in others if name not in _OURS]
        system -= len(others)
    images.sort()
    folders.sort()
    others.sort()
    return Listing(images, folders, others, odd["special"], odd["broken"], system, skipped + ours)


def _listed(folder: str) -> Listing:
    with os.scandir(folder) as entries:
        return sorted_out((entry.name, _kind(entry)) for entry in entries)


def _kind(entry: os.DirEntry[str]) -> str:
    """Asks the disk only of links and of what is neither a file nor a folder."""
    try:
        if entry.is_file():
            return "file"
        return "folder" if entry.is_dir() else "special" if os.path.exists(entry) else "broken"
    except OSError:  # a link to itself
        return "broken"


def _is_system_folder(name: str) -> bool:
    lower = name.lower()
    return (
        name[0] == "." or lower in _SYSTEM_FOLDERS or lower.endswith(_SYSTEM_FOLDER_ENDS)
    )  # fmt: skip


def _is_system_file(name: str) -> bool:
    lower = name.lower()
    return lower in _SYSTEM_FILES or lower.endswith(_SYSTEM_FILE_ENDS)


def stem(name: str) -> str:
    """A name without its suffix, in composed form: macOS writes names decomposed."""
    text = name[: name.rindex(".")]
    return text if text.isascii() else unicodedata.normalize("NFC", text)
