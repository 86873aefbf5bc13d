"""Synthetic pairs: their labels are true, in words and in pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoprep import synth
from conftest import Result

SAMPLES = [synth.sample(5, index) for index in range(1000)]
EDITED = [sample for sample in SAMPLES if sample.edits]


SIDE = 256


def changed(sample: synth.Sample) -> np.ndarray:
    """Where source and target differ by more than grain and a shifted edge: bool [SIDE, SIDE]."""
    one, other = (
        np.asarray(image.filter(ImageFilter.MedianFilter(5)), np.int16)
        for image in sample.pictures(SIDE)
    )
    mask = Image.fromarray(np.abs(one - other).max(-1) > 60).convert("L")
    return np.asarray(mask.filter(ImageFilter.MinFilter(7))) > 0


def test_every_kind_of_edit_is_drawn_and_some_samples_hold_two() -> None:
    kinds = Counter(edit.kind for sample in SAMPLES for edit in sample.edits)
    assert set(kinds) == {"recolour", "move", "remove", "add", "replace", "resize", "background"}
    assert min(kinds.values()) > 50
    assert 50 < sum(len(sample.edits) == 2 for sample in SAMPLES) < 200
    assert 80 < sum(sample.kind == "no change" for sample in SAMPLES) < 220


def test_cots_have_the_promised_form() -> None:
    for sample in EDITED:
        assert sample.cot is not None
        assert sample.cot.startswith("The user wants to ")
        assert 80 <= len(sample.cot.split()) <= 100, sample.cot
        for edit in sample.edits:
            assert edit.phrase in sample.cot
        for thing in sample.source.things:
            assert thing.noun in sample.cot  # it changes, or it stays
    assert all(sample.cot is None for sample in SAMPLES if not sample.edits)


def test_a_sample_does_not_depend_on_the_ones_before_it() -> None:
    again = synth.sample(5, 400)
    assert again == SAMPLES[400]
    for one, other in zip(again.pictures(64), SAMPLES[400].pictures(64), strict=True):
        assert one.tobytes() == other.tobytes()
    assert synth.sample(6, 400) != again


def test_pixels_change_inside_the_region_and_only_there() -> None:
    for sample in EDITED[:60]:
        difference = changed(sample).copy()
        left, top, right, bottom = (round(part * SIDE) for part in sample.region or ())
        assert difference[top:bottom, left:right].sum() >= 10, sample.instruction
        margin = 6  # the frame of the target is shifted a little
        difference[
            max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin
        ] = 0
        assert difference.sum() <= 5, sample.instruction


def test_no_change_shows_other_bytes_but_the_same_picture() -> None:
    same = [sample for sample in SAMPLES if not sample.edits][:20]
    for sample in same:
        source, target = sample.pictures(SIDE)
        assert source.tobytes() != target.tobytes()
        assert changed(sample).sum() <= 5


def test_swapping_twice_and_mirroring_twice_give_the_sample_back() -> None:
    for sample in SAMPLES[:200]:
        assert sample.swapped().swapped() == sample
        assert sample.mirrored().mirrored() == sample


def test_the_swapped_pair_has_the_inverse_label() -> None:
    inverse = {"add": "remove", "remove": "add"}
    for sample in EDITED[:200]:
        kinds = sorted(inverse.get(edit.kind, edit.kind) for edit in sample.edits)
        assert sorted(edit.kind for edit in sample.swapped().edits) == kinds
        assert sample.swapped().instruction != sample.instruction


def test_the_mirrored_pair_trades_left_for_right() -> None:
    for sample in EDITED[:200]:
        before, after = sample.instruction.lower(), sample.mirrored().instruction.lower()
        assert before.count(" left") == after.count(" right")
        assert before.count(" right") == after.count(" left")


def test_synth_writes_pairs_and_a_manifest_of_their_truth(run: Callable[..., Result]) -> None:
    result = run("synth", 12, "--output", "made", "--seed", 5, "--size", 64)
    assert result.stderr.splitlines()[0] == "synthetic pairs: 0/12", "a log says so at once"
    assert result.code == 0, result.stderr
    rows = [json.loads(line) for line in Path("made/truth.jsonl").read_text("utf-8").splitlines()]
    assert [row["caption"] for row in rows] == [s.instruction for s in SAMPLES[:12]]
    assert [row["prompt"] for row in rows] == [s.cot for s in SAMPLES[:12]]
    for row, sample in zip(rows, SAMPLES, strict=False):
        for side, drawn in zip(("source", "target"), sample.pictures(64), strict=True):
            with Image.open(Path("made") / row[side]) as image:
                assert image.tobytes() == drawn.tobytes()

    assert run("pair2video", "made", "--dataset", "videos").code == 0  # a folder like any other
    assert len(list(Path("videos/videos").glob("*.mp4"))) == 12
    true = run("prepare", "made/truth.jsonl", "--dataset", "true", "--json")
    assert true.code == 0, true.stderr
    labels = {row["what"]: row for row in true.json}["labels"]
    unchanged = sum(not sample.edits for sample in SAMPLES[:12])
    assert (labels["done"], labels["no_change"]) == (12 - unchanged, unchanged)


def test_synth_does_not_mix_with_other_files(run: Callable[..., Result]) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    result = run("synth", 2, "--output", "full")
    assert result.code == 2
    assert "full" in result.stderr
    assert "new or empty folder" in result.stderr
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_synth_refuses_a_wrong_count(run: Callable[..., Result], count: str) -> None:
    assert run("synth", count, "--output", "x").code == 2
    assert not Path("x").exists()
