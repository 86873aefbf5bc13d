"""A card: what is to be shown of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from chronoprep import digest
from chronoprep.data import Finding, Status
from chronoprep.dataset import Entry, Label, State, Text, cell_of
from chronoprep.labels.claims import claims_of
from chronoprep.labels.guard import is_no_change


class Judged(Protocol):
    """What verify says of a label.

    Attributes:
        score: From 0 to 1, which is the worst.
        percentile: The share of labels that have a lower score, in per cent.
        suspect: Whether a human should look at it.
        reasons: In words, the weightiest first.
    """

    @property
    def score(self) -> float: ...
    @property
    def percentile(self) -> float: ...
    @property
    def suspect(self) -> bool: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...


class Provenance(NamedTuple):
    """Where a label is from.

    Attributes:
        origin: A model, a fixed text, the data itself or a human.
        model, revision: Of stage 1; `cot_model` and `cot_revision` of stage 2, where it is another.
        prompts: Names of the templates of both stages.
        generation: How tokens were picked.
        time: When, in UTC.
        seconds: That the model took.
        notes: What was done to the images.
        answered_by: The model that a server says has answered.
    """

    origin: str
    model: str | None = None
    revision: str | None = None
    cot_model: str | None = None
    cot_revision: str | None = None
    prompts: tuple[str, ...] = ()
    generation: dict[str, Any] | None = None
    time: str | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    answered_by: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What is to be shown of a pair.

    Attributes:
        source, target: References to its images.
        caption, cot: What is trained on.
        written: What the label says, where a human has changed it.
        status: None where nothing has happened to the label yet.
        verdict: A human's: accept, reject or edit. `reviewer`, `remark`, `error` and `severity` are
            of the last one.
        score, percentile: Of verify, where it has judged the text: 1, and 100, are the worst.
        suspect: Whether a human should look at it.
        reasons: Why, in words, the weightiest first.
        edit: The kind of edit, as verify has read it.
        failure: Why the last try to label it went wrong.
        images: The digest of its images.
        tokens: Of the prompt, where it was embedded.
        has_video: Whether a video was written of it.
        listed: Whether it stands in metadata.csv.
    """

    key: str
    source: str
    target: str
    caption: str | None = None
    cot: str | None = None
    written: Text | None = None
    status: Status | None = None
    verdict: str | None = None
    reviewer: str | None = None
    remark: str | None = None
    error: str | None = None
    severity: str | None = None
    score: float | None = None
    percentile: float | None = None
    suspect: bool = False
    reasons: tuple[str, ...] = ()
    edit: str | None = None
    findings: tuple[Finding, ...] = ()
    failure: str | None = None
    provenance: Provenance | None = None
    images: str | None = None
    tokens: int | None = None
    has_video: bool = False
    listed: bool = False


def card_of(
    entry: Entry, state: State, judged: Judged | None = None, findings: Sequence[Finding] = ()
) -> Card:
    """The card of a pair.

    Args:
        judged: What verify says of its text, if it does.
        findings: What else was found of it.
    """
    label, text = state.label, state.text
    written = Text(label.caption, label.caption_cot) if label is not None else text
    review = state.review
    return Card(
        key=entry.key,
        source=entry.source,
        target=entry.target,
        caption=text.caption,
        cot=text.cot,
        written=written if written != text else None,
        status=state.status,
        verdict=state.verdict,
        reviewer=review.reviewer if review is not None else None,
        remark=review.reason if review is not None else None,
        error=review.error if review is not None else None,
        severity=review.severity if review is not None else None,
        score=judged.score if judged is not None else None,
        percentile=judged.percentile if judged is not None else None,
        suspect=judged is not None and judged.suspect,
        reasons=judged.reasons if judged is not None else (),
        edit=next((score.edit for score in reversed(state.scores) if score.edit), None),
        findings=tuple(findings),
        failure=state.failure.error if state.failure is not None else None,
        provenance=_provenance(label) if label is not None else None,
        images=entry.images or state.images,
        tokens=_tokens(state),
        has_video=state.video is not None,
        listed=entry.listed is not None,
    )


def kind_of(text: Text) -> str | None:
    """The kind of edit that a text speaks of first; None where its words tell of none.

    It takes nearly a millisecond: verify has read the texts that it judged.
    """
    said = text.caption or text.cot or ""
    if is_no_change(said):
        return "no change"
    claims = claims_of(said)
    return claims[0].kind if claims else None


def _tokens(state: State) -> int | None:
    """Tokens of the prompt as it was embedded, unless it is another one now."""
    embedding, prompt = state.embedding, state.text.cot or state.text.caption
    if embedding is None or prompt is None:
        return None
    return embedding.tokens if embedding.prompt == digest.of_text(cell_of(prompt)) else None


def _provenance(label: Label) -> Provenance:
    prompts = tuple(filter(None, (label.caption_prompt, label.cot_prompt)))
    return Provenance(
        origin=label.origin,
        model=label.model,
        revision=label.revision,
        cot_model=label.cot_model,
        cot_revision=label.cot_revision,
        prompts=prompts,
        generation=label.generation,
        time=label.time,
        seconds=label.seconds,
        notes=label.notes,
        answered_by=label.answered_by,
    )
