"""The report: one HTML file with all that it shows in it, to look at from disk or to send around.

It asks nothing of the network and runs no script but its own: its Content-Security-Policy says so.
What it shows of a dataset is text to it, whatever is written there. A leaf: imports Jinja at its
top.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

import chronoprep
from chronoprep.data import Finding
from chronoprep.files import replacing
from chronoprep.gallery import Card, Numbers, part
from chronoprep.report.charts import histogram, share_bar

MOST_BYTES = 38_000_000  # of a page
_PICTURES = 20_000_000  # bytes of pictures that a page is to hold, about
_LEAST_SIDE, _MOST_SIDE = 256, 640  # of a picture, pixels
_HERE = Path(__file__).parent


class Shown(NamedTuple):
    """A pair in the gallery.

    Attributes:
        pictures: Source and target as WebP files; None where they can't be shown.
        trouble: Why not.
    """

    card: Card
    pictures: tuple[bytes, bytes] | None
    trouble: str | None = None


@dataclass
class Page:
    """What a page tells.

    Attributes:
        title: Of the dataset.
        threshold: Above which score a label is a suspect.
        labelled: How many pairs have a label.
        cards: How many the gallery is to show.
    """

    title: str
    numbers: Numbers
    threshold: float
    findings: list[Finding]
    labelled: int
    cards: int


def side_for(cards: int) -> int:
    """The longer side of pictures in pixels, so that so many pairs of photographs fit on a page."""
    # Of a photograph as WebP: a byte for ten pixels, and a third more as base64 text.
    side = int((_PICTURES / max(1, 2 * cards) * 7.5) ** 0.5)
    return max(_LEAST_SIDE, min(_MOST_SIDE, side // 16 * 16))


def write_page(path: Path, page: Page, gallery: Iterable[Shown]) -> None:
    """Write a page; pairs beyond the room that there is are left out, and counted.

    Raises:
        BackendError: It can't be written.
    """
    style = "\n".join((part("theme.css"), part("compare.css"), _own("report.css")))
    script = "\n".join((part("compare.js"), _own("report.js")))
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(_HERE / "page"),
    )
    environment.filters["data"] = _data_uri
    environment.filters["number"] = _number
    environment.globals.update(histogram=histogram, share_bar=share_bar)
    text = environment.get_template("report.html").generate(
        page=page,
        numbers=page.numbers,
        gallery=_within(gallery),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        made=datetime.now(timezone.utc),
        made_rows=[(*made, count) for made, count in page.numbers.made.most_common(12)],
        size_rows=[
            (f"{width} × {height}", count)
            for (width, height), count in page.numbers.resolutions.most_common(12)
        ],
        version=chronoprep.__version__,
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(text)


def _within(gallery: Iterable[Shown]) -> Iterator[Shown]:
    """The pairs for which there is room."""
    size = 0
    for shown in gallery:
        size += sum(len(picture) for picture in shown.pictures or ()) * 4 // 3
        if size > MOST_BYTES:
            shown = shown._replace(pictures=None, trouble="No room: the report would be too large.")
        yield shown


def _own(name: str) -> str:
    return (_HERE / "page" / name).read_text(encoding="utf-8")


def _number(value: int) -> str:
    return f"{value:,}"


def _data_uri(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def _policy(style: str, script: str) -> str:
    """Nothing is loaded or run but what stands in the page itself."""
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{what} {where}" for what, where in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
