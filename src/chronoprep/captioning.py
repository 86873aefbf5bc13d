"""The two-stage flow over any VLM: caption → "no change"? → chain-of-thought prompt.

It knows chats and texts. It does not know files, the journal, or how a model runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronoprep.data import Chat, Completion
from chronoprep.errors import ChronoprepError, PairError
from chronoprep.prompts import Prompts
from chronoprep.vlm import VLM

if TYPE_CHECKING:
    from PIL.Image import Image

# `<|im_end|>`, `<|image_pad|>`, and the sentencepiece-style ones that other families use.
_SPECIAL = re.compile(
    r"<\|[^<>|]{1,60}\|>|</?(?:s|pad|unk|bos|eos|image|video|img|think|end_of_turn|start_of_turn)>"
)
_FENCE = re.compile(r"\A```(?:[\w+-]*\n)?(.*?)\n?```\Z", re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


@dataclass(frozen=True, slots=True)
class View:
    """What the model is shown of one pair: two RGB images and a caption if stage 1 is done."""

    source: Image
    target: Image
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stages gave for one view.

    Attributes:
        caption: The edit instruction; kept when stage 2 failed.
        cot: The chain-of-thought prompt, if it was asked for and something changed.
        no_change: Whether the caption says that nothing changed.
        error: Why the label can't be used, naming the stage.
    """

    caption: str | None = None
    cot: str | None = None
    no_change: bool = False
    error: str | None = None


def clean(text: str) -> str:
    """Model text made safe for a prompt and a file.

    Special tokens go (again and again, since taking one out may join the halves of another), and
    so do control characters; white space collapses; a code fence or a pair of quotes around the
    whole text goes.
    """
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    while (shorter := _SPECIAL.sub("", text)) != text:
        text = shorter
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced.group(1).strip()
    text = " ".join(text.split())
    # Only a pair that encloses everything: `"Hi" becomes "Bye"` keeps its quotes.
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        inner = text[1:-1]
        if text[0] in inner or text[-1] in inner:
            break
        text = inner.strip()
    return text


def is_no_change(text: str) -> bool:
    """Whether an answer says "no change", whatever its case, punctuation, quotes or fences."""
    letters = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = re.sub(r"[\W_]+", " ", letters).split()
    return words in (["no", "change"], ["no", "changes"])


def label(
    vlm: VLM,
    prompts: Prompts,
    views: Sequence[View],
    *,
    with_cot: bool,
    guard: bool = True,
) -> list[Answer]:
    """Label a batch of views; the answers are in their order.

    A view that brings a caption starts at stage 2. A view that says "no change" leaves after
    stage 1. With `guard`, an empty answer or one that the token limit cut is an error; without,
    whatever the model said is kept.

    Raises:
        BackendError: When the backend can't go on.
    """
    answers: list[Answer] = [Answer(caption=view.caption) for view in views]

    first = [i for i, view in enumerate(views) if view.caption is None]
    chats = [prompts.caption.fill(views[i].source, views[i].target) for i in first]
    for i, result in zip(first, _generate(vlm, chats), strict=True):
        answers[i] = _captioned(result, guard)
    for i, view in enumerate(views):
        if view.caption is not None:
            answers[i] = _settled(clean(view.caption))

    if not with_cot:
        return answers
    second = [i for i, a in enumerate(answers) if a.error is None and not a.no_change]
    chats = [
        prompts.cot.fill(views[i].source, views[i].target, answers[i].caption or "") for i in second
    ]
    for i, result in zip(second, _generate(vlm, chats), strict=True):
        caption = answers[i].caption
        problem = _problem(result, guard)
        if problem or isinstance(result, PairError):
            answers[i] = Answer(caption, error=f"stage 2 (CoT): {problem}")
        else:
            answers[i] = Answer(caption, cot=clean(result.text))
    return answers


def _settled(caption: str) -> Answer:
    """A caption as an answer: "no change" takes its one spelling."""
    if is_no_change(caption):
        return Answer("no change", no_change=True)
    return Answer(caption)


def _captioned(result: Completion | PairError, guard: bool) -> Answer:
    problem = _problem(result, guard)
    if problem or isinstance(result, PairError):
        return Answer(error=f"stage 1 (caption): {problem}")
    return _settled(clean(result.text))


def _problem(result: Completion | PairError, guard: bool) -> str | None:
    if isinstance(result, PairError):
        return result.message
    if guard and result.truncated:
        return (
            f"cut at the limit of {result.tokens} new tokens (raise --max-new-tokens, or keep it "
            f"by --no-guard): {clean(result.text)[:200]!r}"
        )
    if guard and not clean(result.text):
        return "the model's answer is empty"
    return None


def _generate(vlm: VLM, chats: list[Chat]) -> list[Completion | PairError]:
    """Answers to a batch. Where a batch fails, its chats run alone, so that one pair that the
    processor refuses (an extreme aspect ratio, say) does not take the others with it."""
    if not chats:
        return []
    try:
        return list(vlm.generate(chats))
    except ChronoprepError as error:
        if not isinstance(error, PairError):
            raise
        problem: Exception = error
    except (ValueError, IndexError, KeyError, TypeError) as error:
        problem = error
    if len(chats) > 1:
        return [result for chat in chats for result in _generate(vlm, [chat])]
    return [PairError(str(problem) or type(problem).__name__)]
