"""What a compiled decoder asks of its batches: as many rows as ever, in a cache that stays put.

transformers compiles the steps of `generate` by itself when it is given a static cache. Each shape
and, with CUDA graphs, each place in memory is compiled or recorded anew, which takes longer than a
batch; so there is one cache for all of them.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers.cache_utils import StaticCache

from chronoprep.vlm.prefix import Prefix, Prompt

# Tokens by which stage 2 may be longer than stage 1 without a larger cache.
_STAGE_2_ROOM = 512


class FixedCache:
    """The cache of every batch.

    Args:
        config: The model's.
        new_tokens: That each row may grow by, at most.
    """

    def __init__(self, config: Any, new_tokens: int) -> None:
        self._config, self._new_tokens = config.get_text_config(), new_tokens
        self.drop()

    def drop(self) -> None:
        """Give its memory back."""
        self._cache: StaticCache | None = None
        self._rows = self._tokens = 0

    def emptied(self, rows: int, tokens: int) -> StaticCache:
        """The cache without its content, made larger if prompts of so many tokens ask for it."""
        tokens += self._new_tokens
        if self._cache is None or rows > self._rows or tokens > self._tokens:
            self._cache = None  # before there are two
            self._rows = max(rows, self._rows)
            if tokens > self._tokens:
                self._tokens = tokens + _STAGE_2_ROOM
            self._cache = StaticCache(self._config, max_cache_len=self._tokens)
        self._cache.reset()
        return self._cache

    def filled_up(
        self, prompts: list[Prompt], prefix: Prefix | None, rows: list[int] | None
    ) -> tuple[list[Prompt], list[int] | None, list[int]]:
        """Fill a batch up to the rows that there are.

        Args:
            prefix: What the cache holds.
            rows: Where it holds the heads of the prompts; None when it does not.

        Returns:
            As many prompts as there are rows; all rows where they continue what the cache holds,
            else None; and the places of those that were asked.
        """
        if prefix is not None and rows is not None:
            placed = prefix.in_place(prompts, rows, self._tokens - self._new_tokens)
            if placed is not None:
                return placed, list(range(len(placed))), rows
        missing = max(self._rows - len(prompts), 0)
        return prompts + prompts[:1] * missing, None, list(range(len(prompts)))


def compile_config() -> Any:
    """The library's own: CUDA graphs on a GPU. On a CPU it would leave compiling out unasked."""
    config = transformers.CompileConfig()
    setattr(config, "_compile_all_devices", True)  # noqa: B010 (declared as None)
    return config


def why_not(error: Exception) -> str | None:
    """The reason why a model did not compile; None when an error is of another kind."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    return (str(error).strip() or type(error).__name__).splitlines()[0]
