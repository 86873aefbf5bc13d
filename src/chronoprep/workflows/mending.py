"""What `check --fix` does: the table, videos and strays of a dataset, put right without a model.

Nothing is deleted: what stands in the way goes into the folder `quarantine` of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from chronoprep.config import Settings
from chronoprep.data import Finding
from chronoprep.dataset import Dataset, Entry, Files, State
from chronoprep.files import unwritable
from chronoprep.workflows.check import CheckReport
from chronoprep.workflows.faults import FAULTS, TABLE, VIDEO
from chronoprep.workflows.progress import Reporter
from chronoprep.workflows.stage import opened
from chronoprep.workflows.table import build_table, prompt_of
from chronoprep.workflows.videos import write_videos

QUARANTINE = "quarantine"


def mend(
    folder: Path, report: CheckReport, settings: Settings, reporter: Reporter
) -> list[Finding]:
    """Put right what can be.

    Args:
        report: What `check_dataset` found.
        settings: Of the videos that are written.

    Returns:
        What was done.

    Raises:
        ConfigError: The pairs' images are not where the dataset says.
        BackendError: Another run holds the dataset, or it can't be written.
    """
    own = Dataset(folder)
    by_code: dict[str, list[Finding]] = {}
    for found in report.findings:
        by_code.setdefault(found.code, []).append(found)
    moved = [_mended(None, f"{stray} → {_set_aside(own, stray)}") for stray in report.strays]
    return moved + ([*_rebuilt(own, by_code, settings, reporter)] if own.index.exists else [])


def _rebuilt(
    own: Dataset, by_code: dict[str, list[Finding]], settings: Settings, reporter: Reporter
) -> Iterator[Finding]:
    """Write anew what follows from the index, the journal and the images."""
    keys = set(own.index.keys())
    videos = {f.key for code in VIDEO for f in by_code.get(code, ()) if f.key in keys}
    pickles = {
        f.key for code in FAULTS if code.startswith(("embedding-", "pickle-"))
        for f in by_code.get(code, ()) if f.severity == "error" and f.key in keys
    }  # fmt: skip
    table = bool(TABLE & by_code.keys())
    if table and own.csv.exists():
        yield _mended(None, f"{own.csv} → {_set_aside(own, own.csv)}")
    for key in sorted(filter(None, pickles)):
        if own.embedding(key).exists():
            yield _mended(key, f"{own.embedding(key)} → {_set_aside(own, own.embedding(key))}")
    if not (table or videos or pickles):
        return
    with opened(own.folder, settings, reporter=reporter, look=table or bool(videos)) as run:
        files = Files(own.folder / "videos", ".mp4")
        written: list[str] = []
        aside: list[Finding] = []

        def wanted(entry: Entry, state: State) -> bool:
            key, made = entry.key, state.video
            # A table that is made anew has no row for what has no video as it was written.
            broken = table and (made is None or files.untouched(made) is False)
            if not (
                key in videos or (broken and state.status == "ok" and prompt_of(state, settings))
            ):
                return False
            if own.video(key).exists():
                moved = f"{own.video(key)} → {_set_aside(own, own.video(key))}"
                aside.append(_mended(key, moved))
            written.append(key)
            return True

        write_videos(run, wanted)
        yield from aside
        for key in written:
            if own.video(key).exists():
                yield _mended(key, f"{own.video(key)}: written anew")
        done = build_table(run)
        yield _mended(None, f"{own.csv}: written anew, {done.done} rows")


def _set_aside(own: Dataset, path: Path) -> Path:
    """Move a file into quarantine, under a name that is free there."""
    place = own.folder / QUARANTINE / path.relative_to(own.folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        free = next(
            name
            for number in count()
            if not (name := place.with_stem(f"{place.stem}-{number}") if number else place).exists()
        )
        path.rename(free)
    except OSError as error:
        raise unwritable(place, error) from None
    return free


def _mended(key: str | None, what: str) -> Finding:
    return Finding("mended", "note", key, what)
