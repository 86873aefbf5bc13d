"""What the terminal shows: progress, answers, errors.

Messages go to stderr, results to stdout.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.text import Text

from chronoprep.errors import ChronoprepError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from chronoprep.data import Finding, Status
    from chronoprep.workflows.check import CheckReport
    from chronoprep.workflows.doctor import Ability
    from chronoprep.workflows.pairing import PairReport
    from chronoprep.workflows.progress import Summary
    from chronoprep.workflows.verify import Verification

SHOWN = 5  # findings of a kind
NAMED = 3  # pairs that failed of one cause
PLAIN_INTERVAL = 10.0  # seconds between progress lines when nobody watches a terminal

# What the kinds of findings are called; another code is its own title.
TITLES = {
    "unusable": "can't be used",
    "unmatched": "without a partner",
    "passed-over": "passed over",
    "identical": "target is the source",
    "duplicate": "the same images",
    "near-duplicate": "look the same",
    "other-size": "another size",
    "other-shape": "another shape",
    "other-colours": "two colour spaces",
    "renamed-key": "keys made safe",
}
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """A text whose control characters, but tabs and ends of lines, are spelled out."""
    return _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def plain(text: str) -> Text:
    """A text in which brackets are brackets and no markup."""
    return Text(visible(text))


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
        value: What becomes JSON; findings may stand in it.
        shown: What a terminal shows, one below the other.
        failed: Whether some of it makes the command exit with 1.
    """

    value: object
    shown: Iterable[RenderableType]
    failed: bool = False


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer."""
    if as_json:
        text = json.dumps(answer.value, default=asdict, ensure_ascii=False, indent=2)
        print(visible(text))  # noqa: T201
    else:
        console = Terminal()
        for part in answer.shown:
            console.print(part)


class TerminalReporter:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Terminal(stderr=True)
        self.quiet = quiet
        self._progress: Progress | None = None
        self._silent = True
        self._what, self._total, self._done, self._failed = "", 0, 0, 0
        self._began = self._printed = 0.0

    def start(self, what: str, total: int) -> None:
        self.close()
        self._what, self._total, self._done, self._failed = what, total, 0, 0
        self._began = self._printed = time.monotonic()
        if self.quiet or not self.console.is_terminal:
            if self._silent:  # so that a log has its first line before the first items are done
                self.say(f"{what}: 0/{total}")
            return
        from rich import progress

        self._progress = progress.Progress(
            progress.SpinnerColumn(),
            "{task.description}",
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            "{task.fields[rate]}",
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            "[red]{task.fields[failed]}",
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
            return
        now, left = time.monotonic(), self._total - self._done
        if now - self._printed >= PLAIN_INTERVAL or left <= 0:
            self._printed = now
            eta = f"{left / rate:.0f} s left" if left > 0 else ""
            count = f"{self._what}: {self._done}/{self._total}"
            self.say(", ".join(filter(None, (count, failed, f"{rate:.1f}/s", eta))))

    def say(self, message: str) -> None:
        self._silent = False
        if not self.quiet:
            self.console.print(plain(message))

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None


def show_error(error: ChronoprepError) -> None:
    console = Terminal(stderr=True)
    console.print(f"[bold red]Error:[/] {escape(error.message)}")
    if error.hint:
        console.print(plain(error.hint))


def of_summaries(summaries: Sequence[Summary], where: str = "", **more: object) -> Answer:
    """The result of a run: a table and what is worth knowing; in JSON, all of it.

    Args:
        where: A last line for people: where the result lies.
        more: What programs are told of the last one besides.
    """

    counts = "done|no change|failed|up to date|seconds|to do"
    rows = []
    findings: list[Finding] = []
    for s in summaries:
        failed = f"[red]{s.failed}[/]" if s.failed else 0
        todo = "" if s.todo is None else s.todo
        rows.append([s.what, s.done, s.no_change, failed, s.skipped, f"{s.seconds:.1f}", todo])
        findings += s.findings
    notes = [plain(f"  {s.what}: {note}") for s in summaries for note in s.notes]
    last = [plain(where)] if where else []
    failures = [line for s in summaries for line in _failures(s)]
    table = table_of(f"|{counts}", rows, right=counts)
    shown = [table, *notes, *failures, *lines_of(findings), *last]
    failed = bool(failures) or _errors(findings)
    values = list(map(_summary_json, summaries))
    for value in values[-1:]:
        value |= more
    return Answer(values, shown, failed)


def of_report(report: PairReport) -> Answer:
    """What `pairs` found."""
    captions = f", {report.captions} with a caption or prompt" if report.captions else ""
    count = f"[bold]{report.pairs} pairs[/] ({escape(report.layout)}){captions}"
    last = [] if report.looked else ["The images were not opened."]
    shown = [count, str(report.tally), *lines_of(report.findings), *last]
    return Answer({**vars(report), "counts": report.counts}, shown, _errors(report.findings))


def of_check(report: CheckReport) -> Answer:
    """What `check` found; in JSON, the findings alone."""
    reader = {"full": "full-model trainer", "lora": "LoRA trainer"}[report.trainer]
    bad = len({f.key for f in report.findings if f.severity == "error"} - {None})
    state = f"[red]{bad} can't be used[/]" if bad else "nothing stands in the way"
    if not bad and _errors(report.findings):
        state = "[red]there are errors[/]"
    count = f"[bold]{report.samples} samples[/] for the {reader}: {state}"
    return Answer(report.findings, [count, *lines_of(report.findings)], _errors(report.findings))


def of_verification(done: Verification, most: int) -> Answer:
    """What `verify` says: counts, then the worst labels; in JSON, all labels.

    Args:
        most: How many labels are shown.
    """
    summary = of_summaries(done.summaries)
    suspects = sum(verdict.suspect for verdict in done.verdicts)
    rows = [
        [f"{v.score:.2f}", f"{v.percentile:.1f}", "yes" if v.suspect else "", escape(v.key),
         escape("; ".join(v.reasons[:2]))]
        for v in done.verdicts[:most]
        if v.reasons or v.suspect
    ]  # fmt: skip
    by = f"score above {done.threshold.all:.2f}"
    if done.threshold.accepted:
        by += f", from {done.threshold.accepted} labels that a human accepted"
    count = f"{suspects} of {len(done.verdicts)} labels are suspects ({by})"
    table = [table_of("score|percentile|suspect|key|why", rows, right="score|percentile")]
    shown = [*summary.shown, *(table if rows else ()), count]
    value = [verdict._asdict() for verdict in done.verdicts]
    return Answer(value, shown, summary.failed)


def of_models(models: Sequence[dict[str, Any]]) -> Answer:
    """The registry."""
    rows = []
    for model in models:
        needs = f"{model['memory_gb']:.0f} GB" if model["memory_gb"] >= 1 else "< 1 GB"
        where, cached = model["runs_on"] or "too large", "yes" if model["cached"] else ""
        rows.append([model["name"], model["id"], needs, where, cached])
    table = table_of("name|hub id|needs|runs here on|cached", rows, right="needs")
    last = "--model also takes any other image-text-to-text hub id, or a folder."
    return Answer(models, [table, last])


def of_abilities(abilities: Sequence[Ability]) -> Answer:
    """What `doctor` found: each "no" with its remedy."""
    shown: list[RenderableType] = []
    for ability in abilities:
        sign = "[green]yes[/]" if ability.able else "[red]no [/]"
        shown.append(f"{sign} {ability.what:18} {escape(ability.found)}")
        if ability.remedy:
            shown.append(plain(f"    {'':18} {ability.remedy}"))
    failed = any(ability.needed and not ability.able for ability in abilities)
    return Answer([ability._asdict() for ability in abilities], shown, failed)


def of_text(text: str, value: object) -> Answer:
    """A text for people, a value for JSON."""
    return Answer(value, [plain(text)])


def _summary_json(summary: Summary) -> dict[str, Any]:
    failures = [{"key": key, "reason": why} for key, why in summary.failures]
    values = {**vars(summary), "failed": summary.failed, "failures": failures}
    del values["started"]
    return values


def table_of(names: str, rows: list[list[Any]], *, right: str) -> Table:
    """A table of columns named in `names`; those in `right` are set to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names.split("|"):
        table.add_column(name, justify="right" if name in right.split("|") else "left")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _errors(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _failures(summary: Summary) -> Iterator[str | Text]:
    """What failed, a line a cause."""
    causes = summary.causes()
    if causes:
        yield f"[red]{summary.what} failed: {summary.failed}[/]"
    for reason, keys in causes[:SHOWN]:
        more = f", … ({len(keys)} of this cause)" if len(keys) > NAMED else ""
        yield plain(f"  {', '.join(keys[:NAMED])}{more}: {reason}")
    if len(causes) > SHOWN:
        yield plain(f"  … and {len(causes) - SHOWN} more causes: all with --json")


def lines_of(findings: Sequence[Finding]) -> Iterator[str | Text]:
    """The first few findings of each kind, the worst kind first; a remedy stands below the last of
    those that it is for."""
    kinds: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: list(COLOURS).index(finding.severity)):
        kinds.setdefault(finding.code, []).append(finding)
    for code, alike in kinds.items():
        colour, title = COLOURS[alike[0].severity], TITLES.get(code, code.replace("-", " "))
        yield f"[{colour}]{title}: {len(alike)}[/]"
        shown = alike[:SHOWN]
        for finding, after in zip(shown, [*shown[1:], None], strict=True):
            key = "" if finding.key is None else f"{finding.key}: "
            yield plain(f"  {key}{finding.message}")
            if finding.remedy and (after is None or finding.remedy != after.remedy):
                yield plain(f"    {finding.remedy}")
        if len(alike) > SHOWN:
            yield plain(f"  … and {len(alike) - SHOWN} more: all with --json")
