"""Chats in the form that servers and engines share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chronoprep.data import Chat, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


class OfImages(Generic[T]):
    """What is made of an image, once for both stages of a pair: a thread that labels pairs asks
    about the same two images twice in a row.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[Image], T]) -> None:
        self._make = make
        self._last = threading.local()

    def __call__(self, image: Image) -> T:
        known: list[tuple[Image, T]] = getattr(self._last, "known", [])
        for other, made in known:
            if other is image:
                return made
        made = self._make(image)
        self._last.known = [*known[-1:], (image, made)]
        return made


def messages(chat: Chat, image: Callable[[Image], dict[str, Any]]) -> list[dict[str, Any]]:
    """A chat as OpenAI-style messages.

    Args:
        image: The part that stands for an image.
    """
    return [{"role": turn.role, "content": _content(turn, image)} for turn in chat]


def _content(turn: Turn, image: Callable[[Image], dict[str, Any]]) -> str | list[dict[str, Any]]:
    texts = [part for part in turn.parts if isinstance(part, str)]
    if len(texts) == len(turn.parts):
        return "".join(texts)  # some templates take a system prompt in no other form
    return [
        {"type": "text", "text": part} if isinstance(part, str) else image(part)
        for part in turn.parts
    ]
