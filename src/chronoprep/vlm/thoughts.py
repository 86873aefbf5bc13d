"""What thinking models write before they answer."""

from __future__ import annotations

import re

# A thought that the limit cut has no end; one that the chat template began has no beginning.
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_BEGUN_IN_THE_PROMPT = re.compile(r"\A.*?</think>", re.DOTALL)


def without_thoughts(text: str) -> str:
    """An answer less the thinking before or within it, stripped."""
    return _BEGUN_IN_THE_PROMPT.sub("", _THOUGHT.sub("", text)).strip()
