"""Vision-language models: chats in, texts out.

A backend knows nothing of edits, chain-of-thought or files. Importing this room imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chronoprep.data import GREEDY, Chat, Completion, Sampling
from chronoprep.vlm.registry import (
    BACKENDS,
    MODELS,
    ModelSpec,
    check_fits,
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
    "find",
    "load",
    "preset",
]


class VLM(Protocol):
    """A model that answers chats in batches."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling = GREEDY) -> list[Completion]:
        """Answer each chat, in order.

        Raises:
            BackendError: When the machine can't go on.
            ValueError: When a chat can't be processed (an extreme aspect ratio, say).
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...
