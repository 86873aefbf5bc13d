"""How many pairs a batch holds: counted from the model's shape at first, then measured.

A decoding step of a GPU costs nearly the same whatever the batch, so the batch that memory holds is
the fastest. The keys and values of its prompts take most of it; what the prefill computes is
bounded, for it runs in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil
import torch
import transformers

MOST_PAIRS = 512  # a run loses little when it stops
MOST_PAIRS_ON_CPU = 16  # which is busy with so many
# Two pictures of a megapixel, their prompt and the answer.
_TOKENS_A_PAIR = 3072
# Keys and values are copied where they grow, or where some of a batch go on and others don't.
_COPIES = 1.3
_SHARE = 0.9  # of the memory that is free beside the weights: its pieces never fit without gaps
# Tokens of a batch that the prefill computes at a time: enough to keep any card busy.
PIECE = 32_768
# Older ones would leave the pictures of a prompt in pieces out.
_PIECES = tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23)
_LEAST_MEASURED = 4  # pairs, of which a measurement says something about more


class Level(NamedTuple):
    """Bytes on a device: taken before any batch, at the peak of one, and at most."""

    before: int
    peak: int
    most: int


class Batches:
    """The size of batches.

    Args:
        model: On its devices.
        asked: By the user, who is not corrected but where memory runs out.

    Attributes:
        size: Pairs a batch.
    """

    def __init__(self, model: Any, asked: int | None) -> None:
        self._measures = asked is None and model.device.type == "cuda"
        self._most = MOST_PAIRS if model.device.type == "cuda" else MOST_PAIRS_ON_CPU
        self._before: list[int] = []
        if self._measures:
            self._before = [torch.cuda.memory_allocated(i) for i in _devices()]
        self.size = asked or min(self._most, _counted(model))

    def begin(self) -> None:
        """A batch begins."""
        for device in _devices() if self._measures else ():
            torch.cuda.reset_peak_memory_stats(device)

    def done(self, pairs: int) -> None:
        """A batch of so many pairs was within the memory: how much of it, decides the next."""
        if self._measures:
            levels = [
                Level(before, torch.cuda.max_memory_allocated(i), _most(i))
                for i, before in zip(_devices(), self._before, strict=True)
            ]
            self.size = min(self._most, measured(levels, pairs, self.size))

    def too_large(self, pairs: int) -> None:
        """A batch was not: half of it from now on, and never again as many."""
        self.size = self._most = max(1, pairs // 2)


def measured(levels: Sequence[Level], pairs: int, size: int) -> int:
    """The size of batches after one of so many pairs took what it took: up to twice as many.

    It never falls: what fitted will fit, since large pictures come first, and a batch's second
    stage goes on from all of its first.
    """
    if pairs < _LEAST_MEASURED:
        return size
    fits = [
        int(_SHARE * (level.most - level.before) * pairs / (level.peak - level.before))
        for level in levels
        if level.peak > level.before
    ]
    return max(size, min(2 * pairs, *fits)) if fits else size


def piece(rows: int, tokens: int) -> int | None:
    """How many tokens of each row a prefill computes at a time; None for all of them at once."""
    return max(1, PIECE // rows) if _PIECES and rows * tokens > PIECE else None


def _counted(model: Any) -> int:
    """How many pairs the memory holds that is free beside the weights; one at least."""
    text = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kinds = list(getattr(text, "layer_types", None) or ())
    layers = text.num_hidden_layers - kinds.count("linear_attention")  # whose state does not grow
    kept = 2 * layers * text.num_key_value_heads * width
    inner = getattr(text, "intermediate_size", None) or 0
    if experts := getattr(text, "num_experts_per_tok", None):
        inner = experts * text.moe_intermediate_size
    computed = 4 * text.hidden_size + 2 * inner
    tokens = _free(model) / model.dtype.itemsize / _TOKENS_A_PAIR
    pairs = tokens / (_COPIES * kept + computed)
    if _PIECES:
        in_a_piece = PIECE / _TOKENS_A_PAIR
        pairs = max(min(pairs, in_a_piece), (tokens - in_a_piece * computed) / (_COPIES * kept))
    return max(1, int(pairs))


def _free(model: Any) -> int:
    if model.device.type != "cuda":
        return int(psutil.virtual_memory().available)
    return int(_SHARE * sum(torch.cuda.mem_get_info(i)[0] for i in _devices()))


def _most(device: int) -> int:
    """Bytes that this process may have on a device: what it has, and what nobody does."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device))


def _devices() -> range:
    return range(torch.cuda.device_count())
