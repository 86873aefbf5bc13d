"""The worker that has labels verified by a model; it knows no journal.

The model that wrote a label is asked for captions of the mirrored and of the swapped pair: an error
that it makes with confidence it seldom makes in every view. (Asked again for the same view, it
repeats itself.) Another model captions the pair without a look at the label, and is then shown the
label's claims one by one, beside what it said itself.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from PIL.Image import Transpose

from chronoprep import digest
from chronoprep.data import GREEDY, Chat, Completion, Outcome, Pair, Picture, Sampling
from chronoprep.engine import Working
from chronoprep.errors import PairError
from chronoprep.labels.captioning import generate
from chronoprep.labels.claims import Claim, claims_of
from chronoprep.labels.claims.comparing import (
    contradiction,
    in_either_order,
    in_mirror,
    mirrored,
    reversed_,
)
from chronoprep.labels.guard import clean, is_no_change
from chronoprep.labels.prompts import Template, statements_prompt
from chronoprep.labels.recipe import Recipe, view_settings
from chronoprep.labels.showing import Shown, show
from chronoprep.vlm import VLM, ScoringVLM

# Of further passes: as light as the draws after an answer that was refused.
_DRAWN = Sampling(temperature=0.5, top_p=0.9)
_DOUBT = {"yes": 0.0, "no": 1.0, "unsure": 0.5}
_LINE = re.compile(r"^\W*(\d{1,2})\W+(?:.{0,200}?\b)??(yes|no|unsure)\b", re.I | re.M)
_MOST_STATEMENTS = 8
_SIGNALS = 3  # raised when they are told otherwise
_MISSING = 0.5  # how sure an edit is that only the model sees: models invent differences
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string"},
            "verdicts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "statement": {"type": "integer"},
                        "place": {"type": "string"},
                        "verdict": {"enum": list(_DOUBT)},
                    },
                    "required": ["statement", "place", "verdict"],
                    "additionalProperties": False,
                },
            },
            "missing": {"type": "string"},
        },
        "required": ["reasoning", "verdicts", "missing"],
        "additionalProperties": False,
    }
)


class JudgeTask(NamedTuple):
    """A label to verify; `own` is set where the judge wrote it itself."""

    key: str
    source: str
    target: str
    caption: str
    own: str | None = None

    @property
    def pair(self) -> Pair:
        return Pair(self.key, self.source, self.target)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model has against a label.

    Attributes:
        signals: From 0, nothing, to 1, by their names: `mirror` and `swap` of the model that wrote
            the label, with `_unsure` how improbable the worst token of those answers was, and
            `mirror_label`, how improbable the worst one of the label itself is there;
            `recaption` and `judge` of another one. Absent where its answer says nothing.
        reasons: In words, the weightiest first.
        images, files: The digest of the images' bytes, and how their files looked.
        seconds: Of the model's time.
    """

    signals: dict[str, float]
    reasons: tuple[str, ...]
    images: str
    files: str | None
    seconds: float


@dataclass
class _Case:
    """A label at work, and what speaks against it."""

    shown: Shown[JudgeTask]
    doubts: dict[str, list[float]] = field(default_factory=dict)
    reasons: list[tuple[float, str]] = field(default_factory=list)

    @property
    def task(self) -> JudgeTask:
        return self.shown.task

    @property
    def pictures(self) -> Sequence[Picture]:
        return self.shown.pictures

    @cached_property
    def claims(self) -> tuple[Claim, ...] | None:
        """What the label claims; None where it says "no change"."""
        caption = self.task.caption
        return None if is_no_change(caption) else claims_of(caption)

    @property
    def statements(self) -> list[str]:
        """The same as sentences of their own."""
        if self.claims is None:
            return ["nothing changed between the two images"]
        return [claim.text for claim in self.claims][:_MOST_STATEMENTS] or [self.task.caption]

    def contradict(self, signal: str, claims: Sequence[Claim] | None, text: str, who: str) -> None:
        """Hold claims against what a model says, where both are understood."""
        if (found := contradiction(claims, text)) is not None:
            self.doubt(signal, found[0], f"{who} {found[1]}")

    def doubt(self, signal: str, weight: float, reason: str) -> None:
        self.doubts.setdefault(signal, []).append(weight)
        if reason and weight > 0.05:
            self.reasons.append((weight, reason))


