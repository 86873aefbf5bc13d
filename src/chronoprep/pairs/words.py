"""Words that stand where nothing was written: no caption, and nothing to train on."""

from __future__ import annotations

import re
from collections import Counter

# What programs and people put into an empty cell; without case, and quotes or brackets around it.
_NOTHING = frozenset(
    (
        *("nan", "-nan", "none", "null", "nil", "na", "n/a", "n.a", "n\\a", "nat", "undefined"),
        *("#n/a", "#na", "#null!", "#value!", "#ref!", "#name?", "#div/0!", "1.#ind", "-1.#ind"),
        *("#n/a n/a", "1.#qnan", "-1.#qnan", "unknown", "missing", "empty", "tbd", "todo"),
        *("not available", "not applicable", "no caption", "no prompt", "no text", "no value"),
    )
)
_AROUND = " \t\"'`()[]<>{}“”‘’"
_MARKS = re.compile(r"[\s\-‐-―_.…?*/\\#~=+:;,!|]*")


def text_of(text: str | None, nothings: Counter[str]) -> str | None:
    """A text without space around it; None if it says nothing.

    Args:
        nothings: Counts words for nothing, which somebody may have meant otherwise.
    """
    text = (text or "").strip()
    if not text:
        return None
    if len(text) <= 20 and stands_for_nothing(text):
        nothings[text] += 1
        return None
    return text


def stands_for_nothing(text: str) -> bool:
    """Whether a text is one of the words for nothing, or marks alone."""
    inner = text.strip(_AROUND).casefold()
    return inner in _NOTHING or inner.rstrip(".") in _NOTHING or bool(_MARKS.fullmatch(inner))
