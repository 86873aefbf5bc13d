"""What pages are made of: cards of pairs, thumbnails, numbers."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoprep.config import ImageSettings
from chronoprep.data import Pair
from chronoprep.dataset import Embedding, Entry, Failure, Label, Review, Score, State, text_digest
from chronoprep.dataset.events import Text
from chronoprep.digest import of_text
from chronoprep.errors import PairError
from chronoprep.gallery import Numbers, Spread, card_of, part
from chronoprep.gallery.numbers import STATUSES
from chronoprep.gallery.thumbnails import Thumbnails
from chronoprep.workflows.verify import Verdict

ENTRY = Entry("cat", "/a/cat.png", "/b/cat.png", images="11", listed="yes")
LABEL = Label(
    key="cat", caption="Add a hat", caption_cot="Keep the cat. Add a red hat.", origin="model",
    images="11", model="qwen", revision="abc", caption_prompt="default", seconds=1.5,
)  # fmt: skip


def test_a_card_shows_the_words_that_train_and_where_they_are_from() -> None:
    score = Score(key="cat", of=text_digest(Text(LABEL.caption, LABEL.caption_cot)), edit="add")
    verdict = Verdict("cat", 0.9, 99.0, True, ("nothing changed",))
    card = card_of(ENTRY, State([LABEL, score]), verdict)
    assert (card.caption, card.cot, card.status) == (LABEL.caption, LABEL.caption_cot, "ok")
    assert (card.score, card.suspect, card.reasons) == (0.9, True, ("nothing changed",))
    assert (card.edit, card.written, card.listed, card.has_video) == ("add", None, True, False)
    assert card.provenance is not None
    assert (card.provenance.model, card.provenance.prompts) == ("qwen", ("default",))


def test_a_card_keeps_the_models_words_beside_a_humans() -> None:
    review = Review(
        key="cat", verdict="edit", caption="Add a blue hat", images="11", reviewer="Ada",
        reason="wrong colour",
    )  # fmt: skip
    card = card_of(ENTRY, State([LABEL, review]))
    assert (card.caption, card.cot) == ("Add a blue hat", None)
    assert card.written == ("Add a hat", "Keep the cat. Add a red hat.")
    assert (card.verdict, card.reviewer, card.remark) == ("edit", "Ada", "wrong colour")


def test_tokens_are_those_of_the_prompt_as_it_is() -> None:
    def embedded(prompt: str) -> Embedding:
        return Embedding(
            key="cat", bytes=1, mtime=1, content="", prompt=of_text(prompt), encoder="e", tokens=9
        )

    assert LABEL.caption_cot is not None
    assert card_of(ENTRY, State([LABEL, embedded(LABEL.caption_cot)])).tokens == 9
    assert card_of(ENTRY, State([LABEL, embedded("Another prompt.")])).tokens is None


def test_numbers_add_up() -> None:
    numbers = Numbers()
    states = {
        "a": State([LABEL]),
        "b": State([LABEL.model_copy(update={"caption": "no change", "caption_cot": None})]),
        "ccc": State([Failure(key="ccc", stage="caption", error="ccc: cut off after 7 tokens")]),
        "ddd": State([Failure(key="ddd", stage="caption", error="ddd: cut off after 9 tokens")]),
        "e": State([LABEL, Review(key="e", verdict="reject", images="11")]),
        "f": State(),
    }
    for key, state in states.items():
        numbers.add(card_of(Entry(key, "s", "t", images="11" if key != "f" else None), state))
    told = numbers.as_json()
    assert told["status"] == dict(zip(STATUSES, (1, 1, 2, 1, 1), strict=True))
    assert sum(told["status"].values()) == told["pairs"] == 6
    assert told["failures"] == [{"reason": "ccc: cut off after 7 tokens", "pairs": 2}]
    assert told["edits"] == {"add": 2, "no change": 1}
    assert told["duplicates"] == {"images": 4, "captions": 1}
    assert told["caption_words"] == {
        "count": 2, "mean": 3, "least": 3, "median": 3, "p95": 3, "most": 3
    }  # fmt: skip


@pytest.mark.parametrize("step", [1, 0.01, 0.02])
def test_a_histogram_holds_every_value_in_few_round_bars(step: float) -> None:
    values = np.random.default_rng(0).gamma(2, 30, 5000) * step
    spread = Spread(step)
    for value in values:
        spread.add(float(value))
    bins = spread.bins(24)
    assert len(bins) <= 24
    assert sum(bar.size for bar in bins) == len(values) == len(spread)
    assert all(one.high == two.low for one, two in pairwise(bins))
    median = float(np.median(values))
    assert abs(spread.quantile(0.5) - median) <= step
    assert abs(spread.mean - values.mean()) <= step
    assert spread.above(median) == pytest.approx(2500, abs=80)


def test_a_spread_of_nothing_has_no_bars() -> None:
    assert Spread().bins() == []
    assert Spread().as_json() == {"count": 0}


def _sized(data: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size


def test_thumbnails_are_upright_small_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    Image.effect_mandelbrot((800, 400), (-2, -1, 1, 1), 50).save(path, exif=exif)
    thumbnails = Thumbnails(ImageSettings())
    first = thumbnails.of(str(path), 100)
    assert _sized(first) == ("WEBP", (50, 100))
    assert thumbnails.of(str(path), 100) is first
    Image.new("RGB", (40, 30)).save(path)
    assert _sized(thumbnails.of(str(path), 100)) == ("WEBP", (40, 30))  # never enlarged


def test_thumbnails_of_a_pair_lie_over_each_other(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (400, 300), "red").save(source)
    Image.new("RGB", (640, 640), "blue").save(target)
    thumbnails = Thumbnails(ImageSettings())
    pictures = thumbnails.of_pair(Pair("k", str(source), str(target)), 120)
    assert [_sized(picture) for picture in pictures] == [("WEBP", (120, 90))] * 2
    target.unlink()
    with pytest.raises(PairError, match=r"b\.png"):
        thumbnails.of_pair(Pair("k", str(source), str(target)), 120)


def test_kept_thumbnails_are_bounded(tmp_path: Path) -> None:
    thumbnails = Thumbnails(ImageSettings(), kept=1)
    made = []
    for name in ("a.png", "b.png"):
        Image.effect_noise((64, 64), 90).save(tmp_path / name)
        made.append(thumbnails.of(str(tmp_path / name), 64))
    assert thumbnails.of(str(tmp_path / "b.png"), 64) is made[1]
    assert thumbnails.of(str(tmp_path / "a.png"), 64) is not made[0]


@pytest.mark.parametrize("name", ["theme.css", "compare.css", "compare.js"])
def test_parts_ask_nothing_of_the_network(name: str) -> None:
    text = part(name).replace("http://www.w3.org/2000/svg", "")
    assert text.strip()
    assert "//" not in text.replace("/* ", "")
    assert "@import" not in text
