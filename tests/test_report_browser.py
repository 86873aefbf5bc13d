"""The report in a real Chromium, opened from disk: by mouse, touch and keyboard, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Watched, browsing
from chronoprep.config import Settings
from chronoprep.workflows.report import report_dataset
from test_report import HOSTILE, fill

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report_dataset(fill(folder), Settings(), page=folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Watched]:
    with browser.new_context(viewport={"width": 1024, "height": 768}) as context:
        watched = Watched(context, report.as_uri())
        watched.page.goto(report.as_uri())
        yield watched
        assert (watched.elsewhere, watched.wrong) == ([], [])


def slider(page: Any) -> Any:
    handle = page.get_by_role("slider").first
    handle.scroll_into_view_if_needed()
    return handle


def value(handle: Any) -> int:
    return int(handle.get_attribute("aria-valuenow"))


def test_a_pair_is_compared_by_keys_and_by_mouse(watched: Watched) -> None:
    handle = slider(watched.page)
    assert value(handle) == 50
    for key, at in (("ArrowLeft", 48), ("Shift+ArrowRight", 58), ("Home", 0), ("End", 100)):
        handle.press(key)
        assert value(handle) == at
    box = watched.page.locator("before-after").first.bounding_box()
    y = box["y"] + box["height"] / 2
    watched.page.mouse.click(box["x"] + box["width"] / 4, y)
    assert abs(value(handle) - 25) <= 1
    watched.page.mouse.down()
    watched.page.mouse.move(box["x"] + box["width"] * 0.8, y)
    watched.page.mouse.up()
    assert abs(value(handle) - 80) <= 1
    watched.page.mouse.move(box["x"] + 5, y)  # let go
    assert abs(value(handle) - 80) <= 1


def test_a_pair_is_compared_by_touch_on_a_telephone(browser: Any, report: Path) -> None:
    size = {"width": 390, "height": 844}
    with browser.new_context(viewport=size, has_touch=True, is_mobile=True) as context:
        watched = Watched(context, report.as_uri())
        watched.page.goto(report.as_uri())
        handle = slider(watched.page)
        box = watched.page.locator("before-after").first.bounding_box()
        watched.page.touchscreen.tap(box["x"] + box["width"] * 0.7, box["y"] + 20)
        assert abs(value(handle) - 70) <= 1
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert (watched.elsewhere, watched.wrong) == ([], [])


def test_the_pictures_lie_over_each_other(watched: Watched) -> None:
    slider(watched.page)
    one, other = watched.page.locator("before-after").first.locator("img").all()
    assert one.bounding_box() == other.bounding_box()
    assert one.evaluate("img => img.naturalWidth") == 96


def test_hostile_words_are_words(watched: Watched) -> None:
    page = watched.page
    page.wait_for_load_state()
    assert page.title() == "dataset – chronoprep report"
    captions = page.locator(".caption").all_text_contents()
    assert set(HOSTILE) <= set(captions)
    assert page.locator(".words img, .words script, .words svg, .words style").count() == 0
    # What turns the order of letters does so within its own words.
    assert page.locator(".caption").first.evaluate(
        "text => getComputedStyle(text).unicodeBidi"
    ) in ("isolate", "plaintext", "isolate-override")


def test_the_gallery_is_searched_and_filtered(watched: Watched) -> None:
    page = watched.page
    cards = page.locator("article:visible")
    assert cards.count() == 9
    page.get_by_label("Show").select_option("suspect")
    assert cards.count() == 2
    page.get_by_label("Search the gallery").fill("svg onload")
    assert [card.get_attribute("aria-label") for card in cards.all()] == ["pair_2"]
    page.get_by_label("Search the gallery").fill("no such words")
    assert cards.count() == 0
    assert page.get_by_role("status").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_nobody_is_shut_out(browser: Any, report: Path, theme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    with browser.new_context(viewport=size, color_scheme=theme, bypass_csp=True) as context:
        watched = Watched(context, report.as_uri())
        watched.page.goto(report.as_uri())
        for summary in watched.page.locator("summary").all():
            summary.click()
        assert watched.accessible() == []
        ground = "getComputedStyle(document.body).backgroundColor"
        before = watched.page.evaluate(ground)
        watched.page.get_by_role("button", name="Theme").click()
        assert watched.page.evaluate(ground) != before
        assert watched.accessible() == []
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
