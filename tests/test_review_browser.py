"""The review page in a real Chromium, driven by its keys."""

from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browser import Watched, browsing
from chronoprep.dataset import Dataset, Review, Undo
from conftest import HANGS
from test_review import Run, dataset_of, serve

pytestmark = pytest.mark.browser


@contextmanager
def opened(dataset: Path, *more: str) -> Iterator[Callable[..., Watched]]:
    """A served dataset: opens its page in a browser of its own, as often as it is called."""
    process, address, token = serve(dataset, *more)
    try:
        with browsing() as browser:

            def page(**context: Any) -> Watched:
                shown = browser.new_context(viewport={"width": 1440, "height": 900}, **context)
                watched = Watched(shown, address)
                watched.page.goto(f"{address}/?token={token}")
                watched.page.wait_for_selector("body.ready")
                return watched

            yield page
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANGS)


def wait_for(watched: Watched, script: str) -> None:
    """Until a script comes to something true. (Playwright's own way is an `eval` in the page, which
    the page's policy forbids.)"""
    late = time.monotonic() + HANGS
    while not watched.page.evaluate(script):
        assert time.monotonic() < late, f"waited in vain for {script}"
        watched.page.wait_for_timeout(20)


def key_of(watched: Watched) -> str:
    return str(watched.page.text_content("#key"))


def press(watched: Watched, *keys: str) -> None:
    for key in keys:
        watched.page.keyboard.press(key)


def settled(watched: Watched, seen: str) -> str:
    """The key of the next pair, once it is there."""
    wait_for(watched, f"document.querySelector('#key').textContent !== '{seen}'")
    return key_of(watched)


def verdict(dataset: Dataset, key: str) -> Any:
    """What the journal says, once it is written."""
    return Dataset(dataset.folder).journal.state(key)


def test_two_hundred_pairs_by_the_keyboard(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 200, scores=lambda number: (number % 100) / 100)
    with opened(dataset.folder, "--reviewer", "Ada") as page:
        one = page()
        wait_for(one, "document.querySelectorAll('.row').length > 5")
        suspects = int(one.page.text_content("#shows [data-show=suspects] b"))
        assert suspects == 2 * sum(0.97 * n / 100 > 0.5 for n in range(100))

        first = key_of(one)
        press(one, "a")
        second = settled(one, first)
        assert verdict(dataset, first).verdict == "accept"

        press(one, "r", "2", "e", "t")
        one.page.keyboard.type("the change is on the right")
        press(one, "Enter")
        third = settled(one, second)
        said = verdict(dataset, second).review
        assert (said.verdict, said.error, said.severity, said.reason, said.reviewer) == (
            "reject", "place", "critical", "the change is on the right", "Ada",
        )  # fmt: skip

        press(one, "c", "Control+a")
        one.page.keyboard.type("The user wants what a human wrote.")
        assert one.page.is_visible("#diff ins")
        press(one, "Control+Enter")
        fourth = settled(one, third)
        assert verdict(dataset, third).text.cot == "The user wants what a human wrote."

        press(one, "a")
        fifth = settled(one, fourth)
        press(one, "u")
        assert settled(one, fifth) == fourth
        assert verdict(dataset, fourth).verdict is None
        assert isinstance(verdict(dataset, fourth).events[-1], Undo)

        one.page.fill("#search", "pair-007")
        wait_for(one, "document.querySelector('#shown').textContent === '0 pairs'")
        one.page.click("#shows [data-show=all]")
        wait_for(one, "document.querySelectorAll('.row').length === 1")
        one.page.click(".row")
        assert settled(one, fourth) == "pair-007"

        one.page.reload()
        one.page.wait_for_selector("body.ready")
        assert key_of(one) == "pair-007", "a reload shows the same pair"
        one.page.goto(one.page.url.replace("pair-007", second))
        one.page.reload()
        one.page.wait_for_selector("body.ready")
        assert "rejected by Ada" in one.page.text_content("#tags")

        two = page()
        for watched in (one, two):
            watched.page.goto(f"{watched.page.url.partition('#')[0]}#{fourth}")
            watched.page.reload()
            watched.page.wait_for_selector("body.ready")
            assert key_of(watched) == fourth
        press(one, "a")
        settled(one, fourth)
        press(two, "c", "End")
        two.page.keyboard.type(" More.")
        press(two, "Control+Enter")
        two.page.wait_for_selector("#conflict[open]")
        assert "Ada accepted it" in " ".join(two.page.text_content("#conflict-since").split())
        assert " More." in two.page.text_content("#conflict-yours")
        press(two, "Enter")
        assert "accepted by Ada" in two.page.text_content("#tags")

        press(one, "m")
        one.page.wait_for_selector(".toast")
        wait_for(
            one,
            "[...document.querySelectorAll('.toast')].some(t => /199 rows/.test(t.textContent))",
        )
        for watched in (one, two):
            assert watched.elsewhere == []
            assert [w for w in watched.wrong if "409" not in w] == []
    with dataset.csv.open(newline="", encoding="utf-8") as file:
        rows = {row["key"]: row["prompt"] for row in csv.DictReader(file)}
    journal = Dataset(dataset.folder).journal
    states = {key: journal.state(key) for key in journal}
    assert rows == {k: s.text.cot for k, s in states.items() if s.status == "ok"}
    assert second not in rows
    assert rows[third] == "The user wants what a human wrote."


