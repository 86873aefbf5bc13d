"""Files that a table spells otherwise than the disk: found, or the near miss named.

A path in a table was often written on another system: with back-slashes, in another Unicode form,
where capital letters make no difference, or from another folder.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from urllib.parse import unquote

from chronoprep.images.refs import of_member, of_path

_MOST_HELPED = 20  # missing files that are looked for: to list folders takes time
_MOST_COMPARED = 2000  # names in a folder
_TELLING = 3  # letters of a name that a slip of the pen leaves recognisable
_NUMBER = re.compile(r"\d+")


class Spelling:
    """Finds files by paths below a folder.

    Args:
        base: Where relative paths start.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._helped = 0

    def found(self, text: str) -> str | None:
        """The reference to the one file that a path may mean, if there is one."""
        for way in _ways(text):
            archive, dot, member = way.partition(".zip/")
            if dot and os.path.isfile(path := os.path.join(self._base, f"{archive}.zip")):
                return of_member(path, member)
            if (file := self._file(way)) is not None:
                return of_path(file)
        return None

    def near(self, text: str) -> str | None:
        """A file that is called nearly so, as a question; None where there is none, or where
        enough were looked for."""
        self._helped += 1
        if self._helped > _MOST_HELPED:
            return None
        parts = [part for part in _ways(text)[-1].split("/") if part]
        for start in range(1, len(parts)):
            # From another machine: the end of its path is right.
            if self._file(below := "/".join(parts[start:])) is not None:
                return below
        folder = os.path.join(self._base, os.path.dirname(_ways(text)[-1]))
        names = [name for same in self._names(folder).values() for name in same]
        alike = {name.rpartition(".")[0]: name for name in names}.get(parts[-1].rpartition(".")[0])
        if alike is None and len(names) <= _MOST_COMPARED:
            # Another number, or another letter for a name, is another picture.
            numbers = _NUMBER.findall(parts[-1])
            same = [name for name in names if _NUMBER.findall(name) == numbers]
            near = difflib.get_close_matches(parts[-1], same, 1, 0.8)
            alike = near[0] if near and len(near[0].rpartition(".")[0]) >= _TELLING else None
        return alike and os.path.join(os.path.dirname(_ways(text)[-1]), alike)

    def _file(self, path: str) -> str | None:
        """The file of a path, folder by folder: as it is written, or the only one that differs in
        capital letters or Unicode form alone."""
        full = os.path.join(self._base, path)
        here = "/" if os.path.isabs(full) else ""
        for part in full.split("/"):
            if part in ("", "."):
                continue
            exact = os.path.join(here, part)
            if part == ".." or os.path.lexists(exact):
                here = exact
                continue
            same = self._names(here).get(_folded(part), [])
            if len(same) != 1:
                return None
            here = os.path.join(here, same[0])
        return here if os.path.isfile(here) else None

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Names in a folder by how they compare."""
        if folder not in self._listed:
            names = self._listed[folder] = {}
            try:
                for name in os.listdir(folder or "."):
                    names.setdefault(_folded(name), []).append(name)
            except (OSError, ValueError):
                pass
        return self._listed[folder]


def _ways(text: str) -> list[str]:
    """Ways to read a path that leads nowhere as it is written."""
    ways = [text.strip().strip("'\"").removeprefix("file://")]
    if "\\" in ways[0]:
        ways.append(ways[0].replace("\\", "/"))
    if "%" in ways[-1]:
        ways.append(unquote(ways[-1]))
    return [way for way in ways if way and "\0" not in way] or ["?"]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
