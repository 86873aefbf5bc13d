"""What a dataset looks like: its numbers, and a page of them with a gallery.

Nothing of the dataset is written, and no lock is taken: a run may go on meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from chronoprep.config import Settings
from chronoprep.data import Finding, Pair
from chronoprep.engine import batched, mapped
from chronoprep.errors import ConfigError
from chronoprep.files import make_folder
from chronoprep.gallery import Card, Numbers, card_of
from chronoprep.workflows.pairing import look_at
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, opened
from chronoprep.workflows.verify import Verdict, verdicts_of

if TYPE_CHECKING:
    from chronoprep.images.inspection import Inspection

T = TypeVar("T")

FILE = "report.html"
GALLERY = 100  # pairs: a few megabytes
SAMPLE = 100  # pairs whose images are opened: a fifth of a second each
_TOGETHER = 500  # prompts for the tokenizer


@dataclass
class Report:
    """What was found.

    Attributes:
        threshold: Above which score a label is a suspect.
        findings: Of the dataset, of its journal, and of the pairs whose images were opened.
        page: Where the page was written, if one was.
        shown: How many pairs its gallery shows.
    """

    numbers: Numbers
    threshold: float
    findings: list[Finding]
    page: Path | None = None
    shown: int = 0


def report_dataset(
    folder: Path,
    settings: Settings,
    *,
    page: Path | None = None,
    gallery: int = GALLERY,
    reporter: Reporter | None = None,
) -> Report:
    """The numbers of a dataset.

    Args:
        page: Where they are to be written to as one HTML file that needs nothing else.
        gallery: How many pairs it shows: suspects first, then others evenly spread.

    Raises:
        ConfigError: The dataset knows no pairs, the page is no .html, or a tokenizer is not there.
        BackendError: The page can't be written.
    """
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{page}: no name for a page.", hint=f"Name it {FILE}, for example.")
    reporter = reporter or Silent()
    with opened(folder, settings, reporter=reporter, dry_run=True, look=False) as run:
        told = Summary("verified")
        verdicts, threshold = verdicts_of(run, told)
        judged = {verdict.key: verdict for verdict in verdicts}
        numbers = Numbers()
        told.findings += _look(run, numbers)
        labelled = _count(run, judged, numbers)
        suspects = {verdict.key: None for verdict in verdicts if verdict.suspect}
    report = Report(numbers, threshold.all, [*told.findings, *run.summary.findings])
    numbers.find(report.findings)
    if page is not None:
        keys = list(suspects)[:gallery]
        others = [key for key in labelled if key not in suspects]
        keys += evenly(others, gallery - len(keys))
        cards = list(_cards(run, keys, judged, report.findings))
        report.shown = len(cards)
        _write(page, folder, report, cards, len(labelled), settings, reporter)
        report.page = page
    return report


def evenly(items: Sequence[T], count: int) -> list[T]:
    """So many of the items, evenly spread."""
    count = max(0, min(count, len(items)))
    return [items[n * len(items) // count] for n in range(count)]


def _look(run: Run, numbers: Numbers) -> Iterator[Finding]:
    """Open the images of some pairs."""

    def take(seen: Inspection) -> None:
        numbers.look(seen.sizes[0], seen.alignment.shift if seen.alignment.sure else None)

    entries = run.entries
    sample = [entries[at].pair for at in evenly(range(len(entries)), SAMPLE)]
    return look_at(sample, run.settings, run.reporter, take)


def _count(run: Run, judged: dict[str, Verdict], numbers: Numbers) -> list[str]:
    """Count all pairs; returns the keys of those that have a label."""
    count_tokens = _TokenCounter(run.settings)
    labelled: list[str] = []
    run.reporter.start("counting", len(run.entries))
    for part in batched(run.entries, _TOGETHER):
        cards = [
            card_of(entry, run.dataset.journal.state(entry.key), judged.get(entry.key))
            for entry in part
        ]
        unknown = {card.key: card.cot for card in cards if card.cot and card.tokens is None}
        tokens = dict(zip(unknown, count_tokens(list(unknown.values())), strict=False))
        for card in cards:
            numbers.add(card, tokens.get(card.key))
            if card.caption or card.cot:
                labelled.append(card.key)
            run.reporter.advance("ok")
    return labelled


class _TokenCounter:
    """Counts the tokens of prompts; of none, where there is no tokenizer on this machine."""

    def __init__(self, settings: Settings) -> None:
        from chronoprep.umt5.text import Tokens, find_tokenizer

        given, model = settings.umt5.tokenizer, Path(settings.umt5.model).expanduser()
        here = given is not None or model.exists()
        self._tokens = Tokens(find_tokenizer(model, given)) if here else None

    def __call__(self, prompts: list[str]) -> list[int]:
        return self._tokens.count(prompts) if self._tokens is not None and prompts else []


def _cards(
    run: Run, keys: list[str], judged: dict[str, Verdict], findings: list[Finding]
) -> Iterator[Card]:
    """The cards of some pairs, in the order of their keys."""
    found = defaultdict[str, list[Finding]](list)
    for finding in findings:
        if finding.key is not None:
            found[finding.key].append(finding)
    wanted = set(keys)
    entries = {entry.key: entry for entry in run.entries if entry.key in wanted}
    for key in keys:
        state = run.dataset.journal.state(key)
        yield card_of(entries[key], state, judged.get(key), found[key])


def _write(
    page: Path,
    folder: Path,
    report: Report,
    cards: list[Card],
    labelled: int,
    settings: Settings,
    reporter: Reporter,
) -> None:
    from chronoprep.gallery.thumbnails import Thumbnails
    from chronoprep.report import Page, Shown, side_for, write_page

    thumbnails, side = Thumbnails(settings.images, kept=0), side_for(len(cards))
    reporter.start("drawing", len(cards))

    def shown() -> Iterator[Shown]:
        drawn = mapped(
            lambda card: thumbnails.of_pair(Pair(*_pair_of(card)), side),
            cards,
            key=lambda card: card.key,
        )
        for card, outcome in zip(cards, drawn, strict=True):
            reporter.advance("ok" if outcome.error is None else "failed")
            yield Shown(card, outcome.value, outcome.error.message if outcome.error else None)

    make_folder(page.parent)
    write_page(
        page,
        Page(
            title=folder.absolute().name,
            numbers=report.numbers,
            threshold=report.threshold,
            findings=report.findings,
            labelled=labelled,
            cards=len(cards),
        ),
        shown(),
    )


def _pair_of(card: Card) -> tuple[str, str, str]:
    return card.key, card.source, card.target
