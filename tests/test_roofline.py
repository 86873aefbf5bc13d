"""What the captioning benchmark counts, against what torch counts, and its models at any shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import qwen3_vl
from roofline import Cost, peaks

from chronoprep import vlm
from chronoprep.config import LabelSettings, VLMSettings
from chronoprep.data import Picture
from chronoprep.labels.prompts import load_prompts
from conftest import photo

HUB = {"8b": 8_767_123_696, "30b-a3b": 31_070_754_032}


@pytest.mark.parametrize(("shape", "parameters"), HUB.items())
def test_the_published_shapes_have_as_many_parameters_as_the_hub_says(
    shape: str, parameters: int
) -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(qwen3_vl.config(shape))
    assert sum(p.numel() for p in model.parameters()) == parameters
    # A step of very many rows reads every weight of the decoder and its head, once.
    cost = Cost(qwen3_vl.config(shape), itemsize=1)
    text = [p.numel() for p in model.model.language_model.layers.parameters() if p.ndim > 1]
    assert cost.step_bytes(100_000, 0) == pytest.approx(sum(text) + model.lm_head.weight.numel())


EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 80}


def flops(forward: object) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward()  # type: ignore[operator]
    return counter.get_total_flops()


@pytest.mark.parametrize("experts", [{}, EXPERTS])
def test_operations_are_as_many_as_torch_counts(
    experts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = qwen3_vl.SHAPES["tiny"]
    monkeypatch.setitem(qwen3_vl.SHAPES, "tiny", tiny | {"text": tiny["text"] | experts})
    model = transformers.AutoModelForImageTextToText.from_config(
        qwen3_vl.config("tiny"), attn_implementation="eager", experts_implementation="eager"
    ).eval()
    cost = Cost(model.config)
    grid = torch.tensor([[1, 8, 12], [1, 6, 4]])
    pixels = torch.randn(96 + 24, 3 * 2 * 16 * 16)
    seen = flops(lambda: model.get_image_features(pixels, grid))
    assert cost.vision_flops([96, 24]) == pytest.approx(seen, rel=0.01)

    ids, cache = torch.randint(0, 2000, (3, 40)), transformers.DynamicCache(config=model.config)
    seen = flops(lambda: model(input_ids=ids, past_key_values=cache, logits_to_keep=1))
    text = model.config.text_config
    # Eager attention computes the whole square.
    masked = text.num_hidden_layers * 4 * text.num_attention_heads * text.head_dim * (
        40 * 40 - 40 * 41 / 2
    )  # fmt: skip
    assert cost.text_flops(3, 40, 0) + 3 * masked == pytest.approx(seen, rel=0.01)
    seen = flops(lambda: model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1))
    assert cost.text_flops(3, 1, 40) == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
    ],
)
def test_cards_are_known_by_their_names(card: str, tflops: int) -> None:
    found = peaks(card)
    assert found is not None
    assert found[0] == tflops * 1e12


def test_an_unknown_card_has_no_peaks() -> None:
    assert peaks("NVIDIA GeForce GTX 970") is None


def test_a_model_is_drawn_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = qwen3_vl.write_folder(tmp_path / "model", "tiny")
    monkeypatch.setattr(
        transformers.AutoModelForImageTextToText, "from_pretrained", qwen3_vl.drawn()
    )
    settings = VLMSettings(model=str(folder), device="cpu", dtype="bfloat16", max_new_tokens=12)
    model = vlm.resolve(settings).load()
    assert model.model.dtype == torch.bfloat16
    template = load_prompts(LabelSettings()).caption
    answers = model.generate(
        [template.fill(Picture(photo(2 * i)), Picture(photo(2 * i + 1))) for i in range(2)]
    )
    assert all(answer.truncated and answer.text for answer in answers), "no answer ends by itself"
    assert answers[0].text != answers[1].text


@pytest.mark.slow
def test_the_benchmark_runs_with_weights_that_are_drawn(tmp_path: Path) -> None:
    script = Path(qwen3_vl.__file__).parent / "caption.py"
    command = [sys.executable, script, "--pairs", "2", "--size", "96", "--tokens", "6"]
    options = ["--shape", "tiny", "--device", "cpu", "--peak-tflops", "1", "--peak-gbps", "50"]
    picture = tmp_path / "bars.svg"
    done = subprocess.run(
        [*command, *options, "--picture", picture], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    _, plain, ours, *_ = done.stdout.splitlines()
    assert plain.startswith("plain loop")
    assert ours.startswith("chronoprep")
    assert ours.split()[-1] == "2/2", "the text is that of the plain loop"
    assert done.stdout.count("%") == 2 * 4, "shares of both rows"
    assert "pairs/s" in picture.read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_published_shape_asks_for_a_gpu() -> None:
    script = Path(qwen3_vl.__file__).parent / "caption.py"
    done = subprocess.run([sys.executable, script, "--shape", "8b"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs a GPU" in done.stderr
