"""When one pair after the other fails, who is to blame: the pairs, or what works on them."""

from __future__ import annotations

from chronoprep.dataset import Event, Failure
from chronoprep.errors import BackendError, cause

# So many failures of one cause, with nothing else before or between them, are not the pairs'.
_FIRST = 8
_IN_A_ROW = 32


class Streak:
    """Failures of one cause that follow each other. Whether the pairs are to blame shows later: for
    a while they are held back, also over answers that were under way when the cause began."""

    def __init__(self, what: str) -> None:
        self.held: list[Event] = []
        self._what, self._only = what, True
        self._cause, self._length, self._others = "", 0, 0

    def taken(self, key: str, events: list[Event], *, own: bool) -> list[Event]:
        """What is to be written down now that a pair's events are here.

        Args:
            own: Whether a failure among them is the pair's own, which says nothing of others.
        """
        failures = [event for event in events if isinstance(event, Failure)]
        if failures and own:
            return events
        found = cause(failures[0].error, key) if failures else self._cause
        before = [] if found == self._cause else self.held
        if found != self._cause:
            self._only = self._only and not self._cause
            self._cause, self._length, self.held = found, 0, []
        if failures:
            self.held += failures
            self._length, self._others = self._length + 1, 0
        else:
            self._length, self._others, self._only = 0, self._others + 1, False
        kept = 2 * _IN_A_ROW if self._others < _IN_A_ROW else 0
        before += self.held[: max(0, len(self.held) - kept)]
        self.held = self.held[len(self.held) - min(kept, len(self.held)) :]
        return [*before, *(event for event in events if not isinstance(event, Failure))]

    def check(self) -> None:
        """Stop where the pairs can't be to blame.

        Raises:
            BackendError: Saying the cause.
        """
        if self._length < (_FIRST if self._only else _IN_A_ROW):
            return
        last, self.held = self.held[-1], []
        pairs = f"{'The first ' if self._only else ''}{self._length} pairs"
        reason = last.error if isinstance(last, Failure) else ""
        raise BackendError(
            f"{self._what}: {pairs}{'' if self._only else ' in a row'} fail for one cause, "
            f"so the run stops. {reason}",
            hint="No pair is marked as failed for it, and what was done is kept: once the cause is "
            "mended, run it again.",
        )
