"""Discovery: which files under a folder, or rows of a manifest, are pairs.

Layouts and tables give candidates one by one; here they get safe, unique keys and their captions,
in columns, so that a million names stay cheap. Opens no image.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chronoprep.config import PairSettings
from chronoprep.data import Outcome, Pair
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.reading import require_file
from chronoprep.images.refs import file_of
from chronoprep.images.remote import address_of, kept
from chronoprep.keys import is_unicode
from chronoprep.pairs.accounts import Tally, is_document, notes_of, tally_of
from chronoprep.pairs.archives import Archive, Bucket
from chronoprep.pairs.folders import Folder, Tree
from chronoprep.pairs.hub import fetched, is_address
from chronoprep.pairs.layouts import find_in_folder
from chronoprep.pairs.patterns import find_by_pattern
from chronoprep.pairs.readers import COLUMNAR, SUFFIXES
from chronoprep.pairs.roles import UNDERSTOOD, refuse_unknown, role_folders
from chronoprep.pairs.scan import Candidate, Passed, Scan, key_of
from chronoprep.pairs.sidecars import Sidecars
from chronoprep.pairs.tables import find_in_tables
from chronoprep.rows import Rows

if TYPE_CHECKING:
    import polars

# As the hub names the files of a split.
_PART = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}\.")


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found.

    Attributes:
        pairs: Usable pairs, at most `limit`: sorted by key, those of a table in its order.
        unmatched: Images without a partner.
        ambiguous: Lines that name files of which no one pair can be made.
        renamed: (name on disk, key used) where the name is no safe key.
        bad: Pairs that can't be used, each with its key and a `PairError`.
        layout: What was recognised, for people.
        passed: What else lies there and is in no pair.
        notes: What was read otherwise than it is written, readable.
        tally: Of all files or rows, how many went which way.
    """

    pairs: Rows[Pair]
    unmatched: tuple[Path, ...]
    ambiguous: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    bad: tuple[Outcome[Pair], ...]
    layout: str
    passed: tuple[Passed, ...] = ()
    notes: tuple[str, ...] = ()
    tally: Tally = field(default_factory=Tally)


def discover(where: Path, settings: PairSettings) -> Discovery:
    """Find the pairs in a folder, a zip archive, a table or a set of the `datasets` library.

    Raises:
        ConfigError: `where` does not exist, holds no pairs, leaves open which image is the source,
            or (with `strict`) holds anything that does not become a pair.
    """
    asked = settings.source_glob or settings.target_glob or settings.regex
    by_names = bool(asked) or settings.layout != "auto"
    address, base, file = address_of(where), None, where
    if address is not None and address.lower().endswith((*SUFFIXES, ".zip")):
        file, base, address = kept(address), address.rpartition("/")[0], None
    if is_address(where):
        tables = [fetched(where, settings)]
    else:
        tables = _tables(file, by_names=by_names) if address is None else []
    tree: Tree | None = None
    if tables:
        if by_names:
            raise ConfigError(
                f"{where}: a table names its pairs; layouts and patterns are for folders.",
                hint="Leave out --layout, --source-glob, --target-glob and --regex.",
            )
        # What was fetched is in our own columns.
        ours = {"columns": None} if is_address(where) else {}
        found = find_in_tables(tables, settings.model_copy(update=ours), base)
        found.passed += _beside_tables(where, tables)
    else:
        if address is not None:
            tree = Bucket(address)
        else:
            tree = Archive(file) if file.is_file() else Folder(str(file))
        find = find_by_pattern if asked else find_in_folder
        found = find(tree, where, settings)

    frame = _with_keys(_in_columns(found), found)
    sidecars = Sidecars(tree, found.beside, found.nothings) if tree else None
    pairs, renamed, rest = _with_captions(frame, found, sidecars, settings.limit)
    if tree is None:
        tally = Tally(found.seen, len(pairs), 0, 0, 0, len(found.bad), rest.height, unit="rows")
    elif sidecars is not None:
        tally = tally_of(found, tree, sidecars, pairs.frame, rest)
    shown = tree.shown if tree else str
    discovery = Discovery(
        pairs=pairs,
        unmatched=tuple(Path(shown(path)) for path in sorted(found.unmatched)),
        ambiguous=tuple(sorted(found.ambiguous)),
        renamed=tuple(renamed),
        bad=tuple(found.bad),
        layout=", ".join(sorted(found.layouts)) or "nothing recognised",
        passed=tuple(found.passed),
        notes=tuple(notes_of(found)),
        tally=tally,
    )
    problems = _problems(discovery)
    if not discovery.pairs and not discovery.bad:
        recognised = found.layouts or found.ambiguous
        if tree is not None and not by_names and not recognised:
            refuse_unknown(tree, where)
        raise ConfigError(f"{where}: no pairs found.{_lines(problems)}", hint=UNDERSTOOD)
    if settings.strict and problems:
        raise ConfigError(
            f"{where}: {len(problems)} files or rows don't become pairs.{_lines(problems)}",
            hint="Correct or remove them, or leave strict off to go on without them.",
        )
    return discovery


