"""Chats in the form that servers and engines share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chronoprep.data import Chat, Turn

if TYPE_CHECKING:
    from PIL.Image import Image


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
