"""A dataset before humans' eyes: what the review page needs of the other workflows, and its server.

It takes no lock: a run may go on meanwhile, and what either writes down the other one reads.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from chronoprep.config import Settings
from chronoprep.dataset import Dataset, Entry, Event, State
from chronoprep.errors import ConfigError
from chronoprep.labels.labeller import Labeller
from chronoprep.labels.recipe import LabelTask
from chronoprep.workflows.label import events_of, recipe_of
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, opened
from chronoprep.workflows.table import build_table
from chronoprep.workflows.verify import verdicts_of

if TYPE_CHECKING:
    from chronoprep.gallery.cards import Judged
    from chronoprep.review.desk import Hooks
    from chronoprep.umt5.text import Tokens

HOST = "127.0.0.1"


def review_dataset(
    folder: Path,
    settings: Settings,
    *,
    ready: Callable[[str], None],
    reporter: Reporter | None = None,
) -> None:
    """Serve the review page of a dataset until the process is asked to stop.

    Args:
        ready: Told the page's address once it answers.

    Raises:
        ConfigError: The dataset knows no pairs, the extra is missing, or the port is taken.
    """
    reporter = reporter or Silent()
    try:
        from chronoprep.review.server import Site
    except ImportError as error:
        raise ConfigError(
            f"The review page needs {error.name}, which is not installed.",
            hint="pip install 'chronoprep[review]'",
        ) from None
    from chronoprep.review.desk import Desk
    from chronoprep.review.pictures import Pictures

    run = _run(folder, settings, reporter)
    with _listening(settings.review.port) as listening:
        desk = Desk(run.dataset, settings, settings.review.reviewer, _hooks(run))
        with closing(desk):
            pictures = Pictures(settings, follow_links=settings.review.follow_links)
            Site(desk, pictures).serve(listening, ready)


def _run(folder: Path, settings: Settings, reporter: Reporter) -> Run:
    """The dataset as it is, with its journal read on by whoever asks; nothing is locked."""
    run = Run(Dataset(folder), settings, reporter, dry_run=True, files_seen=False)
    if not run.dataset.index.exists:
        raise ConfigError(
            f"{folder}: this dataset knows no pairs yet.",
            hint=f"`chronoprep caption PAIRS --dataset {folder}` labels pairs for it.",
        )
    run.entries = run.dataset.index.entries(settings.pairs.limit)
    return run


def _listening(port: int) -> socket.socket:
    """A socket of this machine alone, so that its port is known before the server starts.

    Raises:
        ConfigError: The port can't be had.
    """
    # Named in full: else asyncio does not know it for TCP, and small answers wait for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} can't be had: {error.strerror}.",
            hint="Another review may be on. --port 0 takes any port that is free.",
        ) from None
    return listening


def _hooks(run: Run) -> Hooks:
    """What the page has done by the other workflows."""
    from chronoprep.review.desk import Hooks

    settings, folder = run.settings, run.dataset.folder

    def verdicts() -> tuple[Mapping[str, Judged], float]:
        found, threshold = verdicts_of(run, Summary("verified"))
        return {verdict.key: verdict for verdict in found}, threshold.all

    def build_csv() -> list[str]:
        with opened(folder, settings, look=False) as writing:
            summary = build_table(writing)
        return [f"metadata.csv: {summary.done} rows", *summary.notes]

    return Hooks(
        verdicts, _relabelling(settings) if settings.vlm.endpoint else None, build_csv,
        _counting(settings.umt5.tokenizer) if settings.umt5.tokenizer else None,
    )  # fmt: skip


def _relabelling(settings: Settings) -> Callable[[Entry, State], list[Event]]:
    """Asks the endpoint for a label.

    Raises:
        ConfigError: The model is not to be had, or the templates are none.
    """
    recipe = recipe_of(settings)

    def relabel(entry: Entry, state: State) -> list[Event]:
        given = state.text.caption if state.verdict == "edit" else None
        task = LabelTask(*entry[:3], given)
        with Labeller(recipe, with_cot=True).opened() as label:
            ((outcome,),) = label([task])
        return list(events_of(outcome, recipe, state))

    return relabel


def _counting(tokenizer: str) -> Callable[[str], int]:
    """Counts a prompt's tokens as `chronoprep umt5` does."""

    @cache
    def tokens() -> Tokens:
        from chronoprep.umt5.text import Tokens, find_tokenizer

        return Tokens(find_tokenizer(Path(tokenizer), tokenizer))

    return lambda text: tokens().count([text])[0]
