"""Embeddings of a table's prompts: what is stale is done anew, what is equal shares a file."""

from __future__ import annotations

import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chronoprep.config import Settings
from chronoprep.data import Embedded
from chronoprep.dataset import Dataset, read_table, rewrite_table
from chronoprep.engine import batched, mapped
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.keys import pandas_reads_as_text, safe_key
from chronoprep.labels.recipe import digest
from chronoprep.workflows.progress import Reporter, Summary

if TYPE_CHECKING:
    from torch import Tensor

    from chronoprep.umt5 import Encoder

TEXTS = 1000  # prompts that the tokenizer takes at once
LINKS = 500  # shared files between two entries into the index
WRITERS = 2  # batches that are written while others are computed
SHOWN = 20  # cut prompts that a note names


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table; `mark` is the digest of its prompt."""

    key: str
    prompt: str
    mark: str


@dataclass(slots=True)
class _Text:
    """A cleaned prompt, the rows that have it, and its tokens."""

    text: str
    rows: list[_Row] = field(default_factory=list)
    ids: array[int] = field(default_factory=lambda: array("i"))


def embed_prompts(
    csv: Path, settings: Settings, *, force: bool = False, reporter: Reporter, dry_run: bool = False
) -> Summary:
    """Embed the prompts of a metadata.csv and fill its `umt5` column.

    Unknown columns, the order of rows and line ends stay. A row that fails keeps its old cell.
    Equal prompts are embedded once and share a file by hard links.

    Args:
        force: Embed again what is up to date, too.

    Raises:
        ConfigError: When the file has no `prompt` column or neither `key` nor `video`, or when
            the encoder is not at hand.
        BackendError: When the disk or the memory is too small, or the encoder can't be loaded.
    """
    import polars

    from chronoprep import umt5

    summary = Summary("embeddings")
    table = read_table(csv)
    if "prompt" not in table.columns or not {"key", "video"} & set(table.columns):
        raise ConfigError(f"{csv}: needs the columns prompt and key (or video).")
    keys = _row_keys(table.to_dict(as_series=False), csv)
    rows: dict[str, _Row] = {}
    for number, (key, prompt) in enumerate(zip(keys, table["prompt"], strict=True), start=1):
        if not prompt.strip():
            summary.fail(key, f"row {number}: the prompt is empty")
        elif not pandas_reads_as_text(prompt):
            summary.fail(
                key, f"row {number}: the trainer would not read the prompt {prompt!r} as text"
            )
        else:
            rows[key] = _Row(key, prompt, digest(prompt))

    found = umt5.find_encoder(settings.umt5)
    dataset = Dataset(csv.parent)
    run = _Run(dataset, umt5.identity(found, settings.umt5), summary, reporter)
    if not force:
        run.keep_what_is_fresh(rows.values(), write=not dry_run)
    todo = [row for key, row in rows.items() if key not in run.records]
    if dry_run:
        summary.todo = len(todo)
        return summary.finish()
    if todo:
        links, texts = run.shared(todo)
        if texts:
            encoder = umt5.Encoder(found, settings.umt5)
            for part in batched(texts, TEXTS):
                for text, ids in zip(part, encoder.tokens([t.text for t in part]), strict=True):
                    text.ids = ids
            _check_disk(dataset, texts, links, encoder.width)
            reporter.say(f"Loading {settings.umt5.model} …")
            encoder.load()
        reporter.start("embeddings", len(todo))
        if texts:
            for text, record in run.embed(texts, encoder):
                links += [(record, row) for row in text.rows[1:]]
        run.link(links)
        if links:
            summary.notes.append(f"{len(links)} row(s) share a file with rows of the same prompt")

    cut = [f"{key} {run.records[key].tokens}" for key in rows if run.is_cut(key)]
    if cut:
        more = f", …: all in {dataset.index.name}" if len(cut) > SHOWN else ""
        summary.notes.append(
            f"{len(cut)} prompt(s) cut at {umt5.MAX_TOKENS} tokens: {', '.join(cut[:SHOWN])}{more}"
        )
    old = table["umt5"].to_list() if "umt5" in table.columns else [""] * len(keys)
    cells = [
        f"umt5/{key}.pkl" if key in run.records else cell
        for key, cell in zip(keys, old, strict=True)
    ]
    if cells != old or "umt5" not in table.columns:
        rewrite_table(table.with_columns(polars.Series("umt5", cells, dtype=polars.String)), csv)
    return summary.finish()


class _Run:
    """The files of one run.

    Attributes:
        records: By key, the files that are right: found or written.
    """

    def __init__(
        self, dataset: Dataset, encoder: str, summary: Summary, reporter: Reporter
    ) -> None:
        self.records: dict[str, Embedded] = {}
        self._dataset = dataset
        self._encoder = encoder
        self._summary = summary
        self._reporter = reporter

    def is_cut(self, key: str) -> bool:
        from chronoprep.umt5 import MAX_TOKENS

        return key in self.records and self.records[key].tokens > MAX_TOKENS

    def keep_what_is_fresh(self, rows: Iterable[_Row], *, write: bool) -> None:
        """Take the files that were made from the rows' prompts by this encoder and are whole.

        A file counts as whole by size and time; where the time is another (a copied dataset), by
        its content.
        """
        from chronoprep.umt5 import content

        recorded, files = self._dataset.embeddings(), self._dataset.embedding_files()
        touched: list[Embedded] = []
        for row in rows:
            record, file = recorded.get(row.key), files.get(f"{row.key}.pkl")
            if record is None or (record.prompt, record.encoder) != (row.mark, self._encoder):
                continue
            if file is None or file.st_size != record.bytes:
                continue
            if file.st_mtime_ns == record.mtime:
                self.records[row.key] = record
            else:
                touched.append(replace(record, mtime=file.st_mtime_ns))
        if touched:
            self._reporter.start("files to compare", len(touched))
        same: list[Embedded] = []
        for outcome in mapped(
            lambda r: r if content(self._dataset.embedding(r.key)) == r.content else None,
            touched,
            key=lambda record: record.key,
        ):
            self._reporter.advance("ok")
            if outcome.value is not None:
                same.append(outcome.value)
        self.records |= {record.key: record for record in same}
        if write:
            self._dataset.append_embeddings(same)
        self._summary.skipped = len(self.records)

    def shared(self, rows: Sequence[_Row]) -> tuple[list[tuple[Embedded, _Row]], list[_Text]]:
        """Rows whose prompt has a file already, with its record, and the other rows by text."""
        from chronoprep.umt5 import clean

        known = {record.prompt: record for record in self.records.values()}
        links: list[tuple[Embedded, _Row]] = []
        texts: dict[str, _Text] = {}
        seen: dict[str, _Text] = {}
        for row in rows:
            if row.mark in known:
                links.append((known[row.mark], row))
                continue
            if row.mark not in seen:
                # Prompts that the cleaning makes equal are one.
                text = clean(row.prompt)
                seen[row.mark] = texts.setdefault(text, _Text(text))
            seen[row.mark].rows.append(row)
        return links, list(texts.values())

    def embed(self, texts: Sequence[_Text], encoder: Encoder) -> Iterator[tuple[_Text, Embedded]]:
        """Embed texts and write the file of each one's first row, while the next are computed."""
        from chronoprep.umt5 import batches

        def forward(batch: list[_Text]) -> list[tuple[_Text, Tensor | PairError]]:
            return list(zip(batch, encoder.encode([text.ids for text in batch]), strict=True))

        def write(
            encoded: list[tuple[_Text, Tensor | PairError]],
        ) -> list[tuple[_Text, Embedded | PairError]]:
            return [(text, self._saved(text, result)) for text, result in encoded]

        level = batches([(text, len(text.ids)) for text in texts], encoder.batch_tokens)
        computed = mapped(
            forward,
            level,
            key=lambda batch: batch[0].rows[0].key,
            workers=2 * encoder.devices,
            ahead=2 * encoder.devices + 1,
        )
        ready = (outcome.value or [] for outcome in computed)
        for outcome in mapped(write, ready, key=lambda _: "", workers=WRITERS, ahead=WRITERS):
            written = outcome.value or []
            self._record([record for _, record in written if isinstance(record, Embedded)])
            for text, record in written:
                if isinstance(record, Embedded):
                    yield text, record
                    continue
                for row in text.rows:
                    self._summary.fail(row.key, record.reason)
                    self._reporter.advance("failed")

    def link(self, links: Sequence[tuple[Embedded, _Row]]) -> None:
        """Give rows the file of another row whose prompt is the same."""
        from chronoprep.umt5 import share

        copies: dict[str, Path] = {}  # a file can't have links without end: then a copy goes on
        for part in batched(links, LINKS):
            records = []
            for source, row in part:
                path = self._dataset.embedding(row.key)
                origin = copies.get(source.content, self._dataset.embedding(source.key))
                if not share(origin, path):
                    copies[source.content] = path
                records.append(self._described(row, source.tokens, source.content))
            self._record(records)

    def _saved(self, text: _Text, result: Tensor | PairError) -> Embedded | PairError:
        from chronoprep.umt5 import save

        if isinstance(result, PairError):
            return result
        row = text.rows[0]
        content = save(result, self._dataset.embedding(row.key))
        return self._described(row, len(text.ids), content)

    def _described(self, row: _Row, tokens: int, content: str) -> Embedded:
        file = self._dataset.embedding(row.key).stat()
        return Embedded(
            key=row.key,
            prompt=row.mark,
            encoder=self._encoder,
            tokens=tokens,
            bytes=file.st_size,
            mtime=file.st_mtime_ns,
            content=content,
        )

    def _record(self, records: Sequence[Embedded]) -> None:
        """Files are on disk: say so in the index."""
        self._dataset.append_embeddings(records)
        self.records |= {record.key: record for record in records}
        self._summary.done += len(records)
        for _ in records:
            self._reporter.advance("ok")


