"""What a page shows of a dataset: cards of pairs, thumbnails, numbers, and the page's own parts.

The review and the report are made of these. Nothing here knows a server or a file of the dataset.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from chronoprep.gallery.cards import Card, Provenance, card_of, kind_of
from chronoprep.gallery.numbers import Numbers, Spread

__all__ = ["Card", "Numbers", "Provenance", "Spread", "card_of", "kind_of", "part"]


@cache
def part(name: str) -> str:
    """A style sheet or a script that pages share: `theme.css`, `compare.css`, `compare.js`."""
    return (Path(__file__).parent / "parts" / name).read_text(encoding="utf-8")
