"""The packaged micro model understands its scenes, so what the house does to labels can be judged
by their truth: direction, sides, "no change", batches, resuming."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import ImageOps

from chronoprep import synth, vlm
from chronoprep.config import LabelSettings, VLMSettings
from chronoprep.data import Picture
from chronoprep.labels.captioning import Answer, View, label
from chronoprep.labels.prompts import load_prompts
from chronoprep.vlm import VLM
from conftest import Result

SETTINGS = VLMSettings(model="shapes")
SEED = 501  # not the training's
SINGLE = [s for i in range(200) if len((s := synth.sample(SEED, i)).edits) == 1][:40]


@pytest.fixture(scope="module")
def model() -> Iterator[VLM]:
    loaded = vlm.resolve(SETTINGS).load()
    yield loaded
    loaded.close()


def ask(model: VLM, views: Sequence[View], *, with_cot: bool = False) -> list[Answer]:
    prompts = load_prompts(LabelSettings(), vlm.preset(SETTINGS))
    return label(model, prompts, views, with_cot=with_cot)


def views_of(samples: Sequence[synth.Sample], size: int = 256) -> list[View]:
    return [View(*map(Picture, sample.pictures(size))) for sample in samples]


def right(answers: Sequence[Answer], samples: Sequence[synth.Sample]) -> int:
    pairs = zip(answers, samples, strict=True)
    return sum(answer.caption == sample.instruction for answer, sample in pairs)


def test_it_names_edits_that_it_has_never_seen(model: VLM) -> None:
    answers = ask(model, views_of(SINGLE), with_cot=True)
    assert right(answers, SINGLE) >= 39
    for answer in answers:
        assert answer.cot is not None
        assert answer.cot.startswith("The user wants to ")
        assert 80 <= len(answer.cot.split()) <= 100
    cots = zip(answers, SINGLE, strict=True)
    assert sum(answer.cot == sample.cot for answer, sample in cots) >= 38


def test_swapped_images_give_the_inverse_instruction(model: VLM) -> None:
    views = [View(view.target, view.source) for view in views_of(SINGLE)]
    assert right(ask(model, views), [sample.swapped() for sample in SINGLE]) >= 39


def test_mirrored_images_trade_left_for_right(model: VLM) -> None:
    views = [
        View(*(Picture(ImageOps.mirror(p.pixels)) for p in (view.source, view.target)))
        for view in views_of(SINGLE)
    ]
    assert right(ask(model, views), [sample.mirrored() for sample in SINGLE]) >= 39


def test_one_image_twice_is_no_change(model: VLM) -> None:
    answers = ask(model, [View(v.source, v.source) for v in views_of(SINGLE)], with_cot=True)
    assert sum(answer.no_change for answer in answers) >= 39
    assert all(answer.cot is None for answer in answers if answer.no_change)


@pytest.mark.parametrize("size", [96, 130, 640])
def test_images_of_any_size_will_do(model: VLM, size: int) -> None:
    assert right(ask(model, views_of(SINGLE[:20], size)), SINGLE[:20]) >= 18


def test_a_batch_gives_the_same_text_as_single_pairs(model: VLM) -> None:
    samples = [synth.sample(SEED, i) for i in range(16)]  # with two edits and none among them
    views = views_of(samples)
    batch = ask(model, views, with_cot=True)
    assert [ask(model, [view], with_cot=True)[0] for view in views] == batch
    assert ask(model, views[::-1], with_cot=True)[::-1] == batch


def test_the_command_labels_resumes_and_renews_what_changed(run: Callable[..., Result]) -> None:
    run("synth", 6, "--output", "pairs", "--seed", SEED)
    truth = [json.loads(line) for line in Path("pairs/truth.jsonl").read_text("utf-8").splitlines()]

    def counts(*more: object) -> tuple[int, int]:
        """Labelled, and up to date."""
        command = ("caption", "pairs", "--dataset", "d", "--model", "shapes", "--generate-cot")
        result = run(*command, "--json", *more)
        assert result.code == 0, result.stderr
        row = {row["what"]: row for row in result.json}["labels"]
        return row["done"] + row["no_change"], row["skipped"]

    def captions() -> dict[str, str]:
        lines = Path("d/labels.jsonl").read_text("utf-8").splitlines()
        return {row["key"]: row["caption"] for row in map(json.loads, lines)}

    assert counts("--limit", 4) == (4, 0)
    assert counts() == (2, 4)
    assert counts() == (0, 6)
    whole = captions()
    assert sum(whole[row["key"]] == row["caption"] for row in truth) >= 5
    shutil.copy("pairs/input/shapes-0000.png", "pairs/output/shapes-0000.png")
    assert counts() == (1, 5)
    assert captions() == whole | {"shapes-0000": "no change"}


def test_the_model_comes_with_the_package(run: Callable[..., Result]) -> None:
    found = vlm.resolve(SETTINGS).checkpoint
    assert found.folder is not None
    assert sum(file.stat().st_size for file in found.folder.iterdir()) <= 10_000_000
    (row,) = [row for row in run("models", "--json").json if row["name"] == "shapes"]
    assert row["cached"] is True
    result = run("prepare", "pairs", "--dataset", "d", "--model", "Shapes")
    assert "no such" in result.stderr  # the pairs, not the model
