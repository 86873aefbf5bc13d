"""Sets on the Hugging Face hub, streamed by the `datasets` library.

Rows come in one pass and as many as are asked for. Their images are kept as they come, beside a
table that the other commands read like any other: nothing is fetched twice, and what was cut short
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from chronoprep.config import PairSettings
from chronoprep.errors import BackendError, ConfigError
from chronoprep.images.cells import import_datasets
from chronoprep.images.sources import cache
from chronoprep.pairs.columns import Roles, roles_of

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
    split = address["split"] or "train"
    parts = (address["repo"], address["revision"], address["config"], split, settings.columns)
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=6).hexdigest()
    folder = cache() / "hub" / f"{address['repo'].replace('/', '--')}--{digest}"
    done = spooled_rows(folder)
    if (folder / "complete").exists() or (settings.limit is not None and done >= settings.limit):
        return folder / "rows.jsonl"
    stream = open_stream(
        address["repo"], name=address["config"], revision=address["revision"], split=split
    )
    return spool(stream, folder, settings, where)


def open_stream(path: str, **arguments: Any) -> Any:
    """A stream of rows, images as they lie there.

    Raises:
        ConfigError: There is no such set, or it can't be reached.
    """
    datasets = import_datasets()
    try:
        return datasets.load_dataset(path, streaming=True, **arguments).decode(False)
    except Exception as error:  # the library's, the hub's and the network's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{path}: can't open the dataset: {reason}",
            hint="Check its name, the split (`…:dev`) and, for a gated one, `hf auth login`.",
        ) from None


def spooled_rows(folder: Path) -> int:
    """How many whole rows lie in a spool."""
    try:
        return (folder / "rows.jsonl").read_bytes().count(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return 0


def spool(stream: Any, folder: Path, settings: PairSettings, where: Path) -> Path:
    """Keep the rows of a stream that `folder` does not hold yet; returns its table.

    Raises:
        ConfigError: The columns don't tell source from target.
        BackendError: The stream broke off.
    """
    table, done = folder / "rows.jsonl", spooled_rows(folder)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(
            f"{folder}: can't keep the dataset: {error.strerror or error}.",
            hint="Set XDG_CACHE_HOME to a folder that can be written.",
        ) from None
    if table.exists():
        # A row that was cut short is fetched again.
        with table.open("rb+") as file:
            file.truncate(table.read_bytes().rfind(b"\n") + 1)
    rows: Iterator[dict[str, Any]] = iter(stream.skip(done))
    if settings.limit is not None:
        rows = islice(rows, settings.limit - done)
    roles: Roles | None = None
    with table.open("a", encoding="utf-8") as file:
        try:
            for number, row in enumerate(rows, done):
                if roles is None:
                    roles = roles_of(list(row), settings.columns, where, [])
                record = _record(row, roles, folder, number)
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise BackendError(
                f"{where}: the stream broke off: {error}.",
                hint="Run it again to go on; --limit N takes the first N rows only.",
            ) from None
    if settings.limit is None:
        (folder / "complete").touch()
    return table


def _record(row: dict[str, Any], roles: Roles, folder: Path, number: int) -> dict[str, Any]:
    """A row of the table: its images as paths, its texts as they are."""
    record: dict[str, Any] = {
        role: _kept(row[roles[role][0]], folder, f"{number:07}.{role}")
        for role in ("source", "target")
    }
    for role in ("caption", "prompt"):
        if role in roles:
            record[role] = row[roles[role][0]]
    keys = [row[column] for column in roles.get("key", ())]
    record["key"] = "_".join(map(str, keys)) if keys and None not in keys else f"row-{number:07}"
    return record


def _kept(value: Any, folder: Path, name: str) -> Any:
    if isinstance(value, list):
        return [_kept(item, folder, f"{name}.{place}") for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    data, path = value.get("bytes"), value.get("path")
    if data is None and path:
        import fsspec

        with fsspec.open(path, "rb") as file:
            data = file.read()
    if not data:
        return None
    suffix = Path(str(path)).suffix.lower() if path else ""
    place = folder / "images" / (name + (suffix or ".img"))
    place.write_bytes(data)
    return f"images/{place.name}"