def _row_keys(columns: Mapping[str, list[str]], csv: Path) -> list[str]:
    """A safe key for each row: its own, else its video's path without `videos/`.

    Where videos share a key (`a/x` and `a__x`, or one video with several prompts), the digest of
    path and prompt tells them apart; only rows equal in both have one key.

    Raises:
        ConfigError: When the `key` column has a key twice.
    """
    if "key" in columns:
        keys = [safe_key(key) for key in columns["key"]]
        seen: set[str] = set()
        for row, key in enumerate(keys, start=1):
            if key.casefold() in seen:
                raise ConfigError(f"{csv}: row {row}: the key {key!r} stands there twice.")
            seen.add(key.casefold())
        return keys
    names = [
        str(Path(video).with_suffix("")).removeprefix("videos/").replace("/", "__")
        for video in columns["video"]
    ]
    keys = [safe_key(name) for name in names]
    count = Counter(key.casefold() for key in keys)
    return [
        safe_key(f"{key}-{digest(video, prompt)}") if count[key.casefold()] > 1 else key
        for key, video, prompt in zip(keys, columns["video"], columns["prompt"], strict=True)
    ]


def _check_disk(
    dataset: Dataset,
    texts: Sequence[_Text],
    links: Sequence[tuple[Embedded, _Row]],
    width: int,
) -> None:
    """Refuse before the disk is full, from the real numbers of tokens.

    Raises:
        BackendError: Saying what is needed and what is free.
    """
    from chronoprep.umt5 import MAX_TOKENS, OVERHEAD, can_share

    folder = dataset.embedding("x").parent
    sizes = [min(MAX_TOKENS, len(text.ids)) * width * 2 + OVERHEAD for text in texts]
    needed = sum(sizes)
    copies = sum(
        size * (len(text.rows) - 1) for size, text in zip(sizes, texts, strict=True)
    ) + sum(record.bytes for record, _ in links)
    if copies and not can_share(folder):
        needed += copies
    # Files that are replaced give back their own space, unless others share it.
    rows = [row for text in texts for row in text.rows] + [row for _, row in links]
    files = dataset.embedding_files()
    old = (files.get(f"{row.key}.pkl") for row in rows)
    free = shutil.disk_usage(dataset.folder).free
    there = free + sum(file.st_size for file in old if file is not None and file.st_nlink == 1)
    if needed > there:
        raise BackendError(
            f"{folder}: {len(texts)} embeddings need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free.",
            hint="Free some space, or embed on another disk.",
        )
