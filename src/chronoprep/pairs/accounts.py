"""Accounts: what became of every file, or row, that was seen. None goes missing.

Counts, and names of exceptions: a million files that are what they should be cost next to nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronoprep.data import TRUTH
from chronoprep.keys import is_unicode
from chronoprep.pairs.folders import VIDEO_SUFFIXES, Tree
from chronoprep.pairs.scan import Candidate, Passed, Scan
from chronoprep.pairs.sidecars import SUFFIXES as TEXTS
from chronoprep.pairs.sidecars import Sidecars
from chronoprep.rows import Rows

if TYPE_CHECKING:
    import polars

_NAMED = 100  # files of one kind in one folder that are named one by one
# Documents that go with a set and say nothing of a pair.
_DOCUMENTS = (
    *("readme", "license", "licence", "copying", "notice", "changelog", "authors"),
    *("citation", "contributing"),
)
_DOCUMENT_ENDS = ("", ".md", ".txt", ".rst", ".html", ".htm", ".pdf", ".cff", ".bib", ".rtf")
_DOCUMENT_NAMES = frozenset((*(name + end for name in _DOCUMENTS for end in _DOCUMENT_ENDS), TRUTH))
_WHY = {
    **dict.fromkeys(TEXTS, "a caption of no pair"),
    ".json": "belongs to no pair",
    **dict.fromkeys(
        (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather"),
        "a table: if it lists the pairs, give it as PAIRS",
    ),
    **dict.fromkeys(VIDEO_SUFFIXES, "a clip: the pairs here are images (--layout clips)"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"),
        "a camera's raw file: develop it to TIFF, PNG or JPEG",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "an archive: unpack it"),
    ".svg": "a drawing: render it to PNG",
}


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of all files, or of all rows of a table: each is counted once.

    Attributes:
        seen: How many there are. A row with a list of targets counts for each.
        paired: Images of pairs; rows that are pairs.
        sidecars: Files with captions of pairs, or of images that can't be used.
        unmatched: Images without a partner.
        ambiguous: Images of which no one pair can be made.
        unusable: Images of pairs that can't be used; rows that can't.
        beyond: Left out by `limit`.
        passed: In no pair for another reason.
        system: What a system keeps for itself, and documents such as a README.
        unit: `files` or `rows`.
    """

    seen: int = 0
    paired: int = 0
    sidecars: int = 0
    unmatched: int = 0
    ambiguous: int = 0
    unusable: int = 0
    beyond: int = 0
    passed: int = 0
    system: int = 0
    unit: str = "files"

    @property
    def parts(self) -> dict[str, int]:
        """All but `seen`, which they add up to."""
        return {
            "in pairs": self.paired, "sidecars": self.sidecars,
            "unmatched": self.unmatched, "ambiguous": self.ambiguous,
            "unusable": self.unusable, "beyond --limit": self.beyond,
            "passed over": self.passed, "of the system": self.system,
        }  # fmt: skip

    def __str__(self) -> str:
        parts = ", ".join(f"{count:,} {what}" for what, count in self.parts.items() if count)
        return f"{self.seen:,} {self.unit}: {parts or 'none'}"


def is_document(name: str) -> bool:
    """Whether a file is called as one that describes a set."""
    return name.lower() in _DOCUMENT_NAMES


def tally_of(
    found: Scan,
    tree: Tree,
    sidecars: Sidecars,
    pairs: polars.DataFrame,
    rest: polars.DataFrame,
) -> Tally:
    """Count the files of a scan, and note those that were passed over.

    Args:
        pairs, rest: Pairs, and the candidates beyond the limit.
    """
    import polars as pl

    for row in (*Rows(Candidate, rest), *found.refused) if sidecars.any else ():
        sidecars.of(row)
    files = [row for row in found.refused if is_unicode("".join(filter(None, row)))]
    sources = pl.Series([row.source for row in files], dtype=pl.String)
    # A source of several targets is in a pair if one of them is.
    shared = pairs["source"].filter(pairs["source"].is_in(sources.implode()))
    refused = {tree.below(ref) for row in found.refused for ref in (row.source, row.target)}
    refused -= {tree.below(ref) for ref in shared.unique()}
    elsewhere = pl.concat([pairs["source"], sources]).implode()
    beyond = rest.filter(~pl.col("source").is_in(elsewhere))
    named_so = pl.Series(
        [tree.ref(path) for path in found.folders if is_unicode(path)], dtype=pl.String
    )
    folders = sum(int(pairs[side].is_in(named_so.implode()).sum()) for side in ("source", "target"))
    found.unmatched = [path for path in found.unmatched if path not in found.folders]
    system = _pass_over(found, tree, sidecars)
    return Tally(
        seen=found.seen,
        paired=_files_of(pairs, found) - folders,
        sidecars=sidecars.count + sum(not sidecars.has(*_split(path)) for path in found.read),
        unmatched=len(found.unmatched),
        ambiguous=found.clashing,
        unusable=len(refused - found.folders),
        beyond=_files_of(beyond, found) + (0 if found.clips else rest.height - beyond.height),
        passed=sum(passed.files for passed in found.passed),
        system=found.system + system,
    )


def _split(path: str) -> tuple[str, str]:
    """The folder of a path, as a tree has it, and the name."""
    end = path.rfind("/") + 1
    return path[:end], path[end:]


def _files_of(frame: polars.DataFrame, found: Scan) -> int:
    """How many files are the images of pairs: a target is that of one pair alone."""
    return frame.height + (0 if found.clips else frame["source"].n_unique())


def _pass_over(found: Scan, tree: Tree, sidecars: Sidecars) -> int:
    """Name what lies beside the images and is no caption; returns how many are documents."""
    documents = 0
    for folder, count in found.aside.items():
        found.passed.append(
            Passed(tree.shown(folder), f"{count:,} images, no side of a pair", count)
        )
    for folder, names in found.beside.items():
        kinds = defaultdict[str, list[str]](list)
        for name in names:
            kind = name[name.rfind(".") :].lower() if "." in name else ""
            if (
                sidecars.has(folder, name)
                or (found.clips and kind in VIDEO_SUFFIXES)
                or (found.read and folder + name in found.read)
            ):
                continue
            if is_document(name):
                documents += 1
            else:
                kinds[kind].append(name)
        for kind, left in kinds.items():
            why = _WHY.get(kind, "no picture that can be read, and no caption")
            named = left if len(left) <= _NAMED else left[:1]
            found.passed += [Passed(tree.shown(folder + name), why) for name in named]
            if more := len(left) - len(named):
                what = f"{more:,} more files *{kind} in {tree.shown(folder)}"
                found.passed.append(Passed(what, why, more))
    return documents


def notes_of(found: Scan) -> Iterator[str]:
    """What was read otherwise than it is written, or not looked at, in a line each."""
    yield from found.remarks
    if found.nothings:
        words = ", ".join(f"{word!r} ({n:,})" for word, n in found.nothings.most_common(5))
        yield f"words that stand for no text, taken as none: {words}"
    if found.respelled:
        yield f"paths found in another spelling: {found.respelled:,}, such as {found.respelling}"
    if found.skipped:
        names = ", ".join(f"{name} ({n:,})" for name, n in Counter(found.skipped).most_common(5))
        yield f"folders of the system, not looked into: {names}"