@dataclass(frozen=True)
class Judge:
    """Verifies labels by the model of a recipe, which it loads itself.

    Attributes:
        passes: How often another model is asked; the first time greedily.
        statements: Whether it can be asked about claims: not where it only knows the prompts of
            its training.
    """

    recipe: Recipe
    passes: int = 3
    statements: bool = True

    @cached_property
    def version(self) -> str:
        """Digest of all but the pair and its label that decides what comes out."""
        model = self.recipe.model
        caption, asked = self.recipe.prompts.caption.version, statements_prompt().version
        names = (model.checkpoint.name, model.checkpoint.revision, model.text_settings)
        view = view_settings(self.recipe.settings.images)
        return digest.of_values(
            *names, view, caption, asked, self.passes, self.statements, _SIGNALS
        )

    @contextmanager
    def opened(self) -> Iterator[Working[JudgeTask, Judged]]:
        """Verify labels, in batches or with many in flight.

        Raises:
            BackendError: The model can't be loaded, or can't go on.
        """
        with closing(self.recipe.model.load()) as model:
            yield partial(show, model, self.recipe, self._judge, more=_mirrored_too)

    def _judge(self, model: VLM, shown: Sequence[Shown[JudgeTask]]) -> list[Outcome[Judged]]:
        began = time.monotonic()
        cases = [_Case(one) for one in shown]
        errors: dict[str, PairError] = {}
        own = [case for case in cases if case.task.own]
        others = [case for case in cases if not case.task.own]
        self._views(model, own, errors)
        for number in range(self.passes if others else 0):
            sampling = replace(_DRAWN, seed=number) if number else GREEDY
            self._pass(model, others, sampling, errors)
        seconds = round((time.monotonic() - began) / max(len(cases), 1), 3)
        return [_outcome(case, errors.get(case.task.key), seconds) for case in cases]

    def _views(self, model: VLM, cases: Sequence[_Case], errors: dict[str, PairError]) -> None:
        """Captions of the mirrored and of the swapped pair, of the model that wrote the labels."""
        template = self.recipe.prompts.caption
        for signal, turned, (first, then) in (
            ("mirror", mirrored, (2, 3)),
            ("swap", reversed_, (1, 0)),
        ):
            chats = [template.fill(case.pictures[first], case.pictures[then]) for case in cases]
            for case, text, unsure in _answered(model, cases, chats, GREEDY, errors):
                if unsure is not None:
                    case.doubt(f"{signal}_unsure", unsure, "")
                claims = None if case.claims is None else turned(case.claims)
                case.contradict(signal, claims, text, f"of the {_PAIR[signal]} pair, the model")
            if signal == "mirror" and isinstance(model, ScoringVLM):
                asked = zip(cases, chats, strict=True)
                _score(model, [ask for ask in asked if ask[0].task.key not in errors])

    def _pass(
        self,
        model: VLM,
        cases: Sequence[_Case],
        sampling: Sampling,
        errors: dict[str, PairError],
    ) -> None:
        """A caption without a look at the label, then the label's claims one by one."""
        chats = [_asked(self.recipe.prompts.caption, case) for case in cases]
        blind = list(_said(model, cases, chats, sampling, errors))
        for case, text in blind:
            case.contradict("recaption", case.claims, text, "another model")
        if not self.statements:
            return
        template = statements_prompt()
        chats = [
            _asked(template, case, _shown_statements(text, case.statements)) for case, text in blind
        ]
        asked = [case for case, _ in blind]
        for case, text in _said(model, asked, chats, replace(sampling, schema=SCHEMA), errors):
            _take_verdicts(case, text)


_PAIR = {"mirror": "mirrored", "swap": "swapped"}


def _mirrored_too(task: JudgeTask, source: Picture, target: Picture) -> tuple[Picture, ...]:
    """A pair's pictures, and where its own model is asked, their mirror images."""
    if not task.own:
        return source, target
    flipped = (
        Picture(picture.pixels.transpose(Transpose.FLIP_LEFT_RIGHT)) for picture in (source, target)
    )
    return source, target, *flipped


def _asked(template: Template, case: _Case, text: str = "") -> Chat:
    return template.fill(case.pictures[0], case.pictures[1], text)


