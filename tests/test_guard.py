"""What the guard repairs, refuses and lets pass."""

from __future__ import annotations

import json

import pytest

from chronoprep import synth
from chronoprep.config import LabelSettings
from chronoprep.data import FREE_FORM, Completion
from chronoprep.labels.guard import clean, find_fault
from chronoprep.labels.prompts import load_prompts, presets
from conftest import EXAMPLES
from degenerate import CAPTION_FAULTS, COT, COT_FAULTS, GOOD_CAPTIONS, INNOCENT_CAPTIONS
from languages import ENGLISH, FOREIGN

PROMPTS = load_prompts(LabelSettings())


def answer(text: str) -> Completion:
    return Completion(text.removesuffix("|cut"), 512, truncated=text.endswith("|cut"))


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  Add\n a   hat ", "Add a hat"),
        ("Add <|image_pad|>a hat<|im_end|>", "Add a hat"),
        ("Add <|im_<|x|>end|> a hat", "Add a hat"),
        ("```json\nAdd a hat\n```", "Add a hat"),
        ('"Add a hat"', "Add a hat"),
        ("“Add a hat”", "Add a hat"),
        ('"Hi" becomes "Bye"', '"Hi" becomes "Bye"'),
        ("Add a hat</s>", "Add a hat"),
        ("**Add a hat**", "Add a hat"),
        ("**Add** a **hat**", "**Add** a **hat**"),
        ("Add a hat.<|im_end|>", "Add a hat."),
        ("Add\x00 a\x1b hat", "Add a hat"),
        ("3 < 4 and <b>bold</b> stay", "3 < 4 and <b>bold</b> stay"),
    ],
)
def test_model_text_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(("name", "text"), CAPTION_FAULTS)
def test_each_degenerate_caption_is_named(name: str, text: str) -> None:
    fault = find_fault(answer(text), PROMPTS.caption.form)
    assert fault is not None
    assert fault.name == name, fault


@pytest.mark.parametrize(("name", "text"), COT_FAULTS)
def test_each_degenerate_cot_is_named(name: str, text: str) -> None:
    fault = find_fault(answer(text), PROMPTS.cot.form)
    assert fault is not None
    assert fault.name == name, fault


@pytest.mark.parametrize("text", GOOD_CAPTIONS)
def test_a_good_caption_passes(text: str) -> None:
    assert find_fault(answer(text), PROMPTS.caption.form) is None


@pytest.mark.parametrize("text", INNOCENT_CAPTIONS)
def test_an_edit_may_be_of_what_a_refusal_speaks_of(text: str) -> None:
    assert find_fault(answer(text), PROMPTS.caption.form) is None
    assert find_fault(answer(f"{COT} {text}"), PROMPTS.cot.form) is None


@pytest.mark.parametrize("text", FOREIGN)
def test_the_shortest_foreign_instruction_is_heard(text: str) -> None:
    fault = find_fault(answer(text), PROMPTS.caption.form)
    assert fault is not None
    assert fault.name == "language", fault


@pytest.mark.parametrize("text", ENGLISH)
def test_english_may_borrow_its_words(text: str) -> None:
    fault = find_fault(answer(text), PROMPTS.caption.form)
    # "Sunset" alone is too short an instruction, in any language.
    assert fault is None or fault.name == "length", fault


def test_no_false_alarm_on_true_labels() -> None:
    texts = [json.loads(path.read_text()) for path in EXAMPLES.glob("output/*.json")]
    labels = [(t["caption"], t["caption_cot"]) for t in texts if t.get("caption_cot")]
    samples = (synth.sample(3, i) for i in range(1300))
    labels += [(s.instruction, s.cot) for s in samples if s.cot]
    assert len(labels) > 1000
    for preset in presets():
        prompts = load_prompts(LabelSettings(preset=preset))
        for caption, cot in labels[: None if preset == "default" else 20]:
            assert find_fault(answer(caption), prompts.caption.form) is None, caption
            assert find_fault(answer(cot), prompts.cot.form) is None, cot


@pytest.mark.parametrize("text", ["A hat", "Un chapeau rouge sur la tête du chat", COT[:60] + "."])
def test_a_prompt_that_asks_for_nothing_is_answered_freely(text: str) -> None:
    assert find_fault(answer(text), FREE_FORM) is None


def test_an_end_token_that_an_engine_shows_is_no_fault() -> None:
    assert find_fault(answer("Add a red hat.<|im_end|>\n</s>"), PROMPTS.caption.form) is None


@pytest.mark.parametrize(("tokens", "after"), [(512, "512"), (0, "some")])
def test_a_cut_blames_the_limit_only_if_it_was_met(tokens: int, after: str) -> None:
    fault = find_fault(Completion("Add a red", tokens, truncated=True), PROMPTS.caption.form)
    assert str(fault) == (
        f"cut (it broke off after {after} new tokens: raise --max-new-tokens if that is the limit)"
    )
