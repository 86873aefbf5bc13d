"""The transformers backend on tiny checkpoints of the real classes, against plain loops."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from chronoprep import vlm
from chronoprep.config import LabelSettings, VLMSettings
from chronoprep.data import Chat
from chronoprep.errors import BackendError, ConfigError
from chronoprep.prompts import load_prompts
from conftest import photo
from tiny_checkpoints import FAMILIES

TOKENS = 24


def loaded(folder: Path) -> vlm.VLM:
    settings = VLMSettings(model=str(folder), max_new_tokens=TOKENS, device="cpu")
    return vlm.load(settings, vlm.find(settings))


def chats(count: int) -> list[Chat]:
    """Pairs of photos of various sizes, whose prompts differ in length."""
    template = load_prompts(LabelSettings()).cot
    sizes = [(96, 72), (64, 128), (200, 90)]
    return [
        template.fill(photo(2 * i, sizes[i % 3]), photo(2 * i + 1, sizes[i % 3]), "word " * i)
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
                    images.append(part)
                    prompt += "<|vision_start|><|image_pad|><|vision_end|>"
            prompt += "<|im_end|>\n"
        prompt += "<|im_start|>assistant\n"
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
        texts.append(text.strip())
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


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_source_and_target_changes_the_text(
    family: str, tiny: Callable[[str], Path]
) -> None:
    template = load_prompts(LabelSettings()).caption
    source, target = photo(1), photo(2)
    model = loaded(tiny(family))
    one, other = model.generate([template.fill(source, target), template.fill(target, source)])
    assert one.text != other.text


def test_an_answer_knows_whether_the_limit_cut_it(tiny: Callable[[str], Path]) -> None:
    completions = loaded(tiny("qwen3_vl")).generate(chats(8))
    assert all(c.tokens == TOKENS for c in completions if c.truncated)
    assert all(c.tokens <= TOKENS for c in completions)


def test_the_omni_family_loads_its_thinker_alone(tiny: Callable[[str], Path]) -> None:
    model = loaded(tiny("qwen3_omni_moe"))
    assert type(model.model).__name__ == "Qwen3OmniMoeThinkerForConditionalGeneration"


def test_no_torchvision_is_imported(tiny: Callable[[str], Path]) -> None:
    loaded(tiny("qwen2_5_vl"))
    assert "torchvision" not in sys.modules


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def find(folder: Path | str) -> vlm.registry.Checkpoint:
    return vlm.find(VLMSettings(model=str(folder)))


def test_a_folder_is_known_by_its_content(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    one = find(tiny("qwen3_vl"))
    two = find(copied(tiny("qwen3_vl"), tmp_path / "elsewhere"))
    assert one.revision == two.revision
    weights = tmp_path / "elsewhere" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find(tmp_path / "elsewhere").revision != one.revision


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_missing_file_is_named(name: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(tiny("qwen3_vl"), tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ConfigError) as caught:
        find(folder)
    assert name in caught.value.message


def test_weights_cut_short_are_named(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    weights = copied(tiny("qwen3_vl"), tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cut short"):
        find(weights.parent)


def test_a_missing_shard_is_named(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(tiny("qwen3_vl"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="model-00001-of-00002"):
        find(folder)


def test_missing_weights_are_not_made_up(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(tiny("qwen3_vl"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: t for name, t in tensors.items() if "layers.1.mlp" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match="missing"):
        loaded(folder)


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="no vision"):
        find(tmp_path)


@pytest.mark.parametrize("model", ["qwen3-vl-30b", "Qwen/Qwen2.5-VL-7B-Instruct"])
def test_offline_is_said_at_once(model: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        find(model)
    assert time.monotonic() - began < 5
    assert "--prompt" in str(caught.value.hint)


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import huggingface_hub.constants as constants

    listener = socket.create_server(("127.0.0.1", 0))  # takes connections, never answers
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    with listener, pytest.raises(ConfigError, match="can't be reached"):
        find("Qwen/Qwen3-VL-4B-Instruct")


def test_a_model_that_does_not_fit_says_what_would(tiny: Callable[[str], Path]) -> None:
    from dataclasses import replace

    found = replace(find(tiny("qwen3_vl")), bytes=10**15)
    with pytest.raises(ConfigError, match="needs about") as caught:
        vlm.check_fits(VLMSettings(model="qwen3-vl-30b"), found)
    assert "smaller model" in str(caught.value.hint)
