"""Which backend runs a model where the user leaves that open: the fastest that this machine has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from chronoprep import memory

# A GPU's compute capability that vLLM's kernels are built for, at least.
_LEAST_CAPABILITY = 7.0
# Where vLLM lists the architectures that it runs.
_LISTED = "model_executor/models/registry.py"
# Of a GPU's memory, what vLLM takes for itself unless told otherwise.
_SHARE = 0.9


PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


class Choice(NamedTuple):
    """A backend, and the words that say so to a user."""

    backend: str
    words: str


class Spread(NamedTuple):
    """How a model lies on the GPUs that are here: `data` copies of it, each on `tensor` of them."""

    here: int
    tensor: int
    data: int


def spread(needed: int | None, given: Mapping[str, object]) -> Spread:
    """As many copies as there is room for, each on no more GPUs than it takes, a power of two.

    Args:
        given: The user's arguments of vLLM: whoever says one of these numbers has planned it all.
    """
    sizes, tensor = memory.of_gpus(), 1
    if any(name in given for name in PARALLEL):
        asked = (given.get(name) for name in ("tensor_parallel_size", "data_parallel_size"))
        return Spread(len(sizes), *(one if isinstance(one, int) else 1 for one in asked))
    while 2 * tensor <= len(sizes) and _SHARE * sum(sizes[:tensor]) < (needed or 0):
        tensor *= 2
    return Spread(len(sizes), tensor, max(len(sizes) // tensor, 1))


def choose(config: Mapping[str, object], needed: int | None, device: str) -> Choice:
    """vLLM where it is installed, works with the GPUs that are here and runs such a model; else
    transformers.

    Args:
        config: The model's config.json; empty where it could not be had.
        needed: Bytes of memory that the model takes, if known.
        device: As the settings name it.
    """
    if device != "auto":
        return Choice("transformers", f"by transformers on {device}")
    gpus = memory.of_gpus()
    if not gpus:
        return Choice("transformers", "by transformers, without an NVIDIA GPU")
    obstacle = _obstacle(config, needed, gpus)
    if obstacle is None:
        return Choice("vllm", f"by vLLM on {len(gpus)} GPU{'s' * (len(gpus) > 1)}")
    words = f"by transformers, several times slower than vLLM: {obstacle}"
    if len(gpus) > 1 and needed is not None and needed <= _SHARE * min(gpus):
        words += f"; by --engine ray, each of the {len(gpus)} GPUs has a copy"
    return Choice("transformers", words)


def _obstacle(config: Mapping[str, object], needed: int | None, gpus: list[int]) -> str | None:
    """Why vLLM does not run a model here; None if it does."""
    place = _vllm()
    if place is None:
        return "pip install 'chronoprep[vllm]' would bring it"
    least = memory.least_capability()
    if least is not None and least < _LEAST_CAPABILITY:
        return f"its kernels need compute capability {_LEAST_CAPABILITY}, a GPU here has {least}"
    kinds = config.get("architectures")
    names = kinds if isinstance(kinds, list) else []
    known = (place / _LISTED).read_text(encoding="utf-8") if (place / _LISTED).is_file() else ""
    if not any(f'"{name}"' in known for name in names):
        return f"it does not know {', '.join(map(str, names)) or 'a model without architectures'}"
    if needed is not None and needed > _SHARE * sum(gpus):
        return f"the model's {needed / 1e9:.0f} GB are more than the GPUs hold"
    return None


@cache
def _vllm() -> Path | None:
    """Where vLLM's build for GPUs is installed; builds for processors go by other names."""
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations or version.endswith("+cpu"):
        return None
    return Path(spec.submodule_search_locations[0])
