"""The index: which pairs a dataset has, and how their files looked.

`pairs.parquet`, since a million pairs are read from it in a fraction of a second, in columns as
they are used; a file cut short is known as such; and any data frame library opens it. It is
written whole, at discovery; what happens to a pair afterwards stands in the journal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chronoprep.data import Outcome, Pair
from chronoprep.dataset.events import Roles
from chronoprep.errors import ConfigError, PairError
from chronoprep.files import replacing
from chronoprep.images.refs import file_of, is_address, of_path
from chronoprep.images.sources import files_stamp
from chronoprep.rows import Rows

if TYPE_CHECKING:
    import polars

FILE = "pairs.parquet"
# What leads from a machine's root or to another machine; anything else starts at this folder.
_ABSOLUTE = r"^(?:/|\\|[A-Za-z]:[\\/]|\w+://)"


class Entry(NamedTuple):
    """A pair of a dataset, as text.

    Attributes:
        key, source, target, caption, prompt: As in `Pair`; references are absolute.
        origin: The PAIRS that it was found in.
        files: How its files looked, by `images.sources.files_stamp`.
        images: The digest of its images' bytes, if they were read when the files looked so.
        listed: Set if metadata.csv was given a row for it.
    """

    key: str
    source: str
    target: str
    caption: str | None = None
    prompt: str | None = None
    origin: str | None = None
    files: str | None = None
    images: str | None = None
    listed: str | None = None

    @property
    def pair(self) -> Pair:
        return Pair(*self[:5])


@dataclass
class Changes:
    """What a discovery changed in an index.

    Attributes:
        gone: Keys of pairs that are not found any more, and have left the index.
        renamed: (old key, new key) of pairs of the same images.
        moved: Places that pairs have left, all of them, for the one at hand.
        clashing: Pairs whose key belongs to a pair of another place, which is still there.
    """

    gone: set[str] = field(default_factory=set)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    clashing: list[Outcome[Pair]] = field(default_factory=list)


class Index:
    """The pairs of a dataset folder.

    Args:
        folder: Of the dataset.

    Raises:
        ConfigError: The index can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._frame: polars.DataFrame | None = None
        if os.path.lexists(self.path):
            self._frame = _read(self.path)
        self._saved = self._frame

    @property
    def exists(self) -> bool:
        return self._frame is not None

    def entries(self, limit: int | None = None) -> Rows[Entry]:
        """The pairs, at most the first `limit`."""
        frame = self._frame
        if frame is not None and limit is not None:
            frame = frame.head(limit)
        return Rows(Entry, frame)

    def keys(self) -> list[str]:
        return [] if self._frame is None else self._frame["key"].to_list()

    def save(self) -> None:
        """Write what was changed.

        Raises:
            BackendError: When the disk is full or the folder can't be written.
        """
        if self._frame is None or (self._saved is not None and self._frame.equals(self._saved)):
            return
        data = io.BytesIO()  # polars has errors of its own for a disk that is full
        self._frame.write_parquet(data)
        with replacing(self.path) as temporary:
            temporary.write_bytes(data.getbuffer())
        self._saved = self._frame

    def update(
        self,
        pairs: Rows[Pair],
        origin: str,
        *,
        keep: Iterable[str] | None,
        roles: Mapping[str, Roles],
        images_of: Callable[[str], str | None],
        digest_of: Callable[[Pair], str | None],
    ) -> Changes:
        """Take over what was found at one place, which comes first from now on; pairs of other
        places stay.

        Args:
            origin: Names the place.
            keep: Keys that are there though they were not found, as one of no use is; None keeps
                all.
            roles: What humans said of which image is which.
            images_of: The digest of a key's images, as the journal knows it.
            digest_of: The same of a pair that was found, by reading it; None where it can't be.
        """
        import polars as pl

        changes = Changes()
        new = _found(pairs, origin, roles)
        old = self._frame if self._frame is not None else Rows(Entry).frame
        both = new.join(old, on="key", suffix="_old")
        for row in both.filter(
            pl.col("origin") != pl.col("origin_old"), pl.col("source") != pl.col("source_old"),
        ).iter_rows(named=True):  # fmt: skip
            if _is_there(file_of(row["source_old"])) and row["files"] != row["files_old"]:
                changes.clashing.append(_clash(row))
            else:
                changes.moved.add(row["origin_old"])
        changes.moved = {name for name in changes.moved if not _is_there(name)}
        taken = {outcome.key for outcome in changes.clashing}
        new = new.filter(~pl.col("key").is_in(taken))

        rest = old.join(new, on="key", how="anti")
        gone = pl.col("origin").is_in({origin, *changes.moved})
        gone &= ~pl.col("key").is_in(taken.union(keep or ()))
        left = rest.filter(gone) if keep is not None else rest.clear()
        changes.gone = set(left["key"])
        changes.renamed = _renamed(left, new.join(old, on="key", how="anti"), images_of, digest_of)

        known = old.select("key", pl.col("files").alias("_files"), "images", "listed")
        new = new.join(known, on="key", how="left", maintain_order="left").with_columns(
            images=pl.when(pl.col("files") == pl.col("_files")).then("images")
        )
        names = list(Entry._fields)
        rest = rest.join(left, on="key", how="anti", maintain_order="left")
        self._frame = pl.concat([new.select(names), rest.select(names)])
        return changes

    def turn(self, roles: Mapping[str, Roles]) -> None:
        """Give images the roles that humans said they have."""
        frame = self._frame
        if frame is None or (turned := _turned(frame, roles)) is frame:
            return
        self._frame = turned
        before = zip(frame["key"], frame["source"], turned["source"], strict=True)
        changed = {key for key, old, new in before if old != new}
        self.look_again(changed)

    def take(self, others: Sequence[Rows[Entry]], *, whole: bool) -> None:
        """Take over pairs of other indices, in the place of those of the same keys; the pairs are
        then in the order of their keys.

        Args:
            whole: Whether that is all there is at their places: other pairs of those leave.
        """
        import polars as pl

        new = pl.concat([entries.frame for entries in others])
        old = self.entries().frame
        if whole:
            old = old.filter(~pl.col("origin").is_in(new["origin"].unique().implode()))
        self._frame = pl.concat([old, new]).unique("key", keep="last").sort("key")

    def look_again(self, keys: Container[str]) -> None:
        """See how the files of these pairs look now."""
        import polars as pl

        if self._frame is None:
            return
        frame = self._frame
        wanted = pl.Series([key in keys for key in frame["key"].to_list()], dtype=pl.Boolean)
        new = pl.Series(_stamps(frame.filter(wanted)), dtype=pl.String)
        files = frame["files"].scatter(wanted.arg_true(), new)
        known = pl.when(files == pl.col("files")).then("images").alias("images")
        self._frame = frame.with_columns(files, known)

    def learn(self, images: Mapping[str, str]) -> None:
        """Remember the digests of images that were read, by key."""
        import polars as pl

        if self._frame is not None and images:
            new = pl.DataFrame({"key": list(images.keys()), "_new": list(images.values())})
            joined = self._frame.join(new, on="key", how="left", maintain_order="left")
            self._frame = joined.with_columns(images=pl.coalesce("_new", "images")).drop("_new")

    def list_rows(self, keys: Iterable[str]) -> None:
        """Remember which pairs stand in metadata.csv."""
        import polars as pl

        if self._frame is not None:
            stands = pl.col("key").is_in(pl.Series(keys, dtype=pl.String).implode())
            self._frame = self._frame.with_columns(listed=pl.when(stands).then(pl.lit("yes")))


