"""From text to claims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from chronoprep.images import colours
from chronoprep.labels.claims.places import Finder, Place
from chronoprep.labels.claims.words import Colour, Verb, colours_in, phrase, verbs, words
from chronoprep.labels.guard import is_no_change

Kind = Literal[
    "add", "remove", "replace", "recolour", "move", "resize", "background", "style", "light",
    "blur", "sharpen", "view", "change",
]  # fmt: skip
Scope = Literal["part", "background", "whole"]

_LONGEST = 2000  # characters that are read; no instruction is longer
_CAPTION = (
    45  # words; of what is longer and has several sentences, the first one is the instruction
)
_SENSES = ("brighter", "darker", "warmer", "colder", "larger", "smaller", "grey")
_OF_A_THING = ("add", "remove", "replace", "recolour", "move", "resize", "change")
_ARTICLE = r"(?:the|an?|his|her|its|their|all|both|some|two|three|another|one|this|that|every|each)"
_AUXILIARY = re.compile(r"\b(?:is|are|was|were|been|being|be|gets?|got)(?: \w+ly| now| also)? \Z")
_HAS = re.compile(r"\b(?:has|have)(?: now| also)? \Z")  # "has moved"
_ASIDE = re.compile(r"\A(?:up |down )?(?:in|on|at|near|along) [^,]{1,60}, ")
_QUOTED = re.compile(r'"[^"\n]{0,300}"|“[^”\n]{0,300}”|(?<!\w)\'[^\'\n]{1,80}\'(?!\w)')
_SENTENCE = re.compile(r"(?<=[\w)\"'])[.!?](?:\s|\Z)")
FROM_TO = re.compile(r"\bfrom (.{1,70}?) (?:in)?to (.{1,70})")
_FROM = re.compile(r"\bfrom (?:the )?\Z")
_INSTEAD = re.compile(r",? (?:instead of|rather than|in place of|as opposed to) ")
_AND = re.compile(r",? (?:and|plus|as well as|along with) (?=(?:an?|another|one|two|three|the) )")
_HOLDS = re.compile(r"\b(?:with|of|between|wearing|in an?|both|from)\b")
INTO = re.compile(r" (?:with|by|for|into|to) ")
_INTO_A = re.compile(r" (?:into|to) an? ")
_TO_COLOUR = re.compile(r" (?:to|into|in) (?=(?:\w+,? ){0,3}?\w)")
_EFFECT = re.compile(
    r"\b(?:filter|tint|vignette|vignetting|glow|contrast|grain|effect|haze|fog|brightness|"
    r"saturation|lighting|warmth|shadows?|highlights?|noise)\b"
)
_TONES = re.compile(r"\b(?:colou?rs|tones?|hues?|temperature|palette|white balance)\b")
_INDEFINITE = re.compile(r"(?:an?|another|one|two|three|there (?:is|are)) ")
_LIES = re.compile(r"\b(?:lies?|sits?|stands?|floats?|hovers?|rests?|hangs?)\b")
_LETTERS = re.compile(r"\A (?:letters?|lettering|text|font|characters|ink|capitals)\b")
_NOW = re.compile(r"\b(?:now|becomes?|instead|turned|turns|changed|changes|(?:goes|went) from)\b")


@dataclass(frozen=True, slots=True)
class Claim:
    """One edit that a text speaks of.

    Attributes:
        text: Its words.
        places: Where the edited thing is, or comes to be.
        origin: Where it was, of a move from place to place.
        before, after: Groups of colours that the thing is said to have.
        senses: "brighter", "darker", "warmer", "colder", "larger", "smaller", "grey".
        scope: What it concerns.
        turned: Whether it is the way back from what its words say.
    """

    kind: Kind
    text: str
    places: tuple[Place, ...] = ()
    origin: tuple[Place, ...] = ()
    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    senses: frozenset[str] = frozenset()
    scope: Scope = "part"
    turned: bool = False


def claims_of(text: str) -> tuple[Claim, ...]:
    """What a label claims; nothing where it says "no change", or nothing that is understood.

    Of a long text of several sentences the first one counts that claims something.
    """
    if is_no_change(text):
        return ()
    sentences = [part for part in _SENTENCE.split(_plain(text[:_LONGEST])) if part.strip()]
    long = len(sentences) > 1 and sum(len(part.split()) for part in sentences) > _CAPTION
    claims: list[Claim] = []
    for sentence in sentences:
        claims += _of_sentence(sentence)
        if long and claims:
            break
    return tuple(claims)


def unquoted(text: str) -> str:
    """A text without the words in its quotes; straight apostrophes."""
    return _QUOTED.sub('""', text.replace("’", "'"))


def _plain(text: str) -> str:
    """In lower case, without hyphens and quoted words; straight apostrophes."""
    text = unquoted(text).lower()
    return re.sub(r"\s+", " ", re.sub(r"(?<=\w)[-‐‑–](?=\w)", " ", text)).strip()


@cache
def _finder() -> Finder:
    return Finder(frozenset(colours.names()))


@cache
def _breaks() -> re.Pattern[str]:
    """What stands between two clauses."""
    nouns = words("nouns too")
    sure: list[str] = []
    unsure: list[str] = []
    for form, verb in verbs().items():
        if not verb.passive:
            (unsure if verb.base in nouns else sure).append(form)
    way = r"(?: up| down| out| off| back)?"
    does = rf"(?:(?:{'|'.join(sure)})\b|(?:{'|'.join(unsure)}){way} {_ARTICLE}\b)"
    state = (
        r"(?:(?:up |down )?(?:in|on|at|near) [^,;]{1,60}, )?"
        r"(?:the|an?|her|his|its|their) [^,;]{1,70} "
        r"(?:is|are|has|have|becomes?|turns?|appears?|stays?|remains?)\b"
    )
    rest = (
        r"(?:everything|the rest|all (?:other|else|the)|nothing|no other|"
        r"with (?:everything|no|the rest))\b"
    )
    joint = r"(?:and then|and|then|but|while|whilst|as well as|plus)"
    return re.compile(
        rf"[;:]+ ?|,? {joint}(?: also| then| finally| to| now| only)* (?={does})"
        rf"|,? (?:and|but|while|whilst) (?={state}|{rest})|, (?={does}|{rest})"
    )


def _of_sentence(sentence: str) -> Iterator[Claim]:
    for _ in range(2):
        sentence = phrase("opening").sub("", sentence.strip(), count=1)
    sentence = phrase("aside").sub("", sentence)
    before: Verb | None = None
    for piece in _breaks().split(sentence):
        clause = re.split(r",? (?:while|whilst) ", piece.strip(" ,.!"))[0]
        if not clause or phrase("stays").search(clause):
            continue
        verb, at = _verb(clause)
        if verb is not None and verb.kind == "keep":
            continue
        kind = _kind(clause, verb, at)
        goes_on = verb is None and _INDEFINITE.match(clause)  # "...; a red one on the left"
        if kind is None and goes_on and before is not None and before.kind in ("add", "remove"):
            kind, verb = cast(Kind, before.kind), before
        if kind is None or (kind in _OF_A_THING and _names_nothing(clause, at)):
            continue
        before = verb
        for part in _objects(clause) if kind in ("add", "remove") else (clause,):
            yield _claim(part, kind, verb, at if part.startswith(clause[:12]) else None)


def _names_nothing(clause: str, at: tuple[int, int] | None) -> bool:
    """Whether a clause has no word for what is edited: "Change left"."""
    if at is None:
        return False
    rest = f"{clause[: at[0]]} {clause[at[1] :]}"
    return not set(re.findall(r"\w+|\"", rest)) - words("name nothing")


def _verb(clause: str) -> tuple[Verb | None, tuple[int, int] | None]:
    """The verb of a clause, and where it stands."""
    first = re.match(r"(?:\w+ly |now |then |also |to )?(\w+)", clause)
    if first and (verb := verbs().get(first.group(1))) and not verb.passive:
        return verb, first.span(1)
    for match in re.finditer(r"\w+", clause):
        verb = verbs().get(match.group())
        if verb is None:
            continue
        if verb.passive and _AUXILIARY.search(clause[: match.start()][-24:]):
            return verb, match.span()
        alone = verb.kind == "move" or verb.base in words("by itself")
        if alone and verb.passive and _HAS.search(clause[: match.start()][-24:]):
            return verb, match.span()
        noun = verb.base in words("nouns too") - {"change"} or verb.kind in (
            "light",
            "style",
            "blur",
        )
        if match.group().endswith("s") and match.start() and not noun:
            return verb, match.span()
    return None, None


def _objects(clause: str) -> Iterator[str]:
    """The clause by each of the things that it names."""
    first, *others = _AND.split(clause)
    if others and _HOLDS.search(first):
        yield clause
    else:
        yield first
        yield from others


def _kind(clause: str, verb: Verb | None, at: tuple[int, int] | None) -> Kind | None:
    """What kind of edit a clause speaks of; None where of none."""
    said = verb.kind if verb is not None else None
    loose = said in (None, "change")
    head = _head(clause, at)
    if said in ("view", "style", "sharpen", "blur"):
        return cast(Kind, said)
    if said != "light" and phrase("style").search(clause):
        return "style"
    if loose and phrase("gone").search(clause):
        return "remove"
    effect = said in ("add", "remove", "move", "recolour", "change") and _EFFECT.search(head)
    if loose or effect:
        kinds: tuple[Kind, ...] = ("view", "sharpen", "blur")
        for kind in kinds:
            if phrase(kind).search(clause) and not _new_colours(clause):
                return kind
    if said in ("change", "move") and _TONES.search(clause) and phrase("whole").search(clause):
        return "light"
    if phrase("background").search(head) and said not in ("add", "move", "resize", "light"):
        return "background"
    if effect and said != "change":
        return "light"
    if said in ("add", "remove", "replace", "recolour", "move", "resize", "light"):
        return cast(Kind, said)
    if (
        verb is not None
        and verb.base in ("give", "dress")
        and colours_in(clause)[-1:]
        and (colours_in(clause)[-1].noun)
    ):
        return "change"
    if _new_colours(clause) and (said == "change" or _NOW.search(clause)):
        return "replace" if said == "change" and _another_thing(clause) else "recolour"
    if phrase("there").search(clause):
        return "add"
    if verb is None and _INDEFINITE.match(clause) and _LIES.search(clause):
        return "add"
    if any(phrase(sense).search(clause) for sense in ("larger", "smaller")):
        return "resize"
    if any(phrase(s).search(clause) for s in ("brighter", "darker", "warmer", "colder", "light")):
        return "light"
    if phrase("reads").search(clause):
        return "change"
    if said == "change":
        return "replace" if INTO.search(clause) else "change"
    return None


def _another_thing(clause: str) -> bool:
    """Whether a clause says that a thing becomes one of another name: "turn the red ring into a red
    star", and not "turn the car into a green one"."""
    match = _INTO_A.search(clause)
    if match is None:
        return False
    noun = re.findall(r"\w+", phrase("after noun").split(clause[match.end() :], maxsplit=1)[0])[-1:]
    before = re.findall(r"\w+", clause[: match.start()])
    return bool(noun) and not {*noun} & (words("no thing") | {*before} | {*colours.names()})


