"""What the terminal shows: progress, answers, errors.

Messages go to stderr, results to stdout.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from chronoprep.data import Finding
from chronoprep.errors import ChronoprepError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

    from chronoprep.data import Status
    from chronoprep.workflows.pairing import PairReport
    from chronoprep.workflows.progress import Summary

SHOWN = 5  # findings of a kind
PLAIN_INTERVAL = 10.0  # seconds between progress lines when nobody watches a terminal

# What the kinds of findings are called; another code is its own title.
TITLES = {
    "unusable": "can't be used",
    "unmatched": "without a partner",
    "identical": "target is the source",
    "duplicate": "the same images",
    "near-duplicate": "look the same",
    "other-size": "another size",
    "other-shape": "another shape",
    "renamed-key": "keys made safe",
}
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """A text whose control characters, but tabs and ends of lines, are spelled out."""
    return _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


class Terminal(Console):
    """Where all text is printed: it shows the control characters of a file's name or of an answer,
    for a terminal would obey them."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        raise


class Answer(NamedTuple):
    """What a command has to say.

    Attributes:
        as_json: Makes its JSON.
        draw: Shows it on a terminal.
        failed: Whether some of it makes the command exit with 1.
    """

    as_json: Callable[[], object]
    draw: Callable[[Console], None]
    failed: bool = False


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer; exits with 1 if stdout doesn't take it."""
    with written_out():
        if as_json:
            text = json.dumps(answer.as_json(), ensure_ascii=False, indent=2)
            print(visible(text))  # noqa: T201
        else:
            answer.draw(Terminal())


@contextmanager
def written_out() -> Iterator[None]:
    """What is printed meanwhile has reached stdout in the end; if it can't, this exits with 1."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python writes what is left once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = error.strerror or error
        Terminal(stderr=True).print(f"[bold red]Error:[/] can't write to stdout: {reason}")
        raise SystemExit(1) from None


class TerminalReporter:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Terminal(stderr=True)
        self.quiet = quiet
        self._progress: Progress | None = None
        self._what, self._total, self._done, self._failed = "", 0, 0, 0
        self._began = self._printed = 0.0

    def start(self, what: str, total: int) -> None:
        self.close()
        self._what, self._total, self._done, self._failed = what, total, 0, 0
        self._began = self._printed = time.monotonic()
        if self.quiet or not self.console.is_terminal:
            return
        from rich import progress

        self._progress = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("[red]{task.fields[failed]}"),
            console=self.console,
            transient=True,
        )
        self._progress.add_task(what, total=total, rate="", failed="")
        self._progress.start()

    def advance(self, status: Status) -> None:
        self._done += 1
        self._failed += status == "failed"
        rate = self._done / max(time.monotonic() - self._began, 1e-6)
        failed = f"{self._failed} failed" if self._failed else ""
        if self._progress is not None:
            (task,) = self._progress.task_ids
            self._progress.update(task, advance=1, rate=f"{rate:.1f}/s", failed=failed)
        elif not self.quiet:
            self._plain(rate, failed and f", {failed}")

    def _plain(self, rate: float, failed: str) -> None:
        now, left = time.monotonic(), self._total - self._done
        if now - self._printed < PLAIN_INTERVAL and left > 0:
            return
        self._printed = now
        eta = f", {left / rate:.0f} s left" if left > 0 else ""
        self.console.print(
            f"{self._what}: {self._done}/{self._total}{failed}, {rate:.1f}/s{eta}", markup=False
        )

    def say(self, message: str) -> None:
        if not self.quiet:
            self.console.print(message, markup=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None


def show_error(error: ChronoprepError) -> None:
    console = Terminal(stderr=True)
    console.print(f"[bold red]Error:[/] {escape(error.message)}")
    if error.hint:
        console.print(error.hint, markup=False)


def of_summaries(summaries: Sequence[Summary], where: str = "") -> Answer:
    """The result of a run: a table and what is worth knowing; in JSON, all of it.

    Args:
        where: A last line for people: where the result lies.
    """

    def draw(console: Console) -> None:
        counts = "done|no change|failed|up to date|seconds|to do"
        rows = [
            [
                s.what,
                s.done,
                s.no_change,
                f"[red]{s.failed}[/]" if s.failed else 0,
                s.skipped,
                f"{s.seconds:.1f}",
                "" if s.todo is None else s.todo,
            ]
            for s in summaries
        ]
        _table(console, f"|{counts}", rows, right=counts)
        for summary in summaries:
            for note in summary.notes:
                console.print(f"  {summary.what}: {note}", markup=False)
        _findings(console, findings)
        if where:
            console.print(where, markup=False)

    findings = [
        finding
        for summary in summaries
        for finding in [
            *(Finding(f"{summary.what} failed", "error", *why) for why in summary.failures),
            *summary.findings,
        ]
    ]
    return Answer(lambda: list(map(_summary_json, summaries)), draw, _errors(findings))


def _summary_json(summary: Summary) -> dict[str, Any]:
    values = asdict(summary)
    del values["started"]
    values["failed"] = summary.failed
    values["failures"] = [{"key": key, "reason": why} for key, why in summary.failures]
    return values


def of_report(report: PairReport) -> Answer:
    """What `pairs` found."""

    def draw(console: Console) -> None:
        captions = f", {report.captions} with a caption or prompt" if report.captions else ""
        console.print(f"[bold]{report.pairs} pairs[/] ({escape(report.layout)}){captions}")
        _findings(console, report.findings)
        if not report.looked:
            console.print("The images were not opened.")

    return Answer(report.as_json, draw, _errors(report.findings))


def of_models(models: Sequence[dict[str, Any]]) -> Answer:
    """The registry."""

    def draw(console: Console) -> None:
        rows = [
            [
                model["name"],
                model["id"],
                f"{model['memory_gb']:.0f} GB" if model["memory_gb"] >= 1 else "< 1 GB",
                model["runs_on"] or "too large",
                "yes" if model["cached"] else "",
            ]
            for model in models
        ]
        _table(console, "name|hub id|needs|runs here on|cached", rows, right="needs")
        console.print("--model also takes any other image-text-to-text hub id, or a folder.")

    return Answer(lambda: list(models), draw)


def of_text(text: str, value: object) -> Answer:
    """A text for people, a value for JSON."""
    return Answer(lambda: value, lambda console: console.print(text, markup=False))


def _table(console: Console, names: str, rows: list[list[Any]], *, right: str = "") -> None:
    """A table of columns named in `names`; those in `right` are set to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names.split("|"):
        table.add_column(name, justify="right" if name in right.split("|") else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def _errors(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _findings(console: Console, findings: Sequence[Finding]) -> None:
    """The first few findings of each kind, the worst kind first; a remedy stands below the last of
    those that it is for."""
    kinds: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: list(COLOURS).index(finding.severity)):
        kinds.setdefault(finding.code, []).append(finding)
    for code, alike in kinds.items():
        colour, title = COLOURS[alike[0].severity], TITLES.get(code, code.replace("-", " "))
        console.print(f"[{colour}]{title}: {len(alike)}[/]")
        shown = alike[:SHOWN]
        for finding, after in zip(shown, [*shown[1:], None], strict=True):
            key = "" if finding.key is None else f"{finding.key}: "
            console.print(f"  {key}{finding.message}", markup=False)
            if finding.remedy and (after is None or finding.remedy != after.remedy):
                console.print(f"    {finding.remedy}", markup=False)
        if len(alike) > SHOWN:
            console.print(f"  … and {len(alike) - SHOWN} more: all with --json", markup=False)
