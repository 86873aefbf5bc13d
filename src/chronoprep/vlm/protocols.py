"""What a loaded model can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from chronoprep.data import GREEDY, Chat, Completion, Likelihood, Picture, Sampling
from chronoprep.errors import PairError


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


@runtime_checkable
class BatchVLM(VLM, Protocol):
    """A model in this process that is fed in batches.

    It may keep what it made of a picture for as long as that lives: the same object again, in a
    later chat, is then not encoded again.
    """

    @property
    def batch_size(self) -> int:
        """Chats that it takes at a time."""
        ...

    def prepare(self, picture: Picture) -> None:
        """Do ahead, in a worker thread, what a picture needs before the model sees it."""
        ...


@runtime_checkable
class ScoringVLM(VLM, Protocol):
    """A model that can tell how likely it is to give an answer that it is told."""

    def likelihoods(
        self, chats: Sequence[Chat], texts: Sequence[str]
    ) -> Sequence[Likelihood | None]:
        """How sure it would be of a text as the answer to each chat; None where it can't tell.

        Raises:
            BackendError, ValueError: As `generate` does.
        """
        ...
