"""The only owner of a dataset folder's files: journal, CSV, embedding index, lock.

DATASET/
  metadata.csv       key,video,prompt,umt5: what the trainer reads; can always be rebuilt
  videos/KEY.mp4
  umt5/KEY.pkl       umt5/index.jsonl says what each one was made from
  labels.jsonl       append-only journal; the last record of a key wins
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chronoprep.data import Label
from chronoprep.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import polars

JOURNAL = "labels.jsonl"
CSV = "metadata.csv"
LOCK = ".chronoprep.lock"


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
        self.skipped_lines = 0

    def video(self, key: str) -> Path:
        return self.folder / "videos" / f"{key}.mp4"

    def embedding(self, key: str) -> Path:
        return self.folder / "umt5" / f"{key}.pkl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of the folder.

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
            raise _unwritable(self.folder, error) from None
        try:
            yield
        finally:
            lock.release()

    def labels(self) -> dict[str, Label]:
        """The last record of each key, in the order of first appearance.

        A line that is no record (torn by a crash, say) is passed over and counted in
        `skipped_lines`.
        """
        labels: dict[str, Label] = {}
        self.skipped_lines = 0
        for record in _json_lines(self.journal):
            try:
                entry = Label.model_validate(record)
            except ValidationError:
                self.skipped_lines += 1
                continue
            labels[entry.key] = entry
        return labels

    def append(self, labels: Iterable[Label]) -> None:
        """Add records to the journal: on disk when this returns."""
        _append(self.journal, (label.model_dump_json(exclude_none=True) for label in labels))

    def embedding_ids(self) -> dict[str, str]:
        """Key → digest of what the key's embedding was made from."""
        return {
            str(record["key"]): str(record["id"])
            for record in _json_lines(self.folder / "umt5" / "index.jsonl")
            if isinstance(record, dict) and "key" in record and "id" in record
        }

    def append_embedding_ids(self, ids: Mapping[str, str]) -> None:
        """Record what embeddings were made from; call when the pickles are on disk."""
        lines = (json.dumps({"key": key, "id": digest}) for key, digest in ids.items())
        _append(self.folder / "umt5" / "index.jsonl", lines)

    def write_csv(self, rows: list[dict[str, str]]) -> None:
        """Write metadata.csv with the columns key, video, prompt, umt5."""
        import polars

        schema = dict.fromkeys(("key", "video", "prompt", "umt5"), polars.String)
        write_table(polars.DataFrame(rows, schema=schema), self.csv)


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


def write_table(table: polars.DataFrame, path: Path) -> None:
    """Write a CSV atomically, every field quoted, so that a reader sees the old or the new one."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        table.write_csv(file, quote_style="always")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> BackendError:
    return BackendError(
        f"{path}: can't write: {error.strerror or error}",
        hint="Free some space or choose another --dataset; what was done so far is kept.",
    )


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


def _append(path: Path, lines: Iterable[str]) -> None:
    """Append lines with one fsync; a torn last line of an earlier crash is closed first."""
    text = "".join(line + "\n" for line in lines)
    if not text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from None
