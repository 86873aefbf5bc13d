"""Work in this process, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from itertools import islice
from threading import Event
from typing import Protocol, TypeVar, cast

from chronoprep.data import Outcome
from chronoprep.errors import PairError, Stopped

T = TypeVar("T")
U = TypeVar("U")

# Seconds after which a wait looks up: with the signal handler of polars, Ctrl-C does not end it.
_BLINK = 0.5


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


_NOTHING = object()
stopping = Event()
"""Set when the run is to stop: what is under way is finished, and nothing new begins."""
under_way = Event()
"""Set while there are tasks of which something may be half done."""


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """The items, as long as the run is not to stop."""
    source = iter(items)
    while not stopping.is_set():  # before an item is taken that would then be lost
        item = next(source, _NOTHING)
        if item is _NOTHING:
            return
        yield cast(T, item)


def check_stopped() -> None:
    """End the run if it is to stop.

    Raises:
        Stopped: It is.
    """
    if stopping.is_set():
        raise Stopped


class Keyed(Protocol):
    """A task: it says which pair it is about."""

    @property
    def key(self) -> str: ...


K = TypeVar("K", bound=Keyed)
Task_contra = TypeVar("Task_contra", contravariant=True)
Value = TypeVar("Value")


class Worker(Protocol[Task_contra, Value]):
    """Does many tasks at a time."""

    def opened(self) -> AbstractContextManager[Working[Task_contra, Value]]:
        """What it needs, a model for instance, is open in the block."""
        ...


class Working(Protocol[Task_contra, Value]):
    """A worker at work. It may be called again and again."""

    def __call__(self, tasks: Iterable[Task_contra], /) -> Iterator[list[Outcome[Value]]]:
        """Outcomes as they are ready; tasks are read only as far ahead as need be."""
        ...


def run(
    worker: Worker[K, U] | Callable[[K], U], tasks: Iterable[K], *, waits: bool = False
) -> Iterator[list[Outcome[U]]]:
    """Do tasks; outcomes come as they are ready, a function's in the order of its tasks. Where the
    run is to stop, there are no further ones once what is under way is done.

    Args:
        waits: Whether a function waits for the disk longer than it computes.
    """
    tasks = _begun(until_stopped(tasks))
    try:
        if callable(worker):
            # Those that wait for the disk leave their cores to others.
            workers = cores() + (8 if waits else 1)
            for outcome in mapped(worker, tasks, key=lambda task: task.key, workers=workers):
                yield [outcome]
        else:
            with worker.opened() as work:
                yield from work(tasks)
    finally:
        under_way.clear()


def _begun(tasks: Iterable[T]) -> Iterator[T]:
    """The tasks; from the first one on, something is under way."""
    for task in tasks:
        under_way.set()
        yield task


def mapped(
    function: Callable[[T], U],
    items: Iterable[T],
    *,
    key: Callable[[T], str],
    workers: int | None = None,
    ahead: int | None = None,
) -> Iterator[Outcome[U]]:
    """Apply a function to items in threads; outcomes come in the order of the items.

    Args:
        function: Runs in a thread. A `PairError` becomes the item's outcome; anything else is
            raised to the caller.
        items: Read lazily, at most `ahead` items before the outcome that is next.
        key: Names an item's outcome.
        workers: Threads; by default one a core.
        ahead: Results that may wait unread: bounds memory. By default twice the threads.
    """
    workers = workers or cores()
    ahead = ahead or 2 * workers

    def attempt(item: T) -> Outcome[U]:
        try:
            return Outcome(key(item), value=function(item))
        except PairError as error:
            return Outcome(key(item), error=error)

    source = iter(items)
    waiting: deque[Future[Outcome[U]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="chronoprep")
    late = False
    try:
        waiting.extend(pool.submit(attempt, item) for item in islice(source, ahead))
        while waiting:
            while not wait((waiting[0],), timeout=_BLINK).done:
                pass
            outcome = waiting.popleft().result()
            waiting.extend(pool.submit(attempt, item) for item in islice(source, 1))
            yield outcome
    except Stopped:
        late = True  # it had its time
        raise
    finally:
        # Ctrl-C or an error: what has not started must not start.
        pool.shutdown(wait=not late, cancel_futures=True)


def gathered(
    function: Callable[[T], U],
    items: Iterable[T],
    *,
    workers: int,
    stop: Callable[[], None],
) -> Iterator[list[U]]:
    """Apply a function to items in threads; results come in the order in which they are ready.

    Args:
        function: Runs in a thread. Its exception is raised to the caller, after the results that
            are ready by then.
        items: Read lazily, one for every thread.
        workers: Threads, for work that waits elsewhere: on a server, in an engine's queue.
        stop: Called first when the work ends early, so that what waits there stops waiting.

    Yields:
        The results that are ready, one or more at a time.
    """
    source = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="chronoprep") as pool:
        finished = False
        try:
            waiting = {pool.submit(function, item) for item in islice(source, workers)}
            while waiting:
                done, waiting = wait(waiting, timeout=_BLINK, return_when=FIRST_COMPLETED)
                if not done:
                    continue
                failed = [future for future in done if future.exception() is not None]
                if not failed:  # the next ones begin before the caller writes these down
                    waiting |= {pool.submit(function, item) for item in islice(source, len(done))}
                if results := [future.result() for future in done.difference(failed)]:
                    yield results
                for future in failed:
                    future.result()
            finished = True
        finally:
            if not finished:
                stop()


def batched(items: Iterable[T], size: int | Callable[[], int]) -> Iterator[list[T]]:
    """Lists of `size` items, or of as many as it says each time; the last may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size if isinstance(size, int) else size())):
        yield batch
