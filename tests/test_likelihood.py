"""How sure a model was: kept while it writes, and the same as in a pass over the whole text."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from chronoprep.data import Chat, Likelihood, Sampling
from chronoprep.vlm.likelihood import likelihood
from conftest import Result, label_of, write_pairs
from test_vlm import chats, loaded
from tiny_checkpoints import FAMILIES

Run = Callable[..., Result]


def chances_of(model: Any, family: str, chat: Chat, new: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of new tokens as the answer to a chat, by transformers' own processor
    and one pass over prompt and answer."""
    inputs = model._plain_inputs([chat])
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], new[None]], 1)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            fill = new.new_full((1, len(new)), int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], fill], 1)
    if family == "qwen3_omni_moe":
        inputs.pop("mm_token_type_ids", None)
    with torch.no_grad():
        logits = model.model(**inputs).logits[0, length - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, new[:, None])[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, 0.9, 3)])
def test_log_probabilities_are_those_of_a_full_pass(
    family: str, sampling: Sampling, tiny: Callable[[str], Path]
) -> None:
    model: Any
    with closing(loaded(tiny(family), 12)) as model:
        generate, written = model.model.generate, []

        def watched(**inputs: Any) -> Any:
            output = generate(**inputs)
            written.extend(output.sequences[:, inputs["input_ids"].shape[1] :])
            return output

        model.model.generate = watched
        asked, compared = chats(4), 0
        answers = model.generate(asked, sampling)
        decode = model.processor.tokenizer.decode
        for chat, answer, new in zip(asked, answers, written, strict=True):
            new = new[: answer.tokens]
            if model.processor.image_token_id in new:
                continue  # of which the pass would want a picture
            compared += 1
            chances = chances_of(model, family, chat, new)
            chances = chances if answer.truncated else chances[:-1]
            assert answer.likelihood.mean == pytest.approx(float(chances.mean()), abs=1e-3)
            assert answer.likelihood.worst == pytest.approx(float(chances.min()), abs=1e-3)
            assert answer.likelihood.token == decode(new[int(chances.argmin())])
        assert compared > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_it_is_told_is_as_likely_as_when_it_says_it(
    family: str, tiny: Callable[[str], Path]
) -> None:
    model: Any
    with closing(loaded(tiny(family), 12)) as model:
        tokenizer, asked = model.processor.tokenizer, chats(4)
        texts = ["a b c", "Move it to the left.", "a", ""]
        told = model.likelihoods(asked, texts)
        assert told[3] is None
        for chat, text, known in zip(asked[:3], texts, told, strict=False):
            new = tokenizer(text, add_special_tokens=False)["input_ids"]
            chances = chances_of(model, family, chat, torch.tensor(new))
            assert known.mean == pytest.approx(float(chances.mean()), abs=1e-3)
            assert known.worst == pytest.approx(float(chances.min()), abs=1e-3)


def test_a_model_that_thinks_first_does_not_tell_how_likely_a_text_is(
    tiny: Callable[[str], Path],
) -> None:
    with closing(loaded(tiny("qwen3_5"), 12, thinking_tokens=8)) as model:
        assert model.likelihoods(chats(2), ["a", "b"]) == [None, None]


def test_only_the_answer_counts() -> None:
    steps = [("<think>", -9.0), ("Add", -8.0), ("</think>", -7.0), ("\n", -6.0), ("Add", -0.5),
             (" it", -1.0), ("<|im_end|>", -5.0)]  # fmt: skip
    assert likelihood(steps, "Add it") == Likelihood(-0.75, -1.0, " it")
    assert likelihood(steps, "Remove it") is None
    assert likelihood([], "") is None


def test_a_label_holds_how_sure_the_model_was(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    options = ("--model", "shapes", "--device", "cpu", "--no-guard", "--generate-cot")
    assert run("caption", pairs, "-d", "data", *options).code == 0
    lines = [json.loads(line) for line in Path("data/labels.jsonl").read_text().splitlines()]
    kept = next(line for line in lines if line["key"] == "a")["likelihood"]
    label = label_of("data", "a")
    assert set(kept) == ({"caption"} if label.caption_cot is None else {"caption", "cot"})
    assert set(kept["caption"]) == {"mean", "worst", "token"}
    assert label.likelihood["caption"] == Likelihood(**kept["caption"])
    assert kept["caption"]["worst"] <= kept["caption"]["mean"] <= 0
