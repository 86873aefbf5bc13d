"""The transformers backend on tiny checkpoints of the real classes, against plain loops."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from chronoprep import vlm
from chronoprep.config import LabelSettings, VLMSettings
from chronoprep.data import Chat, Picture, Sampling
from chronoprep.errors import BackendError
from chronoprep.labels.captioning import View, label
from chronoprep.labels.guard import clean
from chronoprep.labels.prompts import load_prompts, parse
from chronoprep.vlm import fitting
from chronoprep.vlm.thoughts import begins_thought, without_thoughts
from conftest import Result, label_of, photo, write_pairs
from tiny_checkpoints import FAMILIES, THINKING

TOKENS = 24


def loaded(folder: Path, tokens: int = TOKENS, **more: object) -> vlm.VLM:
    settings = VLMSettings(model=str(folder), max_new_tokens=tokens, device="cpu", **more)
    return vlm.resolve(settings).load()


def picture(number: int, *size: tuple[int, int]) -> Picture:
    return Picture(photo(number, *size))


def chats(count: int) -> list[Chat]:
    """Pairs of photos of various sizes, whose prompts differ in length."""
    template = load_prompts(LabelSettings()).cot
    sizes = [(96, 72), (64, 128), (200, 90)]
    return [
        template.fill(picture(2 * i, sizes[i % 3]), picture(2 * i + 1, sizes[i % 3]), "word " * i)
        for i in range(count)
    ]


def plain_loop(folder: Path, chats: list[Chat]) -> list[str]:
    """One pair at a time, on transformers' own classes only."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if config.model_type == "qwen3_omni_moe":
        model = transformers.Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(
            folder, config=config.thinker_config
        )
    else:
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)
    texts = []
    for chat in chats:
        images, prompt = [], ""
        for turn in chat:
            prompt += f"<|im_start|>{turn.role}\n"
            for part in turn.parts:
                if isinstance(part, str):
                    prompt += part
                else:
                    images.append(part.pixels)
                    prompt += "<|vision_start|><|image_pad|><|vision_end|>"
            prompt += "<|im_end|>\n"
        prompt += "<|im_start|>assistant\n"
        if config.model_type in THINKING:
            prompt += "<think>\n\n</think>\n\n"
        values = pixels(images=images, return_tensors="pt")
        pieces = prompt.split("<|image_pad|>")
        expanded = pieces[0]
        for grid, piece in zip(values["image_grid_thw"], pieces[1:], strict=True):
            expanded += "<|image_pad|>" * (int(grid.prod()) // 4) + piece
        ids = tokenizer(expanded, return_tensors="pt", add_special_tokens=False)["input_ids"]
        extra = {}
        if config.model_type != "qwen3_omni_moe":
            extra["mm_token_type_ids"] = (
                ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")
            ).long()
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **values,
                **extra,
                max_new_tokens=TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
            )
        text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        texts.append(without_thoughts(text))  # random weights may write </think>, too
    return texts


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_are_token_exact_with_a_plain_single_pair_loop(
    family: str, tiny: Callable[[str], Path]
) -> None:
    pairs = chats(16)
    expected = plain_loop(tiny(family), pairs)
    model = loaded(tiny(family))
    whole = [c.text for c in model.generate(pairs)]
    parts = [c.text for i in range(0, 16, 5) for c in model.generate(pairs[i : i + 5])]
    assert len(set(expected)) > 8, "the text must depend on the images"
    assert whole == expected
    assert parts == expected


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=pytest.mark.slow) if f == "qwen3_5_moe" else f for f in FAMILIES],
)
def test_the_command_is_token_exact_in_both_stages(
    family: str, tiny: Callable[[str], Path], tmp_path: Path, run: Callable[..., Result]
) -> None:
    names = [f"p{i:02}" for i in range(16)]
    pairs = write_pairs(tmp_path / "pairs", names)
    result = run(
        "caption", pairs, "-d", "data", "--generate-cot", "--model", tiny(family), "--no-guard",
        "--max-new-tokens", TOKENS, "--batch-size", 5, "--device", "cpu",
    )  # fmt: skip
    assert result.code == 0, result.stderr + result.stdout
    labels = [label_of("data", name) for name in names]
    prompts = load_prompts(LabelSettings())
    images = [(picture(2 * i), picture(2 * i + 1)) for i in range(16)]
    captions = plain_loop(tiny(family), [prompts.caption.fill(*pair) for pair in images])
    assert [label.caption for label in labels] == [clean(text) for text in captions]
    asked = zip(images, labels, strict=True)
    cots = plain_loop(
        tiny(family), [prompts.cot.fill(*p, label.caption or "") for p, label in asked]
    )
    assert [label.caption_cot for label in labels] == [clean(text) for text in cots]


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_source_and_target_changes_the_text(
    family: str, tiny: Callable[[str], Path]
) -> None:
    template = load_prompts(LabelSettings()).caption
    source, target = picture(1), picture(2)
    model = loaded(tiny(family))
    one, other = model.generate([template.fill(source, target), template.fill(target, source)])
    assert one.text != other.text


