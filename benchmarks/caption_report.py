"""What the captioning benchmark shows: two tables of text and a picture."""

from __future__ import annotations

from caption_rows import ROWS
from caption_watch import PARTS, Result

COLOURS = dict(zip(PARTS, ("#d9b44a", "#c9793b", "#8f4e8b", "#4a8f6b", "#8fb4d9"), strict=True))


def table(results: dict[str, Result]) -> str:
    """A line a row; rates are of the pairs that it labelled, which may be fewer in a slow one."""
    lines = [
        f"{'row':26} {'seconds':>8} {'pairs/s':>8} {'tok/s':>7} {'ratio':>7} {'CPU s':>7} "
        f"{'engine':>7} {'ratio':>7} {'images':>7} "
        f"{'peak MB':>8}  " + " ".join(f"{part:>8}" for part in PARTS) + f" {'same text':>10}"
    ]
    for name, result in results.items():
        base = results.get(ROWS[name].against or "")
        rate, spent = len(result.texts) / result.seconds, result.cpu + result.engine_cpu
        ratio = f"{rate * base.seconds / len(base.texts):.2f}×" if base else ""
        more = len(result.texts) / len(base.texts) if base else 1
        cpu = f"{more * (base.cpu + base.engine_cpu) / spent:.2f}×" if base else ""
        same = ""
        if base:
            equal = sum(result.texts.get(key) == texts for key, texts in base.texts.items())
            same = f"{equal}/{len(base.texts)}"
        lines.append(
            f"{ROWS[name].title:26} {result.seconds:8.2f} {rate:8.2f} "
            f"{result.tokens / result.seconds:7.0f} {ratio:>7} {result.cpu:7.1f} "
            f"{result.engine_cpu:7.1f} {cpu:>7} {result.encoded:7} "
            f"{result.memory / 1e6:8.0f}  "
            + " ".join(f"{spent:8.2f}" if (spent := result.split[p]) else 8 * " " for p in PARTS)
            + f" {same:>10}"
        )
    if plain := results.get("plain"):
        for name in ("ours-vllm", "raw-vllm"):
            if result := results.get(name):
                rate = len(result.texts) / result.seconds
                times = rate * plain.seconds / len(plain.texts)
                lines.append(f"{ROWS[name].title}: {times:.1f} times the plain loop")
    return "\n".join(lines)


def hardware(results: dict[str, Result], flops: float | None, bytes_: float | None) -> str:
    """What was reached, and as a share of the card's FLOP/s and bytes/s where they are known; empty
    where no row tells its parts."""

    def rate(result: Result, parts: tuple[str, ...], unit: float, peak: float | None) -> str:
        reached = sum(result.work[p] for p in parts) / sum(result.split[p] for p in parts)
        return f"{reached / unit:9.2f} " + (f"{reached / peak:6.1%}" if peak else 6 * " ")

    parts = {"vision": ("vision",), "prefill": ("prefill",), "both": ("vision", "prefill")}
    names = " ".join(f"{part:>9} {'share':>6}" for part in (*parts, "generate"))
    lines = [f"{'row':26} {names}", 26 * " " + 3 * "    TFLOP/s       " + "      GB/s"]
    for name, result in results.items():
        if all(result.work.values()):
            computed = " ".join(rate(result, part, 1e12, flops) for part in parts.values())
            read = rate(result, ("generate",), 1e9, bytes_)
            lines.append(f"{ROWS[name].title:26} {computed} {read}")
    return "\n".join(lines) if len(lines) > 2 else ""


def picture(results: dict[str, Result], pairs: int) -> str:
    """Bars of pairs per second, and under each how its time was spent, as SVG."""
    most = max(pairs / result.seconds for result in results.values())
    shapes: list[str] = []

    def text(x: float, y: float, words: str, size: int = 14) -> None:
        shapes.append(f'<text x="{x:.1f}" y="{y}" font-size="{size}">{words}</text>')

    def bar(x: float, y: float, width: float, height: int, colour: str) -> None:
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'
        )

    for i, (name, result) in enumerate(results.items()):
        y, speed = 30 + 62 * i, pairs / result.seconds
        base = results.get(ROWS[name].against or "")
        ratio = f", {base.seconds / result.seconds:.1f}×" if base else ""
        text(10, y + 19, ROWS[name].title)
        text(10, y + 38, f"peak {result.memory / 1e9:.2f} GB", 11)
        width = 380 * speed / most
        bar(210, y, width, 28, "#3b6ea8")
        spoken = f"{result.tokens / result.seconds:,.0f} tokens/s"
        text(218 + width, y + 19, f"{speed:.2f} pairs/s{ratio}; {spoken}")
        total, x = sum(result.split.values()), 210.0
        if not result.split["generate"]:  # an engine that does not say
            continue
        for part, colour in COLOURS.items():
            spent = 380 * result.split[part] / total
            bar(x, y + 32, spent, 8, colour)
            x += spent
    bottom = 40 + 62 * len(results)
    for i, (part, colour) in enumerate(COLOURS.items()):
        bar(210 + 90 * i, bottom - 10, 12, 12, colour)
        text(226 + 90 * i, bottom, part, 11)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{bottom + 20}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(shapes)}</svg>\n"
    )
