"""Charts as SVG that stands in a page: no script, no style of their own but classes."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from chronoprep.gallery import Spread

_WIDTH, _HEIGHT, _FOOT, _HEAD = 340, 132, 18, 14


def short(value: float) -> str:
    """A number as people write it: 1,200, 0.25, 40."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def histogram(spread: Spread, what: str, mark: float | None = None, named: str = "") -> Markup:
    """A histogram.

    Args:
        what: Is counted, in words.
        mark: A value that gets a line, if it is in the range; `named` stands at it.
    """
    bins = spread.bins()
    low, high = bins[0].low, bins[-1].high
    tallest = max(bar.size for bar in bins)
    floor, room = _HEIGHT - _FOOT, _HEIGHT - _FOOT - _HEAD
    width = _WIDTH / len(bins)
    told = (
        f"{what}: {len(spread):,} values from {short(spread.quantile(0))} to "
        f"{short(spread.quantile(1))}, median {short(spread.quantile(0.5))}"
    )
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, told
        )
    ]
    for at, bar in enumerate(bins):
        height = max(1.5, room * bar.size / tallest) if bar.size else 0
        beyond = mark is not None and bar.low >= mark
        title = f"{short(bar.low)} to {short(bar.high)}: {bar.size:,}"
        parts.append(
            Markup(
                '<g><rect class="air" x="{x:.1f}" y="{top}" width="{w:.1f}" height="{all}"/>'
                '<rect class="bar{kind}" x="{x:.1f}" y="{y:.1f}" width="{thin:.1f}" '
                'height="{h:.1f}" rx="1.5"/><title>{title}</title></g>'
            ).format(
                x=at * width, top=_HEAD, w=width, all=room, kind=" beyond" if beyond else "",
                y=floor - height, thin=max(1.0, width - 1.5), h=height, title=title,
            )
        )  # fmt: skip
    axis = (
        '<path class="axis" d="M0 {0}.5H{1}"/><text x="0" y="{2}">{3}</text>'
        '<text x="{1}" y="{2}" class="end">{4}</text>'
    )
    parts.append(Markup(axis).format(floor, _WIDTH, _HEIGHT - 3, short(low), short(high)))
    if mark is not None and low < mark <= high:
        x = _WIDTH * (mark - low) / (high - low)
        side = "end" if x > _WIDTH / 2 else "start"
        parts.append(
            Markup(
                '<path class="mark" d="M{0:.1f} 2V{1}"/><text x="{2:.1f}" y="10" class="{3}">{4}'
                "</text>"
            ).format(x, floor, x + (-4 if side == "end" else 4), side, f"{named} {short(mark)}")
        )
    return Markup("").join([*parts, Markup("</svg>")])


def share_bar(parts: Iterable[tuple[str, int]], total: int) -> Markup:
    """A bar cut into the shares of a whole.

    Args:
        parts: Name, which is the class of its piece too, and size.
    """
    x, pieces = 0.0, [Markup("")]
    for name, size in parts:
        width = 1000 * size / max(1, total)
        if size:
            pieces.append(
                Markup(
                    '<rect class="{0}" x="{1:.2f}" y="0" width="{2:.2f}" height="14"><title>{3}'
                    "</title></rect>"
                ).format(name, x, width, f"{name.replace('_', ' ')}: {size:,}")
            )
        x += width
    return Markup(
        '<svg class="shares" viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true">'
        "{}</svg>"
    ).format(Markup("").join(pieces))