def watch_vision(model: vlm.VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images in each pass of the vision encoder."""
    passes: list[int] = []
    encode = model.model.get_image_features

    def counted(pixels: torch.Tensor, grids: torch.Tensor, **kwargs: object) -> object:
        passes.append(len(grids))
        return encode(pixels, grids, **kwargs)

    monkeypatch.setattr(model.model, "get_image_features", counted)
    return passes


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_encoded_once_for_both_stages_and_all_draws(
    family: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny(family), tokens=4)
    passes = watch_vision(model, monkeypatch)
    views = [View(picture(2 * i), picture(2 * i + 1)) for i in range(3)]
    prompts = load_prompts(LabelSettings())
    answers = label(model, prompts, views, with_cot=True, retries=2)  # random weights: all refused
    assert all(answer.retried["caption"]["seed"] == 2 for answer in answers)
    label(model, prompts, views, with_cot=True, guard=False)
    assert sum(passes) == 6
    del views, answers
    gc.collect()
    assert not model._vision._seen, "what was made of an image goes with it"


@pytest.mark.skipif(not fitting._PIECES, reason="transformers leaves a prompt whole")
@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_are_read_in_pieces_to_the_same_end(
    family: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = load_prompts(LabelSettings())
    sizes = [(96, 72), (64, 128), (200, 90), (96, 72)]
    pairs = [(picture(2 * i, size), picture(2 * i + 1, size)) for i, size in enumerate(sizes)]
    stages = [
        [text.caption.fill(*pair) for pair in pairs],
        [text.cot.fill(*pair, "word " * i) for i, pair in enumerate(pairs)],
    ]
    whole = [loaded(tiny(family)).generate(stage) for stage in stages]

    monkeypatch.setattr(fitting, "PIECE", 4 * 37)
    model = loaded(tiny(family))
    read: list[int] = []
    model.model.model.get_input_embeddings().register_forward_hook(
        lambda _, _args, out: read.append(out.shape[1])
    )
    for stage, expected in zip(stages, whole, strict=True):
        answers = model.generate(stage)
        assert [one.text for one in answers] == [one.text for one in expected]
        for answer, one in zip(answers, expected, strict=True):
            assert answer.likelihood
            assert one.likelihood
            assert answer.likelihood.mean == pytest.approx(one.likelihood.mean, abs=1e-3)
    assert max(read) == 37
    assert read.count(37) > 4


# Not those with linear attention: its state is that of the last token and of no earlier one.
@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*THINKING}))
def test_stage_2_computes_no_more_than_its_own_text(
    family: str, tiny: Callable[[str], Path]
) -> None:
    model = loaded(tiny(family), tokens=6)
    text = load_prompts(LabelSettings())
    pairs = [(picture(2 * i), picture(2 * i + 1)) for i in range(4)]
    stage_1 = [text.caption.fill(*pair) for pair in pairs]
    # Another order and one less: "no change" left the batch.
    stage_2 = [text.cot.fill(*pairs[i], "word " * i) for i in (3, 0, 2)]
    fresh = loaded(tiny(family), tokens=6).generate(stage_2)

    read: list[int] = []
    model.model.model.get_input_embeddings().register_forward_hook(
        lambda _, _args, out: read.append(out.shape[1])
    )
    first = model.generate(stage_1)
    assert model.generate(stage_2) == fresh
    assert model.generate(stage_1) == first
    long = [length for length in read if length > 1]
    assert len(long) == 3
    images = sum(model._vision.tokens(image) for image in pairs[0])
    assert long[0] - long[2] > images, "neither the system text nor the images were read again"
    # Other images of the same sizes: nothing of the old ones may be used.
    model.generate([text.caption.fill(picture(90), picture(91))])
    assert [length for length in read if length > 1][3] == long[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pixels_are_those_of_the_library(family: str, tiny: Callable[[str], Path]) -> None:
    model = loaded(tiny(family))
    pictures = [picture(1, (200, 90)), picture(2, (500, 600)), picture(3, (30, 40))]
    expected = transformers.AutoImageProcessor.from_pretrained(tiny(family), backend="pil")(
        images=[picture.pixels for picture in pictures], return_tensors="pt"
    )
    vision = model._vision
    seen = [vision.prepare(picture) for picture in pictures]
    assert torch.equal(vision._pixels(seen), expected["pixel_values"])
    assert torch.equal(vision._grids(seen), expected["image_grid_thw"])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_memory_does_not_hold_is_halved_for_good(
    error: type[Exception], tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny("qwen3_vl"), tokens=4)
    pairs = chats(8)
    expected = model.generate(pairs)
    sizes: list[int] = []
    generate = model.model.generate

    def short_of_memory(**inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > limit:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return generate(**inputs)

    monkeypatch.setattr(model.model, "generate", short_of_memory)
    limit = 3
    assert model.generate(pairs) == expected
    assert model.generate(pairs) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert model.batch_size == 2
    limit = 0
    with pytest.raises(BackendError, match="single pair"):
        model.generate(pairs)


def test_a_run_hands_over_no_more_than_memory_held(
    tiny: Callable[[str], Path], tmp_path: Path, run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    load, handed = vlm.Model.load, []

    def load_into_little_memory(found: vlm.Model) -> vlm.VLM:
        model = load(found)
        generate, answer = model.model.generate, model.generate

        def short_of_memory(**inputs: torch.Tensor) -> torch.Tensor:
            if len(inputs["input_ids"]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return generate(**inputs)

        def counted(chats: list[Chat], *sampling: Sampling) -> object:
            handed.append(len(chats))
            return answer(chats, *sampling)

        model.model.generate, model.generate = short_of_memory, counted
        return model

    monkeypatch.setattr(vlm.Model, "load", load_into_little_memory)
    result = run(
        "caption", write_pairs(tmp_path / "pairs", list("abcdefgh")), "-d", "data", "--no-guard",
        "--generate-cot", "--model", tiny("qwen3_vl"), "--max-new-tokens", 4, "--batch-size", 4,
        "--device", "cpu",
    )  # fmt: skip
    assert result.code == 0, result.stderr + result.stdout
    assert handed == [4, 4, 2, 2, 2, 2], "so that stage 2 finds what its stage 1 kept"


def test_a_draw_does_not_depend_on_its_batch(tiny: Callable[[str], Path]) -> None:
    model = loaded(tiny("qwen3_vl"), tokens=8)
    pairs = chats(4)
    drawn = model.generate(pairs, Sampling(0.8, 0.9, seed=1))
    assert [model.generate([pair], Sampling(0.8, 0.9, seed=1))[0] for pair in pairs] == drawn
    assert model.generate(pairs, Sampling(0.8, 0.9, seed=2)) != drawn
    assert model.generate(pairs) != drawn


def test_a_prompt_that_speaks_the_image_token_is_refused(tiny: Callable[[str], Path]) -> None:
    template = parse("[[user]]\n{source}{target} Say <|image_pad|>.", "x", "caption")
    with pytest.raises(ValueError, match="image_pad"):
        loaded(tiny("qwen3_vl")).generate([template.fill(picture(0), picture(1))])


def test_an_answer_knows_whether_the_limit_cut_it(tiny: Callable[[str], Path]) -> None:
    completions = loaded(tiny("qwen3_vl")).generate(chats(8))
    assert all(c.tokens == TOKENS for c in completions if c.truncated)
    assert all(c.tokens <= TOKENS for c in completions)


def test_the_omni_family_loads_its_thinker_alone(tiny: Callable[[str], Path]) -> None:
    model = loaded(tiny("qwen3_omni_moe"))
    assert type(model.model).__name__ == "Qwen3OmniMoeThinkerForConditionalGeneration"


def test_repeated_answers_are_the_same_though_the_checkpoint_samples(
    tiny: Callable[[str], Path],
) -> None:
    assert json.loads((tiny("qwen3_vl") / "generation_config.json").read_text())["do_sample"]
    model = loaded(tiny("qwen3_vl"))
    assert model.generate(chats(6)) == model.generate(chats(6))


@pytest.mark.parametrize("family", FAMILIES)
def test_torchvision_is_not_needed(
    family: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it raises
    assert len(loaded(tiny(family)).generate(chats(1))) == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("plain", "plain"),
        ("<think>hm</think>\n\nMake it red.", "Make it red."),
        ("begun in the prompt</think>Make it red.", "Make it red."),
        ("Make it <think>a</think>very <think>b</think>red.", "Make it very red."),
        ("<think>cut by the lim", ""),
        ("<thinking>A hat.</thinking>Add a hat.", "Add a hat."),
        ("◁think▷Compare them.◁/think▷Add a hat.", "Add a hat."),
        ("[THINK]a hat[/THINK]Add a hat.", "Add a hat."),
        ("begun in the prompt◁/think▷Add a hat.", "Add a hat."),
        ("[THINK]cut by the lim", ""),
        ("<think>is <thinking> a tag?</think>Add a hat.", "Add a hat."),
    ],
)
def test_thinking_is_no_part_of_the_answer(answer: str, text: str) -> None:
    assert without_thoughts(answer) == text


@pytest.mark.parametrize("family", THINKING)
def test_a_thought_has_tokens_of_its_own(family: str, tiny: Callable[[str], Path]) -> None:
    quiet, thinking = (
        loaded(tiny(family), tokens=6),
        loaded(tiny(family), tokens=6, thinking_tokens=9),
    )
    tokenizer, pairs = thinking.processor.tokenizer, chats(5)
    written: list[list[int]] = []

    def write(model: vlm.VLM) -> Callable[..., object]:
        generate = model.model.generate

        def spied(**inputs: torch.Tensor) -> object:
            output = generate(**inputs)
            written.extend(output.sequences[:, inputs["input_ids"].shape[1] :].tolist())
            asked.extend(tokenizer.batch_decode(inputs["input_ids"][:, -40:]))
            return output

        return spied

    asked: list[str] = []
    for model in (quiet, thinking):
        model.model.generate = write(model)
    plain = quiet.generate(pairs)
    assert all(prompt.endswith("<think>\n\n</think>\n\n") for prompt in asked)
    assert all(len(ids) <= 6 for ids in written)
    assert all(answer.truncated == (answer.tokens == 6) for answer in plain)

    asked.clear(), written.clear()
    answers = thinking.generate(pairs)
    assert all(prompt.endswith("assistant\n<think>\n") for prompt in asked)
    end = tokenizer.get_vocab()["</think>"]
    for answer, ids in zip(answers, written, strict=True):
        if end not in ids:  # the model ended all, within its thought
            assert (answer.text, answer.truncated) == ("", False)
            continue
        start = ids.index(end) + 1
        assert start <= 10, "nine tokens and the one that ends them"
        said = [i for i in ids[start : start + 6] if i not in thinking._ends]
        assert answer.text == tokenizer.decode(said, skip_special_tokens=True).strip()
        assert answer.tokens <= start + 6
    assert sum(end in ids for ids in written) > 2
    assert [thinking.generate([pair])[0] for pair in pairs] == answers, "in any batch"


def test_a_thought_that_stays_open_is_no_answer() -> None:
    assert without_thoughts("Hm, a hat", begun=True) == ""
    assert without_thoughts("Hm.</think>\n\nAdd a hat.", begun=True) == "Add a hat."
    assert begins_thought("assistant\n<think>\n")
    assert not begins_thought("assistant\n<think>\n\n</think>\n\n")


def test_a_closed_model_is_gone(tiny: Callable[[str], Path]) -> None:
    model = loaded(tiny("qwen3_vl"))
    gone = weakref.ref(model.model)
    model.close()
    model.close()
    assert gone() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_plain_error(tiny: Callable[[str], Path]) -> None:
    settings = VLMSettings(model=str(tiny("qwen3_vl")), device="cuda")
    with pytest.raises(BackendError, match="can't be loaded"):
        vlm.resolve(settings).load()


def test_missing_weights_are_not_made_up(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("qwen3_vl"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: t for name, t in tensors.items() if "layers.1.mlp" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match="missing"):
        loaded(folder)


def test_a_model_that_was_found_can_be_sent_to_another_process(tiny: Callable[[str], Path]) -> None:
    found = vlm.resolve(VLMSettings(model=str(tiny("qwen3_vl")), dtype="bfloat16"))
    there = pickle.loads(pickle.dumps(found))
    assert there == found
    assert (there.name, there.backend, there.in_flight) == ("qwen3_vl", "transformers", 1)
    assert (there.preset, there.text_settings) == ("default", {"dtype": "bfloat16"})
    thinking = vlm.resolve(VLMSettings(model=str(tiny("qwen3_vl")), thinking_tokens=9))
    assert thinking.text_settings == {"dtype": "auto", "thinking_tokens": 9}


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, chronoprep.vlm, chronoprep.checkpoint; "
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
