"""Pairs shown to a model: images load in threads ahead of it, and it is asked in batches or with
many pairs in flight, as it takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from chronoprep import vlm
from chronoprep.data import Outcome, Pair, Picture
from chronoprep.engine import batched, cores, gathered, mapped, until_stopped
from chronoprep.labels.recipe import Recipe


class PairTask(Protocol):
    """A task about a pair."""

    @property
    def key(self) -> str: ...

    @property
    def pair(self) -> Pair: ...


T = TypeVar("T", bound=PairTask)
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Shown(Generic[T]):
    """A task with its images in memory.

    Attributes:
        pictures: Source and target as the model sees them, and what else was made of them.
        images, files: The digest of the images' bytes, and how their files looked.
        notes: What was done to the images.
    """

    task: T
    pictures: tuple[Picture, ...]
    images: str
    files: str | None
    notes: tuple[str, ...]


def _no_more(task: PairTask, source: Picture, target: Picture) -> tuple[Picture, ...]:  # noqa: ARG001
    return source, target


def show(
    model: vlm.VLM,
    recipe: Recipe,
    ask: Callable[[vlm.VLM, Sequence[Shown[T]]], list[Outcome[U]]],
    tasks: Iterable[T],
    *,
    more: Callable[[T, Picture, Picture], tuple[Picture, ...]] = _no_more,
) -> Iterator[list[Outcome[U]]]:
    """Ask the model of a recipe about pairs.

    Args:
        ask: Gives the outcomes of tasks whose images could be loaded.
        more: The pictures that a task shows, made in a thread ahead of the model.

    Yields:
        The outcomes, as they are ready; those of images that can't be used have their errors.

    Raises:
        BackendError: The model can't go on.
    """
    from chronoprep.images.load import load_pair, pictures
    from chronoprep.images.room import room

    settings = recipe.settings
    batches_of = model if isinstance(model, vlm.BatchVLM) else None

    @room()
    def load(task: T) -> Shown[T]:
        loaded = load_pair(task.pair, settings.images)
        shown = more(task, *pictures(loaded, settings.images))
        if batches_of is not None:
            for picture in shown:
                batches_of.prepare(picture)
        return Shown(task, shown, loaded.images, loaded.files, loaded.notes)

    def size() -> int:  # less, once memory ran out
        return batches_of.batch_size if batches_of is not None else 1

    def answer(batch: list[Outcome[Shown[T]]]) -> list[Outcome[U]]:
        good = [outcome.value for outcome in batch if outcome.value is not None]
        bad: list[Outcome[U]] = [Outcome(o.key, error=o.error) for o in batch if o.error]
        return [*bad, *ask(model, good)]

    loaded = mapped(load, tasks, key=lambda task: task.key, ahead=max(2 * size(), cores()))
    # Those that are loaded wait for the model no longer once the run is to stop.
    batches = until_stopped(batched(loaded, size))
    in_flight = recipe.model.in_flight
    if in_flight == 1:
        yield from map(answer, batches)
    else:
        # What follows on a pair follows at once: the server's caches still hold the images.
        for ready in gathered(answer, batches, workers=in_flight, stop=model.close):
            yield [outcome for outcomes in ready for outcome in outcomes]
