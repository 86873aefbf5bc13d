"""What thinking models write before they answer."""

from __future__ import annotations

import re

# Most families; Kimi-VL; Magistral.
_END = r"(?:</think(?:ing)?>|◁/think▷|\[/THINK\])"
# A thought that the limit cut has no end; one that the chat template began has no beginning.
_THOUGHT = re.compile(rf"(?:<think(?:ing)?>|◁think▷|\[THINK\]).*?(?:{_END}|\Z)", re.DOTALL)
_BEGUN_IN_THE_PROMPT = re.compile(rf"\A.*?{_END}", re.DOTALL)


def without_thoughts(text: str) -> str:
    """An answer less the thinking before or within it, stripped."""
    return _BEGUN_IN_THE_PROMPT.sub("", _THOUGHT.sub("", text)).strip()
