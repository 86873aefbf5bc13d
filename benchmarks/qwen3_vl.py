"""Qwen3-VL at its published shapes, with random weights that are drawn where they are needed.

A checkpoint of 62 GB is neither downloaded nor written to disk: the folder holds all of one but its
weights, and `drawn` stands in for the reading of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIXELS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
VOCABULARY = 1536  # entries of the tokenizer here; the embedding has the published 151,936

_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_TEXT = {
    "vocab_size": 151_936,
    "num_attention_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 262_144,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5_000_000,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
# The config.json of Qwen/Qwen3-VL-8B-Instruct and Qwen/Qwen3-VL-30B-A3B-Instruct. That no number is
# wrong shows in the parameters, which are as many as the hub counts: 8,767,123,696 and
# 31,070,754,032.
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "text": _TEXT
        | {
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
        },
        "vision": _VISION | {"out_hidden_size": 4096},
    },
    "30b-a3b": {
        "text": _TEXT
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
        },
        "vision": _VISION | {"out_hidden_size": 2048},
    },
    # Of the same make, for a machine without a GPU.
    "tiny": {
        "text": _TEXT
        | {
            "vocab_size": 2048,
            "initializer_range": 0.25,  # so that the text depends on the images
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": _TEXT["rope_parameters"] | {"mrope_section": [4, 6, 6]},
        },
        "vision": _VISION
        | {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "out_hidden_size": 64,
        },
    },
}


def config(shape: str, *, vocabulary: int | None = None, **tokens: int) -> Any:
    """The config of a shape.

    Args:
        vocabulary: Entries of the embedding, if not the published ones.
        tokens: Ids of special tokens, where they are not the published ones.
    """
    import transformers

    text, vision = SHAPES[shape]["text"], SHAPES[shape]["vision"]
    kind: Any = (
        transformers.Qwen3VLMoeConfig if "num_experts" in text else transformers.Qwen3VLConfig
    )
    if vocabulary is not None:
        text = text | {"vocab_size": vocabulary}
    return kind(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens)


def corpus() -> list[str]:
    """What the tokenizer learns its words from: the prompts."""
    from importlib.resources import files

    templates = files("chronoprep.labels.prompts") / "templates"
    texts = [path for folder in (templates, templates / "shared") for path in folder.iterdir()]
    return [path.read_text(encoding="utf-8") for path in texts if path.is_file()]


def write_folder(folder: Path, shape: str, *, small_vocabulary: bool = False) -> Path:
    """A checkpoint without its weights. A prompt has about as many tokens as with the published
    tokenizer, which is many times larger than this one.

    Args:
        small_vocabulary: The embedding has the tokenizer's entries and no more: for an engine whose
            random weights would speak of others.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    from tiny_checkpoints import write_processor

    ids = write_processor(folder, "qwen3_vl", corpus(), VOCABULARY)
    names = ("image", "video")
    tokens = {f"{name}_token_id": ids[f"<|{name}_pad|>"] for name in names}
    tokens |= {f"vision_{edge}_token_id": ids[f"<|vision_{edge}|>"] for edge in ("start", "end")}
    words = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    made = config(shape, vocabulary=words if small_vocabulary else None, **tokens)
    made.architectures = [type(made).__name__.replace("Config", "ForConditionalGeneration")]
    made.dtype = torch.bfloat16
    made.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": PIXELS}))
    # For those who look whether there are weights.
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def drawn(seed: int = 0) -> Callable[..., Any]:
    """A stand-in for `AutoModelForImageTextToText.from_pretrained`.

    The model speaks words of its folder's tokenizer and never ends an answer, so that each has as
    many tokens as it may.
    """
    import torch
    import transformers

    def from_pretrained(
        folder: Any, *, dtype: Any, device_map: str, output_loading_info: bool = False, **more: Any
    ) -> Any:
        wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        device = "cuda" if device_map == "auto" else device_map
        settings = transformers.AutoConfig.from_pretrained(folder)
        torch.manual_seed(seed)
        with torch.device(device):
            model = transformers.AutoModelForImageTextToText.from_config(
                settings, dtype=wanted, **more
            )
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        with torch.inference_mode():
            model.lm_head.weight[len(tokenizer) :] = 0
            model.lm_head.weight[tokenizer.all_special_ids] = 0
        model.eval()
        return (model, {"missing_keys": []}) if output_loading_info else model

    return from_pretrained
