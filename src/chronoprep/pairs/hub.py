"""Sets on the Hugging Face hub, streamed by the `datasets` library.

Rows come in one pass and as many as are asked for. Their images are kept as they come, beside a
table that the other commands read like any other: nothing is fetched twice, and what was cut short
goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from chronoprep import digest
from chronoprep.config import PairSettings
from chronoprep.errors import BackendError, ConfigError
from chronoprep.files import cache
from chronoprep.images.cells import import_datasets
from chronoprep.images.reading import reason
from chronoprep.pairs.columns import Roles, place_of, roles_of

# `hf://datasets/OWNER/NAME@REVISION/CONFIG:SPLIT`; a path folds the two slashes into one.
_ADDRESS = re.compile(
    r"hf:/{1,2}datasets/(?P<repo>[^/@:]+/[^/@:]+)(?:@(?P<revision>[^/:]+))?"
    r"(?:/(?P<config>[^/:]+))?(?::(?P<split>\w+))?/?"
)


def is_address(where: Path) -> bool:
    """Whether PAIRS is a set on the hub."""
    return str(where).startswith(("hf:/", "hf:\\"))


def fetched(where: Path, settings: PairSettings) -> Path:
    """The table of a set on the hub, its first `limit` rows at least.

    Raises:
        ConfigError: The address is wrong, there is no such set, or its columns don't tell source
            from target.
        BackendError: The connection broke; run again to go on.
    """
    address = _ADDRESS.fullmatch(where.as_posix())
    if address is None:
        raise ConfigError(
            f"{where}: not the address of a dataset.",
            hint="For example: hf://datasets/osunlp/MagicBrush:dev",
        )
    repo, revision, config, split = address.group("repo", "revision", "config", "split")
    split = split or "train"
    parts = json.dumps((repo, revision, config, split, settings.columns))
    folder = cache() / "hub" / f"{repo.replace('/', '--')}--{digest.of_text(parts, 6)}"
    if not _holds(folder, settings.limit):
        stream = open_stream(repo, name=config, revision=revision, split=split)
        spool(stream, folder, settings, where)
    return folder / "rows.jsonl"


def open_stream(path: str, **arguments: Any) -> Any:
    """A stream of rows, images as they lie there.

    Raises:
        ConfigError: There is no such set, or it can't be reached.
    """
    datasets = import_datasets()
    try:
        return datasets.load_dataset(path, streaming=True, **arguments).decode(False)
    except Exception as error:  # the library's, the hub's and the network's
        raise ConfigError(
            f"{path}: can't open the dataset: {reason(error)}.",
            hint="Check its name, the split (`…:dev`) and, for a gated one, `hf auth login`.",
        ) from None


def _spooled_rows(folder: Path) -> int:
    """How many whole rows lie in a spool."""
    table = folder / "rows.jsonl"
    return table.read_bytes().count(b"\n") if table.is_file() else 0


def _holds(folder: Path, limit: int | None) -> bool:
    """Whether a spool holds the whole set, or as many rows as are asked for."""
    whole = (folder / "complete").exists()
    return whole or (limit is not None and _spooled_rows(folder) >= limit)


def spool(stream: Any, folder: Path, settings: PairSettings, where: Path) -> Path:
    """Keep the rows of a stream that `folder` does not hold yet; returns its table.

    Runs that stream one set at a time take turns.

    Raises:
        ConfigError: The columns don't tell source from target.
        BackendError: The stream broke off, or the rows can't be kept.
    """
    table = folder / "rows.jsonl"
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not _holds(folder, settings.limit):
                _append_rows(stream, table, settings, where)
                if settings.limit is None:
                    (folder / "complete").touch()
    except OSError as error:
        raise BackendError(
            f"{folder}: can't keep the dataset: {error.strerror or error}.",
            hint="Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
        ) from None
    return table


def _append_rows(stream: Any, table: Path, settings: PairSettings, where: Path) -> None:
    done = _spooled_rows(table.parent)
    if table.exists():
        # A row that was cut short is fetched again.
        os.truncate(table, table.read_bytes().rfind(b"\n") + 1)
    rest = None if settings.limit is None else settings.limit - done
    rows = islice(_received(stream.skip(done), where), rest)
    roles: Roles = {}
    # Whole lines: another run may read them meanwhile.
    with table.open("a", encoding="utf-8", buffering=1) as file:
        for number, row in enumerate(rows, done):
            roles = roles or roles_of(list(row), settings.columns, where, [])
            record = _record(row, roles, table.parent, number, where)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _received(stream: Iterable[Any], where: Path) -> Iterator[Any]:
    """What comes over the network.

    Raises:
        BackendError: It broke off.
    """
    try:
        yield from stream
    except Exception as error:  # of the library, the hub or any HTTP client
        raise BackendError(
            f"{where}: the stream broke off: {reason(error)}.",
            hint="Run it again to go on; --limit N takes the first N rows only.",
        ) from None


def _record(
    row: dict[str, Any], roles: Roles, folder: Path, number: int, where: Path
) -> dict[str, Any]:
    """A row of the table: its images as paths, its texts as they are."""
    record: dict[str, Any] = {
        role: _kept(_value(row, roles[role][0]), folder, f"{number:07}.{role}", where)
        for role in ("source", "target")
    }
    for role in ("caption", "prompt"):
        if role in roles:
            record[role] = _value(row, roles[role][0])
    keys = [row[column] for column in roles.get("key", ())]
    record["key"] = "_".join(map(str, keys)) if keys and None not in keys else f"row-{number:07}"
    return record


def _value(row: dict[str, Any], name: str) -> Any:
    column, place = place_of(name, row)
    value = row[column]
    if place is None or not isinstance(value, list):
        return value
    return value[place] if place < len(value) else None


def _kept(value: Any, folder: Path, name: str, where: Path) -> Any:
    if isinstance(value, list):
        return [_kept(item, folder, f"{name}.{n}", where) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    data, path = value.get("bytes"), value.get("path")
    if data is None and path:
        data = b"".join(_received(_blocks(path), where))
    if not data:
        return None
    suffix = Path(str(path)).suffix.lower() if path else ""
    image = f"images/{name}{suffix or '.img'}"
    (folder / image).write_bytes(data)
    return image


def _blocks(path: str) -> Iterator[bytes]:
    import fsspec

    with fsspec.open(path, "rb") as file:
        yield from file
