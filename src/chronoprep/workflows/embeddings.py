"""Embeddings of prompts: what is stale is done anew, what is equal shares a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from chronoprep import digest
from chronoprep.config import Settings
from chronoprep.data import Outcome
from chronoprep.dataset import Embedding, Event, Files, read_table, rewrite_table
from chronoprep.engine import Needs, batched
from chronoprep.errors import ConfigError
from chronoprep.images.remote import address_of
from chronoprep.keys import chosen, pandas_reads_as_text, safe_key
from chronoprep.umt5 import MAX_TOKENS, Embedder, EmbedTask, Written, clean, find_encoder, identity
from chronoprep.umt5 import share as share_file
from chronoprep.workflows.progress import Reporter, Summary
from chronoprep.workflows.stage import Run, failure, opened
from chronoprep.workflows.table import build_table, table_rows

SHARED = 500  # files between two entries into the journal
SHOWN = 20  # cut prompts that a note names


class _Row(NamedTuple):
    """A row of a table; `mark` is the digest of its prompt."""

    key: str
    prompt: str
    mark: str


def embed_prompts(
    place: Path,
    settings: Settings,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    dry_run: bool = False,
) -> list[Summary]:
    """Embed the prompts of a dataset, or of any metadata.csv, and fill its `umt5` column.

    Equal prompts are embedded once and share a file by hard links. A row that fails keeps its cell.

    Args:
        place: A dataset folder or a CSV file.
        force: Embed again what is up to date, too.

    Raises:
        ConfigError: There are no prompts, or the encoder is not at hand.
        BackendError: When the disk or the memory is too small, or the encoder can't be loaded.
    """
    own = place.is_dir() or address_of(place) is not None
    if settings.run.shard and not own:
        raise ConfigError(
            f"--shard is of datasets, and {place} is none.",
            hint="Leave it out, or name the dataset's folder.",
        )
    with opened(
        place if own else place.parent,
        settings,
        reporter=reporter,
        dry_run=dry_run,
        look=False,
        foreign=not settings.run.shard,
    ) as run:
        csv = run.dataset.csv if own else place
        if run.dataset.index.exists and csv == run.dataset.csv:
            return [run.summary, *embed_run(run, force=force)]
        return [_embed_csv(run, csv, force=force)]


def embed_run(run: Run, *, force: bool = False) -> list[Summary]:
    """Embed the prompts of a dataset's table, and write it anew."""
    summary = Summary("embeddings")
    rows = [_Row(row.key, row.prompt, digest.of_text(row.prompt)) for row in table_rows(run)]
    if run.settings.run.keys is not None:
        about = set(run.entries.frame["key"])
        rows = [row for row in rows if row.key in about]
    _embed(run, rows, summary, force=force)
    return [summary] if run.dry_run else [summary, build_table(run)]


def _embed_csv(run: Run, csv: Path, *, force: bool) -> Summary:
    """Embed the prompts of a table that others wrote; its columns, rows and line ends stay.

    Raises:
        ConfigError: When the file has no `prompt` column or neither `key` nor `video`.
    """
    import polars

    summary = Summary("embeddings")
    table = read_table(csv)
    if "prompt" not in table.columns or not {"key", "video"} & set(table.columns):
        raise ConfigError(
            f"{csv}: needs the columns prompt and key (or video).",
            hint="Name them in its first line.",
        )
    rows: dict[str, _Row] = {}
    keys = _row_keys(table.to_dict(as_series=False), csv)
    for number, (key, prompt) in enumerate(zip(keys, table["prompt"], strict=True), start=1):
        if not key:
            summary.fail(f"row {number}", f"row {number}: neither a key nor a video")
        elif not prompt.strip():
            summary.fail(key, f"row {number}: the prompt is empty")
        elif not pandas_reads_as_text(prompt):
            summary.fail(
                key, f"row {number}: the trainer would not read the prompt {prompt!r} as text"
            )
        else:
            rows[key] = _Row(key, prompt, digest.of_text(prompt))
    if (names := run.settings.run.keys) is not None:
        rows = {key: rows[key] for key in sorted(chosen(rows, names))}
    _embed(run, list(rows.values()), summary, force=force)
    if run.dry_run:
        return summary
    # As it is now: it may have been edited meanwhile.
    table = read_table(csv)
    keys = _row_keys(table.to_dict(as_series=False), csv)
    old = table["umt5"].to_list() if "umt5" in table.columns else [""] * len(keys)
    cells = []
    for key, prompt, cell in zip(keys, table["prompt"], old, strict=True):
        made = run.dataset.journal.state(key).embedding if key else None
        fresh = made is not None and made.prompt == digest.of_text(prompt)
        cells.append(f"umt5/{key}.pkl" if fresh else cell)
    if cells != old or "umt5" not in table.columns:
        rewrite_table(table.with_columns(polars.Series("umt5", cells, dtype=polars.String)), csv)
    return summary.finish()