def _head(clause: str, at: tuple[int, int] | None) -> str:
    """The words of the thing that is edited, without what only tells where it is."""
    if at is not None and (at[0] < 12 or phrase("there").search(clause)):
        thing = clause[at[1] :]
    elif at is not None:
        thing = clause[: at[0]]
    else:
        thing = clause
    return phrase("after noun").split(_ASIDE.sub("", thing).strip(), maxsplit=1)[0]


def _groups(found: Iterable[Colour]) -> frozenset[str]:
    return frozenset(colour.group for colour in found)


def _new_colours(clause: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """The old and the new colours, where a clause says what colour a thing takes on."""
    if (match := FROM_TO.search(clause)) is not None:
        old, new = (
            _groups(colours_in(phrase("after noun").split(part, maxsplit=1)[0]))
            for part in match.groups()
        )
        if old or new:
            return old, new
    if (match := _INSTEAD.search(clause)) is not None:
        left, right = clause[: match.start()], clause[match.end() :]
        old = _groups(colours_in(phrase("after noun").split(right, maxsplit=1)[0]))
        named = colours_in(left)
        if old and named:
            return old, _groups(named[-1:])
    for match in _TO_COLOUR.finditer(clause):
        start = match.end()
        tail = clause[start:]
        named = colours_in(clause[start - 4 :])  # what stands before a colour tells what it is
        near = [colour for colour in named if colour.start <= 4 + 24]
        noun = phrase("after noun").split(tail, maxsplit=1)[0]
        near = [colour for colour in near if colour.end <= 4 + len(noun)]
        is_in = match.group().strip() == "in"
        if near and not (is_in and near[0].noun):
            old = _groups(colours_in(_head_of_left(clause[: match.start()])))
            return old, _groups(near)
    said = [colour for colour in colours_in(clause) if not colour.noun]
    if said:
        last = said[-1]
        head = colours_in(_head_of_left(clause[: last.start]))
        return _groups(colour for colour in head if colour.noun), frozenset({last.group})
    return None


def _head_of_left(text: str) -> str:
    """A thing's own words, of all that stands before its new colour."""
    first = re.match(r"(?:\w+ly |now |then |also |to )?(\w+) ", text)
    if first and (verb := verbs().get(first.group(1))) and not verb.passive:
        text = text[first.end() :]
    return phrase("after noun").split(text, maxsplit=1)[0]


def _claim(clause: str, kind: Kind, verb: Verb | None, at: tuple[int, int] | None) -> Claim:
    found = _finder().find(clause)
    from_there = [
        f.place
        for f in found
        if clause.startswith("from ", f.start) or _FROM.search(clause[: f.start])
    ]
    origin = tuple(from_there) if kind == "move" else ()
    places = tuple(f.place for f in found if not (origin and f.place in origin))
    old, new = _colours(clause, kind, verb, at)
    head = _head(clause, at)
    scope: Scope = "part"
    if kind == "background" or (phrase("background").search(head) and kind in ("blur", "light")):
        scope = "background"
    elif phrase("whole").search(head) and not places:
        scope = "whole"
    senses = frozenset(sense for sense in _SENSES if phrase(sense).search(clause))
    if phrase("coloured").search(clause):
        senses -= {"grey"}
    return Claim(kind, clause, places, origin, old, new, senses, scope)


def _colours(
    clause: str, kind: Kind, verb: Verb | None, at: tuple[int, int] | None
) -> tuple[frozenset[str], frozenset[str]]:
    none: frozenset[str] = frozenset()
    if kind in ("light", "style", "view", "blur", "sharpen"):
        return none, none
    head = _groups(colours_in(_head(clause, at)))
    if kind == "add":
        text = [c for c in colours_in(clause) if _LETTERS.match(clause[c.end :])]
        return none, _groups(text) or head
    if kind in ("remove", "move", "resize"):
        return head, none
    if kind in ("recolour", "background"):
        if (said := _new_colours(clause)) is not None:
            return said
        if kind == "recolour":
            return none, _groups(colours_in(clause)[-1:])
    parts = INTO.split(clause, maxsplit=1) if kind != "change" else [clause]
    if len(parts) == 2:
        right = phrase("after noun").split(parts[1], maxsplit=1)[0]
        return head, _groups(colours_in(right))
    if verb is not None and verb.base in ("give", "dress"):
        return none, _groups(colours_in(clause)[-1:])
    return none, none
