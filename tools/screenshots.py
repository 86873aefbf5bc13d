"""Write the pictures of the pages in docs: review.png and report.png.

make test-browser  # brings Playwright; Chromium is CHROMIUM's or PATH's
.venv/bin/python tools/screenshots.py
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SIZE = {"width": 1440, "height": 900}
PAIRS, WRONG_EVERY = 36, 4


def dataset(folder: Path) -> Path:
    """Synthetic pairs, some with the label of another one."""
    chronoprep("synth", PAIRS, "--output", folder / "pairs", "--size", 320)
    truth = (folder / "pairs/truth.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in truth]
    drawn = random.Random(2)
    for row in rows[::WRONG_EVERY]:
        other = drawn.choice(rows)
        row |= {name: other[name] for name in ("caption", "prompt")}
    table = folder / "pairs/labels.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chronoprep("build-csv", table, "--dataset", folder / "shapes", "--codec", "h264")
    chronoprep("verify", folder / "shapes")
    return folder / "shapes"


def shot(page: Any, name: str) -> None:
    """A picture of a page, in 256 colours: half of the bytes."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(ROOT / "docs" / name, optimize=True)


def chronoprep(*args: object) -> None:
    command = [sys.executable, "-m", "chronoprep", *map(str, args), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    from browser import browsing
    from test_review import serve

    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        shapes = dataset(Path(folder))
        process, address, token = serve(shapes, "--reviewer", "Ada")
        try:
            page = browser.new_context(viewport=SIZE, color_scheme="light").new_page()
            page.goto(f"{address}/?token={token}")
            page.wait_for_selector("body.ready")
            for key in "aaj":
                page.keyboard.press(key)
                page.wait_for_timeout(800)
            page.keyboard.press("4")
            page.wait_for_selector(".region")
            page.keyboard.press("1")
            page.wait_for_timeout(4000)
            shot(page, "review.png")
        finally:
            process.terminate()
            process.wait(20)
        chronoprep("report", shapes, "--output", Path(folder) / "report.html")
        page = browser.new_context(viewport=SIZE, color_scheme="light").new_page()
        page.goto((Path(folder) / "report.html").as_uri())
        page.wait_for_timeout(500)
        shot(page, "report.png")


if __name__ == "__main__":
    main()
