"""What data says about its own pairs: manifests with a row a pair, captions in sidecar files.

Knows columns, rows and their paths; keys are made safe and unique elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chronoprep.data import ImagePair, Outcome
from chronoprep.errors import ConfigError, PairError
from chronoprep.pairs.found import Candidate

SUFFIXES = (".csv", ".jsonl", ".ndjson")

# Columns by what they hold. Not here, because datasets disagree on them: `image` (the source in
# some, the target in DiffSynth and kohya), `input` and `output` (captions in AnyEdit).
COLUMNS = {
    "source": (
        *("source", "source_image", "source_img", "original_image", "src_img", "input_image"),
        "before",
    ),
    "target": (
        *("target", "target_image", "target_img", "edited_image", "edited_img", "output_image"),
        "after",
    ),
    "key": ("key", "id"),
    "caption": ("caption", "instruction", "edit_prompt", "edit"),
    "prompt": ("prompt", "caption_cot"),
}
_TRAPS = frozenset({"image", "input", "output", "images", "edit_image", "control"})
_RENAME = "Name the columns of the images before and after the edit `source` and `target`."


class _Row(NamedTuple):
    """A row in file order: where it is, and its recognised cells or why it has none."""

    where: str
    cells: dict[str, str]
    error: str | None = None


def read_manifest(path: Path) -> tuple[list[Candidate], list[Outcome[ImagePair]]]:
    """Read a manifest (.csv, .jsonl, .ndjson); relative paths start at its folder.

    Returns:
        Usable rows in file order, and an outcome with a `PairError` for each of the others.

    Raises:
        ConfigError: The file can't be read, or its columns don't tell source from target.
    """
    rows = list(_read_csv(path) if path.suffix.lower() == ".csv" else _read_jsonl(path))
    base = os.path.abspath(path.parent)  # noqa: PTH100 - strings on purpose
    stems = Counter(_stem(row.cells["source"]).casefold() for row in rows if "source" in row.cells)

    candidates: list[Candidate] = []
    bad: list[Outcome[ImagePair]] = []
    for number, row in enumerate(rows, 1):
        cells = row.cells
        name = cells.get("key", "")
        if not name and "source" in cells:
            name = _stem(cells["source"])
            if stems[name.casefold()] > 1:
                name = _long_name(cells["source"], base)
        try:
            source, target = _images(row, base)
        except PairError as error:
            bad.append(Outcome(name or f"row-{number}", error=error))
            continue
        candidates.append(
            Candidate(name, source, target, cells.get("caption"), cells.get("prompt"))
        )
    return candidates, bad


def _images(row: _Row, base: str) -> tuple[str, str]:
    if row.error:
        raise PairError(f"{row.where}: {row.error}", hint="Correct or remove the row.")
    paths = []
    for role in ("source", "target"):
        cell = row.cells.get(role)
        if not cell:
            raise PairError(f"{row.where}: no {role} image.", hint="Fill in or remove the row.")
        if cell.startswith(("http://", "https://", "s3://", "hf://")):
            raise PairError(
                f"{row.where}: {role} {cell} is an address, not a file.",
                hint="Download the images first and name the local files.",
            )
        path = os.path.join(base, cell)  # noqa: PTH118
        if "\0" in path or not os.path.exists(path):  # noqa: PTH110
            raise PairError(
                f"{row.where}: {role} image {cell} does not exist.",
                hint=f"Paths are relative to {base}.",
            )
        paths.append(path)
    if paths[0] == paths[1]:
        raise PairError(
            f"{row.where}: source and target are the same file, {row.cells['source']}.",
            hint="Name the image after the edit as target.",
        )
    return paths[0], paths[1]


def _stem(cell: str) -> str:
    return os.path.splitext(os.path.basename(cell))[0]  # noqa: PTH119, PTH122


def _long_name(cell: str, base: str) -> str:
    """The stem with its folders, for sources whose stem is not unique."""
    path = os.path.splitext(os.path.join(base, cell))[0]  # noqa: PTH118, PTH122
    relative = os.path.relpath(path, base)
    return "/".join(part for part in Path(relative).parts if part not in ("..", os.sep))


def _roles(columns: Sequence[str], path: Path, examples: Iterable[str]) -> dict[str, str]:
    """Role → column name.

    Raises:
        ConfigError: Two columns claim one role, or source and target are not both there.
    """
    normal = {column: "_".join(column.casefold().replace("-", " ").split()) for column in columns}
    roles: dict[str, str] = {}
    for role, names in COLUMNS.items():
        claims = [column for column in columns if normal[column] in names]
        if role == "key":  # `id` beside `key` is no conflict: ours wins
            claims.sort(key=lambda column: names.index(normal[column]))
            del claims[1:]
        if len(claims) > 1:
            raise ConfigError(
                f"{path}: columns {_listed(claims)} could each be the {role}.{_shown(examples)}",
                hint=f"Keep one of them, named `{role}`.",
            )
        if claims:
            roles[role] = claims[0]
    missing = [role for role in ("source", "target") if role not in roles]
    if missing:
        traps = [column for column in columns if normal[column] in _TRAPS]
        why = (
            f"{_listed(traps)} may be source, target or a caption, depending on the dataset"
            if traps
            else f"its columns are {_listed(columns)}"
        )
        raise ConfigError(
            f"{path}: no column is clearly the {' and the '.join(missing)} image: {why}."
            f"{_shown(examples)}",
            hint=f"{_RENAME} Example header: source,target,key,caption",
        )
    return roles


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _shown(examples: Iterable[str]) -> str:
    return "".join(f"\n  {example}" for example in examples)


def _read_csv(path: Path) -> Iterator[_Row]:
    import polars as pl

    try:
        table = pl.read_csv(path, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{path}: not a readable CSV table: {reason}.",
            hint="Save it as UTF-8, with commas between cells and quotes around text with commas.",
        ) from None
    examples = [
        ", ".join(f"{column}={value!r:.60}" for column, value in row.items())
        for row in table.head(2).to_dicts()
    ]
    roles = _roles(table.columns, path, examples)
    selected = table.select(list(roles.values()))
    for number, values in enumerate(selected.iter_rows(), 1):
        cells = {role: (value or "").strip() for role, value in zip(roles, values, strict=True)}
        yield _Row(f"{path}: row {number}", {role: text for role, text in cells.items() if text})


def _read_jsonl(path: Path) -> Iterator[_Row]:
    known: dict[tuple[str, ...], dict[str, str]] = {}
    refused: ConfigError | None = None
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: can't read it: {error.strerror}.") from None
    with file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not line:
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _Row(where, {}, f"not valid JSON: {error}.")
                continue
            if not isinstance(record, dict):
                yield _Row(where, {}, "not a JSON object.")
                continue
            columns = tuple(record)
            if columns not in known:
                example = ", ".join(f"{name}={value!r:.60}" for name, value in record.items())
                try:
                    known[columns] = _roles(columns, path, [f"line {number}: {example}"])
                except ConfigError as error:
                    # One odd row among good ones is that row's error; a file of them is not.
                    refused = refused or error
                    yield _Row(where, {}, error.message.partition("\n")[0].partition(": ")[2])
                    continue
            yield _json_row(where, record, known[columns])
    if refused and not known:
        raise refused


def _json_row(where: str, record: dict[str, object], roles: dict[str, str]) -> _Row:
    cells: dict[str, str] = {}
    for role, column in roles.items():
        value = record[column]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if role == "key" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None:
            continue
        if not isinstance(value, str):
            return _Row(where, cells, f"`{column}` is {type(value).__name__}, not text.")
        if value.strip():
            cells[role] = value.strip()
    return _Row(where, cells)


class Sidecars:
    """Captions in `ROOT.txt` and `ROOT.json`, beside the images or in the root."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._listed: dict[str, dict[str, str]] = {}

    def read(self, pair: Candidate) -> tuple[str | None, str | None]:
        """Caption and prompt of a pair, if any.

        Raises:
            PairError: A sidecar can't be read, or two of them disagree.
        """
        folder, _, name = pair.name.rpartition("/")
        folders = dict.fromkeys(
            map(os.path.dirname, (pair.source, pair.target, f"{self._root}/{folder}/"))
        )
        captions: dict[str, str] = {}
        prompts: dict[str, str] = {}
        for place in folders:
            for suffix in (".txt", ".json"):
                file = self._list(place).get(name + suffix)
                if file:
                    path = os.path.join(place, file)  # noqa: PTH118
                    caption, prompt = _read_sidecar(path)
                    if caption:
                        captions.setdefault(caption, path)
                    if prompt:
                        prompts.setdefault(prompt, path)
        for texts in (captions, prompts):
            if len(texts) > 1:
                raise PairError(
                    f"{pair.source}: its captions disagree: {' and '.join(texts.values())}.",
                    hint="Keep one of these files.",
                )
        return next(iter(captions), None), next(iter(prompts), None)

    def _list(self, folder: str) -> dict[str, str]:
        """Sidecars of a folder: composed name → name on disk (macOS writes it decomposed)."""
        if folder not in self._listed:
            names: dict[str, str] = {}
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith((".txt", ".json")):
                        names[unicodedata.normalize("NFC", entry.name)] = entry.name
            self._listed[folder] = names
        return self._listed[folder]


def _read_sidecar(path: str) -> tuple[str | None, str | None]:
    hint = 'Save it as UTF-8 text, or as JSON like {"caption": "…", "caption_cot": "…"}.'
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
        if path.endswith(".txt"):
            return text or None, None
        record = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise PairError(f"{path}: can't read the caption: {error}.", hint=hint) from None
    if not isinstance(record, dict):
        raise PairError(f"{path}: not a JSON object.", hint=hint)
    values = []
    for name in ("caption", "caption_cot"):
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise PairError(f"{path}: {name!r} is not text.", hint=hint)
        values.append((value or "").strip() or None)
    return values[0], values[1]
