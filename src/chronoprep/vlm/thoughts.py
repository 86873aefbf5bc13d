"""What of a model's output is its answer, and whether that is whole."""

from __future__ import annotations

import re

# Most families; Kimi-VL; Magistral.
_END = r"(?:</think(?:ing)?>|◁/think▷|\[/THINK\])"
# What engines and servers call an end that the model chose; some say nothing.
_WHOLE = (
    *("stop", "eos", "eos_token", "stop_sequence", "end_turn", "none", ""),
    *("stop_str", "complete", "completed", "finish", "finished", "done", "end"),
)

# A thought that the limit cut has no end; one that the chat template began has no beginning.
_THOUGHT = re.compile(rf"(?:<think(?:ing)?>|◁think▷|\[THINK\]).*?(?:{_END}|\Z)", re.DOTALL)
_BEGUN_IN_THE_PROMPT = re.compile(rf"\A.*?{_END}", re.DOTALL)


def without_thoughts(text: str) -> str:
    """An answer less the thinking before or within it, stripped."""
    return _BEGUN_IN_THE_PROMPT.sub("", _THOUGHT.sub("", text)).strip()


def broken_off(finish_reason: object) -> bool:
    """Whether an answer ended otherwise than by the model: by a limit, an abort, an error, …"""
    return str(finish_reason).lower() not in _WHOLE
