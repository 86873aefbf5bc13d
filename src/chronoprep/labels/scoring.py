"""From what is known of each label to one score, its percentile, and who is a suspect.

No fitting: the rules' score, the rank of how unsure the captioner was, each as it is. Only labels
that a human accepted can say which score is too high: the threshold is theirs, by conformal
prediction, so that a share of right labels chosen beforehand lies above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_SURE = 0.97  # of the surest doubt
_LEAST_CHANCE = 1e-4  # of a token: what is less likely is all one
ENOUGH = 60  # accepted labels: with fewer, a threshold says little


@dataclass(frozen=True)
class Threshold:
    """Above which score a label is a suspect.

    Attributes:
        all: Of labels of any kind of edit.
        accepted: How many labels of a human it rests on; 0 where it is a setting.
        by_edit: Of kinds of edit that enough labels were accepted of.
    """

    all: float
    accepted: int = 0
    by_edit: dict[str, float] = field(default_factory=dict)

    def of(self, edit: str | None) -> float:
        return self.by_edit.get(edit or "", self.all)


def together(weights: Iterable[float]) -> float:
    """All doubts in one number: 0 nothing speaks against the label, near 1 it is wrong."""
    right = 1.0
    for weight in weights:
        right *= 1 - _SURE * weight
    return 1 - right


def ranks(values: Sequence[float | None]) -> list[float]:
    """For each value the share of the others that are lower, equal ones half; 0.5 for None."""
    known = sorted(value for value in values if value is not None)
    first: dict[float, int] = {}
    last: dict[float, int] = {}
    for place, value in enumerate(known):
        first.setdefault(value, place)
        last[value] = place
    most = max(1, len(known) - 1)
    return [0.5 if v is None else (first[v] + last[v]) / 2 / most for v in values]


def unsure(own: float | None, signals: Mapping[str, float]) -> float | None:
    """How unsure the model that wrote a label is of it, in all views of the pair that it was shown.

    In each view there is a chance that the model says what the label says; it goes by how likely
    the worst token is. An answer of its own speaks for the label as far as it does not contradict
    it, and against it as far as it does; the less, the less sure the model was of that answer.

    Args:
        own: The log-probability of the label's worst token, kept while it was written.
        signals: As `judge.Judged` has them.

    Returns:
        The mean of the chances' negative logarithms; None where no chance is known.
    """
    chances = [] if own is None else [math.exp(own)]
    if (label := signals.get("mirror_label")) is not None:
        chances.append(1 - label)
    for view in ("mirror", "swap"):
        if (against := signals.get(view)) is not None:
            sure = 1 - signals.get(f"{view}_unsure", 0.0)
            chances.append((1 - against) * sure + against * (1 - sure))
    logs = [-math.log(max(chance, _LEAST_CHANCE)) for chance in chances]
    return sum(logs) / len(logs) if logs else None


def combined(rules: Sequence[float], unsure: Sequence[float | None]) -> list[float]:
    """One score a label, 0 to 1: the mean of the rules' and of a rank, where there is one.

    Args:
        unsure: How unsure the captioner was; larger is less sure, on any scale.
    """
    if all(value is None for value in unsure):
        return list(rules)
    return [(score + rank) / 2 for score, rank in zip(rules, ranks(unsure), strict=True)]


def percentiles(scores: Sequence[float]) -> list[float]:
    """For each score the share of scores that are lower, in per cent."""
    place: dict[float, int] = {}
    for at, score in enumerate(sorted(scores)):
        place.setdefault(score, at)
    return [100 * place[score] / len(scores) for score in scores]


def calibrated(
    accepted: Sequence[tuple[float, str | None]], false_alarms: float
) -> Threshold | None:
    """The threshold above which a right label lies with a probability of at most `false_alarms`.

    Args:
        accepted: Score and kind of edit of the labels that a human accepted.

    Returns:
        None where they are too few.
    """
    if len(accepted) < ENOUGH:
        return None
    kinds: dict[str, list[float]] = {}
    for score, edit in accepted:
        kinds.setdefault(edit or "", []).append(score)
    return Threshold(
        _quantile([score for score, _ in accepted], false_alarms),
        len(accepted),
        {kind: _quantile(s, false_alarms) for kind, s in kinds.items() if len(s) >= ENOUGH},
    )


def _quantile(scores: list[float], false_alarms: float) -> float:
    place = math.ceil((len(scores) + 1) * (1 - false_alarms))
    return sorted(scores)[place - 1] if place <= len(scores) else 1.0
