"""The contact sheet: a picture of many pairs, source beside target.

A leaf: imports Pillow at its top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.errors import PairError
from chronoprep.images.load import load_image
from chronoprep.images.refs import parse
from chronoprep.images.room import room

_SIDE, _GAP, _TEXT = 240, 12, 40
_ENOUGH = (2 * _SIDE, 2 * _SIDE)  # to make it small in good quality
_WIDTH, _HEIGHT = 2 * _SIDE + 3 * _GAP, _SIDE + _TEXT + 2 * _GAP  # of a pair
_COLUMNS = 3  # at least
_PAPER, _INK, _FAINT = "#ffffff", "#1a1a1a", "#707070"


def sheet_size(pairs: int) -> tuple[int, tuple[int, int]]:
    """Columns, and width and height in pixels: many pairs make a square, since no side of a JPEG
    may be longer than 65500 pixels, and none of a WebP longer than 16383."""
    columns = min(max(_COLUMNS, math.isqrt(pairs * _HEIGHT // _WIDTH)), max(pairs, 1))
    rows = max(-(-pairs // columns), 1)
    return columns, (columns * _WIDTH + _GAP, rows * _HEIGHT + _GAP)


def draw_sheet(pairs: Sequence[Pair], settings: ImageSettings) -> Image.Image:
    """All pairs on one picture: the source left, the target right, key and caption below."""
    columns, size = sheet_size(len(pairs))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(13)
    for number, pair in enumerate(pairs):
        left = _GAP + number % columns * _WIDTH
        top = _GAP + number // columns * _HEIGHT
        for side, ref in enumerate((pair.source, pair.target)):
            box = (left + side * (_SIDE + _GAP), top)
            try:
                with room():
                    image = load_image(parse(ref), settings, at_least=_ENOUGH).image
                    image.thumbnail((_SIDE, _SIDE))
            except PairError:
                pen.rectangle((*box, box[0] + _SIDE, top + _SIDE), outline=_FAINT)
                pen.text((box[0] + _GAP, top + _GAP), "unreadable", _FAINT, plain)
                continue
            # On the line of its text, which belongs to it.
            place = (box[0] + (_SIDE - image.width) // 2, top + _SIDE - image.height)
            sheet.paste(image, place)
        below = top + _SIDE + 4
        pen.text((left, below), _cut(pen, pair.key, bold), _INK, bold)
        text = pair.caption or pair.prompt or ""
        pen.text((left, below + 19), _cut(pen, text, plain), _FAINT, plain)
    return sheet


def _cut(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | object) -> str:
    """The beginning of a text that fits under a pair."""
    text = " ".join(text.split())
    room = 2 * _SIDE + _GAP
    if pen.textlength(text, font) <= room:  # type: ignore[arg-type]
        return text
    while text and pen.textlength(text + "…", font) > room:  # type: ignore[arg-type]
        text = text[:-1]
    return text + "…"


def save_sheet(pairs: Sequence[Pair], settings: ImageSettings, path: Path) -> None:
    """Draw and save; the suffix chooses the format."""
    draw_sheet(pairs, settings).save(path, quality=90)
