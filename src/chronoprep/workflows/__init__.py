"""What the commands do, as functions: a researcher's script calls the same ones.

Each takes a dataset folder and `Settings`, and returns summaries. PAIRS, where pairs are looked
for, has to be named once: from then on the dataset knows them. None prints or exits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chronoprep.config import Settings
from chronoprep.data import Pair
from chronoprep.dataset import Entry
from chronoprep.files import replacing
from chronoprep.images.refs import of_path
from chronoprep.rows import Rows
from chronoprep.workflows.embeddings import embed_prompts, embed_run
from chronoprep.workflows.label import brings_label, label_by_text, label_one, make_labels
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, opened
from chronoprep.workflows.synthesis import write_synthetic
from chronoprep.workflows.table import build_table, prompt_of
from chronoprep.workflows.videos import write_one
from chronoprep.workflows.videos import write_videos as run_videos

__all__ = [
    "Reporter",
    "Silent",
    "Summary",
    "add_cot",
    "build_csv",
    "caption_pairs",
    "embed_prompts",
    "known_models",
    "label_one",
    "prepare",
    "video_one",
    "write_synthetic",
    "write_text",
    "write_videos",
]


def caption_pairs(
    dataset: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    with_cot: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Caption all pairs into the dataset's journal; with `with_cot`, both stages."""
    with opened(dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run) as run:
        return [run.summary, *make_labels(run, "model", with_cot=with_cot)]


def add_cot(
    dataset: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Stage 2 alone, from the captions that the data brings or the journal holds."""
    with opened(dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run) as run:
        return [run.summary, *make_labels(run, "existing", with_cot=True)]


def write_videos(
    dataset: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Write a 2-frame video of every pair."""
    with opened(dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run) as run:
        return [run.summary, run_videos(run, run.entries)]


def video_one(source: Path, target: Path, path: Path, settings: Settings) -> tuple[str, ...]:
    """Write the video of a single pair; returns notes on what was done to the images.

    Raises:
        PairError: When an image can't be used or the video can't be read back.
    """
    written = write_one(
        Pair(source.stem, of_path(str(source)), of_path(str(target))), path, settings
    )
    if written.not_copied:
        return (*written.notes, f"not copied but encoded lossless: {written.not_copied}")
    return written.notes


def build_csv(
    dataset: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """metadata.csv, with no model. Prompts come from the journal, the data itself (a column,
    sidecars) or one fixed text.

    With `pairs`, missing videos are written first; without, nothing but the table is: it follows
    from the index, the journal and the files that are there.
    """
    look = pairs is not None
    with opened(
        dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run, look=look
    ) as run:
        journal, fixed = run.dataset.journal, settings.labels.prompt
        brought = run.entries.where(
            lambda entry: fixed is not None or brings_label(entry, journal.state(entry.key))
        )
        done = [label_by_text(run, brought)] if brought else []
        coming = {entry.key for entry in brought} if dry_run else set()
        return [run.summary, *done, *_artefacts(run, coming, videos=look)]


def prepare(
    dataset: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    with_umt5: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Everything: labels, videos, metadata.csv and, if asked for, embeddings. Resumable."""
    with opened(dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run) as run:
        if with_umt5:
            # Found missing now, and not after hours of captioning.
            from chronoprep import umt5

            umt5.find_encoder(settings.umt5)
        done = [run.summary, *make_labels(run, "brought", with_cot=True)]
        coming = {entry.key for entry in run.entries} if dry_run else set()
        done += _artefacts(run, coming, videos=True)
        if with_umt5 and not dry_run:
            done += embed_run(run)
        return done


def _artefacts(run: Run, coming: set[str], *, videos: bool) -> list[Summary]:
    """Videos of the pairs that will stand in the table, then the table.

    Args:
        coming: In a dry run, the pairs that the run would label: none may say "no change".
    """
    journal = run.dataset.journal

    def stands(entry: Entry) -> bool:
        state = journal.state(entry.key)
        if state.status in (None, "failed"):
            return entry.key in coming
        prompted = bool(prompt_of(state, run.settings)) or entry.key in coming
        return state.status == "ok" and prompted

    done: list[Summary] = []
    if videos:
        standing: Rows[Entry] = run.entries.where(stands)
        done.append(run_videos(run, standing))
    return done if run.dry_run else [*done, build_table(run)]


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically as UTF-8, making its folder."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def known_models() -> list[dict[str, Any]]:
    """The registry, what each model needs in bfloat16, and what this machine has.

    `runs on` is "GPU", "CPU" (slowly) or "" where neither holds the model.
    """
    import psutil

    from chronoprep import checkpoint, memory, vlm

    gpu, ram = sum(memory.of_gpus()), psutil.virtual_memory().available
    return [
        {
            "name": spec.name,
            "id": spec.id,
            "family": spec.family,
            "parameters_b": spec.parameters,
            "memory_gb": round(spec.memory / 1e9, 1),
            "runs_on": "GPU" if spec.memory <= gpu else "CPU" if spec.memory <= ram else "",
            "cached": spec.folder is not None or checkpoint.is_cached(spec.id),
        }
        for spec in vlm.MODELS.values()
    ]