def _embed(run: Run, rows: list[_Row], summary: Summary, *, force: bool) -> None:
    """Make the files of rows that are not there or stale."""
    checkpoint = find_encoder(run.settings.umt5)
    encoder = identity(checkpoint, run.settings.umt5)
    dataset = run.dataset
    files = Files(dataset.folder / "umt5", ".pkl")
    todo: list[_Row] = []
    touched: list[tuple[Embedding, _Row]] = []
    known: dict[str, Embedding] = {}  # by prompt
    for row in rows:
        made = dataset.journal.state(row.key).embedding
        current = made is not None and (made.prompt, made.encoder) == (row.mark, encoder)
        untouched = files.untouched(made) if made and current and not force else False
        if made is None or untouched is False:
            todo.append(row)
        elif untouched is None:
            touched.append((made, row))
        else:
            known[row.mark] = made
    todo += run.still_stale(files, touched)
    summary.skipped = len(rows) - len(todo)

    shared: list[tuple[Embedding, _Row]] = []
    by_text: dict[str, list[_Row]] = {}
    texts: dict[str, str] = {}
    for row in todo:
        if row.mark in known:
            shared.append((known[row.mark], row))
        else:
            # Prompts that the cleaning makes equal are one.
            text = texts.setdefault(row.mark, clean(row.prompt))
            by_text.setdefault(text, []).append(row)
    tasks = [
        EmbedTask(same[0].key, text, str(dataset.embedding(same[0].key)), str(len(same) - 1))
        for text, same in by_text.items()
    ]
    if run.dry_run:
        summary.todo = len(todo)
        summary.finish()
        return
    run.dataset.make("umt5")
    groups = {same[0].key: same for same in by_text.values()}

    def record(outcome: Outcome[Written]) -> Iterator[Event]:
        first, *others = groups[outcome.key]
        if outcome.value is None:
            error = failure(outcome, "embedding")
            for row in (first, *others):
                yield error.model_copy(update={"key": row.key})
            return
        made = Embedding(
            key=first.key, prompt=first.mark, encoder=encoder, **outcome.value._asdict()
        )
        shared.extend((made, row) for row in others)
        yield made

    if tasks:
        run.reporter.say(f"Loading {run.settings.umt5.model} …")
        needs: Needs = "cpu" if run.settings.umt5.device == "cpu" else "gpu"
        run.stage("embeddings", tasks, Embedder(checkpoint, run.settings.umt5), record,
                  summary=summary, needs=needs)  # fmt: skip
    _share(run, shared, summary)
    _mention_cut(run, rows, summary)
    summary.finish()


def _share(run: Run, shared: Sequence[tuple[Embedding, _Row]], summary: Summary) -> None:
    """Give rows the file of another row whose prompt is the same."""
    copies: dict[str, Path] = {}  # a file can't have links without end: then a copy goes on
    for part in batched(shared, SHARED):
        events: list[Event] = []
        for made, row in part:
            path = run.dataset.embedding(row.key)
            origin = copies.get(made.content, run.dataset.embedding(made.key))
            if not share_file(origin, path):
                copies[made.content] = path
            mtime = path.stat().st_mtime_ns
            events.append(
                made.model_copy(update={"key": row.key, "prompt": row.mark, "mtime": mtime})
            )
        run.dataset.append(events)
        summary.done += len(events)
    if shared:
        summary.notes.append(f"{len(shared)} row(s) share a file with rows of the same prompt")


def _mention_cut(run: Run, rows: Iterable[_Row], summary: Summary) -> None:
    """Name the prompts that are longer than the trainer's room for them."""
    cut = []
    for row in rows:
        made = run.dataset.journal.state(row.key).embedding
        if made is not None and made.prompt == row.mark and made.tokens > MAX_TOKENS:
            cut.append(f"{row.key} {made.tokens}")
    if cut:
        more = ", …: all in labels.jsonl" if len(cut) > SHOWN else ""
        summary.notes.append(
            f"{len(cut)} prompt(s) cut at {MAX_TOKENS} tokens: {', '.join(cut[:SHOWN])}{more}"
        )


def _row_keys(columns: Mapping[str, list[str]], csv: Path) -> list[str]:
    """A safe key for each row: its own, else its video's path without `videos/`; "" where it has
    neither.

    Where videos share a key (`a/x` and `a__x`, or one video with several prompts), the digest of
    path and prompt tells them apart; only rows equal in both have one key.

    Raises:
        ConfigError: When the `key` column has a key twice.
    """
    if "key" in columns:
        keys = [safe_key(key) if key.strip() else "" for key in columns["key"]]
        seen: set[str] = set()
        for row, key in enumerate(keys, start=1):
            if key and key.casefold() in seen:
                raise ConfigError(
                    f"{csv}: row {row}: the key {key!r} stands there twice.",
                    hint="Each row's file is named by its key: rename one.",
                )
            seen.add(key.casefold())
        return keys
    keys = [_video_key(video) for video in columns["video"]]
    count = Counter(key.casefold() for key in keys)
    return [
        safe_key(f"{key}-{digest.of_values(video, prompt)}")
        if key and count[key.casefold()] > 1
        else key
        for key, video, prompt in zip(keys, columns["video"], columns["prompt"], strict=True)
    ]


def _video_key(video: str) -> str:
    name = Path(video).name
    if not name.strip():
        return ""
    path = str(Path(video).with_suffix(""))
    return safe_key(path.removeprefix("videos/").replace("/", "__"))
