"""Draw docs/pair.jpg: a pair and its two-stage label, for the README.

python tools/picture.py
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
KEY = "cat_party_hat"
SIDE, GAP, MARGIN = 420, 24, 32  # pixels
INK, FAINT, PAPER = "#1c1f24", "#6b7280", "#ffffff"


def main() -> None:
    pairs = ROOT / "examples" / "pairs"
    label = json.loads((pairs / "output" / f"{KEY}.json").read_text("utf-8"))
    images = [Image.open(pairs / side / f"{KEY}.jpg") for side in ("input", "output")]
    images = [image.resize((SIDE, SIDE * image.height // image.width)) for image in images]
    parts = [
        ("stage 1: the edit", label["caption"], 24),
        ("stage 2: what the editor trains on", label["caption_cot"], 19),
    ]
    width, top = 2 * SIDE + GAP + 2 * MARGIN, MARGIN + 30
    sheet = Image.new("RGB", (width, 1200), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (name, image) in enumerate(zip(("before", "after"), images, strict=True)):
        left = MARGIN + number * (SIDE + GAP)
        draw.text((left, MARGIN - 4), name, FAINT, ImageFont.load_default(18))
        sheet.paste(image, (left, top))
    y = top + images[0].height + GAP
    for title, text, size in parts:
        draw.text((MARGIN, y), title, FAINT, ImageFont.load_default(18))
        font = ImageFont.load_default(size)
        letters = int((width - 2 * MARGIN) / font.getlength("n")) + 6
        lines = textwrap.fill(text, letters)
        draw.multiline_text((MARGIN, y + 28), lines, INK, font, spacing=6)
        y = int(draw.multiline_textbbox((MARGIN, y + 28), lines, font, spacing=6)[3]) + GAP
    sheet.crop((0, 0, width, y + MARGIN - GAP)).save(ROOT / "docs" / "pair.jpg", quality=88)


if __name__ == "__main__":
    main()
