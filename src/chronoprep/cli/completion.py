"""What a shell offers for options that take a known word, but no fixed choice."""

from __future__ import annotations


def models(incomplete: str) -> list[str]:
    """Short names of models that begin so."""
    from chronoprep.vlm import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    """Presets of prompt templates that begin so."""
    from chronoprep.labels.prompts import presets

    return [name for name in presets() if name.startswith(incomplete)]


def columns(incomplete: str) -> list[str]:
    """Public datasets whose columns are known, that begin so."""
    from chronoprep.pairs.columns import presets

    return [name for name in presets() if name.startswith(incomplete)]
