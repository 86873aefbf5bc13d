"""Lettering that a label quotes is read in both pictures, where RapidOCR is installed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from chronoprep.images import lettering
from chronoprep.labels.claims.quoted import quoted, reads
from conftest import Result
from test_verify import by_key, labelled

Run = Callable[..., Result]


def sign(words: str, size: int = 34) -> np.ndarray:
    """A board with lettering on a wall."""
    image = Image.new("RGB", (420, 300), (150, 165, 180))
    draw = ImageDraw.Draw(image)
    draw.rectangle((90, 90, 330, 190), fill=(250, 248, 235), outline=(60, 50, 40), width=4)
    font = ImageFont.load_default(size=size)
    draw.text((210, 140), words, font=font, fill=(30, 25, 40), anchor="mm")
    return np.asarray(image)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("Change the text on the sign from 'CLOSED' to 'OPEN'", ("CLOSED",), ("OPEN",)),
        ('Replace the word "cat" with "dog"', ("cat",), ("dog",)),
        ("The sign now says “OPEN”.", (), ("OPEN",)),
        ("Change the sign so that it reads 'OPEN'", (), ("OPEN",)),
        ("Write 'X' instead of 'Y' on the sign", ("Y",), ("X",)),
        ("Remove the text 'SALE'", ("SALE",), ()),
        ("Paint the sign that says 'OPEN' red", (), ()),
        ("Make the man's coat 'bigger'", (), ()),
    ],
)
def test_what_lettering_a_label_quotes(
    text: str, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert quoted(text) == (before, after)


def test_what_is_read_may_be_spelled_a_little_otherwise() -> None:
    assert reads("Open 24 h", ["OPEN", "24h"])
    assert reads("RESTAURANT", ["RESTAURAMT"])
    assert not reads("OPEN", ["CLOSED"])


def test_it_reads_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    lettering._reader.cache_clear()
    assert reads("BAKERY", lettering.read(sign("BAKERY"), [(0.3, 0.4, 0.7, 0.6)]))
    assert lettering.read(sign(""), []) == []


def test_lettering_is_held_against_what_is_read(tmp_path: Path, run: Run) -> None:
    said = {
        "right": "Change the text on the sign from 'CLOSED' to 'OPEN'.",
        "another": "Change the text on the sign from 'CLOSED' to 'BAKERY'.",
        "swapped": "Change the text on the sign from 'OPEN' to 'CLOSED'.",
        "landmark": "Repaint the lettering of the sign beside the 'EXIT' door.",
    }
    pictures = {key: (sign("CLOSED"), sign("OPEN")) for key in said}
    data = labelled(tmp_path, run, said, **pictures)
    verdicts = by_key(run("verify", data, "--json"))
    assert verdicts["another"]["suspect"]
    assert any("'BAKERY'; 'OPEN' was read" in why for why in verdicts["another"]["reasons"])
    assert verdicts["swapped"]["suspect"]
    assert any("in the other image" in why for why in verdicts["swapped"]["reasons"])
    for key in ("right", "landmark"):
        assert not any("lettering" in why for why in verdicts[key]["reasons"])


def test_without_it_labels_that_quote_are_counted_and_judged_again_with_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"a": "Change the text on the sign from 'CLOSED' to 'BAKERY'.", "b": "Change the sign."}
    pictures = {key: (sign("CLOSED"), sign("OPEN")) for key in said}
    data = labelled(tmp_path, run, said, **pictures)
    with monkeypatch.context() as context:
        context.setattr(lettering, "installed", lambda: False)
        result = run("verify", data)
        assert "1 quote lettering that was not read" in result.stdout + result.stderr
        assert "chronoprep[ocr]" in result.stdout + result.stderr
        assert not any(
            "lettering" in w for w in by_key(run("verify", data, "--json"))["a"]["reasons"]
        )
    result = run("verify", data, "--json")
    assert any("lettering" in why for why in by_key(result)["a"]["reasons"])
    assert "chronoprep[ocr]" not in result.stderr