def _tables(where: Path, *, by_names: bool) -> list[Path]:
    """The tables that PAIRS is: a file, the parts of one in a folder, a folder of `datasets`; none
    where it is a folder of images, or the user says so (`by_names`).

    Raises:
        ConfigError: It is neither a table nor a folder, or holds splits and none is `train`.
    """
    if where.is_file():
        if where.suffix.lower() == ".zip":
            return []
        if where.suffix.lower() not in SUFFIXES:
            raise ConfigError(
                f"{where}: not a folder, and not a table that can be read.",
                hint=f"Give a folder or a .zip of pairs, or a manifest ({', '.join(SUFFIXES)}).",
            )
        return [where]
    if not where.is_dir():
        what = (
            "neither a folder nor a regular file"
            if where.exists()
            else "no such folder or manifest"
        )
        raise ConfigError(f"{where}: {what}.", hint="Check the path.")
    if any((where / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return [where]
    # Where the hub keeps the parts of a set.
    for folder in (where, where / "data"):
        if folder.is_dir() and not by_names:
            tree = Folder(str(folder))
            here = tree.listing()
            parts = [name for name in here.others if name.lower().endswith(COLUMNAR)]
            if parts and not here.images and not role_folders(tree, folder, here.folders):
                return [folder / name for name in _one_split(folder, parts)]
    return []


def _one_split(folder: Path, parts: list[str]) -> list[str]:
    """The files of the split `train` where there are several: the others are to test an editor.

    Raises:
        ConfigError: None of several is `train`.
    """
    splits = {name: match["split"] for name in parts if (match := _PART.match(name))}
    if len(set(splits.values())) < 2:
        return parts
    if "train" not in splits.values():
        raise ConfigError(
            f"{folder}: tables of several splits: {', '.join(sorted(set(splits.values())))}.",
            hint="Put those of one into a folder of their own, and give that.",
        )
    return [name for name in parts if splits.get(name) == "train"]


def _in_columns(found: Scan) -> polars.DataFrame:
    """All candidates. Bad are those whose names are no Unicode, which columns can't hold, and those
    of what is named like an image and is no file."""
    rows = Rows(Candidate)
    for row in found.candidates:
        if error := _fault_of(row, found):
            found.refuse(row.name, error, row)
        else:
            rows.append(row)
    return rows.frame


def _fault_of(row: Candidate, found: Scan) -> PairError | None:
    if not is_unicode("".join(filter(None, row))):
        what = f"{row.source!r} → {row.target!r}: the name is not valid UTF-8."
        return PairError(what, hint="Rename the files.")
    for ref in (row.source, row.target) if found.odd and found.tree else ():
        if found.tree and found.tree.below(ref) in found.odd:
            try:
                require_file(Path(file_of(ref)))
            except PairError as error:
                return error
    return None


def _with_keys(frame: polars.DataFrame, found: Scan) -> polars.DataFrame:
    """A safe key each; pairs whose keys collide, also on file systems that fold case, are bad."""
    import polars

    frame = _disambiguated(frame)
    keys = [key_of(name) for name in frame["name"]]
    folded = [unicodedata.normalize("NFC", key.casefold()) for key in keys]
    frame = frame.with_columns(
        polars.Series("key", keys, dtype=polars.String),
        polars.Series("folded", folded, dtype=polars.String),
    )
    clashing = frame["folded"].is_duplicated()
    for _, same in frame.filter(clashing).group_by("folded", maintain_order=True):
        rows = same.to_dicts()
        files = "; ".join(f"{row['source']} → {row['target']}" for row in rows[:5])
        more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
        for row in rows:
            error = PairError(
                f"{row['source']} → {row['target']}: key {row['key']!r} is claimed by "
                f"{len(rows)} pairs: {files}{more}.",
                hint="Rename the files, or give each pair its own key in a manifest.",
            )
            found.refuse(row["name"], error, Candidate(*(row[name] for name in Candidate._fields)))
    frame = frame.filter(~clashing)
    return frame if found.ordered else frame.sort("key")


def _disambiguated(frame: polars.DataFrame) -> polars.DataFrame:
    """Rows of a table that share a name: named by their source's folders, then by the target."""
    import polars

    if frame["wider"].is_null().all():
        return frame
    name, wider = polars.col("name"), polars.col("wider")
    clash = name.str.to_lowercase().is_duplicated() & wider.is_not_null()
    target = polars.col("target").str.extract(r"([^/\\]+?)(?:\.[^./\\]*)?$")
    return frame.with_columns(name=polars.when(clash).then(wider).otherwise(name)).with_columns(
        name=polars.when(clash).then(polars.concat_str(name, target, separator="/")).otherwise(name)
    )


def _with_captions(
    frame: polars.DataFrame, found: Scan, sidecars: Sidecars | None, limit: int | None
) -> tuple[Rows[Pair], list[tuple[str, str]], polars.DataFrame]:
    """The first `limit` pairs, with what their sidecars say; the names that are no keys; and the
    candidates beyond."""
    pairs, renamed, done = Rows(Pair), [], 0
    for key, row in zip(frame["key"], Rows(Candidate, frame), strict=True):
        if limit is not None and len(pairs) == limit:
            break
        done += 1
        try:
            caption, prompt = sidecars.read(row) if sidecars else (None, None)
        except PairError as error:
            found.refuse(row.name, error, row)
            continue
        pairs.append(
            Pair(key, row.source, row.target, caption or row.caption, prompt or row.prompt)
        )
        if row.name.replace("/", "__") != key:
            renamed.append((row.name, key))
    return pairs, renamed, frame.slice(done)


def _beside_tables(where: Path, tables: Sequence[Path]) -> Iterator[Passed]:
    """What lies beside the parts of a table in a folder."""
    if not where.is_dir() or where in tables:
        return
    folder = Folder(str(tables[0].parent))
    taken = {table.name for table in tables}
    here = folder.listing()
    for name in here.images + [name for name in here.others if name not in taken]:
        why = "of another split" if _PART.match(name) else "beside the table"
        if not is_document(name):
            yield Passed(folder.shown(name), why)


def _problems(discovery: Discovery) -> list[str]:
    return [
        *(f"no partner: {path}" for path in discovery.unmatched),
        *(f"ambiguous: {line}" for line in discovery.ambiguous),
        *(str(outcome.error) for outcome in discovery.bad),
        *(f"passed over: {what}: {why}" for what, why, _ in discovery.passed),
    ]


def _lines(problems: list[str], most: int = 20) -> str:
    more = [f"… and {len(problems) - most} more"] if len(problems) > most else []
    return "".join(f"\n  {line}" for line in problems[:most] + more)
