"""The two-stage flow over any VLM: caption → "no change"? → chain-of-thought prompt, each guarded.

It knows chats and texts. It does not know files, the journal, or how a model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chronoprep.data import GREEDY, Chat, Completion, Likelihood, Picture, Sampling, Served
from chronoprep.errors import ChronoprepError, PairError, ToolError
from chronoprep.labels.guard import clean, find_fault, is_no_change, spelled
from chronoprep.labels.prompts import Prompts, Stage, Template
from chronoprep.vlm import VLM

# Another draw for an answer that was refused: light, for the greedy text was nearly right or went
# round in circles; its seed is the number of the attempt.
RETRY = Sampling(temperature=0.5, top_p=0.9)
_TITLES: dict[Stage, str] = {"caption": "stage 1 (caption)", "cot": "stage 2 (CoT)"}


@dataclass(frozen=True, slots=True)
class View:
    """What the model is shown of one pair: two pictures and a caption if stage 1 is done."""

    source: Picture
    target: Picture
    caption: str | None = None


@dataclass(slots=True)
class Answer:
    """What the stages gave for one view, each in its turn.

    Attributes:
        caption: The edit instruction; kept when stage 2 failed. "no change" has one spelling.
        cot: The chain-of-thought prompt, if it was asked for and something changed.
        error: Why the label can't be used, naming the stage.
        refused: The text that the guard refused, as the model wrote it.
        retried: For each stage that was asked again: how the last answer was drawn, and the faults
            of those before it.
        faults: For each stage whose text was kept since the guard is off: what it has against it.
        likelihood, served: Of each stage's text: how sure the model was, what the server said.
        tool: Whether the error may be the model's or the server's, and not the pair's.
    """

    caption: str | None = None
    cot: str | None = None
    error: str | None = None
    refused: str | None = None
    retried: dict[str, dict[str, object]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    likelihood: dict[str, Likelihood] = field(default_factory=dict)
    served: dict[str, Served] = field(default_factory=dict)
    tool: bool = False

    @property
    def no_change(self) -> bool:
        """Whether the caption says that nothing changed."""
        return self.caption == "no change"


def label(
    vlm: VLM,
    prompts: Prompts,
    views: Sequence[View],
    *,
    with_cot: bool,
    guard: bool = True,
    retries: int = 0,
) -> list[Answer]:
    """Label a batch of views; the answers are in their order.

    A view that brings a caption starts at stage 2. A view that says "no change" leaves after
    stage 1. With `guard`, a degenerate answer is asked for again up to `retries` times, lightly
    sampled, and is an error if none is better; without, whatever the model said is kept, with the
    fault beside it.

    Raises:
        BackendError: When the backend can't go on.
    """
    answers = [Answer(None if v.caption is None else spelled(v.caption)) for v in views]
    stages: tuple[Stage, ...] = ("caption", "cot") if with_cot else ("caption",)
    for stage in stages:
        asked = [
            (answer, view)
            for answer, view in zip(answers, views, strict=True)
            if getattr(answer, stage) is None and not answer.error and not answer.no_change
        ]
        _ask(vlm, prompts, stage, asked, guard=guard, retries=retries)
    return answers


def _ask(
    vlm: VLM,
    prompts: Prompts,
    stage: Stage,
    asked: Sequence[tuple[Answer, View]],
    *,
    guard: bool,
    retries: int,
) -> None:
    """Put one stage into answers: greedily, and again where the guard refuses."""
    template: Template = getattr(prompts, stage)
    pending = [
        (answer, template.fill(view.source, view.target, answer.caption or ""), list[str]())
        for answer, view in asked
    ]
    for attempt in range(1 + retries):
        sampling = replace(RETRY, seed=attempt) if attempt else GREEDY
        results = generate(vlm, [chat for _, chat, _ in pending], sampling)
        again = []
        for (answer, chat, faults), result in zip(pending, results, strict=True):
            if attempt:
                drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
                answer.retried[stage] = {**drawn, "seed": sampling.seed, "refused": faults}
            answer.error = answer.refused = None
            if isinstance(result, PairError):
                answer.error = f"{_TITLES[stage]}: {result.reason}"
                answer.tool = isinstance(result, ToolError)
                continue
            unchanged = stage == "caption" and not result.truncated and is_no_change(result.text)
            fault = None if unchanged else find_fault(result, template.form)
            if fault is None or not guard:
                kept = spelled(result.text) if stage == "caption" else clean(result.text)
                setattr(answer, stage, kept)
                if result.likelihood is not None:
                    answer.likelihood[stage] = result.likelihood
                if result.served is not None:
                    answer.served[stage] = result.served
                if fault is not None:
                    answer.faults[stage] = str(fault)
                continue
            faults.append(str(fault))
            answer.tool = fault is not None and fault.name != "refusal"
            # A lone surrogate, which a server's JSON may hold, would not go into the journal.
            answer.refused = result.text.encode("utf-8", "replace").decode()
            answer.error = f"{_TITLES[stage]}: {fault}: {clean(answer.refused)[:200]!r}"
            again.append((answer, chat, faults))
        pending = again


def generate(vlm: VLM, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | PairError]:
    """Answers to a batch. Where a batch fails, its chats run alone, so that one pair that the
    processor refuses (an extreme aspect ratio, say) does not take the others with it."""
    if not chats:
        return []
    try:
        return list(vlm.generate(chats, sampling))
    except ChronoprepError as error:
        if not isinstance(error, PairError):
            raise
        problem: Exception = error
    except (ValueError, IndexError, KeyError, TypeError) as error:
        problem = error
    if len(chats) > 1:
        return [result for chat in chats for result in generate(vlm, [chat], sampling)]
    hint = "If it is this pair alone, leave it out; else try another --model."
    return [ToolError(str(problem) or type(problem).__name__, hint=hint)]
