"""The worker that labels pairs: it loads images and asks the model, and knows no journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from chronoprep import engine
from chronoprep.data import Outcome
from chronoprep.engine import Working
from chronoprep.errors import PairError
from chronoprep.labels import captioning
from chronoprep.labels.captioning import Answer, View
from chronoprep.labels.recipe import LabelTask, Recipe
from chronoprep.labels.showing import Shown, show
from chronoprep.vlm import VLM


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the model answered for a task, and of which images.

    Attributes:
        given: The caption that stage 2 started from, where stage 1 was not asked for.
        images, files: The digest of the images' bytes, and how their files looked.
        notes: What was done to the images.
        seconds: Of the model's time.
    """

    given: str | None
    answer: Answer
    images: str
    files: str | None
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Labeller:
    """Labels pairs by the model of a recipe, which it loads itself."""

    recipe: Recipe
    with_cot: bool

    @contextmanager
    def opened(self) -> Iterator[Working[LabelTask, Labelled]]:
        """Label tasks, in batches or with many in flight; images load in threads ahead of that.

        Raises:
            BackendError: The model can't be loaded, or can't go on.
        """
        with closing(self.recipe.model.load()) as model:
            yield partial(show, model, self.recipe, self._label)

    def _label(self, model: VLM, shown: Sequence[Shown[LabelTask]]) -> list[Outcome[Labelled]]:
        began = time.monotonic()
        labels = self.recipe.settings.labels
        answers = captioning.label(
            model,
            self.recipe.prompts,
            [View(one.pictures[0], one.pictures[1], one.task.caption) for one in shown],
            with_cot=self.with_cot,
            guard=labels.guard,
            retries=labels.retries,
        )
        seconds = round((time.monotonic() - began) / max(len(shown), 1), 3)
        return [
            Outcome(
                one.task.key,
                Labelled(one.task.caption, answer, one.images, one.files, one.notes, seconds),
            )
            for one, answer in zip(shown, answers, strict=True)
        ]


def label_one(recipe: Recipe, task: LabelTask, *, with_cot: bool) -> Labelled:
    """Label a single pair.

    Raises:
        PairError: When an image can't be used or the model's answer is refused.
        BackendError: The model can't be loaded, or can't go on.
    """
    ((outcome,),) = engine.run(Labeller(recipe, with_cot), [task])
    if outcome.value is None:
        assert outcome.error is not None
        raise outcome.error
    if outcome.value.answer.error is not None:
        raise PairError(f"{task.source}: {outcome.value.answer.error}")
    return outcome.value