def _found(pairs: Rows[Pair], origin: str, roles: Mapping[str, Roles]) -> polars.DataFrame:
    """Pairs as entries, with absolute references, in their roles, and how their files look."""
    import polars as pl

    here = of_path(f"{Path.cwd()}{os.sep}")
    refs = [
        pl.when(pl.col(name).str.contains(_ABSOLUTE)).then(name).otherwise(here + pl.col(name))
        .alias(name)
        for name in ("source", "target")
    ]  # fmt: skip
    frame = _turned(pairs.frame.with_columns(*refs, origin=pl.lit(origin)), roles)
    return frame.with_columns(pl.Series("files", _stamps(frame), dtype=pl.String))


def _is_there(place: str) -> bool:
    """Whether something lies there; of another machine that is assumed."""
    return is_address(place) or os.path.lexists(place)


def _turned(frame: polars.DataFrame, roles: Mapping[str, Roles]) -> polars.DataFrame:
    """The frame with source and target of those pairs exchanged that are the other way round; the
    same frame where none is."""
    import polars as pl

    if not roles:
        return frame
    known = pl.Series(list(roles), dtype=pl.String).implode()
    rows = frame.select("key", "source", "target").filter(pl.col("key").is_in(known)).rows()
    wrong = [key for key, *refs in rows if roles[key].exchanges(*refs)]
    if not wrong:
        return frame
    turn = pl.col("key").is_in(pl.Series(wrong, dtype=pl.String).implode())
    return frame.with_columns(
        source=pl.when(turn).then("target").otherwise("source"),
        target=pl.when(turn).then("source").otherwise("target"),
    )


