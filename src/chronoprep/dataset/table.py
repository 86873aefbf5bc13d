"""metadata.csv: what the trainer reads. It follows from the index, the journal and the files, and a
human may edit it: what was changed by hand is taken over into the journal.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from chronoprep.dataset.events import Label, Review, State
from chronoprep.dialect import CSV, text_of
from chronoprep.errors import ConfigError
from chronoprep.files import replacing
from chronoprep.keys import pandas_reads_as_text

if TYPE_CHECKING:
    import polars

    from chronoprep.dataset.index import Entry
    from chronoprep.dataset.journal import Journal
    from chronoprep.rows import Rows

COLUMNS = ("key", "video", "prompt", "umt5")
_PART = 50_000


def cell_of(prompt: str) -> str:
    """A prompt as its cell: in double quotes where `pandas.read_csv` would not give back this text
    (`NA`, `0001`), since CSV quoting alone does not help there."""
    return prompt if pandas_reads_as_text(prompt) else f'"{prompt}"'


def prompt_in(cell: str) -> str:
    """The prompt of a cell."""
    inner = cell.strip()
    if len(inner) > 2 and inner[0] == inner[-1] == '"' and not pandas_reads_as_text(inner[1:-1]):
        return inner[1:-1]
    return inner


def read_table(path: Path) -> polars.DataFrame:
    """Read a CSV as the trainer does, but with every column as text, absent cells as "".

    Raises:
        ConfigError: When the file is missing, is no UTF-8 or has rows of the wrong width.
    """
    return _parsed(_content(path), path, ",")


def read_edited(path: Path) -> tuple[polars.DataFrame, str | None]:
    """Read a metadata.csv that a spreadsheet may have saved in its own way: with semicolons or
    tabs, in UTF-16 or Windows' encoding.

    Returns:
        The table, and how it was saved if the trainer could not read it so.

    Raises:
        ConfigError: As `read_table`; or no encoding or separator makes sense of it.
    """
    text, dialect = text_of(_content(path), path)
    return _parsed(text.encode(), path, dialect.separator), dialect.odd


def write_table(
    table: polars.DataFrame, path: Path, *, line_end: str = "\n", bom: bool = False
) -> None:
    """Write a CSV atomically, every field quoted, so that a reader sees the old or the new one."""
    data = io.BytesIO()  # polars has errors of its own for a disk that is full
    table.write_csv(data, quote_style="always", line_terminator=line_end, include_bom=bom)
    with replacing(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def rewrite_table(table: polars.DataFrame, path: Path) -> None:
    """Put a table in the place of a CSV, with its line ends and its byte order mark."""
    with path.open("rb") as file:
        head = file.readline(1 << 20)
    line_end = "\r\n" if head.endswith(b"\r\n") else "\n"
    write_table(table, path, line_end=line_end, bom=head.startswith(codecs.BOM_UTF8))


def own_columns(path: Path) -> polars.DataFrame | None:
    """The columns that a user added to a metadata.csv, by key; None where there are none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.readline(1 << 20)
    if head.strip().strip(codecs.BOM_UTF8).replace(b'"', b"") == ",".join(COLUMNS).encode():
        return None  # ours, which may be large
    table, _ = read_edited(path)
    if "key" not in table.columns:
        return None
    table = table.drop("video", "prompt", "umt5", strict=False)
    return table.unique("key", keep="first") if table.width > 1 else None


def write_rows(rows: Iterable[tuple[str, ...]], path: Path, own: polars.DataFrame | None) -> None:
    """Write rows of `COLUMNS` to a CSV, a part at a time, with a user's own columns behind them."""
    import polars

    schema = dict.fromkeys(COLUMNS, polars.String)
    rest = iter(rows)
    with path.open("wb") as file:
        first = True
        while (part := list(islice(rest, _PART))) or first:
            frame = polars.DataFrame(part, schema=schema, orient="row")
            if own is not None:
                frame = frame.join(own, on="key", how="left", maintain_order="left").fill_null("")
            file.write(frame.write_csv(include_header=first, quote_style="always").encode())
            first = False


