"""The pairing report: what a run would take, what it would pass over, and what looks wrong."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chronoprep import pairs as rooms_pairs
from chronoprep.config import Settings
from chronoprep.data import Outcome, Pair, Remote
from chronoprep.dataset import write_table
from chronoprep.engine import mapped
from chronoprep.errors import ConfigError
from chronoprep.files import replacing
from chronoprep.images.refs import of_path, parse
from chronoprep.rows import Rows
from chronoprep.workflows.progress import Reporter, Silent

SHEET_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SHEET_PAIRS = 1500  # so many fit on a WebP


@dataclass
class PairReport:
    """What was found, and what looks wrong.

    Attributes:
        layout: How the pairs lie, as it was recognised.
        pairs: How many pairs a run would take.
        captions: How many of them bring a caption or a prompt.
        unmatched, ambiguous: Files that become no pair.
        renamed: (name on disk, key) where the key differs.
        unusable: (key, reason) of what can't be a pair: colliding keys, rows without an image.
        unreadable: (key, reason) of pairs whose images can't be used.
        identical: Keys of pairs whose target is the source.
        duplicates: Keys of pairs with the same images, byte for byte.
        near_duplicates: Keys of pairs that look the same: saved again or resized.
        mismatched: (key, source's size, target's size, "size" or "aspect").
        looked: Whether the images were opened.
    """

    layout: str
    pairs: int
    captions: int
    unmatched: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    identical: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, int], tuple[int, int], str]] = field(
        default_factory=list
    )
    looked: bool = True

    @property
    def failed(self) -> bool:
        """Whether some pairs can't be used at all."""
        return bool(self.unusable or self.unreadable)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def report_pairs(
    where: Path,
    settings: Settings,
    *,
    look: bool = True,
    sheet: Path | None = None,
    sheet_pairs: int = 24,
    manifest: Path | None = None,
    reporter: Reporter | None = None,
) -> PairReport:
    """Find the pairs and look at their images.

    Args:
        look: Open the images; without, names alone are reported.
        sheet: Where a picture of `sheet_pairs` pairs goes, evenly spread over all.
        manifest: Where a CSV goes that the other commands take as PAIRS, with a column of remarks.

    Raises:
        ConfigError: As `discover`; or the sheet or the manifest has a suffix of another kind, or
            the sheet can't hold so many pairs.
    """
    if sheet is not None and sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise ConfigError(f"--sheet {sheet}: no picture.", hint="Name it sheet.jpg, for example.")
    if manifest is not None and manifest.suffix.lower() != ".csv":
        raise ConfigError(
            f"--link-manifest {manifest}: no .csv.", hint="Name it pairs.csv, for example."
        )
    if manifest is not None and manifest.exists() and where.exists() and manifest.samefile(where):
        raise ConfigError(
            f"--link-manifest {manifest}: that is PAIRS itself, of which something would be lost.",
            hint="Give the new table another name.",
        )
    reporter = reporter or Silent()
    found = rooms_pairs.discover(where, settings.pairs)
    count = min(sheet_pairs, len(found.pairs))
    if sheet is not None and count > SHEET_PAIRS:
        raise ConfigError(
            f"--sheet {sheet}: {count} pairs don't fit on one picture.",
            hint=f"Give --sheet-pairs {SHEET_PAIRS} or fewer.",
        )
    report = PairReport(
        layout=found.layout,
        pairs=len(found.pairs),
        captions=sum(bool(pair.caption or pair.prompt) for pair in found.pairs),
        unmatched=list(map(str, found.unmatched)),
        ambiguous=list(found.ambiguous),
        renamed=list(found.renamed),
        unusable=[(bad.key, _reason(bad)) for bad in found.bad],
        looked=look,
    )
    if look:
        _look(found.pairs, settings, report, reporter)
    if sheet is not None:
        from chronoprep.images.sheet import save_sheet

        chosen = [found.pairs[n * len(found.pairs) // count] for n in range(count)]
        with replacing(sheet) as temporary:
            save_sheet(chosen, settings.images, temporary.with_suffix(sheet.suffix))
            temporary.with_suffix(sheet.suffix).replace(temporary)
    if manifest is not None:
        _write_manifest(found.pairs, manifest, report)
    return report


def _look(pairs: Rows[Pair], settings: Settings, report: PairReport, reporter: Reporter) -> None:
    from chronoprep.images.inspection import Lookalikes, inspect

    alike = Lookalikes()
    reporter.start("looking", len(pairs))
    for seen in mapped(lambda pair: inspect(pair, settings.images), pairs, key=lambda p: p.key):
        if seen.value is None:
            report.unreadable.append((seen.key, _reason(seen)))
            reporter.advance("failed")
            continue
        reporter.advance("ok")
        alike.add(seen.key, seen.value)
        if seen.value.identical:
            report.identical.append(seen.key)
        if seen.value.mismatch:
            report.mismatched.append((seen.key, *seen.value.sizes, seen.value.mismatch))
    report.duplicates = alike.equal()
    report.near_duplicates = alike.near()


def _reason(outcome: Outcome[Any]) -> str:
    return outcome.error.reason if outcome.error is not None else ""


def _write_manifest(pairs: Rows[Pair], path: Path, report: PairReport) -> None:
    """A table of the pairs; what was remarked stands in a column that is not read back."""
    import polars

    remarks: dict[str, str] = {}

    def remark(key: str, text: str) -> None:
        remarks[key] = f"{remarks[key]}; {text}" if key in remarks else text

    for key, reason in report.unreadable:
        remark(key, f"unreadable: {reason}")
    for key in report.identical:
        remark(key, "source and target are the same")
    for group in report.duplicates:
        for key in group[1:]:
            remark(key, f"same images as {group[0]}")
    for one, other in report.near_duplicates:
        remark(other, f"looks like {one}")
    for key, source, target, kind in report.mismatched:
        sizes = " → ".join(f"{width}×{height}" for width, height in (source, target))
        remark(key, f"other {kind}: {sizes}")

    base = of_path(str(path.absolute().parent))

    def linked(pair: Pair) -> tuple[str, ...]:
        texts = [_relative(ref, base) if not isinstance(parse(ref), Remote) else ref
                 for ref in (pair.source, pair.target)]  # fmt: skip
        return pair.key, *texts, pair.caption or "", pair.prompt or "", remarks.get(pair.key, "")

    names = ("key", "source", "target", "caption", "prompt", "remark")
    schema = dict.fromkeys(names, polars.String)
    table = polars.DataFrame(map(linked, pairs), schema=schema, orient="row")
    write_table(table, path)


def _relative(ref: str, base: str) -> str:
    """A reference as the manifest names it: relative where it lies below, so that both can move."""
    path, mark, part = ref.partition("#")
    full = os.path.abspath(path)  # noqa: PTH100
    return full.removeprefix(f"{base}{os.sep}") + mark + part
