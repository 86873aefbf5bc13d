"""What the terminal shows: progress, summaries, errors.

Messages go to stderr, results to stdout.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from chronoprep.errors import ChronoprepError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from chronoprep.data import Status
    from chronoprep.workflows.progress import Summary

SHOWN_FAILURES = 8
PLAIN_INTERVAL = 10.0  # seconds between progress lines when nobody watches a terminal


class TerminalReporter:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._total, self._done, self._failed = "", 0, 0, 0
        self._began = self._printed = 0.0

    def start(self, what: str, total: int) -> None:
        self.close()
        self._what, self._total, self._done, self._failed = what, total, 0, 0
        self._began = self._printed = time.monotonic()
        if self.quiet or not self.console.is_terminal:
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task(what, total=total, rate="", failed="")
        self._progress.start()

    def advance(self, status: Status) -> None:
        self._done += 1
        self._failed += status == "failed"
        rate = self._done / max(time.monotonic() - self._began, 1e-6)
        if self._progress is not None and self._task is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            self._progress.update(self._task, advance=1, rate=f"{rate:.1f}/s", failed=failed)
        elif not self.quiet:
            self._plain(rate)

    def _plain(self, rate: float) -> None:
        now = time.monotonic()
        if now - self._printed < PLAIN_INTERVAL and self._done < self._total:
            return
        self._printed = now
        left = (self._total - self._done) / max(rate, 1e-6)
        failed = f", {self._failed} failed" if self._failed else ""
        eta = f", {left:.0f} s left" if self._done < self._total else ""
        self.console.print(
            f"{self._what}: {self._done}/{self._total}{failed}, {rate:.1f}/s{eta}", markup=False
        )

    def say(self, message: str) -> None:
        if not self.quiet:
            self.console.print(message, markup=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


def show_error(error: ChronoprepError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]Error:[/] {escape(error.message)}")
    if error.hint:
        console.print(escape(error.hint))


def show_summaries(summaries: Sequence[Summary], where: str, *, as_json: bool) -> None:
    """The result of a run: a table with the first failures, or JSON with all of them."""
    if as_json:
        print_json([summary_json(summary) for summary in summaries])
        return
    console = Console(highlight=False, soft_wrap=True)
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("", "done", "no change", "failed", "up to date", "seconds")
    for name in columns:
        table.add_column(name, justify="left" if not name else "right")
    planned = any(summary.todo is not None for summary in summaries)
    if planned:
        table.add_column("to do", justify="right")
    for summary in summaries:
        failed = f"[red]{summary.failed}[/]" if summary.failed else "0"
        row = [
            summary.what,
            str(summary.done),
            str(summary.no_change),
            failed,
            str(summary.skipped),
            f"{summary.seconds:.1f}",
        ]
        if planned:
            row.append("" if summary.todo is None else str(summary.todo))
        table.add_row(*row)
    console.print(table)
    for summary in summaries:
        for note in summary.notes:
            console.print(f"  {summary.what}: {note}", markup=False)
    failures = [(s.what, key, why) for s in summaries for key, why in s.failures]
    for what, key, why in failures[:SHOWN_FAILURES]:
        console.print(f"  [red]failed[/] {escape(f'{what} {key}: {why}')}")
    if len(failures) > SHOWN_FAILURES:
        console.print(
            f"  … and {len(failures) - SHOWN_FAILURES} more: all with --json; failed labels also "
            f"stand in labels.jsonl",
            markup=False,
        )
    if where:
        console.print(where, markup=False)


def show_models(models: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """The registry as a table, or as JSON."""
    if as_json:
        print_json(list(models))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "hub id", "needs", "runs here on", "cached"):
        table.add_column(name, justify="right" if name == "needs" else "left")
    for model in models:
        table.add_row(
            model["name"],
            model["id"],
            f"{model['memory_gb']:.0f} GB" if model["memory_gb"] >= 1 else "< 1 GB",
            model["runs_on"] or "too large",
            "yes" if model["cached"] else "",
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print("--model also takes any other image-text-to-text hub id, or a folder.")


def summary_json(summary: Summary) -> dict[str, Any]:
    values = asdict(summary)
    del values["started"]
    values["failed"] = summary.failed
    values["failures"] = [{"key": key, "reason": why} for key, why in summary.failures]
    return values


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))  # noqa: T201
