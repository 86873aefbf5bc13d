"""What a workflow tells while it runs, and what it returns at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chronoprep.data import Finding, Status
from chronoprep.dataset import Event, Failure, Label, Video
from chronoprep.errors import cause


class Reporter(Protocol):
    """Where a workflow's news go; the command line draws them."""

    def start(self, what: str, total: int) -> None:
        """A stage begins, with `total` items to do."""

    def advance(self, status: Status) -> None:
        """One item of the stage is done."""

    def say(self, message: str) -> None:
        """Something that the user should know."""


class Silent:
    """A reporter for library use: says nothing."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, status: Status) -> None: ...

    def say(self, message: str) -> None: ...


@dataclass
class Summary:
    """What a workflow did.

    Attributes:
        what: The stage, for example "labels".
        done, no_change, failed, skipped: Counts; skipped items were up to date already.
        failures: Key and reason of every failure, in order.
        adjustments: What was done to the images of a pair: fitted, composited, first of n frames.
        notes: What was changed or left out on the way, readable.
        findings: What is the matter with the dataset as a whole.
        todo: With a dry run: how many items would be worked on.
    """

    what: str
    done: int = 0
    no_change: int = 0
    skipped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    adjustments: list[str] = field(default_factory=list)
    todo: int | None = None
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic, repr=False)

    @property
    def failed(self) -> int:
        return len(self.failures)

    def fail(self, key: str, reason: str) -> None:
        self.failures.append((key, reason))

    def causes(self) -> list[tuple[str, list[str]]]:
        """The failures by their cause, the most frequent first: one's reason, and all keys."""
        groups: dict[str, tuple[str, list[str]]] = {}
        for key, reason in self.failures:
            groups.setdefault(cause(reason, key), (reason, []))[1].append(key)
        return sorted(groups.values(), key=lambda group: -len(group[1]))

    def count(self, events: Iterable[Event]) -> Status:
        """Count a task by the events that came of it."""
        status: Status = "ok"
        for event in events:
            if isinstance(event, Label | Video):
                self.adjusted(event.key, event.notes)
            if isinstance(event, Failure):
                self.fail(event.key, event.error)
                status = "failed"
            elif isinstance(event, Label) and status == "ok":
                status = "no_change" if event.no_change else "ok"
        self.done += status == "ok"
        self.no_change += status == "no_change"
        return status

    def adjusted(self, key: str, notes: Sequence[str]) -> None:
        """Remember what was done to a pair's images; the first few are shown."""
        if notes:
            self.adjustments.append(f"{key}: {', '.join(notes)}")

    def finish(self) -> Summary:
        if self.adjustments:
            shown = "; ".join(self.adjustments[:3]) + ("; …" if len(self.adjustments) > 3 else "")
            self.notes.append(f"images adjusted: {len(self.adjustments)} ({shown})")
        self.seconds = round(time.monotonic() - self.started, 3)
        return self