def _stamps(frame: polars.DataFrame) -> list[str | None]:
    refs = frame.select("source", "target").iter_rows(buffer_size=10_000)
    return [files_stamp(source, target) for source, target in refs]


def _renamed(
    gone: polars.DataFrame,
    added: polars.DataFrame,
    images_of: Callable[[str], str | None],
    digest_of: Callable[[Pair], str | None],
) -> list[tuple[str, str]]:
    """(old key, new key) of pairs whose files are the same, or else whose bytes are: only those of
    files of the same sizes are read."""
    by_sizes: dict[str, list[dict[str, str]]] = {}
    for old in gone.iter_rows(named=True):
        if old["files"]:
            by_sizes.setdefault(_sizes(old["files"]), []).append(old)
    found = []
    for row in added.select(*Pair._fields, "files").iter_rows(named=True) if by_sizes else ():
        candidates = by_sizes.get(_sizes(row["files"] or ""), [])
        stamp = _unnamed(row["files"] or "")
        match = next((old for old in candidates if _unnamed(old["files"]) == stamp), None)
        if match is None and candidates:
            digest = digest_of(Pair(*(row[name] for name in Pair._fields)))
            known = ((old, old["images"] or images_of(old["key"])) for old in candidates)
            match = next((old for old, images in known if digest and images == digest), None)
        if match is not None:
            candidates.remove(match)
            found.append((match["key"], row["key"]))
    return found


def _unnamed(stamp: str) -> str:
    """Of a stamp, sizes and times without names."""
    return "|".join(stamp.split("|", 2)[:2])


def _sizes(stamp: str) -> str:
    return "|".join(part.partition("-")[0] for part in stamp.split("|", 2)[:2])


def _clash(row: dict[str, str]) -> Outcome[Pair]:
    error = PairError(
        f"{row['source']}: the key {row['key']!r} belongs to {row['source_old']} in this dataset.",
        hint="Rename the files, or give these pairs a --dataset of their own.",
    )
    return Outcome(row["key"], error=error)


def _read(path: Path) -> polars.DataFrame:
    import polars as pl

    try:
        if not path.is_file():
            raise OSError("not a regular file")
        with path.open("rb") as file:
            frame = pl.read_parquet(file)
        return frame.select(pl.col(name).cast(pl.String) for name in Entry._fields)
    except (Exception, pl.exceptions.PanicException) as error:  # what damage makes polars raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{path}: can't read the dataset's index of pairs: {reason}.",
            hint="Remove the file, and name PAIRS again: labels and videos are kept.",
        ) from None
