"""The `pairs` command: what a run would take, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from chronoprep.cli import options as o
from chronoprep.cli import render
from chronoprep.cli.app import command, settings_of

if TYPE_CHECKING:
    from chronoprep.workflows.pairing import PairReport

SHOWN = 5


@command("pairs")
def pairs(
    ctx: typer.Context,
    pairs: o.PairsRequired,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="A picture of some pairs goes to this file.")
    ] = None,
    sheet_pairs: Annotated[
        int, typer.Option("--sheet-pairs", min=1, help="How many pairs the sheet shows.")
    ] = 24,
    link_manifest: Annotated[
        Path | None,
        typer.Option(
            "--link-manifest", help="A CSV of the pairs, to correct and to give as PAIRS."
        ),
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Don't open the images.")
    ] = False,
    strict: o.Strict = None,
    limit: o.Limit = None,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Report what PAIRS holds: pairs, leftovers, duplicates, sizes that differ, broken files."""
    from chronoprep.workflows.pairing import report_pairs

    reporter = render.TerminalReporter(quiet=quiet)
    try:
        report = report_pairs(
            pairs,
            settings_of(ctx),
            look=not names_only,
            sheet=sheet,
            sheet_pairs=sheet_pairs,
            manifest=link_manifest,
            reporter=reporter,
        )
    finally:
        reporter.close()
    if as_json:
        render.print_json(report.as_json())
    else:
        _show(report)
        for file in (sheet, link_manifest):
            if file is not None:
                typer.echo(f"Written: {file}")
    if report.failed:
        raise typer.Exit(1)


def _show(report: PairReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
    captions = f", {report.captions} with a caption or prompt" if report.captions else ""
    console.print(f"[bold]{report.pairs} pairs[/] ({escape(report.layout)}){captions}")

    def section(title: str, lines: list[str], *, bad: bool = False) -> None:
        if lines:
            colour = "red" if bad else "yellow"
            console.print(f"[{colour}]{title}: {len(lines)}[/]")
            for line in lines[:SHOWN]:
                console.print(f"  {line}", markup=False)
            if len(lines) > SHOWN:
                console.print(f"  … and {len(lines) - SHOWN} more: all with --json", markup=False)

    def sizes(source: tuple[int, int], target: tuple[int, int]) -> str:
        return f"{source[0]}×{source[1]} → {target[0]}×{target[1]}"

    section("unreadable", [reason for _, reason in report.unreadable], bad=True)
    section("can't be used", [reason for _, reason in report.unusable], bad=True)
    section("without a partner", report.unmatched)
    section("ambiguous", report.ambiguous)
    section("target is the source", report.identical)
    section("the same images", [" = ".join(keys) for keys in report.duplicates])
    section("look the same", [" ~ ".join(keys) for keys in report.near_duplicates])
    for kind, title in (("aspect", "another shape, cropped"), ("size", "another size, resized")):
        section(
            f"{title} unless --fit says otherwise",
            [f"{key}: {sizes(*both)}" for key, *both, what in report.mismatched if what == kind],
        )
    section("keys made safe", [f"{name} → {key}" for name, key in report.renamed])
    if not report.looked:
        console.print("The images were not opened.")
