"""The report and the statistics of a dataset: what is in them, and what a page does not do."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from chronoprep.config import Settings
from chronoprep.dataset import Dataset, Failure, Label, Review, Score, text_digest
from chronoprep.dataset.events import Event, Text
from chronoprep.images.load import content_hash
from chronoprep.workflows.report import report_dataset
from chronoprep.workflows.stage import opened
from chronoprep.workflows.verify import RULES
from conftest import Result, write_pairs
from tiny_umt5 import save_tokenizer

HOSTILE = (
    "<script>document.title = 'taken over'</script>",
    '"><img src=x onerror="document.title = 1">',
    "</style></script><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "Make it \u202eeulb\u2066 now & then",
)
NAMES = [f"pair_{number}" for number in range(12)]


def fill(folder: Path) -> Path:
    """A dataset of twelve pairs: hostile words, suspects, a review, failures, none at all."""
    dataset = folder / "dataset"
    write_pairs(folder / "pairs", NAMES)
    (folder / "pairs" / "output" / "pair_8.png").write_bytes(b"no picture")
    with opened(dataset, Settings(), pairs=folder / "pairs") as run:
        entries = {entry.key: entry for entry in run.entries}
        events: list[Event] = []
        for number, words in enumerate((*HOSTILE, "Add a hat", "no change", "Add a hat")):
            key = NAMES[number]
            images = content_hash(entries[key].pair)
            cot = None if words == "no change" else f"{words} Keep all else."
            events.append(
                Label(key=key, caption=words, caption_cot=cot, images=images, model=words)
            )
            if number < 8:
                weight = 0.9 if number in (2, 4) else 0.1
                text = text_digest(Text(words, cot))
                events.append(
                    Score(key=key, of=text, by=RULES, images=images, scores={"place": weight},
                          reasons=(words,), edit="no change" if number == 7 else "add")
                )  # fmt: skip
        images = content_hash(entries["pair_6"].pair)
        events.append(Review(key="pair_6", verdict="accept", images=images, reviewer="<b>Ada</b>"))
        events.append(
            Review(key="pair_0", verdict="reject", images=content_hash(entries["pair_0"].pair))
        )
        for name in ("pair_9", "pair_10"):
            error = f"{folder}/{name}.png: <i>cut</i> off. Save it again."
            events.append(Failure(key=name, stage="caption", error=error))
        run.dataset.append(events)
    return dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("report"))


@dataclass
class Seen(HTMLParser):
    """What a browser would make of a page."""

    page: Path
    tags: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    text: str = ""
    policy: str = ""
    inside: dict[str, str] = field(default_factory=dict)
    pictures: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "article":
            self.keys.append(given["aria-label"] or "")
        if tag == "img":
            self.pictures.append(base64.b64decode((given["src"] or "").split(",")[1]))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("style", "script"):
            self.inside.setdefault(self.tags[-1], data)
        self.text += data


@pytest.fixture(scope="module")
def page(dataset: Path) -> Seen:
    """A report with all of its defaults, as a browser would read it."""
    path = dataset.parent / "whole.html"
    report_dataset(dataset, Settings(), page=path)
    return Seen(path)


def test_a_page_has_its_pictures_in_it_suspects_first(page: Seen) -> None:
    assert set(page.keys[:2]) == {"pair_2", "pair_4"}
    assert sorted(page.keys) == sorted(NAMES[:9])
    assert len(page.pictures) == 16  # one pair can't be shown, which is said
    for data in page.pictures:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("WEBP", (96, 72))
    assert "pair_8.png" in page.text
    assert "off. Save it again." in page.text


def test_a_page_asks_for_nothing_and_runs_only_its_own_script(page: Seen) -> None:
    assert not [a for a in page.addresses if not a.startswith(("data:image/webp;", "data:,", "#"))]
    assert page.handlers == []
    assert page.tags.count("script") == page.tags.count("style") == 1
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for what in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inside[what].encode()).digest()).decode()
        assert rules[f"{what}-src"] == f"'sha256-{digest}'"


def test_words_of_a_dataset_are_words_on_a_page(page: Seen) -> None:
    for words in HOSTILE:
        assert words in page.text
    own = "html head meta title link style body header div h1 bdi p nav a button span main section"
    own += " h2 h3 svg rect ul li strong dl dt dd figure figcaption g path text table caption tbody"
    own += " thead tr th td details summary b label input select option article before-after img"
    own += " script"
    assert set(page.tags) <= set(own.split())


def test_what_the_page_says_adds_up(dataset: Path, run: Callable[..., Result]) -> None:
    told = run("stats", dataset, "--json").json
    assert told["pairs"] == 12 == sum(told["status"].values())
    assert told["status"] == {
        "ok": 7, "no_change": 1, "failed": 2, "rejected": 1, "unlabelled": 1
    }  # fmt: skip
    assert told["verified"] == {"judged": 7, "suspects": 2}
    assert told["verdicts"] == {"accept": 1, "reject": 1}
    assert sum(told["edits"].values()) == 9
    assert sum(made["pairs"] for made in told["made"]) == 9
    assert [failure["pairs"] for failure in told["failures"]] == [2]
    assert told["duplicates"] == {"images": 0, "captions": 1}
    assert (told["looked_at"], told["resolutions"]) == (11, {"96x72": 11})
    assert told["findings"]["unreadable"] == 1
    assert told["tokens"] == {"count": 0}


def test_the_terminal_shows_the_numbers_as_tables(
    dataset: Path, run: Callable[..., Result]
) -> None:
    done = run("report", dataset, "--terminal")
    assert done.code == 0
    assert "12 pairs: 7 ok · 1 no change · 2 failed · 1 rejected · 1 unlabelled" in done.stdout
    assert re.search(r"words of a prompt +8 ", done.stdout)
    assert re.search(r"^96×72 +11$", done.stdout, re.MULTILINE)
    assert "2 of 7 judged labels are suspects" in done.stdout
    assert "Tokens are known of 0 of 8 prompts" in done.stdout
    assert not (dataset / "report.html").exists()


def test_tokens_are_counted_by_the_editors_tokenizer(
    dataset: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    save_tokenizer(tmp_path)
    told = run("stats", dataset, "--json", "--tokenizer", tmp_path).json
    assert told["tokens"]["count"] == told["cot_words"]["count"] == 8
    assert told["tokens"]["least"] > 1


def test_the_gallery_is_as_long_as_asked(dataset: Path, run: Callable[..., Result]) -> None:
    path = dataset.parent / "new" / "three.html"
    done = run("report", dataset, "--gallery", 3, "--output", path, "--json")
    keys = Seen(path).keys
    assert len(keys) == done.json["shown"] == 3
    assert done.json["bytes"] == path.stat().st_size
    assert set(keys[:2]) == {"pair_2", "pair_4"}


def test_a_report_changes_nothing_and_waits_for_nobody(
    dataset: Path, run: Callable[..., Result]
) -> None:
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    with Dataset(dataset).locked():  # as while a run is on
        done = run("report", dataset, "--gallery", 0)
    assert done.code == 0, done.stderr
    assert "report.html: 12 pairs, 0 of them shown" in done.stdout
    page = dataset / "report.html"
    assert Seen(page).keys == []
    page.unlink()
    assert before == {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "dataset", "--output", "report.pdf"], "report.pdf: no name for a page"),
        (["report", "dataset", "--terminal", "--output", "a.html"], "Either --terminal or"),
        (["report"], "Give one dataset folder"),
        (["stats", "pairs"], "knows no pairs yet"),
        (["stats", "dataset", "--tokenizer", "pairs"], "no tokenizer"),
    ],
)
def test_what_can_not_be_is_said_at_once(
    dataset: Path,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(dataset.parent)
    done = run(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert words in done.stderr


def test_an_empty_dataset_has_a_page(tmp_path: Path, run: Callable[..., Result]) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    with opened(tmp_path / "dataset", Settings(), pairs=tmp_path / "pairs"):
        pass
    assert run("report", "dataset").code == 0
    assert "not labelled yet 1" in re.sub(r"\s+", " ", Seen(tmp_path / "dataset/report.html").text)


def test_pictures_give_way_before_a_page_grows_too_large(
    dataset: Path, page: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chronoprep.report

    size = sum(len(picture) for picture in page.pictures) * 4 // 3
    monkeypatch.setattr(chronoprep.report, "MOST_BYTES", size // 2)
    path = dataset.parent / "cut.html"
    report_dataset(dataset, Settings(), page=path)
    cut = Seen(path)
    assert cut.keys == page.keys
    assert 0 < len(cut.pictures) < len(page.pictures)
    assert "the report would be too large" in cut.text