def test_keys_without_a_pause_lose_no_sign_and_meet_their_pair(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 6, scores=lambda number: 0.9 - number / 100)
    with opened(dataset.folder) as page:
        one = page()
        keys = [f"pair-{number:03}" for number in range(4)]
        assert key_of(one) == keys[0]
        press(one, "a", "c", "Control+a")
        one.page.keyboard.type("The user wants: what a human (Ada) wrote, no more.")
        press(one, "Control+Enter", "a")
        wait_for(one, f"document.querySelector('#key').textContent === '{keys[3]}'")
    assert verdict(dataset, keys[0]).verdict == "accept"
    assert (
        verdict(dataset, keys[1]).text.cot == "The user wants: what a human (Ada) wrote, no more."
    )
    assert verdict(dataset, keys[2]).verdict == "accept"


def test_pictures_are_compared_in_every_way(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 3, scores=lambda _: 0.9)
    with opened(dataset.folder) as page:
        one = page()
        wait_for(one, "[...document.querySelectorAll('.shot img')].every(i => i.naturalWidth)")
        slider = one.page.get_by_role("slider", name="Before and after")
        slider.focus()
        press(one, "End")
        assert slider.get_attribute("aria-valuenow") == "100"
        press(one, "2")
        assert one.page.get_attribute("#port", "data-mode") == "side"
        one.page.keyboard.press("+")
        transforms = "[...document.querySelectorAll('.layer')].map(l => l.style.transform)"
        left, right = one.page.evaluate(transforms)
        assert left == right != ""
        one.page.mouse.move(*middle(one))
        one.page.mouse.down()
        one.page.mouse.move(middle(one)[0] - 30, middle(one)[1] - 20)
        one.page.mouse.up()
        moved = one.page.evaluate(transforms)
        assert moved[0] == moved[1] != left, "moved together"
        press(one, "0", "4")
        one.page.wait_for_selector(".region")
        assert "of the area changed" in one.page.text_content("#measured")
        press(one, "3", " ")
        assert one.page.get_attribute("#port", "data-mode") == "blink"
        press(one, "x")
        wait_for(one, "document.querySelector('#tags').textContent.includes('roles exchanged')")
        assert (one.wrong, one.elsewhere) == ([], [])


def middle(watched: Watched) -> tuple[float, float]:
    box = watched.page.locator(".shot").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


HOSTILE = [
    "<script>window.hit = 1</script>", '"><img src=x onerror="window.hit = 1">',
    "javascript:window.hit=1", "<svg onload=window.hit=1>", "\u202eright to left\u202c and back",
    "{{7*7}} ${7*7} <b>bold</b>", "</textarea><script>window.hit = 1</script>",
]  # fmt: skip


def test_hostile_texts_stay_texts(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, len(HOSTILE), scores=lambda _: 0.9)
    for number, text in enumerate(HOSTILE):
        review = Review(key=f"pair-{number:03}", verdict="edit", caption=text, caption_cot=text,
                        reviewer=text, reason=text)  # fmt: skip
        dataset.append([review])
    with opened(dataset.folder, "--reviewer", HOSTILE[1]) as page:
        one = page()
        one.page.click("#shows [data-show=all]")
        for number, text in enumerate(HOSTILE):
            one.page.click(f"[data-key=pair-{number:03}]")
            wait_for(one, f"document.querySelector('#key').textContent === 'pair-{number:03}'")
            assert one.page.input_value("#caption") == text
            assert text in one.page.text_content("#history")
        assert one.page.evaluate("window.hit") is None
        assert (
            one.page.evaluate("document.querySelectorAll('b:not(#shows b), img[onerror]').length")
            == 0
        )
        assert (one.wrong, one.elsewhere) == ([], [])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_everybody_can_use_it(width: int, theme: str, tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 8, scores=lambda number: number / 8)
    with opened(dataset.folder, "--reviewer", "Ada") as page:
        one = page(color_scheme=theme, has_touch=width < 500)
        one.page.set_viewport_size({"width": width, "height": 844})
        assert one.accessible() == []
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 500:
            one.page.click("#drawer")
            assert one.page.is_visible("#search")
            assert one.accessible() == []
            one.page.click("#drawer")
            one.page.tap("#accept")
            settled(one, "pair-007")
        press(one, "r")
        assert one.accessible() == []
        press(one, "Escape", "?")
        one.page.wait_for_selector("#keys[open]")
        assert one.accessible() == []
        assert (one.wrong, one.elsewhere) == ([], [])


def test_keys_pressed_quickly_lose_no_decision(tmp_path: Path, run: Run) -> None:
    dataset = dataset_of(tmp_path, run, 120, scores=lambda _: 0.9)
    with opened(dataset.folder) as page:
        one = page()
        began = time.monotonic()
        for number in range(60):  # none waits for the page to be done with the one before
            press(one, *("a" if number % 3 else "r2q"), *([] if number % 3 else ["Enter"]))
        decided = "document.querySelector('#progress-text').textContent.startsWith('60 ')"
        wait_for(one, decided)
        seconds = time.monotonic() - began
        assert (one.wrong, one.elsewhere) == ([], [])
    journal = Dataset(dataset.folder).journal
    reviews = [event for key in journal for event in journal.events(key)]
    assert sum(isinstance(event, Review) for event in reviews) == 60
    print(json.dumps({"decisions a minute": round(60 / seconds * 60)}))  # noqa: T201
