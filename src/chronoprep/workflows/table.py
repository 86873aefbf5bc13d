"""metadata.csv: a pure function of the index, the journal and the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from chronoprep import digest
from chronoprep.config import Settings
from chronoprep.dataset import Files, State, cell_of, prompt_in, same_images
from chronoprep.workflows.progress import Summary
from chronoprep.workflows.stage import Run


def prompt_of(state: State, settings: Settings) -> str | None:
    """The text that the editor trains on, or None when the label has none."""
    prompt = state.text.cot
    if prompt is None and settings.labels.allow_caption_as_prompt:
        prompt = state.text.caption
    return prompt if prompt and prompt.strip() else None


class TableRow(NamedTuple):
    """A row of metadata.csv."""

    key: str
    video: str
    prompt: str
    umt5: str


def table_rows(run: Run, left_out: Counter[str] | None = None) -> Iterator[TableRow]:
    """The rows of metadata.csv, by key.

    Args:
        left_out: Takes the reasons why pairs have no row.
    """
    dataset, settings = run.dataset, run.settings
    videos = Files(dataset.folder / "videos", ".mp4")
    pickles = Files(dataset.folder / "umt5", ".pkl")
    trust = None
    if settings.verify.min_score is not None:
        from chronoprep.workflows.verify import trusted

        trust = trusted(run)
    for key in sorted(dataset.index.keys()):
        state = dataset.journal.state(key)
        prompt = prompt_of(state, settings)
        reason = _why_not(state, prompt, videos)
        if reason is None and trust is not None and not trust.get(key):
            reason = "doubted by verify" if key in trust else "not judged by `chronoprep verify`"
        if reason is not None or prompt is None:
            if left_out is not None and reason is not None:
                left_out[reason] += 1
            continue
        cell, embedding = cell_of(prompt), state.embedding
        fresh = embedding is not None and embedding.prompt == digest.of_text(cell)
        there = fresh and embedding is not None and pickles.untouched(embedding) is not False
        umt5 = f"umt5/{key}.pkl" if there else ""
        yield TableRow(key, f"videos/{key}.mp4", cell, umt5)


def build_table(run: Run) -> Summary:
    """Write metadata.csv. Every pair is accounted for: it has a row, or a reason to have none."""
    summary = Summary("metadata.csv")
    left_out: Counter[str] = Counter()
    quoted = 0

    def counted() -> Iterator[TableRow]:
        nonlocal quoted
        quoted, summary.done = 0, 0
        left_out.clear()
        for row in table_rows(run, left_out):
            quoted += prompt_in(row.prompt) != row.prompt
            summary.done += 1
            yield row

    summary.notes += run.dataset.write_csv(counted)
    if (known := summary.done + left_out.total()) != len(run.entries):
        summary.notes.append(f"of all {known} pairs that the dataset knows")
    summary.notes += [f"left out: {count} {reason}" for reason, count in sorted(left_out.items())]
    if quoted:
        summary.notes.append(f"{quoted} prompt(s) put in quotes: pandas reads them as no text")
    return summary.finish()


def _why_not(state: State, prompt: str | None, videos: Files) -> str | None:
    """Why a pair stands in no row, if so."""
    if state.status is None:
        return "without a label (`chronoprep caption` writes one)"
    if state.status != "ok":
        return state.status.replace("_", " ")
    if prompt is None:
        return "without a prompt (no CoT; --allow-caption-as-prompt takes the caption)"
    if state.video is None or state.video.key not in videos:
        return "without a video (`chronoprep pair2video` writes one)"
    if videos.untouched(state.video) is False:
        return "whose video was damaged (`chronoprep pair2video` renews it)"
    if not same_images(state.images, state.video.images):
        # A prompt beside images that it was not written for would poison the training.
        return "labelled for other images (`chronoprep caption` renews them)"
    return None
