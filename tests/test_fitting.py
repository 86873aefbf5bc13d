"""The size of batches on a GPU, from what one of them took; no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from chronoprep.vlm import fitting
from chronoprep.vlm.fitting import Batches, Level, measured

GB = 10**9


class Card:
    """A GPU with so many bytes for a process, where a pair takes the same each time, and a batch of
    any size a piece more."""

    def __init__(self, most: int, weights: int, pair: int, piece: int) -> None:
        self.most, self.weights, self.pair, self.piece = most, weights, pair, piece
        self.peak = weights

    def run(self, batches: Batches, pairs: int) -> None:
        batches.begin()
        self.peak = self.weights + pairs * self.pair + self.piece
        if self.peak > self.most:
            batches.too_large(pairs)
        else:
            batches.done(pairs)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    def put(most: int, pair: int, piece: int = 0) -> Card:
        one = Card(most, 17 * GB, pair, piece)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: one.weights)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: one.weights)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (most - one.weights, most))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: one.peak)
        return one

    return put


@pytest.fixture
def model() -> Any:
    """The shape of Qwen3-VL-8B, without weights, as if on a GPU."""
    text = transformers.Qwen3VLConfig(
        text_config={
            "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        }
    )  # fmt: skip

    class Shape:
        config, dtype, device = text, torch.bfloat16, torch.device("cuda")

    return Shape()


@pytest.mark.parametrize(
    ("pieces", "pair", "piece", "least", "most"),
    [
        # Its weights, and 64 pairs of two photos, took 66 GB.
        (False, 0.76, 0.0, 50, 80),
        # Keys and values of 3,072 tokens for each pair, and what a piece of the prefill computes.
        (True, 0.46, 2.7, 80, 130),
    ],
)
def test_a_card_of_80_gb_is_filled_from_the_first_batch_on(
    pieces: bool, pair: float, piece: float, least: int, most: int,
    card: Callable[..., Card], model: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fitting, "_PIECES", pieces)
    there = card(80 * GB, int(pair * GB), piece=int(piece * GB))
    batches = Batches(model, None)
    assert least < batches.size < most
    for _ in range(3):
        there.run(batches, batches.size)
    assert 65 < there.peak / GB < 80


def test_small_pictures_let_it_grow_and_what_did_not_fit_is_not_tried_again(
    card: Callable[..., Card], model: Any
) -> None:
    there = card(80 * GB, GB // 10)
    batches = Batches(model, None)
    for _ in range(6):
        there.run(batches, batches.size)
    assert 500 <= batches.size <= fitting.MOST_PAIRS
    there.pair = GB
    tried = []
    for _ in range(8):
        tried.append(batches.size)
        there.run(batches, batches.size)
    fits = [size for size in tried if size <= 63]
    assert fits
    assert fits == tried[-len(fits) :], "it settles, and goes on"
    assert len(set(fits)) == 1


def test_what_the_user_asks_for_stays(card: Callable[..., Card], model: Any) -> None:
    there = card(80 * GB, GB // 10)
    batches = Batches(model, 8)
    for _ in range(3):
        there.run(batches, 8)
    assert batches.size == 8


def test_the_fullest_device_decides() -> None:
    levels = [Level(10, 20, 110), Level(10, 50, 110)]
    assert measured(levels, 10, 10) == 20
    assert measured(levels, 20, 20) == 40
    assert measured([Level(10, 90, 110)], 20, 20) == 22
    assert measured(levels, 1, 20) == 20
