"""References to images as text: what manifests hold, and columns of a million pairs."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from chronoprep.data import Cell, Frame, ImageRef, Remote

_CELL = re.compile(
    r"(?P<table>.+)#row=(?P<row>\d+)&column=(?P<column>[^&]*)(?:&item=(?P<item>\d+))?", re.DOTALL
)
_FRAME = re.compile(r"(?P<clip>.+)#t=(?P<at>first|last|\d+(?:\.\d+)?(?:e-?\d+)?)", re.DOTALL)


def parse(text: str) -> ImageRef:
    """The reference that `str` wrote: a path, a table's cell, a video's frame, a web address."""
    if text.startswith(("http://", "https://")):
        return Remote(text)
    if "#" in text:
        cell = _CELL.fullmatch(text)
        if cell:
            item = None if cell["item"] is None else int(cell["item"])
            return Cell(Path(cell["table"]), int(cell["row"]), unquote(cell["column"]), item)
        frame = _FRAME.fullmatch(text)
        if frame:
            clip = Path(frame["clip"])
            if frame["at"] == "first":
                return Frame(clip, "first")
            return Frame(clip, "last" if frame["at"] == "last" else float(frame["at"]))
    return Path(text)


def place(text: str) -> str:
    """The file, folder or address that a reference leads to."""
    return text.partition("#row=")[0].partition("#t=")[0] if "#" in text else text
