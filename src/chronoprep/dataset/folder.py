"""The only owner of a dataset folder's files: journal, CSV, embedding index, lock.

DATASET/
  metadata.csv       key,video,prompt,umt5: what the trainer reads; can always be rebuilt
  videos/KEY.mp4
  umt5/KEY.pkl       umt5/index.jsonl says what each one was made from
  labels.jsonl       append-only journal; the last record of a key wins
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from chronoprep.data import LOCK, Embedded, Label
from chronoprep.dataset.journal import Labels
from chronoprep.errors import BackendError, ConfigError
from chronoprep.files import TEMPORARY, append_lines, file_names, replacing, unwritable

if TYPE_CHECKING:
    import polars

JOURNAL = "labels.jsonl"
CSV = "metadata.csv"
_CSV_PART = 50_000
INDEX = "umt5/index.jsonl"


class Dataset:
    """A dataset folder.

    Args:
        folder: Created when the first file is written; reading an absent one gives nothing.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: not a folder.", hint="Give --dataset a folder.")
        self.folder = folder
        self.journal = folder / JOURNAL
        self.csv = folder / CSV
        self.index = folder / INDEX
        self.skipped_lines = 0
        self._labels: Labels | None = None

    def video(self, key: str) -> Path:
        return self.folder / "videos" / f"{key}.mp4"

    def embedding(self, key: str) -> Path:
        return self.folder / "umt5" / f"{key}.pkl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of the folder, and clear what a killed one left half written.

        Raises:
            BackendError: When another run holds the folder, or it can't be written.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise BackendError(
                f"{self.folder}: another chronoprep run is writing to this dataset.",
                hint="Wait until it ends, or give this run another --dataset.",
            ) from None
        except OSError as error:
            raise unwritable(self.folder, error) from None
        try:
            self._clear()
            yield
        finally:
            lock.release()

    def _clear(self) -> None:
        # Of tables only in the folder itself, which may hold other programs' files.
        for folder, kind in (
            (self.folder, ".csv"),
            (self.folder / "videos", ""),
            (self.folder / "umt5", ""),
        ):
            for name in file_names(folder):
                if name.startswith(".") and name.endswith(kind + TEMPORARY):
                    try:
                        (folder / name).unlink(missing_ok=True)
                    except OSError as error:
                        raise unwritable(folder / name, error) from None

    def labels(self) -> Labels:
        """The last record of each key, in the order of first appearance.

        A line that is no record (torn by a crash, say) is passed over and counted in
        `skipped_lines`.
        """
        if self._labels is None or not self._labels.current():
            self._labels = Labels(self.journal)
        self.skipped_lines = self._labels.skipped_lines
        return self._labels

    def append(self, labels: Iterable[Label]) -> None:
        """Add records to the journal: on disk when this returns."""
        append_lines(self.journal, (label.model_dump_json(exclude_none=True) for label in labels))

    def embeddings(self) -> dict[str, Embedded]:
        """The last record of each key in the embedding index; lines that are none are passed
        over."""
        records: dict[str, Embedded] = {}
        adapter = TypeAdapter(Embedded)
        for line in _json_lines(self.index):
            try:
                record = adapter.validate_python(line)
            except ValidationError:
                continue
            records[record.key] = record
        return records

    def embedding_files(self) -> dict[str, os.stat_result]:
        """Name → size and time of the files in `umt5/`."""
        try:
            with os.scandir(self.index.parent) as entries:
                return {entry.name: entry.stat() for entry in entries}
        except FileNotFoundError:
            return {}

    def append_embeddings(self, records: Iterable[Embedded]) -> None:
        """Add records to the embedding index; call when the pickles are on disk."""
        append_lines(self.index, (json.dumps(asdict(record)) for record in records))

    def write_csv(self, rows: Iterable[dict[str, str]]) -> None:
        """Write metadata.csv with the columns key, video, prompt, umt5; a part at a time."""
        import polars

        schema = dict.fromkeys(("key", "video", "prompt", "umt5"), polars.String)
        rest = iter(rows)
        with replacing(self.csv) as temporary, temporary.open("wb") as file:
            part = list(islice(rest, _CSV_PART))
            polars.DataFrame(part, schema=schema).write_csv(file, quote_style="always")
            while part := list(islice(rest, _CSV_PART)):
                polars.DataFrame(part, schema=schema).write_csv(
                    file, include_header=False, quote_style="always"
                )


def read_table(path: Path) -> polars.DataFrame:
    """Read a CSV with every column as text, absent cells as the empty string.

    Raises:
        ConfigError: When the file is missing, is no UTF-8 or has rows of the wrong width.
    """
    import polars

    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file.", hint="`chronoprep build-csv` or `prepare` writes one."
        )
    try:
        # An open file and not a path: polars would read `[1]` in a path as a pattern.
        with path.open("rb") as file:
            table = polars.read_csv(file, infer_schema=False)
    except polars.exceptions.NoDataError:
        raise ConfigError(f"{path}: the file is empty.") from None
    except polars.exceptions.ComputeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{path}: can't read the table: {reason}",
            hint="Put text that holds commas, quotes or line breaks in double quotes.",
        ) from None
    return table.fill_null("")


def write_table(
    table: polars.DataFrame, path: Path, *, line_end: str = "\n", bom: bool = False
) -> None:
    """Write a CSV atomically, every field quoted, so that a reader sees the old or the new one."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        table.write_csv(file, quote_style="always", line_terminator=line_end, include_bom=bom)


def rewrite_table(table: polars.DataFrame, path: Path) -> None:
    """Put a table in the place of a CSV, with its line ends and its byte order mark."""
    with path.open("rb") as file:
        head = file.readline(1 << 20)
    line_end = "\r\n" if head.endswith(b"\r\n") else "\n"
    write_table(table, path, line_end=line_end, bom=head.startswith(codecs.BOM_UTF8))


def _json_lines(path: Path) -> Iterator[Any]:
    """Values of a JSON Lines file; a line that is no JSON gives None."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    yield None
