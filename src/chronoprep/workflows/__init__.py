"""What the commands do, as functions: a researcher's script calls the same ones.

Each takes where the pairs are, a dataset folder and `Settings`, and returns a `Summary`. None
prints or exits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chronoprep import pairs as rooms_pairs
from chronoprep.config import Settings
from chronoprep.data import Frame, Label, Pair
from chronoprep.dataset import Dataset
from chronoprep.errors import ConfigError
from chronoprep.files import replacing
from chronoprep.images.refs import parse
from chronoprep.labels.recipe import Captions, normal_caption
from chronoprep.pairs import Discovery
from chronoprep.rows import Rows
from chronoprep.workflows import artefacts, embeddings
from chronoprep.workflows.label import label_by_model, label_by_text, label_one
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.synthesis import write_synthetic

__all__ = [
    "Reporter",
    "Silent",
    "Summary",
    "add_cot",
    "build_csv",
    "caption_pairs",
    "discover",
    "embed_prompts",
    "known_models",
    "label_one",
    "prepare",
    "video_one",
    "write_synthetic",
    "write_text",
    "write_videos",
]


def discover(where: Path, settings: Settings, reporter: Reporter) -> tuple[Discovery, Summary]:
    """Find the pairs and say what was passed over.

    Returns:
        The pairs, and a summary whose failures are the pairs that can't be used.

    Raises:
        ConfigError: When there are no pairs, the roles are ambiguous, or with `strict` anything
            was passed over.
    """
    found = rooms_pairs.discover(where, settings.pairs)
    summary = Summary("pairs", done=len(found.pairs))
    reporter.say(f"{len(found.pairs)} pairs in {where} ({found.layout})")
    if found.unmatched:
        names = ", ".join(path.name for path in found.unmatched[:5])
        more = ", …" if len(found.unmatched) > 5 else ""
        summary.notes.append(f"without a partner: {len(found.unmatched)} ({names}{more})")
    if found.ambiguous:
        summary.notes.append(
            f"ambiguous: {len(found.ambiguous)} ({'; '.join(found.ambiguous[:3])})"
        )
    if found.renamed:
        renames = ", ".join(f"{old!r} → {new!r}" for old, new in found.renamed[:3])
        summary.notes.append(f"keys made safe: {len(found.renamed)} ({renames})")
    for outcome in found.bad:
        summary.fail(outcome.key, outcome.error.reason if outcome.error else "can't be used")
    return found, summary.finish()


def caption_pairs(
    where: Path,
    folder: Path,
    settings: Settings,
    *,
    with_cot: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Caption all pairs into the dataset's journal; with `with_cot`, both stages."""
    return _label(where, folder, settings, "model", with_cot, reporter, dry_run)