@dataclass
class Edits:
    """What a human changed in a metadata.csv.

    Attributes:
        reviews: The same as events.
        notes: What was taken over, readable.
    """

    reviews: list[Review] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_edits(path: Path, entries: Rows[Entry], journal: Journal) -> Edits:
    """Hold an edited metadata.csv against what was written.

    Raises:
        ConfigError: The table can't be read, has no rows left, a key twice, or rows of pairs that
            are none of this dataset.
    """
    table, saved = read_edited(path)
    if not {"key", "prompt"} <= set(table.columns):
        raise ConfigError(
            f"{path}: needs the columns key and prompt; it has {', '.join(table.columns)}.",
            hint="Put them back, or remove the file: it is then written anew.",
        )
    cells: dict[str, str] = {}
    for number, (key, cell) in enumerate(table.select("key", "prompt").iter_rows(), 1):
        if key in cells:
            raise ConfigError(
                f"{path}: row {number}: the key {key!r} stands there twice.",
                hint="Leave one of the rows, or remove the file: it is then written anew.",
            )
        if "\0" in cell:
            raise ConfigError(
                f"{path}: row {number}: the prompt of {key!r} holds a NUL character.",
                hint="Remove it, or the file: it is then written anew.",
            )
        cells[key] = cell
    edits = Edits([], [f"metadata.csv: read as saved by a spreadsheet ({saved})"] if saved else [])
    changed, dropped = [], []
    for entry in entries:
        edited = cells.pop(entry.key, None)
        if edited is None and entry.listed is None:
            continue
        state = journal.state(entry.key)
        review = Review(
            key=entry.key, verdict="reject", images=state.images, reviewer=path.name,
            reason="the row was deleted" if edited is None else "the prompt was emptied",
        )  # fmt: skip
        if edited is None or not edited.strip():
            if state.status != "rejected":
                dropped.append(review)
        elif prompt_in(edited) not in _texts(state):
            update = {"verdict": "edit", "caption_cot": prompt_in(edited), "reason": None}
            changed.append(review.model_copy(update=update))
    strangers = [key for key in cells if key not in journal]
    if strangers:
        raise ConfigError(
            f"{path}: no pair of this dataset has the key {strangers[0]!r}"
            + (f", nor those of {len(strangers) - 1} more rows." if strangers[1:] else "."),
            hint="Bring such pairs by PAIRS, or keep their rows in a table of their own.",
        )
    if dropped and len(table) == 0:
        raise ConfigError(
            f"{path}: all rows are gone.", hint="Remove the file, and it is written anew."
        )
    for what, reviews in (("edited prompt(s)", changed), ("deleted row(s), rejected", dropped)):
        if reviews:
            names = ", ".join(review.key for review in reviews[:5]) + ", …" * bool(reviews[5:])
            edits.notes.append(f"metadata.csv: taken over: {len(reviews)} {what} ({names})")
    edits.reviews = changed + dropped
    return edits


def _texts(state: State) -> Iterator[str | None]:
    """All that ever stood as a pair's prompt: none of it is new."""
    for event in state.events:
        if isinstance(event, Label | Review):
            yield from (event.caption_cot, event.caption)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file.", hint="`chronoprep build-csv` or `prepare` writes one."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: can't read it: {error.strerror}.", hint="Check its permissions."
        ) from None
    if not data.strip():
        raise ConfigError(f"{path}: the file is empty.", hint="Remove it: it is written anew.")
    return data


def _parsed(data: bytes, path: Path, separator: str) -> polars.DataFrame:
    import polars

    try:
        # Bytes and not a path: polars would read `[1]` in a path as a pattern.
        table = polars.read_csv(io.BytesIO(data), infer_schema=False, separator=separator)
    except polars.exceptions.NoDataError:
        raise ConfigError(
            f"{path}: the file is empty.", hint="Remove it: it is written anew."
        ) from None
    except polars.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path}: can't read the table: {reason}", hint=CSV) from None
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    names = next(csv.reader(text, delimiter=separator))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{path}: two columns are called {twice[0]!r}.", hint="Rename one.")
    return table.fill_null("")
