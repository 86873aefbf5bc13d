"""Claims of two texts on one pair of pictures, held against each other.

What two models say of an edit differs in words: only what can't both be true counts, and the more
the surer it is. Another noun alone is a hint, since one model's car is another one's vehicle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import get_args

from chronoprep.images import colours
from chronoprep.labels.claims.parser import FROM_TO, Claim, Kind, claims_of
from chronoprep.labels.claims.places import Across, Place
from chronoprep.labels.claims.words import verbs
from chronoprep.labels.guard import is_no_change
from chronoprep.labels.scoring import together
from chronoprep.labels.wording import either

_SIDES: dict[Across | None, Across] = {"left": "right", "right": "left"}
_BACK: dict[str, str] = {
    **{"add": "remove", "remove": "add", "blur": "sharpen", "sharpen": "blur"},
    **{"brighter": "darker", "darker": "brighter", "warmer": "colder", "colder": "warmer"},
    **{"larger": "smaller", "smaller": "larger"},
}
# Kinds that may be two views of one edit, and how sure it is that they are not.
_NEAR: dict[frozenset[str], float] = {
    frozenset(pair): weight
    for weight, pairs in (
        (0.0, ("replace recolour", "change recolour", "change replace", "change light",
               "light style", "background light", "background blur", "change resize")),
        (0.25, ("add change", "remove change", "add replace", "remove replace", "move replace",
                "background replace", "background style", "blur style", "recolour light",
                "recolour style", "background change", "style change", "light blur",
                "background recolour", "resize view", "replace resize", "move change")),
        (0.5, ("move add", "move remove", "move resize", "background remove", "background add",
               "add recolour", "remove recolour", "resize recolour", "move recolour")),
    )
    for pair in map(str.split, pairs)
}  # fmt: skip
_OTHER_KIND = 0.8
_OPPOSITE = 1.0
_OTHER_COLOUR, _OTHER_PLACE, _OTHER_FORM, _OTHER_WORDS = 0.9, 0.9, 0.8, 0.35
_UNLIKE_PLACE = 0.6
_LEFT_OVER = 0.6  # a claim without one to hold it against
_HINT = 0.2  # other words, which may be of the same thing
_MOST = 5  # claims that are compared
_LEFT_RIGHT = re.compile(r"\b(?:left|right)(?=most\b|\b)", re.IGNORECASE)
_INTO = re.compile(r"\b(?:into|to|with|by|for)\b")
_STOP = frozenset([
    "the", "a", "an", "and", "or", "of", "in", "on", "at", "to", "from", "with", "by", "for",
    "into", "as", "it", "its", "is", "are", "was", "be", "this", "that", "there", "image",
    "picture", "photo", "scene", "frame", "side", "part", "area", "left", "right", "top",
    "bottom", "upper", "lower", "centre", "center", "middle", "corner", "now", "so", "same",
    "new", "colour", "color", "small", "large", "big", "little", "medium", "one", "tiny", "huge",
    "hand", "edge", "very", "far", "near", "has", "have", "been", "more", "most",
    "much", "less", "background", "backdrop", "shape", "form",
])  # fmt: skip
# Plain forms: what is one of them is none of the others.
_FORMS = frozenset(("circle", "square", "triangle", "star", "ring"))
_SAME = {  # other words for plain forms and patterns
    **{"disc": "circle", "disk": "circle", "dot": "circle", "hoop": "ring", "block": "square"},
    **{"solid": "plain", "stripy": "striped", "stripe": "striped"},
    **{"chequered": "checked", "checkered": "checked"},
}


def mirrored(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims that are true of the pictures flipped left to right."""

    def flipped(places: tuple[Place, ...]) -> tuple[Place, ...]:
        return tuple(Place(_SIDES.get(place.across, place.across), place.down) for place in places)

    return tuple(
        replace(claim, places=flipped(claim.places), origin=flipped(claim.origin))
        for claim in claims
    )


def in_mirror(text: str) -> str:
    """A text on the pictures flipped left to right: every left is a right, whatever it is of."""
    return _LEFT_RIGHT.sub(lambda side: _flipped(side.group()), text)


def _flipped(word: str) -> str:
    other = "right" if word.lower() == "left" else "left"
    return other.upper() if word.isupper() else other.title() if word.istitle() else other


def in_either_order(text: str) -> list[str]:
    """A text, and where it tells two edits, the same with the second one first: which of them a
    model tells first may depend on where they are."""
    first, *others = text.removesuffix(".").split("; ")
    if len(others) != 1 or not first or not others[0]:
        return [text]
    second = others[0][0].upper() + others[0][1:]
    end = "." if text.endswith(".") else ""
    return [text, f"{second}; {first[0].lower()}{first[1:]}{end}"]


