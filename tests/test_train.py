"""A step of training from an export: DiffSynth's own dataset, pipeline, loss and loop over tiny
random weights of its own classes. Needs `make test-train`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import trainers
from chronoprep.export import file_name
from chronoprep.workflows import write_synthetic
from conftest import Result
from test_export import assert_same, export, wanted
from test_export import dataset as hostile  # noqa: F401 - a fixture
from tiny_checkpoints import build_vlm

if TYPE_CHECKING or find_spec("diffsynth"):
    from diffsynth.core import UnifiedDataset

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("default")]
Run = Callable[..., Result]

_WIDTH = 3584  # of the text encoder's states, as the transformer takes them


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """Qwen-Image-Edit of one block: what is wide in it can't be narrowed, what is deep can."""
    import transformers
    from diffsynth.diffusion.loss import FlowMatchSFTLoss
    from diffsynth.diffusion.training_module import DiffusionTrainingModule
    from diffsynth.models.qwen_image_dit import QwenImageDiT
    from diffsynth.models.qwen_image_text_encoder import QwenImageTextEncoder
    from diffsynth.models.qwen_image_vae import QwenImageVAE
    from diffsynth.pipelines.qwen_image import QwenImagePipeline

    checkpoint = build_vlm(tmp_path / "qwen2_5_vl", "qwen2_5_vl")
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    text = config.text_config
    heads = _WIDTH // (text.hidden_size // text.num_attention_heads)
    text.hidden_size = config.vision_config.out_hidden_size = _WIDTH
    text.num_attention_heads, text.num_key_value_heads = heads, heads
    encoder = QwenImageTextEncoder.__new__(QwenImageTextEncoder)
    torch.nn.Module.__init__(encoder)
    torch.manual_seed(0)
    pipe = QwenImagePipeline(device="cpu", torch_dtype=torch.float32)
    encoder.model, encoder.config = transformers.Qwen2_5_VLModel(config), config
    encoder.lm_head = torch.nn.Linear(_WIDTH, 8)
    pipe.text_encoder = encoder.eval()
    pipe.processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    pipe.dit, pipe.vae = QwenImageDiT(num_layers=1), QwenImageVAE(base_dim=8).eval()
    for parameter in pipe.dit.parameters():
        torch.nn.init.normal_(parameter, std=0.01)

    class Editor(DiffusionTrainingModule):  # type: ignore[misc]
        """As the trainer's example does it: its pipeline's units, then its loss."""

        def __init__(self) -> None:
            super().__init__()
            self.pipe, self.losses = pipe, list[float]()
            self.switch_pipe_to_training_mode(
                pipe, lora_base_model="dit", lora_target_modules="to_q,to_k,to_v", lora_rank=4
            )

        def forward(self, data: dict[str, Any], inputs: Any = None) -> torch.Tensor:  # noqa: ARG002
            image = data["image"]
            shared = {
                "input_image": image, "height": image.height, "width": image.width, "cfg_scale": 1,
                "rand_device": "cpu", "use_gradient_checkpointing": False,
                "use_gradient_checkpointing_offload": False, "edit_image_auto_resize": False,
            }  # fmt: skip
            shared = self.parse_extra_inputs(data, ["edit_image"], shared)
            state = (shared, {"prompt": data["prompt"]}, {"negative_prompt": ""})
            for unit in self.pipe.units:
                state = self.pipe.unit_runner(unit, self.pipe, *state)
            loss = FlowMatchSFTLoss(self.pipe, **state[0], **state[1])
            self.losses.append(loss.item())
            return loss

    return Editor()


def test_diffsynth_takes_a_step(run: Run, tmp_path: Path, model: Any) -> None:
    from accelerate import Accelerator
    from diffsynth.diffusion.logger import ModelLogger
    from diffsynth.diffusion.runner import launch_training_task

    write_synthetic(tmp_path / "pairs", 3, seed=2, size=64)
    made = run("prepare", tmp_path / "pairs/truth.jsonl", "-d", "data", "-q")
    assert made.code == 0, made.stderr
    made = run("export", "data", "--to", "diffsynth", "--output", "edits", "--text", "cot", "-q")
    assert made.code == 0, made.stderr
    (table,) = Path("edits").rglob("metadata.jsonl")
    operator = UnifiedDataset.default_image_operator(str(table.parent), max_pixels=1 << 20)
    dataset = UnifiedDataset(
        base_path=str(table.parent), metadata_path=str(table), repeat=1,
        data_file_keys=("image", "edit_image"), main_data_operator=operator,
    )  # fmt: skip
    assert len(dataset) >= 2
    before = [copy.deepcopy(parameter.data) for parameter in model.trainable_modules()]
    launch_training_task(
        Accelerator(cpu=True), dataset, model, ModelLogger("trained"), num_workers=0,
        learning_rate=1e-3,
    )  # fmt: skip
    assert len(model.losses) == len(dataset)
    assert all(map(math.isfinite, model.losses))
    after = list(model.trainable_modules())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert list(Path("trained").glob("*.safetensors"))


def test_diffsynth_reads_what_is_hostile(hostile: Path, tmp_path: Path) -> None:  # noqa: F811
    """The same 50 pairs as the readers of other trainers get, two sizes, odd names and texts."""
    export(hostile, "diffsynth", tmp_path / "edits")
    (table,) = (tmp_path / "edits").rglob("metadata.jsonl")
    folder = str(table.parent)
    rows = UnifiedDataset(
        base_path=folder, metadata_path=str(table), data_file_keys=("image", "edit_image"),
        main_data_operator=UnifiedDataset.default_image_operator(
            folder, max_pixels=1 << 20, height_division_factor=1, width_division_factor=1
        ),
    )  # fmt: skip
    names = [json.loads(line)["image"] for line in table.read_text("utf-8").splitlines()]
    found = {
        trainers.stem(name): (
            np.asarray(row["edit_image"]),
            np.asarray(row["image"]),
            row["prompt"],
        )
        for name, row in zip(names, (rows[number] for number in range(len(rows))), strict=True)
    }
    assert_same(found, {file_name(key): pair for key, pair in wanted(hostile).items()})
