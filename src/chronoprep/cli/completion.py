"""What a shell offers for options that take a known word, but no fixed choice."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import typer

_SHOWN = 200  # more would be no help


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


def keys(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the dataset that the command line names; behind a comma, of the next one."""
    from chronoprep.dataset import Dataset

    # What stands alone is still unread there: an option without its value ends the parsing.
    named = [context.params.get("dataset"), *context.args]
    before, comma, name = incomplete.rpartition(",")
    for folder in (Path(place) for place in named if place):
        if folder.is_dir() and (index := Dataset(folder).index).exists:
            here = filter(lambda key: key.startswith(name), index.keys())
            return [f"{before}{comma}{key}" for key in islice(here, _SHOWN)]
    return []
