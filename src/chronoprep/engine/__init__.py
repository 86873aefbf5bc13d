"""How work runs: in this process, or on a Ray cluster. It knows nothing of images or models.

A stage's worker is a function of one task, or an object with `opened`, whose `with` block opens
what it needs and gives a function of tasks: that one takes them as it can do them, many at a time.
Either can be pickled, and gives an `Outcome` a task: its value, or the `PairError` that is the
task's own. Any other exception stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from chronoprep.config import RunSettings
from chronoprep.data import Outcome
from chronoprep.engine.cluster import K, Needs, U, run_on_ray
from chronoprep.engine.local import (
    Keyed,
    Worker,
    Working,
    batched,
    check_stopped,
    cores,
    gathered,
    mapped,
    run,
    stopping,
    under_way,
    until_stopped,
)

__all__ = [
    "Keyed",
    "Needs",
    "Worker",
    "Working",
    "batched",
    "check_stopped",
    "cores",
    "gathered",
    "mapped",
    "run",
    "run_as_asked",
    "stopping",
    "under_way",
    "until_stopped",
]


def run_as_asked(
    worker: Worker[K, U] | Callable[[K], U],
    tasks: Collection[K],
    settings: RunSettings,
    needs: Needs,
    *,
    only_here: bool = False,
) -> Iterator[list[Outcome[U]]]:
    """Do tasks where the settings say: as `run` or as `run_on_ray`."""
    if settings.engine == "ray" and needs != "nothing":
        return run_on_ray(worker, tasks, settings, needs, only_here=only_here)
    return run(worker, tasks, waits=needs == "disk")