def reversed_(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims that are true of the way back, from target to source."""

    def back(claim: Claim) -> Claim:
        kind: Kind = next(k for k in get_args(Kind) if k == _BACK.get(claim.kind, claim.kind))
        senses = frozenset(_BACK.get(sense, sense) for sense in claim.senses)
        turned = replace(
            claim,
            kind=kind,
            before=claim.after,
            after=claim.before,
            senses=senses,
            turned=not claim.turned,
        )
        if claim.kind == "move":
            turned = replace(turned, places=claim.origin, origin=claim.places)
        return turned

    return tuple(map(back, claims))


def contradiction(claims: Sequence[Claim] | None, text: str) -> tuple[float, str] | None:
    """How surely a text and claims on the same pictures can't both be true.

    Args:
        claims: Of a label; None where it says "no change".
        text: What a model says.

    Returns:
        A weight from 0 to 1, and the weightiest reason in words; None where one of both is not
        understood.
    """
    if is_no_change(text):
        return (0.0, "") if claims is None else (1.0, "sees no change")
    others = claims_of(text)
    if claims is None:
        return (1.0, f"sees a change: {text.strip()[:120]!r}")
    if not claims or not others:
        return None
    doubts = _matched(claims[:_MOST], others[:_MOST])
    return together(weight for weight, _ in doubts), max(doubts)[1]


def _matched(claims: Sequence[Claim], others: Sequence[Claim]) -> list[tuple[float, str]]:
    """What speaks against each claim, each held against one of the others so that the least does;
    and against those that are left over."""
    few, many = sorted((claims, others), key=len)
    mine = few is claims
    apart = [[_apart(*((a, b) if mine else (b, a))) for b in many] for a in few]
    best = min(
        permutations(range(len(many)), len(few)),
        key=lambda order: sum(row[at][0] for row, at in zip(apart, order, strict=True)),
    )
    doubts = [row[at] for row, at in zip(apart, best, strict=True)]
    for at, claim in enumerate(many):
        if at not in best:
            said = f"sees also {claim.text!r}" if mine else f"sees nothing of {claim.text!r}"
            doubts.append((_LEFT_OVER * (1.0 if claim.scope == "part" else 0.5), said))
    return doubts


def _apart(one: Claim, other: Claim) -> tuple[float, str]:
    """How surely two claims are of different edits, and why."""
    right, why, most = 1.0, "", 0.0

    def doubt(weight: float, reason: str) -> None:
        nonlocal right, why, most
        right *= 1 - weight
        if weight > most:
            why, most = reason, weight

    if one.kind != other.kind:
        kinds = frozenset((one.kind, other.kind))
        opposite = _BACK.get(one.kind) == other.kind
        weight = _OPPOSITE if opposite else _NEAR.get(kinds, _OTHER_KIND)
        doubt(weight, f"says {other.kind}, not {one.kind}: {other.text!r}")
    for sense in one.senses:
        if _BACK.get(sense) in other.senses - one.senses:
            doubt(_OPPOSITE, f"says {_BACK[sense]}, not {sense}")
    for mine, theirs, what in (
        (one.after, other.after, "new"),
        (one.before, other.before, "old"),
    ):
        if mine and theirs and not mine & theirs:
            doubt(_OTHER_COLOUR, f"the {what} colour is {either(theirs)}, not {either(mine)}")
    for here, there in ((one.places, other.places), (one.origin, other.origin)):
        if here and there and not set(here) & set(there):
            weight = min(_places_apart(p, q) for p in here for q in there)
            said = f"it is {either(there)}, not {either(here)}"
            doubt(weight, said)
    way, back = _way(one), _way(other)[::-1]
    there_and_back = one.origin and (one.origin, one.places) == (other.places, other.origin)
    if there_and_back or (way and way[0] != way[1] and way == back):
        doubt(_OPPOSITE, f"it is the other way round: {other.text!r}")
    things, named = set(_things(one.text)), set(_things(other.text))
    forms, others = things & _FORMS, named & _FORMS
    if forms and others and forms != others:
        doubt(_OTHER_FORM, f"speaks of {other.text!r}")
        return 1 - right, why
    common = len(things & named) / max(1, len(things | named))
    if things != named:
        doubt(_HINT * (1 - common) if common else _OTHER_WORDS, f"speaks of {other.text!r}")
    made, becomes = (set(_things(_result(claim))) for claim in (one, other))
    if common and made and becomes and not made & becomes:
        plain = made & _FORMS and becomes & _FORMS
        weight = _OTHER_FORM if plain else _OTHER_WORDS
        doubt(weight, f"it becomes {_result(other).strip()!r}")
    return 1 - right, why


def _places_apart(one: Place, other: Place) -> float:
    """How surely two places, which differ, are not of one thing."""
    if not one.meets(other):
        return _OTHER_PLACE
    centre = Place("centre", "middle")
    shared = any(a and b for a, b in zip(one, other, strict=True))
    # "left" may be said of a corner, hardly "top" and "left" of the same one.
    return _HINT if shared and centre not in (one, other) else _UNLIKE_PLACE


def _way(claim: Claim) -> tuple[frozenset[str], ...]:
    """The things that a claim names before and after the edit; empty where it names no two."""
    match = FROM_TO.search(claim.text)
    halves = match.groups() if match else _INTO.split(claim.text, maxsplit=1)
    things = [frozenset(_things(half)) for half in halves]
    if len(things) != 2 or not all(things):
        return ()
    return tuple(things) if _outcome_last(claim) else tuple(reversed(things))


def _result(claim: Claim) -> str:
    """What a claim's words say that comes of it."""
    parts = _INTO.split(claim.text)
    return parts[-1] if _outcome_last(claim) else parts[0]


def _outcome_last(claim: Claim) -> bool:
    """Whether a claim's words end with what comes of it; "substitute a star for the ring" does not,
    and neither does the way back from one that does."""
    return claim.text.startswith("substitut") == claim.turned


def _things(text: str) -> list[str]:
    """The words of a claim that may name things, without plural endings, one for each thing."""
    words = re.findall(r"[a-z]{3,}", text)
    found = [
        word.removesuffix("s")
        for word in words
        if word not in _STOP and word not in colours.names() and word not in verbs()
    ]
    return [_SAME.get(word, word) for word in found]
