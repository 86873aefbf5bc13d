"""What speaks against a label, rule by rule. No model, no fitting.

`VERSION` belongs to what the rules give: raise it when one changes, and scores are made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronoprep.data import Completion, Form
from chronoprep.labels.claims import FROM_TO, INTO, Claim, claims_of, unquoted
from chronoprep.labels.claims.quoted import Quoted, quoted, reads
from chronoprep.labels.claims.words import colours_in, phrase
from chronoprep.labels.evidence import Doubt, Evidence
from chronoprep.labels.guard import clean, find_fault, is_no_change
from chronoprep.labels.vocabulary import Spot
from chronoprep.labels.wording import either

if TYPE_CHECKING:
    from chronoprep.images.difference import Difference

VERSION = "6"
Lettering = tuple[list[str], list[str]]  # lines of the source, and of the target
_ROLE = re.compile(r"(?:assistant|system|user)\s+[A-Z]")  # what a special token left behind
_DOTS = re.compile(r"\.{2,}\s*\w")
_AGAIN = re.compile(r"\b(\w+(?: \w+){1,5}),? \1\b", re.IGNORECASE)  # words, and the same again
_STOPS = re.compile(r"[.!?;]+")
_SHORT = 3  # words that say nothing which is understood
_ARTICLES = re.compile(r"\b(?:an?|the) ")
_ENGLISH = Form(english=True)  # the rules read no other language
_LEAST = 0.05  # a lighter doubt is none
_OPPOSITE_KINDS = ({"add", "remove"}, {"blur", "sharpen"})
_OPPOSITE_SENSES = (("brighter", "darker"), ("warmer", "colder"), ("larger", "smaller"))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules have to say of a label.

    Attributes:
        doubts: The weightiest first, at most one a rule.
        edit: The kind of edit that it speaks of first, or "no change"; None where of none.
        places: All places that it names, where each of its edits has one.
        spots: Where something changed, if it is no change of everything.
    """

    doubts: tuple[Doubt, ...]
    edit: str | None
    places: tuple[str, ...]
    spots: tuple[Spot, ...]


def judge(
    caption: str | None, cot: str | None, seen: Difference, lettering: Lettering | None = None
) -> Judgement:
    """Hold a label against what changed between its pictures.

    Args:
        lettering: What is read in both of them where they changed; None where it was not read.
    """
    said = caption or cot or ""
    claims = claims_of(said)
    evidence = Evidence(seen, claims)
    found = [*_degenerate(caption, cot), *_vain(claims), *_open_ended(said, claims)]
    if not claims and not is_no_change(said) and len(said.split()) <= _SHORT:
        found.append(Doubt("degenerate", 0.9, "the text does not say what is edited"))
    found += evidence.no_change() if is_no_change(said) else evidence.of_claims(claims)
    if lettering is not None:
        found += _misread(quoted(said), *lettering)
    if caption and cot:
        found += _against_each_other(claims, claims_of(cot))
    strongest: dict[str, Doubt] = {}
    for doubt in found:
        known = strongest.get(doubt.rule)
        if doubt.weight > (known.weight if known else _LEAST):
            strongest[doubt.rule] = doubt
    doubts = tuple(sorted(strongest.values(), key=lambda doubt: -doubt.weight))
    places: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()
    local = [claim for claim in claims if claim.scope == "part"]
    if (evidence.local or evidence.behind) and all(claim.places for claim in local):
        places = tuple(str(p) for claim in local for p in (*claim.origin, *claim.places))
        spots = tuple(
            Spot(*r.box, r.weight, r.share if evidence.differs(r) else 0.0) for r in evidence.main
        )
    edit = "no change" if is_no_change(said) else claims[0].kind if claims else None
    return Judgement(doubts, edit, places, spots)


def _degenerate(caption: str | None, cot: str | None) -> Iterator[Doubt]:
    for text in filter(None, (caption, cot)):
        if text == caption and is_no_change(text):
            continue
        fault = find_fault(Completion(text, 0, truncated=False), _ENGLISH)
        if fault is not None and fault.name == "language":
            yield Doubt(
                "language", 0.6, f"not in English, so that it can't be judged: {fault.detail}"
            )
        elif fault is not None:
            yield Doubt("degenerate", 1.0, f"the text is degenerate: {fault}")
        elif _ROLE.match(text):
            yield Doubt("degenerate", 0.9, "the text begins with a role of the chat")
        elif again := _repeated(unquoted(text)):
            yield Doubt("degenerate", 0.7, f"the text repeats itself: {again!r}")
        elif _DOTS.search(unquoted(text)):
            yield Doubt("degenerate", 0.8, "the text breaks off and goes on")
        elif clean(text) != " ".join(text.split()):
            yield Doubt("degenerate", 0.9, "the text has around it what is no part of it")


