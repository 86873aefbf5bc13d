"""What of a model's output is its answer, and whether that is whole."""

from __future__ import annotations

import re

# Most families; Kimi-VL; Magistral.
ENDS = ("</think>", "</thinking>", "◁/think▷", "[/THINK]")
"""What ends a thought; a token of its own in most vocabularies."""
_BEGIN = r"(?:<think(?:ing)?>|◁think▷|\[THINK\])"
_END = rf"(?:{'|'.join(map(re.escape, ENDS))})"
# What engines and servers call an end that the model chose; some say nothing.
_WHOLE = (
    *("stop", "eos", "eos_token", "stop_sequence", "end_turn", "none", ""),
    *("stop_str", "complete", "completed", "finish", "finished", "done", "end"),
)

# A thought that the limit cut has no end; one that the chat template began has no beginning.
_THOUGHT = re.compile(rf"{_BEGIN}.*?(?:{_END}|\Z)", re.DOTALL)
_BEGUN_IN_THE_PROMPT = re.compile(rf"\A.*?{_END}", re.DOTALL)
_OPEN = re.compile(rf"{_BEGIN}\s*\Z")


def begins_thought(prompt: str) -> bool:
    """Whether a prompt ends with the beginning of a thought."""
    return _OPEN.search(prompt) is not None


def without_thoughts(text: str, *, begun: bool = False) -> str:
    """An answer less the thinking before or within it, stripped.

    Args:
        begun: Whether it goes on with a thought: without an end to that, there is no answer.
    """
    whole = f"<think>{text}" if begun else text
    return _BEGUN_IN_THE_PROMPT.sub("", _THOUGHT.sub("", whole)).strip()


def broken_off(finish_reason: object) -> bool:
    """Whether an answer ended otherwise than by the model: by a limit, an abort, an error, …"""
    return str(finish_reason).lower() not in _WHOLE
