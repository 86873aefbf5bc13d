"""chronoprep: folders of before/after image pairs → a training set for ChronoEdit.

The names below are the public ones. Folders and files are `pathlib.Path`; sizes are pixels, times
seconds, memory bytes, scores 0 (nothing speaks against a label) to 1. None of the functions prints
or exits; all that is raised on purpose is a `ChronoprepError` with a `message` and a `hint`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chronoprep.config import Settings, load_settings
    from chronoprep.dataset import Dataset
    from chronoprep.errors import BackendError, ChronoprepError, ConfigError, PairError
    from chronoprep.workflows import (
        Summary,
        add_cot,
        build_csv,
        caption_pairs,
        embed_prompts,
        label_one,
        prepare,
        verify_labels,
        write_videos,
    )

__all__ = [
    "BackendError",
    "ChronoprepError",
    "ConfigError",
    "Dataset",
    "PairError",
    "Settings",
    "Summary",
    "add_cot",
    "build_csv",
    "caption_pairs",
    "embed_prompts",
    "label_one",
    "load_settings",
    "prepare",
    "verify_labels",
    "write_videos",
]

_HOMES = {
    "config": ("Settings", "load_settings"),
    "dataset": ("Dataset",),
    "errors": ("BackendError", "ChronoprepError", "ConfigError", "PairError"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Looked up on demand: `chronoprep --help` needs none of them, and importlib.metadata alone
    # costs a sixth of it.
    if name == "__version__":
        from importlib.metadata import version

        return version("chronoprep")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"chronoprep.{_HOME.get(name, 'workflows')}"), name)