def _repeated(text: str) -> str | None:
    """Words that come twice in a row, or a sentence that comes twice."""
    if again := _AGAIN.search(text):
        return again.group()
    sentences = [part.strip().lower() for part in _STOPS.split(text)]
    return next((s for s in sentences if len(s.split()) > _SHORT and sentences.count(s) > 1), None)


def _open_ended(text: str, claims: Sequence[Claim]) -> Iterator[Doubt]:
    """Against edits of which it is not said what comes of them: "change the background". A part of
    the sentence is missing, or the editor has to guess."""
    if phrase("so that").search(text.lower()):
        return
    for claim in claims:
        if claim.kind == "move":
            open_ended = not phrase("goal").search(claim.text)
        elif claim.kind in ("background", "recolour", "replace", "change"):
            asked = phrase("to something").match(claim.text)
            told = phrase("result").search(claim.text) or claim.after or claim.senses
            open_ended = bool(asked and not told)
        else:
            continue
        if open_ended:
            yield Doubt("open-ended", 0.4, f"does not say what comes of it: {claim.text!r}")


def _vain(claims: Sequence[Claim]) -> Iterator[Doubt]:
    """Against edits that leave all as it is: "recolour the black square black"."""
    for claim in claims:
        text = _ARTICLES.sub("", claim.text)
        halves: list[Sequence[str]] = []
        if match := FROM_TO.search(text):
            halves = [match.groups()]
        elif claim.kind in ("replace", "recolour"):
            halves = [INTO.split(text.partition(" ")[2])]
            said = colours_in(text)
            if claim.kind == "recolour" and not any(colour.noun for colour in said[1:]):
                halves.append([text[colour.start : colour.end] for colour in said])
        if any(len(two) == 2 and two[0].strip() == two[1].strip() for two in halves):
            yield Doubt("vain", 0.9, f"says that it becomes what it was: {claim.text!r}")


def _misread(said: Quoted, source: list[str], target: list[str]) -> Iterator[Doubt]:
    """Against lettering that is quoted, where other lettering is read."""
    sides = (
        (said.after, "target", target, source, "becomes"),
        (said.before, "source", source, target, "was"),
    )
    for words, side, here, there, verb in sides:
        for word in words:
            if reads(word, here) or not (here or reads(word, there)):
                continue  # right; or there is nothing legible
            other = f"{' / '.join(here)[:60]!r} was read" if here else "nothing was read"
            swapped = ", and it was read in the other image" if reads(word, there) else ""
            weight = 0.9 if swapped else 0.7
            yield Doubt(
                "lettering", weight,
                f"says that the lettering {verb} {word!r}; {other} in the {side}{swapped}",
            )  # fmt: skip


def _against_each_other(caption: Sequence[Claim], cot: Sequence[Claim]) -> Iterator[Doubt]:
    """The caption against the chain of thought that was made of it."""
    if not caption or not cot:
        return
    for name, one, other in (
        ("new colour", _union(c.after for c in caption), _union(c.after for c in cot)),
        ("old colour", _union(c.before for c in caption), _union(c.before for c in cot)),
    ):
        if one and other and not one & other:
            yield Doubt(
                "caption and CoT", 0.9,
                f"the caption's {name} is {either(one)}, the CoT's {either(other)}",
            )  # fmt: skip
    kinds, others = {c.kind for c in caption}, {c.kind for c in cot}
    for pair in _OPPOSITE_KINDS:
        if len(kinds & pair) == len(others & pair) == 1 and kinds & pair != others & pair:
            yield Doubt(
                "caption and CoT", 0.9,
                f"the caption says {either(kinds & pair)}, the CoT says {either(others & pair)}",
            )  # fmt: skip
    senses, other_senses = _union(c.senses for c in caption), _union(c.senses for c in cot)
    for less, more in _OPPOSITE_SENSES:
        for one_way, back in ((less, more), (more, less)):
            if one_way in senses - other_senses and back in other_senses - senses:
                yield Doubt(
                    "caption and CoT", 0.9, f"the caption says {one_way}, the CoT says {back}"
                )
    places = {p for c in caption for p in c.places}
    cot_places = {p for c in cot for p in c.places}
    if places and cot_places and not any(p.meets(q) for p in places for q in cot_places):
        yield Doubt(
            "caption and CoT", 0.9,
            f"the caption says {either(map(str, places))}, the CoT {either(map(str, cot_places))}",
        )  # fmt: skip


def _union(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*parts)
