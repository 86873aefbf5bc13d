"""What Ctrl-C, a scheduler's SIGTERM and a lost terminal do.

While a command runs, the first signal asks it to stop: what is under way is finished and written
down, for some seconds at most. A second one ends the process at once; so does the first while
nothing runs that could lose something.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

GRACE = 5.0  # seconds for what is under way
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]

_caught: list[int] = []
_working = threading.Event()


def handle(handler: Callable[[int, object], None]) -> dict[int, Any]:
    """Have signals handled so from here on; those that are to be ignored, as by `nohup`, stay so.

    Returns:
        How they were handled before.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [n for n in _SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in heard}


@contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have signals handled so meanwhile."""
    before = handle(handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def working() -> Iterator[None]:
    """Meanwhile a signal asks to stop, and does not end the process."""
    # A handler must not be the first to import: it may stand in the midst of another import.
    import chronoprep.engine
    import chronoprep.errors  # noqa: F401

    _working.set()
    try:
        yield
    finally:
        _working.clear()


def exit_code() -> int:
    """Of a command that was stopped."""
    return 128 + (_caught[0] if _caught else signal.SIGINT)


def leave(number: int, _frame: object = None) -> NoReturn:
    """End the process at once."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    os._exit(128 + number)


def stop(number: int, _frame: object = None) -> None:
    """Ask a command to stop, and end it once it had its time."""
    if _caught or not _working.is_set():
        leave(_caught[0] if _caught else number)

    from chronoprep import engine
    from chronoprep.errors import Stopped

    _caught.append(number)
    if number == getattr(signal, "SIGHUP", None):
        _without_terminal()
    engine.stopping.set()
    if not engine.under_way.is_set() or not hasattr(signal, "setitimer"):
        raise Stopped

    def late(_number: int, _frame: object) -> None:
        if engine.under_way.is_set():  # else it is being written down
            raise Stopped

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, GRACE)


def finish(code: int) -> NoReturn:
    """End a process that was stopped, without waiting for what may still run in its threads."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def caught() -> bool:
    return bool(_caught)


def _without_terminal() -> None:
    """Writing to a terminal that is gone would fail."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
