"""What a list of pairs is filtered and ordered by, in columns: 100,000 pairs take milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from chronoprep.data import Status
from chronoprep.dataset import State
from chronoprep.dataset.events import Verdict
from chronoprep.digest import of_text
from chronoprep.gallery.cards import Judged

Array = np.ndarray[Any, Any]
Show = Literal["suspects", "open", "all", "accept", "edit", "reject", "failed", "unlabelled"]
Order = Literal["worst", "key", "random"]

_BARS = 40  # of the histogram
_MOST_RULES = 64  # names of findings that are told apart: bits of a number
_VERDICTS = ["", *get_args(Verdict)]
_STATUSES = ["", *get_args(Status)]


@dataclass(frozen=True, slots=True)
class Query:
    """Which pairs, and in which order.

    Attributes:
        show: By what became of them.
        order: `random` is the same on every day, and a fair sample from its start.
        kind: Of edit.
        finding: A rule of verify that speaks against the label.
        text: Stands in the key, the caption or the CoT, in upper or lower case.
        above: The score from which on labels are suspects, in place of verify's own threshold.
    """

    show: Show = "all"
    order: Order = "worst"
    kind: str | None = None
    finding: str | None = None
    text: str = ""
    above: float | None = None


class Columns:
    """The pairs of a dataset in columns, by row.

    Args:
        keys: Of the pairs, in the index's order.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        self.row = {key: row for row, key in enumerate(self.keys)}
        count = len(self.keys)
        self.score = np.full(count, np.nan, np.float32)
        self.percentile = np.full(count, np.nan, np.float32)
        self.doubted = np.zeros(count, bool)
        self.judged = np.zeros(count, bool)  # by some rules, the text as it is now
        self.text = np.zeros(count, np.int64)  # which one that is
        self.scored = np.zeros(count, np.int64)  # which one the score is of
        self.verdict = np.zeros(count, np.uint8)
        self.status = np.zeros(count, np.uint8)
        self.kind = np.zeros(count, np.uint16)
        self.findings = np.zeros(count, np.uint64)
        self.words = [""] * count
        self.kinds = [""]
        self.rules: list[str] = []
        self.by_key = np.argsort(np.array(self.keys)) if count else np.zeros(0, np.int64)
        drawn = np.array([int(of_text(key, 4), 16) for key in self.keys], np.uint32)
        self._orders = {"key": self.by_key, "random": np.argsort(drawn, kind="stable")}
        self._sort_by_score()

    def take_verdicts(self, verdicts: Mapping[str, Judged]) -> None:
        """Take over what verify says of all labels."""
        self.score[:] = np.nan
        self.percentile[:] = np.nan
        self.doubted[:] = False
        self.scored[:] = self.text
        for key, verdict in verdicts.items():
            if (row := self.row.get(key)) is not None:
                self.score[row], self.percentile[row] = verdict.score, verdict.percentile
                self.doubted[row] = verdict.suspect
        self._sort_by_score()

    def take_state(self, key: str, state: State) -> None:
        """Take over how a pair stands."""
        row = self.row[key]
        scores = state.scores
        self.judged[row], self.text[row] = bool(scores), hash(state.text)
        self.verdict[row] = _VERDICTS.index(state.verdict or "")
        self.status[row] = _STATUSES.index(state.status or "")
        kind = next((score.edit for score in reversed(scores) if score.edit), "") or ""
        self.kind[row] = _number(self.kinds, kind)
        bits = 0
        for name in {name for score in scores for name, weight in score.scores.items() if weight}:
            number = _number(self.rules, name)
            bits |= 1 << number if number < _MOST_RULES else 0
        self.findings[row] = bits
        self.words[row] = "\n".join(filter(None, (key, *state.text)))

    def find(self, query: Query) -> Array:
        """The rows of a query, in its order."""
        chosen = self._shown(query)
        if query.kind is not None:
            named = self.kinds.index(query.kind) if query.kind in self.kinds else -1
            chosen &= self.kind == named
        if query.finding is not None:
            known = query.finding in self.rules[:_MOST_RULES]
            bit = np.uint64(1 << self.rules.index(query.finding) if known else 0)
            chosen &= (self.findings & bit) != 0
        if text := query.text.casefold().strip():
            chosen &= np.fromiter(
                (text in words.casefold() for words in self.words), bool, len(self.words)
            )
        order = self._orders[query.order]
        rows: Array = order[chosen[order]]
        return rows

    def place(self, key: str, query: Query, rows: Array) -> int:
        """Where a pair stands among the rows of a query, or would stand."""
        rank = np.empty(len(self.keys), np.int64)
        rank[self._orders[query.order]] = np.arange(len(self.keys))
        return int(np.searchsorted(rank[rows], rank[self.row[key]]))

    def _shown(self, query: Query) -> Array:
        undecided = self.verdict == 0
        labelled = np.isin(self.status, [_STATUSES.index(name) for name in ("ok", "no_change")])
        scored = self.doubted if query.above is None else self.score > query.above
        suspects: Array = scored & undecided
        shown: dict[str, Array] = {
            "suspects": suspects,
            "all": np.ones(len(self.keys), bool),
            "open": undecided & labelled,
            "failed": self.status == _STATUSES.index("failed"),
            "unlabelled": self.status == 0,
        }
        chosen: Array
        if query.show in shown:
            chosen = shown[query.show]
        else:
            chosen = self.verdict == _VERDICTS.index(query.show)
        return chosen

    def counts(self, above: float | None) -> dict[str, int]:
        """How many pairs each choice of `show` has."""
        shows: tuple[Show, ...] = get_args(Show)
        return {show: int(self._shown(Query(show, above=above)).sum()) for show in shows}

    def named(self) -> dict[str, list[tuple[str, int]]]:
        """Kinds of edit and findings, each with how many pairs have it, the most frequent first."""
        of_kind = np.bincount(self.kind, minlength=len(self.kinds)).tolist()
        bits = [np.uint64(1 << bit) for bit in range(len(self.rules))][:_MOST_RULES]
        of_rule = [int(np.count_nonzero(self.findings & bit)) for bit in bits]
        return {
            "kinds": _ranked(zip(self.kinds, of_kind, strict=True)),
            "findings": _ranked(zip(self.rules, of_rule, strict=False)),
        }

    def histogram(self) -> dict[str, list[int]]:
        """How many labels have which score: all, and those that no human has decided on."""
        known = ~np.isnan(self.score)
        bars = {}
        for name, rows in (("all", known), ("open", known & (self.verdict == 0))):
            counts, _ = np.histogram(self.score[rows], _BARS, (0.0, 1.0))
            bars[name] = counts.tolist()
        return bars

    def accepted(self) -> list[tuple[float, str | None]]:
        """Score and kind of edit of the labels that humans accepted as they were judged."""
        rows = self.verdict == _VERDICTS.index("accept")
        rows &= self.judged & (self.text == self.scored) & ~np.isnan(self.score)
        return [
            (float(self.score[row]), self.kinds[self.kind[row]] or None)
            for row in np.flatnonzero(rows)
        ]

    def is_scored(self, key: str) -> bool:
        """Whether the score is of the text as it is now."""
        row = self.row[key]
        return bool(self.judged[row] and self.text[row] == self.scored[row])

    def outdated(self) -> int:
        """How many labels were judged since all were held against each other."""
        unknown = np.isnan(self.score) | (self.text != self.scored)
        return int((self.judged & unknown).sum())

    def left(self, above: float) -> int:
        """How many labels of a higher score no human has decided on."""
        return int(((self.score > above) & (self.verdict == 0)).sum())

    def row_of(self, row: int) -> dict[str, Any]:
        """What a list shows of a pair."""
        score = float(self.score[row])
        words = self.words[row].split("\n", 2)
        return {
            "key": self.keys[row],
            "status": _STATUSES[self.status[row]],
            "verdict": _VERDICTS[self.verdict[row]],
            "score": None if score != score else round(score, 3),
            "suspect": bool(self.doubted[row] and self.verdict[row] == 0),
            "kind": self.kinds[self.kind[row]],
            "words": words[1][:120] if len(words) > 1 else "",
        }

    def _sort_by_score(self) -> None:
        place = np.empty(len(self.keys), np.int64)
        place[self.by_key] = np.arange(len(self.keys))
        worst = np.lexsort((place, -np.nan_to_num(self.score, nan=-1.0)))
        self._orders["worst"] = worst


def _number(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _ranked(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(((n, c) for n, c in counts if n and c), key=lambda pair: (-pair[1], pair[0]))
