"""A real Chromium for the tests of pages: what it sees, and what it must not.

It is looked for in `CHROMIUM`, then on PATH. `make test-browser` brings Playwright, which drives
it, and axe-core, which knows what people with a screen reader or weak eyes can't use.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import HANGS

AXE = Path(__file__).parent.parent / "build" / "axe" / "package" / "axe.min.js"


def chromium() -> str:
    """The browser's program; without it, tests are skipped."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: set CHROMIUM to its program")
    return found


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    # As root, which containers run tests as, it starts without its sandbox only.
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and all that went wrong in it.

    Attributes:
        page: Playwright's.
        elsewhere: What it asked of other servers.
        wrong: Errors of its console, and violations of its Content-Security-Policy.
    """

    def __init__(self, context: Any, home: str) -> None:
        self.elsewhere: list[str] = []
        self.wrong: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(HANGS * 1000)
        self.page.on("request", lambda asked: self._asked(asked.url, home))
        self.page.on("console", lambda said: self._said(said))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.expose_function("violated", lambda what: self.wrong.append(f"CSP: {what}"))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) =>"
            " window.violated(`${event.violatedDirective} ${event.blockedURI}`))"
        )

    def _asked(self, url: str, home: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            self.elsewhere.append(url)

    def _said(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.wrong.append(said.text)

    def accessible(self) -> list[str]:
        """What axe-core finds that is serious or worse, as it stands on the page now."""
        if not AXE.is_file():
            pytest.skip("no axe-core: `make test-browser` fetches it")
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
