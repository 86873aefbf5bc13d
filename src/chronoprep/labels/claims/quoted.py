"""Lettering that a label quotes: "change the sign from 'CLOSED' to 'OPEN'"."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

_QUOTE = re.compile(r'"([^"\n]{1,80})"|“([^”\n]{1,80})”|(?<!\w)[\'‘]([^\'’\n]{1,80})[\'’](?!\w)')
_CLAUSE = re.compile(r"[;.]\s|, and |\A")
_OF_TEXT = re.compile(
    r"\b(?:text|words?|letters?|lettering|sign|label|caption|title|headline|slogan|logo|inscription"
    r"|says?|saying|reads?|reading|spells?|spelling|writes?|written|writing)\b",
    re.IGNORECASE,
)
_GONE = re.compile(
    r"\b(?:remov\w+|eras\w+|delet\w+|from|instead of|rather than|no longer says?|replac\w+|swap\w*)"
    r"[^'\"“‘]{0,50}\Z",
    re.IGNORECASE,
)
_COME = re.compile(
    r"\b(?:to|into|with|by|for|so that|add\w*|writ\w+|insert\w*|now|instead)\b[^'\"“‘]{0,50}\Z",
    re.IGNORECASE,
)
_LIKE = 0.75  # of two spellings of one word, as OCR reads them


class Quoted(NamedTuple):
    """Lettering that a label says was there, and that it says has come."""

    before: tuple[str, ...]
    after: tuple[str, ...]


def quoted(text: str) -> Quoted:
    """What a label quotes of the lettering that changed; nothing of quotes for other reasons."""
    before, after = list[str](), list[str]()
    if not _OF_TEXT.search(text):
        return Quoted((), ())
    last = 0
    for match in _QUOTE.finditer(text):
        said = text[last : match.start()]
        said = said[max(m.end() for m in _CLAUSE.finditer(said)) :]
        words = next(filter(None, match.groups()))
        come, gone = _COME.search(said), _GONE.search(said)
        if come and (not gone or come.start() > gone.start()):
            after.append(words)
        elif gone:
            before.append(words)
        last = match.end()
    return Quoted(tuple(before), tuple(after))


def reads(words: str, lines: list[str]) -> bool:
    """Whether words stand in lines of lettering, as OCR reads them."""
    wanted, found = _plain(words), _plain("".join(lines))
    if not wanted:
        return True
    parts = [found, *map(_plain, lines)]
    return wanted in found or any(
        SequenceMatcher(None, wanted, part, autojunk=False).ratio() >= _LIKE for part in parts
    )


def _plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