def add_cot(
    where: Path,
    folder: Path,
    settings: Settings,
    *,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Stage 2 alone, from the captions that the data brings or the journal holds."""
    return _label(where, folder, settings, "existing", True, reporter, dry_run)


def _label(
    where: Path,
    folder: Path,
    settings: Settings,
    captions: Captions,
    with_cot: bool,
    reporter: Reporter | None,
    dry_run: bool,
) -> list[Summary]:
    reporter = reporter or Silent()
    found, summary = discover(where, settings, reporter)
    dataset = Dataset(folder)
    with _opened(dataset, dry_run):
        settings = _for_clips(found.pairs, settings)
        labels = _labels(found.pairs, dataset, settings, captions, with_cot, reporter, dry_run)
    return [summary, *labels]


def _labels(
    pairs: Rows[Pair],
    dataset: Dataset,
    settings: Settings,
    captions: Captions,
    with_cot: bool,
    reporter: Reporter,
    dry_run: bool,
) -> list[Summary]:
    """Labels by the cheapest way: a fixed text, one that the data brings, else the model.

    `caption` and `cot` ask for the model by name; a fixed prompt in the configuration does not
    concern them.
    """
    fixed = settings.labels.prompt
    if fixed is not None and captions == "brought":
        return [label_by_text(pairs, dataset, fixed=fixed, reporter=reporter, dry_run=dry_run)]

    def finished_already(pair: Pair) -> bool:
        whole = pair.prompt or normal_caption(pair.caption) == "no change"
        return bool(whole) and captions == "brought"

    finished = pairs.where(finished_already)
    rest = pairs.where(lambda pair: not finished_already(pair)) if finished else pairs
    done = []
    if finished:
        done.append(label_by_text(finished, dataset, reporter=reporter, dry_run=dry_run))
    if rest:
        done.append(
            label_by_model(
                rest,
                dataset,
                settings,
                with_cot=with_cot,
                captions=captions,
                reporter=reporter,
                dry_run=dry_run,
            )
        )
    return done


def _for_clips(pairs: Rows[Pair], settings: Settings) -> Settings:
    """Clips are asked about as clips, unless the user or the model has prompts of its own."""
    from chronoprep import vlm

    labels = settings.labels
    if labels.preset or not pairs or not isinstance(parse(pairs[0].source), Frame):
        return settings
    if vlm.preset(settings.vlm) != "default":
        return settings
    return settings.model_copy(update={"labels": labels.model_copy(update={"preset": "video"})})


def write_videos(
    where: Path,
    folder: Path,
    settings: Settings,
    *,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Write a 2-frame video of every pair."""
    reporter = reporter or Silent()
    found, summary = discover(where, settings, reporter)
    dataset = Dataset(folder)
    with _opened(dataset, dry_run):
        return [
            summary,
            artefacts.write_videos(
                found.pairs, dataset, settings, reporter=reporter, dry_run=dry_run
            ),
        ]


def video_one(source: Path, target: Path, path: Path, settings: Settings) -> tuple[str, ...]:
    """Write the video of a single pair; returns notes on what was done to the images.

    Raises:
        PairError: When an image can't be used or the video can't be read back.
    """
    from chronoprep.images.load import content_hash

    pair = Pair(source.stem, str(source), str(target))
    stamp = artefacts.video_stamp(content_hash(pair), settings)
    written = artefacts.write_one(pair, path, settings, stamp)
    if written.not_copied:
        return (*written.notes, f"not copied but encoded lossless: {written.not_copied}")
    return written.notes


def build_csv(
    where: Path,
    folder: Path,
    settings: Settings,
    *,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """metadata.csv from a folder of pairs, with no model: missing videos are written, prompts come
    from the journal, the data itself (a column, sidecars) or one fixed text."""
    reporter = reporter or Silent()
    found, summary = discover(where, settings, reporter)
    dataset = Dataset(folder)
    with _opened(dataset, dry_run):
        labelled = dataset.labels()
        fixed = settings.labels.prompt
        brought = found.pairs.where(
            lambda pair: fixed is not None or _brings_label(pair, labelled.get(pair.key))
        )
        done = [summary]
        if brought:
            done.append(
                label_by_text(
                    brought,
                    dataset,
                    fixed=fixed,
                    reporter=reporter,
                    dry_run=dry_run,
                )
            )
        coming = brought if dry_run else None
        return done + _artefacts(found, dataset, settings, reporter, labelled_now=coming)


def prepare(
    where: Path,
    folder: Path,
    settings: Settings,
    *,
    with_umt5: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Everything: labels, videos, metadata.csv and, if asked for, embeddings. Resumable."""
    reporter = reporter or Silent()
    found, summary = discover(where, settings, reporter)
    dataset = Dataset(folder)
    with _opened(dataset, dry_run):
        if with_umt5:
            # Found missing now, and not after hours of captioning.
            from chronoprep import umt5

            umt5.find_encoder(settings.umt5)
        done = [summary]
        settings = _for_clips(found.pairs, settings)
        done += _labels(found.pairs, dataset, settings, "brought", True, reporter, dry_run)
        coming = found.pairs if dry_run else None
        done += _artefacts(found, dataset, settings, reporter, labelled_now=coming)
        if with_umt5 and not dry_run:
            done.append(embeddings.embed_prompts(dataset.csv, settings, reporter=reporter))
    return done


def embed_prompts(
    csv: Path,
    settings: Settings,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Embeddings and the `umt5` column for any metadata.csv; with `force`, all of them anew."""
    if not csv.is_file():
        raise ConfigError(
            f"{csv}: no such file.", hint="`chronoprep build-csv` or `prepare` writes one."
        )
    with _opened(Dataset(csv.parent), dry_run):
        return [
            embeddings.embed_prompts(
                csv, settings, force=force, reporter=reporter or Silent(), dry_run=dry_run
            )
        ]


def _brings_label(pair: Pair, label: Label | None) -> bool:
    """Whether a pair's own text is its label: the journal's comes first, unless it is that text's
    earlier state or a failure."""
    if not (pair.prompt or pair.caption):
        return False
    if label is None or label.status == "failed":
        return True
    return label.origin == "brought" and label.cot_model is None


def _artefacts(
    found: Discovery,
    dataset: Dataset,
    settings: Settings,
    reporter: Reporter,
    *,
    labelled_now: Rows[Pair] | None,
) -> list[Summary]:
    """Videos of the pairs that will stand in the CSV, then the CSV.

    Args:
        labelled_now: In a dry run, the pairs that the run would label: none may say "no change".
    """
    labels = dataset.labels()
    dry_run = labelled_now is not None
    coming = set() if labelled_now is None else {pair.key for pair in labelled_now}

    def stands(pair: Pair) -> bool:
        label = labels.standing(pair.key)
        if label is None or label.status == "failed":
            return pair.key in coming
        prompted = bool(artefacts.prompt_of(label, settings)) or pair.key in coming
        return label.status == "ok" and prompted

    labelled = found.pairs.where(stands)
    videos = artefacts.write_videos(labelled, dataset, settings, reporter=reporter, dry_run=dry_run)
    if dry_run:
        return [videos]
    wanted = {pair.key for pair in found.pairs}
    return [videos, artefacts.build_csv(dataset, settings, wanted=wanted)]


@contextmanager
def _opened(dataset: Dataset, dry_run: bool) -> Iterator[None]:
    """Hold the dataset's lock; a dry run writes nothing, not even the lock."""
    if dry_run:
        yield
        return
    with dataset.locked():
        yield


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
