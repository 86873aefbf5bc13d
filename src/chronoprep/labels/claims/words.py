"""The word lists in the files beside this one, and the colours in a text."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from chronoprep.images import colours

_NOT_OF_THE_THING = r"(?! (?:haired|eyed|skinned|faced|tailed|clad|winged|headed|handed|dressed)\b)"
_NO_NOUN = re.compile(
    r"\A(?:[^\w ]| ?\Z| ?(?:on|onto|in|into|at|to|from|with|by|behind|beside|next|near|between|"
    r"under|above|below|over|and|or|that|which|while|is|are|was|were|has|instead|rather|of|for|so|as|without)\b)"
)
_SAID = re.compile(r"\A (?:colou?red|colou?r|tinted|hued|hue|toned|tones?|shades?)\b")
_TO = re.compile(r"\b(?:to|into|in|from|is|are|now|be|becomes?|turns?|turned) (?:an? )?\Z")
_ARTICLE = re.compile(r"\b(?:an?|the|one|another|this|that|his|her|its|some|fresh|ripe) \Z")


class Colour(NamedTuple):
    """A colour in a text.

    Attributes:
        group: As in `images.colours`.
        noun: Whether a word follows that it may belong to ("the red car").
    """

    group: str
    start: int
    end: int
    noun: bool


class Verb(NamedTuple):
    """A form of a verb.

    Attributes:
        passive: Whether "is" may stand before it ("removed").
    """

    kind: str
    base: str
    passive: bool


@cache
def verbs() -> dict[str, Verb]:
    """All forms of all verbs."""
    forms: dict[str, Verb] = {}
    for line in _lines("verbs"):
        kind, _, listed = line.partition(": ")
        for word in listed.split():
            base, *irregular = word.split("/")
            for form, passive in _forms(base):
                forms.setdefault(form, Verb(kind, base, passive))
            for form in irregular:
                forms[form] = Verb(kind, base, not form.endswith("ing"))
    return forms


def _forms(base: str) -> list[tuple[str, bool]]:
    stem = base[:-1] if base.endswith("e") and not base.endswith("ee") else base
    if re.search(r"[^aeiou][aeiou][bdgmnprt]\Z", base) and base not in ("cover", "alter", "lower"):
        stem = base + base[-1]
    third = base + ("es" if base.endswith(("sh", "ch", "s", "x")) else "s")
    past = stem + "ed"
    if re.search(r"[^aeiou]y\Z", base):
        third, past = base[:-1] + "ies", base[:-1] + "ied"
    return [(base, False), (third, False), (past, True), (stem + "ing", False)]


@cache
def words(name: str) -> frozenset[str]:
    """A list of `lists.txt`."""
    lists = dict(line.split(": ", 1) for line in _lines("lists"))
    return frozenset(lists[name].split())


@cache
def phrase(name: str) -> re.Pattern[str]:
    """A pattern of `phrases.txt`."""
    patterns = dict(line.split(": ", 1) for line in _lines("phrases"))
    return re.compile(patterns[name])


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = (files(__package__) / f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def _names() -> re.Pattern[str]:
    names = sorted(colours.names(), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(names)})\b{_NOT_OF_THE_THING}")


def colours_in(text: str) -> list[Colour]:
    """The colours in a text of lower case without hyphens."""
    found = []
    for match in _names().finditer(text):
        name, before, after = match.group(), text[: match.start()], text[match.end() :]
        noun = _NO_NOUN.match(after) is None
        if not _SAID.match(after) and not (
            (name not in words("things") or (not noun and _TO.search(before[-20:])))
            and (name not in words("either") or noun or not _ARTICLE.search(before[-20:]))
        ):
            continue
        found.append(Colour(colours.names()[name], match.start(), match.end(), noun))
    return found
