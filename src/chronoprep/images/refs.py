"""References to images as text: what manifests hold, and columns of a million pairs.

A path stands for itself, `TABLE#row=7&column=source` for a cell, `ZIP#member=a/b.png` for a file in
an archive, `CLIP#t=first` for a frame, an address for what lies there. In a path, `#` is written as
`%23`, and the `%` of `%23` and `%25` as `%25`: whatever a file is called, `parse` gives back what
`of_path` wrote, and all other names stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from chronoprep.data import Cell, Frame, ImageRef, Member, Remote

_PART = re.compile(
    r"(?P<file>.+)#(?:row=(?P<row>\d+)&column=(?P<column>[^&]*)(?:&item=(?P<item>\d+))?"
    r"|member=(?P<member>.+)|t=(?P<at>first|last|\d+(?:\.\d+)?(?:e-?\d+)?))",
    re.DOTALL,
)
_ESCAPE = re.compile("%2[35]")
_ADDRESS = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(text: str) -> bool:
    """Whether a reference leads to another machine: to the web, an object store, …"""
    return "://" in text and _ADDRESS.match(text) is not None


def of_path(path: str) -> str:
    """The reference to a file."""
    if "%2" in path:
        path = _ESCAPE.sub(lambda escape: f"%25{escape[0][1:]}", path)
    return path.replace("#", "%23")


def of_member(archive: str, name: str) -> str:
    """The reference to a file in a zip archive."""
    return f"{of_path(archive)}#member={of_path(name)}"


def parse(text: str) -> ImageRef:
    """What a reference leads to: a path, a table's cell, an archive's member, a video's frame, a
    web address.

    People need not escape a `#` that is followed by no row and no time.
    """
    if is_address(text):
        return Remote(text)
    part = _PART.fullmatch(text) if "#" in text else None
    if part is None:
        return Path(_unescaped(text))
    file = Path(_unescaped(part["file"]))
    if part["row"]:
        item = None if part["item"] is None else int(part["item"])
        return Cell(file, int(part["row"]), unquote(part["column"]), item)
    if part["member"]:
        return Member(file, _unescaped(part["member"]))
    if part["at"] == "first":
        return Frame(file, "first")
    return Frame(file, "last" if part["at"] == "last" else float(part["at"]))


def file_of(text: str) -> str:
    """The file, folder or address that a reference leads to."""
    if is_address(text):
        return text
    part = _PART.fullmatch(text) if "#" in text else None
    return _unescaped(text if part is None else part["file"])


def told_apart(source: str, target: str) -> tuple[str, str]:
    """Two references as far as they differ: without the folders that they have in common."""
    at = 0
    while (end := source.find("/", at) + 1) and source[at:end] == target[at:end]:
        at = end
    return source[at:], target[at:]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda escape: unquote(escape[0]), text) if "%2" in text else text
