"""What is taken off an answer, and what of it can't be."""

from __future__ import annotations

import re
import unicodedata

# `<|im_end|>`, `<|image_pad|>`, and the sentencepiece-style ones that other families use.
_SPECIAL = re.compile(
    r"(<\|[^<>|]{1,60}\|>"
    r"|</?(?:s|pad|unk|bos|eos|image|video|img|think|answer|tool_call|ref|box|quad|end_of_turn|start_of_turn)>"
    r"|\[/?(?:INST|THINK)\]|◁/?\w{1,20}▷|<</?SYS>>|<0x[0-9A-F]{2}>)"
)
_LONGEST_SPECIAL = 64
# What is left of one that was cut in two.
_BROKEN_SPECIAL = re.compile(r"<\|\w{2,}|\b\w{2,}\|>")
_ROLE = re.compile(
    r"(?:\A|\n)[^\S\n]*(?:assistant|human|system|user)[^\S\n]*[:\n]"
    r"|### ?(?:assistant|human|input|instruction|response|system|user)\s*:",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A```(?:[\w+-]*\n)?((?:(?!```).)*?)\n?```\Z", re.DOTALL)
_EMPHASIS = re.compile(r"\A(\*{1,3}|_{2,3})(?![\s_])([^*]+?)(?<![\s_])\1\Z")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def clean(text: str) -> str:
    """Model text made safe for a prompt and a file.

    Special tokens go (also those that taking one out makes of the halves of another), and so do
    control characters; white space collapses; a code fence, emphasis or a pair of quotes around
    the whole text goes.
    """
    return " ".join(unwrapped(text).split())


def unwrapped(text: str) -> str:
    """`clean`, with the line breaks inside the text still there."""
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    start = 0
    while special := _SPECIAL.search(text, start):
        text = text[: special.start()] + text[special.end() :]
        start = max(0, special.start() - _LONGEST_SPECIAL)
    text = text.strip()
    # Few rounds: inside of a wrapper there is none of its kind.
    while (inner := _without_wrapper(text)) != text:
        text = inner
    return text


def _without_wrapper(text: str) -> str:
    """The text less one fence, emphasis or pair of quotes that encloses all of it."""
    for wrapper, group in ((_FENCE, 1), (_EMPHASIS, 2)):
        if match := wrapper.match(text):
            return match.group(group).strip()
    # Only a pair that encloses everything: `"Hi" becomes "Bye"` keeps its quotes.
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        inner = text[1:-1]
        if text[0] not in inner and text[-1] not in inner:
            return inner.strip()
    return text


def leak(raw: str) -> str | None:
    """A special token, or a turn of the chat, inside the answer. At its edges it is harmless: an
    engine that shows the end token."""
    pieces = _SPECIAL.split(raw)  # text, token, text, …
    said = [i for i in range(0, len(pieces), 2) if pieces[i].strip()]
    if len(said) > 1:
        return pieces[said[0] + 1]
    text = pieces[said[0]].strip() if said else ""
    if broken := _BROKEN_SPECIAL.search(text):
        return broken.group()
    if role := _ROLE.search(text):
        return f"a turn of the chat: {role.group().strip()!r}"
    return "a broken character" if "\ufffd" in text else None
