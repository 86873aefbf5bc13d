"""The numbers of a dataset, from its cards in one pass. Of each pair nothing is kept but what knows
its images and its caption again: two numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from chronoprep.data import Finding, Status
from chronoprep.dataset import Text
from chronoprep.errors import cause
from chronoprep.gallery.cards import Card, Provenance, kind_of

UNLABELLED = "unlabelled"
STATUSES = (*get_args(Status), UNLABELLED)
UNTOLD = "not told"  # an edit whose kind the words don't tell
_NICE = (1, 2, 5)


class Made(NamedTuple):
    """What labels were made by."""

    origin: str
    model: str = ""
    revision: str = ""
    prompts: str = ""


class Bin(NamedTuple):
    """A bar of a histogram: how many values lie from `low` up to but without `high`."""

    low: float
    high: float
    size: int


class Spread:
    """How values are spread, as they come.

    Args:
        step: Values are rounded to multiples of it.
    """

    def __init__(self, step: float = 1.0) -> None:
        self.step = step
        self._counts: Counter[int] = Counter()

    def add(self, value: float) -> None:
        self._counts[round(value / self.step)] += 1

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def mean(self) -> float:
        return self.step * sum(at * n for at, n in self._counts.items()) / max(1, len(self))

    def quantile(self, share: float) -> float:
        """The least value that such a share of all values does not exceed; 0 where there are
        none."""
        wanted, seen = share * len(self), 0
        for at in sorted(self._counts):
            seen += self._counts[at]
            if seen >= wanted:
                return at * self.step
        return 0.0

    def above(self, value: float) -> int:
        """How many are larger."""
        return sum(n for at, n in self._counts.items() if at * self.step > value)

    def bins(self, most: int = 24) -> list[Bin]:
        """At most `most` bars of one round width, from the least value to the largest."""
        if not self._counts:
            return []
        low, high = min(self._counts), max(self._counts)
        width = next(width for width in _widths() if high // width - low // width + 1 <= most)
        counts = Counter[int]()
        for at, n in self._counts.items():
            counts[at // width] += n
        return [
            Bin(bar * width * self.step, (bar + 1) * width * self.step, counts[bar])
            for bar in range(low // width, high // width + 1)
        ]

    def as_json(self) -> dict[str, Any]:
        """Its numbers; None where there are no values."""
        if not len(self):
            return {"count": 0}
        return {
            "count": len(self),
            "mean": round(self.mean, 3),
            **{
                name: round(self.quantile(share), 6)
                for name, share in (("least", 0), ("median", 0.5), ("p95", 0.95), ("most", 1))
            },
        }


def _widths() -> Iterator[int]:
    power = 1
    while True:
        yield from (power * nice for nice in _NICE)
        power *= 10


@dataclass
class Numbers:
    """What many cards come to.

    Attributes:
        pairs: All of them; `status` adds up to it, and `edits` to those that have a label.
        verdicts: Of humans, on how many labels.
        made: What the labels were made by.
        suspects, judged: Of verify.
        failures: By cause: the first reason, and how many pairs.
        caption_words, cot_words: Of the labels.
        tokens: Of the prompts, of those whose tokens are known.
        same_images: Pairs whose images an earlier pair has, byte for byte.
        same_words: Pairs whose caption an earlier pair has.
        resolutions: Of the sources that were looked at, as (width, height).
        shifts: How far targets lie off their source, in per cent of the longer side; of those that
            were looked at and that tell.
        looked_at: How many pairs' images were opened.
        first, last: When labels were made, in UTC.
    """

    pairs: int = 0
    status: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    made: Counter[Made] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[str, int]] = field(default_factory=dict)
    suspects: int = 0
    judged: int = 0
    videos: int = 0
    embeddings: int = 0
    listed: int = 0
    same_images: int = 0
    same_words: int = 0
    caption_words: Spread = field(default_factory=Spread)
    cot_words: Spread = field(default_factory=Spread)
    tokens: Spread = field(default_factory=Spread)
    scores: Spread = field(default_factory=lambda: Spread(0.01))
    resolutions: Counter[tuple[int, int]] = field(default_factory=Counter)
    shifts: Spread = field(default_factory=lambda: Spread(0.02))
    looked_at: int = 0
    first: str = ""
    last: str = ""
    _images: set[int] = field(default_factory=set, repr=False)
    _words: set[int] = field(default_factory=set, repr=False)

    def add(self, card: Card, tokens: int | None = None) -> None:
        """Count a pair.

        Args:
            tokens: Of its prompt, where the card does not know.
        """
        self.pairs += 1
        self.status[card.status or UNLABELLED] += 1
        self.videos += card.has_video
        self.embeddings += card.tokens is not None
        self.listed += card.listed
        self.suspects += card.suspect
        self.same_images += _seen(self._images, card.images)
        if card.verdict is not None:
            self.verdicts[card.verdict] += 1
        if card.score is not None:
            self.judged += 1
            self.scores.add(card.score)
        if card.status == "failed" and card.failure is not None:
            why = cause(card.failure, card.key)
            first, before = self.failures.get(why, (card.failure, 0))
            self.failures[why] = (first, before + 1)
        self.find(card.findings)
        text = Text(card.caption, card.cot)
        if not any(text):
            return
        if card.provenance is not None:
            self._note(card.provenance)
        self.edits[card.edit or kind_of(text) or UNTOLD] += 1
        if card.status == "no_change":
            return
        if card.caption is not None:
            self.caption_words.add(len(card.caption.split()))
            self.same_words += _seen(self._words, card.caption.casefold())
        if card.cot is not None:
            self.cot_words.add(len(card.cot.split()))
        known = card.tokens if card.tokens is not None else tokens
        if known is not None:
            self.tokens.add(known)

    def _note(self, by: Provenance) -> None:
        prompts = ", ".join(by.prompts)
        self.made[Made(by.origin, by.model or "", by.revision or "", prompts)] += 1
        if by.time is not None:
            self.first, self.last = min(self.first or by.time, by.time), max(self.last, by.time)

    def find(self, findings: Iterable[Finding]) -> None:
        """Count what was found."""
        self.findings.update(finding.code for finding in findings)

    def look(self, size: tuple[int, int], shift: tuple[float, float] | None) -> None:
        """Count a pair whose images were opened.

        Args:
            size: Of its source.
            shift: How far its target lies off, right and down, in pixels of the source; None where
                the two are too unlike to tell.
        """
        self.looked_at += 1
        self.resolutions[size] += 1
        if shift is not None:
            self.shifts.add(100 * math.hypot(*shift) / max(size))

    def as_json(self) -> dict[str, Any]:
        """All of them, for a program."""
        return {
            "pairs": self.pairs,
            "status": {name: self.status[name] for name in STATUSES},
            "verdicts": dict(self.verdicts.most_common()),
            "verified": {"judged": self.judged, "suspects": self.suspects},
            "edits": dict(self.edits.most_common()),
            "made": [{**made._asdict(), "pairs": count} for made, count in self.made.most_common()],
            "labelled": {"first": self.first or None, "last": self.last or None},
            "failures": [{"reason": reason, "pairs": count} for reason, count in self.causes()],
            "findings": dict(self.findings.most_common()),
            "videos": self.videos,
            "embeddings": self.embeddings,
            "listed": self.listed,
            "duplicates": {"images": self.same_images, "captions": self.same_words},
            "caption_words": self.caption_words.as_json(),
            "cot_words": self.cot_words.as_json(),
            "tokens": self.tokens.as_json(),
            "scores": self.scores.as_json(),
            "looked_at": self.looked_at,
            "resolutions": {
                f"{width}x{height}": count
                for (width, height), count in self.resolutions.most_common()
            },
            "shift_percent": self.shifts.as_json(),
        }

    def causes(self) -> list[tuple[str, int]]:
        """Why pairs failed, the most frequent cause first."""
        return sorted(self.failures.values(), key=lambda failed: -failed[1])


def _seen(known: set[int], what: str | None) -> bool:
    """Whether a text was there before; it is from now on."""
    if what is None:
        return False
    name = hash(what)
    before = name in known
    known.add(name)
    return before
