"""The two-stage flow over any VLM: caption → "no change"? → chain-of-thought prompt, each guarded.

It knows chats and texts. It does not know files, the journal, or how a model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chronoprep.data import GREEDY, Chat, Completion, Form, Picture, Sampling
from chronoprep.errors import ChronoprepError, PairError
from chronoprep.labels.guard import Fault, clean, find_fault, is_no_change
from chronoprep.labels.prompts import Prompts
from chronoprep.vlm import VLM

# Another draw for an answer that was refused: light, for the greedy text was nearly right or went
# round in circles; its seed is the number of the attempt.
RETRY = Sampling(temperature=0.5, top_p=0.9)


@dataclass(frozen=True, slots=True)
class View:
    """What the model is shown of one pair: two pictures and a caption if stage 1 is done."""

    source: Picture
    target: Picture
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stages gave for one view.

    Attributes:
        caption: The edit instruction; kept when stage 2 failed.
        cot: The chain-of-thought prompt, if it was asked for and something changed.
        no_change: Whether the caption says that nothing changed.
        error: Why the label can't be used, naming the stage.
        refused: The text that the guard refused, as the model wrote it.
        retried: For each stage that was asked again: how the last answer was drawn, and the faults
            of those before it.
        faults: For each stage whose text was kept since the guard is off: what it has against it.
    """

    caption: str | None = None
    cot: str | None = None
    no_change: bool = False
    error: str | None = None
    refused: str | None = None
    retried: dict[str, dict[str, object]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What became of one chat: the clean text, or why there is none.

    Attributes:
        kept: The fault of the text, which is kept all the same.
        faults: Of the answers that were refused.
    """

    text: str = ""
    error: str | None = None
    refused: str | None = None
    kept: str | None = None
    faults: tuple[str, ...] = ()
    sampling: Sampling = GREEDY

    @property
    def retried(self) -> dict[str, object]:
        drawn = self.sampling
        return {
            "seed": drawn.seed,
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "refused": list(self.faults),
        }


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
    answers = [
        Answer() if view.caption is None else _settled(Answer(), clean(view.caption))
        for view in views
    ]
    budget = retries if guard else None

    first = [i for i, view in enumerate(views) if view.caption is None]
    chats = [prompts.caption.fill(views[i].source, views[i].target) for i in first]
    replies = _ask(vlm, chats, prompts.caption.form, budget, may_say_no_change=True)
    for i, reply in zip(first, replies, strict=True):
        answer = Answer(retried={"caption": reply.retried} if reply.sampling != GREEDY else {})
        if reply.kept is not None:
            answer = replace(answer, faults={"caption": reply.kept})
        if reply.error is None:
            answers[i] = _settled(answer, reply.text)
        else:
            error = f"stage 1 (caption): {reply.error}"
            answers[i] = replace(answer, error=error, refused=reply.refused)

    if not with_cot:
        return answers
    second = [i for i, a in enumerate(answers) if a.error is None and not a.no_change]
    chats = [
        prompts.cot.fill(views[i].source, views[i].target, answers[i].caption or "") for i in second
    ]
    replies = _ask(vlm, chats, prompts.cot.form, budget)
    for i, reply in zip(second, replies, strict=True):
        answer = answers[i]
        if reply.sampling != GREEDY:
            answer = replace(answer, retried=answer.retried | {"cot": reply.retried})
        if reply.kept is not None:
            answer = replace(answer, faults=answer.faults | {"cot": reply.kept})
        if reply.error is None:
            answers[i] = replace(answer, cot=reply.text)
        else:
            error = f"stage 2 (CoT): {reply.error}"
            answers[i] = replace(answer, error=error, refused=reply.refused)
    return answers


def _settled(answer: Answer, caption: str) -> Answer:
    """An answer with its caption: "no change" takes its one spelling."""
    if is_no_change(caption):
        return replace(answer, caption="no change", no_change=True)
    return replace(answer, caption=caption)


def _ask(
    vlm: VLM,
    chats: Sequence[Chat],
    form: Form,
    retries: int | None,
    *,
    may_say_no_change: bool = False,
) -> list[_Reply]:
    """Answer chats greedily, and those whose answer is refused again. None: no guard."""

    def fault_of(result: Completion | PairError) -> Fault | None:
        if isinstance(result, PairError):
            return None
        if may_say_no_change and not result.truncated and is_no_change(result.text):
            return None
        return find_fault(result, form)

    replies = [_Reply() for _ in chats]
    pending = list(range(len(chats)))
    for attempt in range(1 + (retries or 0)):
        sampling = replace(RETRY, seed=attempt) if attempt else GREEDY
        results = _generate(vlm, [chats[i] for i in pending], sampling)
        refused = []
        for i, result in zip(pending, results, strict=True):
            fault = fault_of(result)
            if fault is not None and retries is None:
                assert isinstance(result, Completion)
                replies[i] = _Reply(clean(result.text), kept=str(fault))
                continue
            replies[i] = _reply(result, fault, sampling, replies[i].faults)
            if fault is not None:
                refused.append(i)
        pending = refused
    return replies


def _reply(
    result: Completion | PairError, fault: Fault | None, sampling: Sampling, faults: tuple[str, ...]
) -> _Reply:
    if isinstance(result, PairError):
        return _Reply(error=result.reason, faults=faults, sampling=sampling)
    if fault is None:
        return _Reply(clean(result.text), faults=faults, sampling=sampling)
    # A lone surrogate, which a server's JSON may hold, would not go into the journal.
    text = result.text.encode("utf-8", "replace").decode()
    return _Reply(
        error=f"{fault}: {clean(text)[:200]!r}",
        refused=text,
        faults=(*faults, str(fault)),
        sampling=sampling,
    )


def _generate(vlm: VLM, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | PairError]:
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
        return [result for chat in chats for result in _generate(vlm, [chat], sampling)]
    return [PairError(str(problem) or type(problem).__name__)]
