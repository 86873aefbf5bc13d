"""What the commands do, as functions: a researcher's script calls the same ones.

Each takes a dataset folder and `Settings`, and returns summaries. PAIRS, where pairs are looked
for, has to be named once: from then on the dataset knows them. None prints or exits.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep.config import Settings
from chronoprep.data import Pair
from chronoprep.dataset import Entry, State
from chronoprep.files import make_folder, replacing
from chronoprep.images.refs import of_path
from chronoprep.mp4 import Sample
from chronoprep.workflows.label import brings_label, label_by_text, label_one, make_labels
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, opened
from chronoprep.workflows.table import build_table, prompt_of
from chronoprep.workflows.videos import write_one
from chronoprep.workflows.videos import write_videos as run_videos

if TYPE_CHECKING:
    from chronoprep.workflows.embeddings import embed_prompts
    from chronoprep.workflows.synthesis import write_synthetic
    from chronoprep.workflows.verify import Verification

__all__ = [
    "Reporter",
    "Silent",
    "Summary",
    "add_cot",
    "build_csv",
    "caption_pairs",
    "embed_prompts",
    "label_one",
    "prepare",
    "verify_labels",
    "video_one",
    "write_synthetic",
    "write_text",
    "write_videos",
]


# Workflows whose files few commands need; they take as long to import as all others together.
_ON_FIRST_USE = {"embed_prompts": "embeddings", "write_synthetic": "synthesis"}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_FIRST_USE[name]}"), name)


_COMMON = """Args:
    dataset: A dataset folder; made if need be.
    settings: As `load_settings` gives them.
    pairs: Where to look for pairs: a folder, a table, a .zip; else those that the dataset knows.
    reporter: Is told of progress; without one, nothing is said.
    dry_run: Write nothing; the summaries' `todo` counts what would be done.

Returns:
    A summary of the pairs, then one of each stage.

Raises:
    ConfigError: PAIRS can't be used, the dataset knows no pairs, or the model is not to be had.
    BackendError: Another run holds the dataset, or the machine or the model can't go on. What was
        done until then is kept; the same call goes on."""


def _over_a_dataset(
    work: Callable[..., list[Summary]],
) -> Callable[..., list[Summary]]:
    """A workflow over a `Run`, as one that opens the dataset itself.

    Its signature and docstring say so: those are what a script's author sees.
    """

    @functools.wraps(work, assigned=("__module__", "__name__", "__qualname__"))
    def opening(
        dataset: Path,
        settings: Settings,
        *,
        pairs: Path | None = None,
        reporter: Reporter | None = None,
        dry_run: bool = False,
        **more: Any,
    ) -> list[Summary]:
        # Without PAIRS, a table is made of what is there: it needs no images.
        look = pairs is not None or work.__name__ != "build_csv"
        with opened(
            dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run, look=look
        ) as run:
            return [run.summary, *work(run, **more)]

    own = [*inspect.signature(work).parameters.values()][1:]
    shared = [*inspect.signature(opening, follow_wrapped=False).parameters.values()][:-1]
    opening.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    opening.__doc__ = f"{inspect.cleandoc(work.__doc__ or '')}\n\n{_COMMON}"
    return opening


@_over_a_dataset
def caption_pairs(run: Run, *, with_cot: bool = False) -> list[Summary]:
    """Caption all pairs into the dataset's journal; with `with_cot`, both stages."""
    return make_labels(run, "model", with_cot=with_cot)


@_over_a_dataset
def add_cot(run: Run) -> list[Summary]:
    """Stage 2 alone, from the captions that the data brings or the journal holds."""
    return make_labels(run, "existing", with_cot=True)


@_over_a_dataset
def write_videos(run: Run) -> list[Summary]:
    """Write a 2-frame video of every pair."""
    return [run_videos(run)]


@_over_a_dataset
def build_csv(run: Run) -> list[Summary]:
    """metadata.csv, with no model. Prompts come from the journal, the data itself (a column,
    sidecars) or one fixed text.

    With `pairs`, missing videos are written first; without, nothing but the table is: it follows
    from the index, the journal and the files that are there.
    """
    journal, fixed = run.dataset.journal, run.settings.labels.prompt
    brought = run.entries.where(lambda entry: fixed is not None or brings_label(entry, journal))
    done = [label_by_text(run, brought)] if brought else []
    coming = {entry.key for entry in brought} if run.dry_run else set()
    return [*done, *_artefacts(run, coming, videos=run.files_seen)]


def verify_labels(
    dataset: Path,
    settings: Settings,
    *,
    model: str | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> Verification:
    """Hold the labels of a dataset against what changed between its images.

    Args:
        model: A VLM that judges them, too; without, no model runs.

    Raises:
        ConfigError: The dataset knows no pairs, their place is gone, or the model is not to be had.
        BackendError: Another run holds the dataset, or the machine or the model can't go on.
    """
    from chronoprep.workflows.verify import verify_run

    with opened(dataset, settings, reporter=reporter, dry_run=dry_run) as run:
        return verify_run(run, model)


@_over_a_dataset
def prepare(run: Run, *, with_umt5: bool = False) -> list[Summary]:
    """Everything: labels, videos, metadata.csv and, if asked for, embeddings. Resumable."""
    if with_umt5:
        # Found missing now, and not after hours of captioning.
        from chronoprep import umt5

        umt5.find_encoder(run.settings.umt5)
    done = make_labels(run, "brought", with_cot=True)
    coming = {entry.key for entry in run.entries} if run.dry_run else set()
    done += _artefacts(run, coming, videos=True)
    if with_umt5 and not run.dry_run:
        from chronoprep.workflows.embeddings import embed_run

        done += embed_run(run)
    return done


def video_one(source: Path, target: Path, path: Path, settings: Settings) -> tuple[str, ...]:
    """Write the video of a single pair; returns notes on what was done to the images.

    Raises:
        PairError: When an image can't be used or the video can't be read back.
    """
    make_folder(path.parent)
    pair = Pair(source.stem, of_path(str(source)), of_path(str(target)))
    written = write_one(pair, path, settings, Sample(settings.video.check))
    if written.not_copied:
        return (*written.notes, f"not copied but encoded lossless: {written.not_copied}")
    return written.notes


def _artefacts(run: Run, coming: set[str], *, videos: bool) -> list[Summary]:
    """Videos of the pairs that will stand in the table, then the table.

    Args:
        coming: In a dry run, the pairs that the run would label: none may say "no change".
    """

    def stands(entry: Entry, state: State) -> bool:
        if state.status in (None, "failed"):
            return entry.key in coming
        prompted = bool(prompt_of(state, run.settings)) or entry.key in coming
        return state.status == "ok" and prompted

    done = [run_videos(run, stands)] if videos else []
    return done if run.dry_run else [*done, build_table(run)]


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically as UTF-8, making its folder."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