def _said(
    model: VLM,
    cases: Sequence[_Case],
    chats: Sequence[Chat],
    sampling: Sampling,
    errors: dict[str, PairError],
) -> Iterator[tuple[_Case, str]]:
    """What the model says to each case; one that can't be answered has its error kept."""
    for case, text, _ in _answered(model, cases, chats, sampling, errors):
        yield case, text


def _answered(
    model: VLM,
    cases: Sequence[_Case],
    chats: Sequence[Chat],
    sampling: Sampling,
    errors: dict[str, PairError],
) -> Iterator[tuple[_Case, str, float | None]]:
    """The same, with how improbable the worst token was, where the backend tells."""
    for case, answer in zip(cases, generate(model, chats, sampling), strict=True):
        if isinstance(answer, Completion):
            known = answer.likelihood
            yield case, clean(answer.text), None if known is None else 1 - math.exp(known.worst)
        else:
            errors[case.task.key] = answer


def _score(model: ScoringVLM, asked: Sequence[tuple[_Case, Chat]]) -> None:
    """How improbable labels are to their own model where it sees the pairs in the mirror."""
    told = [
        (case, chat, text)
        for case, chat in asked
        for text in in_either_order(in_mirror(case.task.caption))
    ]
    known = model.likelihoods([chat for _, chat, _ in told], [text for _, _, text in told])
    least: dict[str, float] = {}
    for (case, _, _), likelihood in zip(told, known, strict=True):
        if likelihood is not None:
            doubt = 1 - math.exp(likelihood.worst)
            least[case.task.key] = min(doubt, least.get(case.task.key, doubt))
    for case, _ in asked:
        if case.task.key in least:
            case.doubt("mirror_label", least[case.task.key], "")


def _shown_statements(blind: str, statements: Sequence[str]) -> str:
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(statements, 1))
    return f"Seen without the label: {blind}\n\nStatements of the label:\n{listed}"


def _take_verdicts(case: _Case, text: str) -> None:
    statements = case.statements
    verdicts, reasoning, missing = read_verdicts(text)
    known = {number: word for number, word in verdicts.items() if 0 < number <= len(statements)}
    if known:
        number = max(known, key=lambda number: _DOUBT[known[number]])
        why = f"the model says {known[number]} to {statements[number - 1]!r}"
        case.doubt("judge", _DOUBT[known[number]], f"{why}: {reasoning}" if reasoning else why)
    if missing:
        case.doubt("missing", _MISSING, f"the model sees also: {missing}")
    elif known:
        case.doubt("missing", 0.0, "")


def read_verdicts(text: str) -> tuple[dict[int, str], str, str]:
    """The verdicts of an answer by the number of the statement, its reasoning, and an edit that the
    label lacks; from its JSON, else from lines such as `1: yes`."""
    start = text.find("{")
    try:
        answer: Any = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else {}
    except (ValueError, RecursionError):
        answer = {}
    if not isinstance(answer, dict) or not isinstance(answer.get("verdicts"), list):
        return {int(number): word.lower() for number, word in _LINE.findall(text)}, "", ""
    found: dict[int, str] = {}
    for place, item in enumerate(answer["verdicts"], 1):
        if isinstance(item, dict) and str(item.get("verdict")).lower() in _DOUBT:
            number = item.get("statement")
            found[number if isinstance(number, int) else place] = str(item["verdict"]).lower()
    reasoning, missing = (answer.get(name) for name in ("reasoning", "missing"))
    return (
        found,
        clean(reasoning)[:300] if isinstance(reasoning, str) else "",
        clean(missing)[:200] if isinstance(missing, str) else "",
    )


def _outcome(case: _Case, error: PairError | None, seconds: float) -> Outcome[Judged]:
    if error is not None and not case.doubts:
        return Outcome(case.task.key, error=error)
    signals = {name: round(sum(w) / len(w), 4) for name, w in case.doubts.items()}
    ordered = sorted(case.reasons, key=lambda reason: -reason[0])
    reasons = tuple(dict.fromkeys(reason for _, reason in ordered))[:4]
    shown = case.shown
    return Outcome(case.task.key, Judged(signals, reasons, shown.images, shown.files, seconds))
