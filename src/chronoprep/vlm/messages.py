"""Chats in the form that servers and engines share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from chronoprep.data import Chat, Picture, Turn

T = TypeVar("T")


def kept(make: Callable[[Picture], T]) -> Callable[[Picture], T]:
    """A function of pictures whose results are kept while these live: both stages show the same."""
    made: WeakKeyDictionary[Picture, T] = WeakKeyDictionary()

    def of(picture: Picture) -> T:
        if picture not in made:
            made[picture] = make(picture)
        return made[picture]

    return of


def messages(chat: Chat, part: Callable[[Picture], dict[str, Any]]) -> list[dict[str, Any]]:
    """A chat as OpenAI-style messages.

    Args:
        part: Makes the part that stands for a picture.
    """
    return [{"role": turn.role, "content": _content(turn, part)} for turn in chat]


def _content(turn: Turn, part: Callable[[Picture], dict[str, Any]]) -> str | list[dict[str, Any]]:
    texts = [p for p in turn.parts if isinstance(p, str)]
    if len(texts) == len(turn.parts):
        return "".join(texts)  # some templates take a system prompt in no other form
    return [{"type": "text", "text": p} if isinstance(p, str) else part(p) for p in turn.parts]
