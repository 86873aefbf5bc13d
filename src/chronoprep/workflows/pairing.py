"""The pairing report: what a run would take, what it would pass over, and what looks wrong."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep.config import Settings
from chronoprep.data import Finding, Outcome, Pair, Remote
from chronoprep.dataset import write_table
from chronoprep.engine import mapped
from chronoprep.errors import ConfigError
from chronoprep.files import make_folder, replacing
from chronoprep.images.refs import parse
from chronoprep.pairs import Discovery, Tally, discover
from chronoprep.rows import Rows
from chronoprep.workflows.faults import finding as finding_of
from chronoprep.workflows.progress import Reporter, Silent

if TYPE_CHECKING:
    from chronoprep.images.inspection import Inspection

SHEET_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SHEET_PAIRS = 1500  # so many fit on a WebP

KEEP_ONE = "Keep one of them, or the editor sees it more often than others."
REMEDIES = {
    "unmatched": "Each pair has a source and a target.",
    "ambiguous": "Leave one file of each role and key.",
    "passed-over": "Nothing is made of them; move away what is no part of the set.",
    "identical": "Nothing is to be learnt from it: leave it out.",
    "other-size": "The target is resized to the source's frame, unless --fit says otherwise.",
    "other-shape": "The target is cropped to the source's frame, unless --fit says otherwise.",
    "duplicate": KEEP_ONE,
    "near-duplicate": KEEP_ONE,
}


@dataclass
class PairReport:
    """What was found, and what looks wrong.

    Attributes:
        layout: How the pairs lie, as it was recognised.
        pairs: How many pairs a run would take.
        captions: How many of them bring a caption or a prompt.
        looked: Whether the images were opened.
        tally: What became of all files, or of all rows.
    """

    layout: str
    pairs: int
    captions: int
    looked: bool
    tally: Tally
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each code."""
        return dict(Counter(finding.code for finding in self.findings))


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
    found = discover(where, settings.pairs)
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
        looked=look,
        tally=found.tally,
        findings=list(findings_of(found)),
    )
    if look:
        report.findings += look_at(found.pairs, settings, reporter)
    if sheet is not None:
        from chronoprep.images.sheet import save_sheet

        make_folder(sheet.parent)
        chosen = [found.pairs[n * len(found.pairs) // count] for n in range(count)]
        with replacing(sheet) as temporary:
            save_sheet(chosen, settings.images, temporary.with_suffix(sheet.suffix))
            temporary.with_suffix(sheet.suffix).replace(temporary)
    if manifest is not None:
        _write_manifest(found.pairs, manifest, report.findings)
    return report


def findings_of(found: Discovery) -> Iterator[Finding]:
    """What is to be said of a discovery, before an image is opened."""
    for bad in found.bad:
        yield _fault("unusable", bad)
    for path in found.unmatched:
        yield _warning("unmatched", None, str(path))
    for line in found.ambiguous:
        yield _warning("ambiguous", None, line)
    for what, why, _ in found.passed:
        yield _warning("passed-over", None, f"{what}: {why}")
    for note in found.notes:
        yield Finding("read-otherwise", "note", None, note)
    for name, key in found.renamed:
        yield Finding("renamed-key", "note", key, f"made of {name}")


def look_at(
    pairs: Sequence[Pair],
    settings: Settings,
    reporter: Reporter,
    take: Callable[[Inspection], None] | None = None,
) -> Iterator[Finding]:
    """Open the images of pairs, and say what is to be said of them.

    Args:
        take: Told of each pair that can be used.
    """
    from chronoprep.images.alignment import flaws_of
    from chronoprep.images.inspection import Lookalikes, inspect

    alike = Lookalikes()
    reporter.start("looking", len(pairs))
    for seen in mapped(lambda pair: inspect(pair, settings.images), pairs, key=lambda p: p.key):
        if seen.value is None:
            yield _fault("unreadable", seen)
            reporter.advance("failed")
            continue
        reporter.advance("ok")
        alike.add(seen.key, seen.value)
        if take is not None:
            take(seen.value)
        if seen.value.identical:
            yield _warning("identical", seen.key, "source and target are the same")
        if seen.value.mismatch:
            kind = {"size": "other-size", "aspect": "other-shape"}[seen.value.mismatch]
            sizes = " → ".join(f"{width}×{height}" for width, height in seen.value.sizes)
            yield _warning(kind, seen.key, sizes)
        for flaw in flaws_of(seen.value.alignment, seen.value.sizes[0]):
            yield finding_of(flaw, seen.key)
        if len(set(seen.value.colours)) > 1:
            spaces = " → ".join(seen.value.colours)
            yield Finding("other-colours", "note", seen.key, f"colour spaces {spaces}")
    for first, *others in alike.equal():
        for key in others:
            yield _warning("duplicate", key, f"same images as {first}")
    for first, key in alike.near():
        yield _warning("near-duplicate", key, f"looks like {first}")


def _warning(code: str, key: str | None, message: str) -> Finding:
    return Finding(code, "warning", key, message, REMEDIES[code])


def _fault(code: str, outcome: Outcome[Any]) -> Finding:
    error = outcome.error
    message, hint = (error.message, error.hint) if error is not None else ("", None)
    return Finding(code, "error", outcome.key, message, hint or "Repair it or leave it out.")


def _write_manifest(pairs: Rows[Pair], path: Path, findings: list[Finding]) -> None:
    """A table of the pairs; what was remarked stands in a column that is not read back."""
    import polars

    remarks = defaultdict[str, list[str]](list)
    for finding in findings:
        if finding.key is not None and finding.severity != "note":
            remarks[finding.key].append(f"{finding.code}: {finding.message}")
    base = f"{path.absolute().parent}{os.sep}"

    def linked(ref: str) -> str:
        """Relative to the manifest where it lies below its folder, so that both can move."""
        full = ref if isinstance(parse(ref), Remote) else os.path.abspath(ref)  # noqa: PTH100
        return full.removeprefix(base)

    def row(pair: Pair) -> tuple[str, ...]:
        remark = "; ".join(remarks.get(pair.key, ()))
        files = linked(pair.source), linked(pair.target)
        return pair.key, *files, pair.caption or "", pair.prompt or "", remark

    names = ("key", "source", "target", "caption", "prompt", "remark")
    schema = dict.fromkeys(names, polars.String)
    make_folder(path.parent)
    write_table(polars.DataFrame(map(row, pairs), schema=schema, orient="row"), path)
