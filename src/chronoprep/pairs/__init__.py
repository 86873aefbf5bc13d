"""Pairs: where they lie on disk, what they are called, and how their images are loaded.

Images live in `chronoprep.images.load`, which imports Pillow; this package alone stays light.
"""

from __future__ import annotations

from chronoprep.pairs.accounts import Tally
from chronoprep.pairs.discovery import Discovery, discover

__all__ = [
    "Discovery",
    "Tally",
    "discover",
]
