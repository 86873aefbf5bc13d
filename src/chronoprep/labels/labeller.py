"""The worker that labels pairs: it loads images and asks the model, and knows no journal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from chronoprep import vlm
from chronoprep.data import Outcome
from chronoprep.engine import batched, cores, gathered, mapped, until_stopped
from chronoprep.errors import PairError
from chronoprep.labels import captioning
from chronoprep.labels.captioning import Answer, View
from chronoprep.labels.recipe import LabelTask, Recipe


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


@dataclass(frozen=True, slots=True)
class _Loaded:
    task: LabelTask
    view: View
    images: str
    files: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Labeller:
    """Labels pairs by the model of a recipe, which it loads itself."""

    recipe: Recipe
    with_cot: bool

    def stream(self, tasks: Iterable[LabelTask]) -> Iterator[list[Outcome[Labelled]]]:
        """Label tasks, in batches or with many in flight; images load in threads ahead of that.

        Raises:
            BackendError: The model can't be loaded, or can't go on.
        """
        with closing(self.recipe.model.load()) as model:
            yield from self._label(model, tasks)

    def _label(
        self, model: vlm.VLM, tasks: Iterable[LabelTask]
    ) -> Iterator[list[Outcome[Labelled]]]:
        from chronoprep.images.load import load_pair, pictures
        from chronoprep.images.room import room

        settings = self.recipe.settings
        batches_of = model if isinstance(model, vlm.BatchVLM) else None

        def load(task: LabelTask) -> _Loaded:
            with room():
                loaded = load_pair(task.pair, settings.images)
                source, target = pictures(loaded, settings.images)
            if batches_of is not None:
                batches_of.prepare(source)
                batches_of.prepare(target)
            view = View(source, target, task.caption)
            return _Loaded(task, view, loaded.images, loaded.files, loaded.notes)

        def size() -> int:  # less, once memory ran out
            return batches_of.batch_size if batches_of is not None else 1

        def answer(batch: list[Outcome[_Loaded]]) -> list[Outcome[Labelled]]:
            return self._answer(model, batch)

        loaded = mapped(load, tasks, key=lambda task: task.key, ahead=max(2 * size(), cores()))
        # Those that are loaded wait for the model no longer once the run is to stop.
        batches = until_stopped(batched(loaded, size))
        in_flight = self.recipe.model.in_flight
        if in_flight == 1:
            yield from map(answer, batches)
        else:
            # Stage 2 of a pair follows its stage 1 at once: the server's caches still hold the
            # images.
            for ready in gathered(answer, batches, workers=in_flight, stop=model.close):
                yield [outcome for outcomes in ready for outcome in outcomes]

    def _answer(self, model: vlm.VLM, batch: Sequence[Outcome[_Loaded]]) -> list[Outcome[Labelled]]:
        began = time.monotonic()
        labels = self.recipe.settings.labels
        good = [outcome.value for outcome in batch if outcome.value is not None]
        answers = captioning.label(
            model,
            self.recipe.prompts,
            [loaded.view for loaded in good],
            with_cot=self.with_cot,
            guard=labels.guard,
            retries=labels.retries,
        )
        seconds = round((time.monotonic() - began) / max(len(good), 1), 3)
        done: list[Outcome[Labelled]] = [
            Outcome(outcome.key, error=outcome.error) for outcome in batch if outcome.error
        ]
        for loaded, answer in zip(good, answers, strict=True):
            given = loaded.task.caption
            value = Labelled(given, answer, loaded.images, loaded.files, loaded.notes, seconds)
            done.append(Outcome(loaded.task.key, value))
        return done


def label_one(recipe: Recipe, task: LabelTask, *, with_cot: bool) -> Labelled:
    """Label a single pair.

    Raises:
        PairError: When an image can't be used or the model's answer is refused.
        BackendError: The model can't be loaded, or can't go on.
    """
    ((outcome,),) = Labeller(recipe, with_cot).stream([task])
    if outcome.value is None:
        assert outcome.error is not None
        raise outcome.error
    if outcome.value.answer.error is not None:
        raise PairError(f"{task.source}: {outcome.value.answer.error}")
    return outcome.value
