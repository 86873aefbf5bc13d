"""Work on a Ray cluster: plain Ray Data over actors, each of which has the worker open.

Tasks travel in parcels, outcomes come back as they are ready, in any order. What a dead worker or a
removed node had under way, Ray gives to another one; what comes twice for that is taken once, and
what never comes is sent again. Ray's own checkpoints are not used: what is done stands in the
dataset's journal, and the next run sends the rest.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import queue
import re
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from chronoprep.config import RunSettings
from chronoprep.data import Outcome
from chronoprep.engine.local import Keyed, Worker, mapped, stopping, under_way
from chronoprep.errors import BackendError, ChronoprepError, ConfigError

if TYPE_CHECKING:
    import pyarrow

Needs = Literal["nothing", "disk", "cpu", "gpu"]
"""What a worker wants of a machine most; with nothing, it is not worth a journey."""

K = TypeVar("K", bound=Keyed)
U = TypeVar("U")

# Parcels a worker: more level the load and cost less when one dies, fewer fill batches better.
_PARCELS = 8
_SMALLEST, _LARGEST = 8, 1024
_BLINK = 0.5  # seconds after which a wait looks whether the run is to stop
_PATIENCE = 10.0  # seconds for a cluster to answer at all
_PLACE = re.compile(r"(?:ray://)?\[?(?P<host>[^/\]]+?)\]?:(?P<port>\d+)")
_AGAIN = "What was done is kept; run it again to go on."


def run_on_ray(
    worker: Worker[K, U] | Callable[[K], U],
    tasks: Collection[K],
    settings: RunSettings,
    needs: Needs,
    *,
    only_here: bool = False,
) -> Iterator[list[Outcome[U]]]:
    """Do tasks on the cluster that settings name, else on one of this machine.

    Args:
        only_here: Whether what workers write has to come to be on this machine's disk.

    Raises:
        ConfigError: Ray is not installed, or no node of the cluster has so many GPUs, or there are
            other machines in it than this one may have.
        BackendError: The cluster can't be reached or can't go on; or as a worker raises it.
    """
    _join(settings)
    if only_here:
        _require_here()
    size, gpus = _workers(settings, needs)
    seen: set[str] = set()
    while len(seen) < len(tasks) and not stopping.is_set():
        left = [task for task in tasks if task.key not in seen] if seen else list(tasks)
        before, lost = len(seen), ""
        under_way.set()
        try:
            for answer in _answers(worker, left, size, gpus):
                if isinstance(answer, ChronoprepError):
                    raise answer
                if new := [outcome for outcome in answer if outcome.key not in seen]:
                    seen.update(outcome.key for outcome in new)
                    yield new
        except _LostError as error:
            lost = str(error)
        finally:
            under_way.clear()
        if len(seen) == before and not stopping.is_set():
            raise BackendError(f"Ray can't go on: {lost or 'tasks are lost'}.", hint=_AGAIN)


class _LostError(Exception):
    """Ray gave up on a task."""


class _Actor:
    """Holds a worker, which is opened at its first parcel and stays so until the actor ends."""

    def __init__(self, worker: bytes, here: str) -> None:
        with suppress(OSError):  # relative paths are those of the driver
            os.chdir(here)
        self._worker: Any = pickle.loads(worker)
        self._open = ExitStack()
        self._work: Any = None

    def __call__(self, parcels: pyarrow.Table) -> Iterator[pyarrow.Table]:
        try:
            if self._work is None:
                self._work = self._opened()
            for parcel in parcels["data"]:
                for outcomes in self._work(pickle.loads(parcel.as_py())):
                    yield _table([outcomes])
        except ChronoprepError as error:  # raised, it would come as one of Ray's
            yield _table([error])

    def _opened(self) -> Any:
        if not callable(self._worker):
            return self._open.enter_context(self._worker.opened())

        def one_by_one(tasks: list[Any]) -> Iterator[list[Outcome[Any]]]:
            for outcome in mapped(self._worker, tasks, key=lambda task: task.key, workers=1):
                yield [outcome]

        return one_by_one


def _table(rows: list[Any]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({"data": pyarrow.array(map(pickle.dumps, rows), pyarrow.binary())})


def _answers(
    worker: Any, tasks: list[Any], size: int, gpus: float
) -> Iterator[list[Outcome[Any]] | ChronoprepError]:
    """What comes back of tasks, until all is there or the run is to stop.

    Raises:
        _LostError: Ray gave up.
    """
    import ray
    import ray.data

    many = min(_LARGEST, max(_SMALLEST, math.ceil(len(tasks) / (size * _PARCELS))))
    parcels = [_table([tasks[at : at + many]]) for at in range(0, len(tasks), many)]
    size = min(size, len(parcels))
    answers = ray.data.from_arrow(parcels).map_batches(
        _Actor,
        fn_constructor_args=(pickle.dumps(worker), str(Path.cwd())),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
        num_cpus=1,
        num_gpus=gpus,
    )
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    given_up = threading.Event()

    def listen() -> None:
        try:
            for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                arrived.put(batch)
                if given_up.is_set():
                    return
            arrived.put(None)
        except Exception as error:  # what Ray and the network have
            arrived.put(error)

    # A wait for Ray does not end for a signal, one for a queue does.
    threading.Thread(target=listen, name="chronoprep-ray", daemon=True).start()
    try:
        while not stopping.is_set():
            try:
                batch = arrived.get(timeout=_BLINK)
            except queue.Empty:
                continue
            if batch is None:
                return
            if isinstance(batch, Exception):
                raise _LostError((str(batch).strip().splitlines() or [type(batch).__name__])[-1])
            for row in batch["data"]:
                yield pickle.loads(row.as_py())
    finally:
        given_up.set()


def _join(settings: RunSettings) -> None:
    """Be part of the cluster, once a process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "--engine ray needs a package that is not installed.",
            hint="pip install 'chronoprep[ray]'",
        ) from None
    if ray.is_initialized():
        return
    address = settings.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        if place := _PLACE.fullmatch(address):  # Ray itself would try for minutes
            socket.create_connection((place["host"], int(place["port"])), _PATIENCE).close()
        with _own_signals():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # the network's, Ray's, of versions that differ
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"Ray at {address}: {reason}",
            hint="Start it by `ray start --head`, and give --ray-address as that says it.",
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from deciding what a signal does to the driver."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_here() -> None:
    """Refuse a cluster of several machines.

    Raises:
        ConfigError: Saying what to do instead.
    """
    import ray

    if len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1:
        raise ConfigError(
            "The workers of --engine ray on other machines can't write into a dataset in an object "
            "store.",
            hint="Name a folder that all nodes share; or use --shard, on each machine.",
        )


def _workers(settings: RunSettings, needs: Needs) -> tuple[int, float]:
    """How many workers, and the GPUs of each.

    Raises:
        ConfigError: No node has so many.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    gpus = 0.0
    if needs == "gpu":
        asked = settings.gpus_per_worker
        gpus = min(1.0, most) if asked is None else asked
        if gpus > most:
            raise ConfigError(
                f"--gpus-per-worker {gpus:g}: no node of the Ray cluster has more than {most:g}.",
                hint="Ask for fewer, or leave it out.",
            )
    if settings.workers is not None:
        return settings.workers, gpus
    room = [
        math.floor(node.get("GPU", 0.0) / gpus + 1e-6) if gpus else int(node.get("CPU", 0.0))
        for node in nodes
    ]
    return max(1, sum(room)), gpus
