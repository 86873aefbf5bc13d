"""A dataset's numbers on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape

from chronoprep.cli.render import Answer, lines_of, plain, table_of

if TYPE_CHECKING:
    from chronoprep.gallery import Numbers, Spread
    from chronoprep.workflows.report import Report

_MOST = 12  # rows of a table


def of_page(report: Report) -> Answer:
    """Where a page was written, and what it shows."""
    page = report.page
    assert page is not None
    size = page.stat().st_size
    told = (
        f"{page}: {report.numbers.pairs} pairs, {report.shown} of them shown, {size / 1e6:.1f} MB"
    )
    value = {"page": str(page), "shown": report.shown, "bytes": size}
    return Answer({**value, **_value(report)}, [plain(told)])


def of_report(report: Report) -> Answer:
    """The numbers as tables."""
    return Answer(_value(report), _shown(report))


def _value(report: Report) -> dict[str, Any]:
    return {**report.numbers.as_json(), "threshold": report.threshold}


def _shown(report: Report) -> Iterator[RenderableType]:
    numbers = report.numbers
    told = numbers.as_json()
    states = " · ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in told["status"].items()
    )
    yield f"[bold]{numbers.pairs} pairs[/]: {states}"
    if numbers.judged:
        yield (
            f"{numbers.suspects} of {numbers.judged} judged labels are suspects "
            f"(score above {report.threshold:.2f})"
        )
    if numbers.verdicts:
        said = ", ".join(f"{count} × {verdict}" for verdict, count in numbers.verdicts.items())
        yield f"Reviewed by a human: {said}"
    yield (
        f"{numbers.videos} videos, {numbers.embeddings} embeddings, "
        f"{numbers.listed} rows in metadata.csv"
    )
    yield (
        f"Duplicates: {numbers.same_images} pairs of equal images, {numbers.same_words} captions "
        "that come again"
    )
    yield ""
    yield _spreads(numbers)
    if len(numbers.tokens) < len(numbers.cot_words):
        yield (
            f"[dim]Tokens are known of {len(numbers.tokens)} of {len(numbers.cot_words)} prompts: "
            "--tokenizer names UMT5's tokenizer, which counts the others.[/]"
        )
    for title, rows in (
        ("kind of edit", numbers.edits.most_common()),
        (
            "size of the source",
            [(f"{w}×{h}", n) for (w, h), n in numbers.resolutions.most_common()],
        ),
        ("failed because", numbers.causes()),
        (
            "labels by",
            [(" ".join(filter(None, made)), n) for made, n in numbers.made.most_common()],
        ),
    ):
        if rows:
            yield ""
            shown = [[escape(name), count] for name, count in rows[:_MOST]]
            yield table_of(f"{title}|pairs", shown, right="pairs")
            if len(rows) > _MOST:
                yield f"[dim]… and {len(rows) - _MOST} more: all with --json[/]"
    if numbers.looked_at < numbers.pairs:
        yield (
            f"[dim]The images of {numbers.looked_at} pairs were opened, evenly spread, for sizes "
            "and alignment.[/]"
        )
    yield from lines_of(report.findings)


def _spreads(numbers: Numbers) -> RenderableType:
    names = "least|median|p95|most"
    spreads: dict[str, Spread] = {
        "words of a caption": numbers.caption_words,
        "words of a prompt": numbers.cot_words,
        "tokens of a prompt": numbers.tokens,
        "score of verify": numbers.scores,
        "target off, % of its side": numbers.shifts,
    }
    rows = [
        [what, len(spread), *(f"{spread.as_json()[name]:g}" for name in names.split("|"))]
        for what, spread in spreads.items()
        if len(spread)
    ]
    return table_of(f"|of|{names}", rows, right=f"of|{names}")
