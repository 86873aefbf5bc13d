"""Pairs: where they lie on disk, what they are called, and how their images are loaded.

Images live in `chronoprep.pairs.images`, which imports Pillow; this package alone stays light.
"""

from __future__ import annotations

from chronoprep.pairs.discovery import Discovery, discover
from chronoprep.pairs.keys import pandas_reads_as_text, safe_key
from chronoprep.pairs.store import Columns, PairRow, Pairs

__all__ = [
    "Columns",
    "Discovery",
    "PairRow",
    "Pairs",
    "discover",
    "pandas_reads_as_text",
    "safe_key",
]
