"""Vision-language models: chats in, texts out.

A backend knows nothing of edits, chain-of-thought or files. Importing this room imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chronoprep.data import GREEDY, Chat, Completion, Sampling
from chronoprep.errors import PairError
from chronoprep.vlm.registry import (
    BACKENDS,
    MODELS,
    ModelSpec,
    check_fits,
    concurrency,
    find,
    load,
    preset,
)

__all__ = [
    "BACKENDS",
    "MODELS",
    "VLM",
    "ModelSpec",
    "check_fits",
    "concurrency",
    "find",
    "load",
    "preset",
]


class VLM(Protocol):
    """A model that answers chats in batches."""

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling = GREEDY
    ) -> Sequence[Completion | PairError]:
        """Answer each chat, in order; one that can't be answered has its error in its place.

        Raises:
            BackendError: When the machine can't go on.
            ValueError: When a chat can't be processed (an extreme aspect ratio, say).
        """
        ...

    def close(self) -> None:
        """Give the model's memory back; what other threads wait for ends with a BackendError."""
        ...
