"""Tiny UMT5s of the real class, in every form that weights come in, with a tokenizer trained here.

`save_wan` also writes random weights of any size: what the benchmark measures.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS = [
    "The user wants to change the colour of the car from red to blue and keep everything else.",
    "Add a hat to the person on the left and remove the tree in the background.",
]
WAN_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
VOCABULARY = 320


def build_umt5(folder: Path, layout: str = "hf", seed: int = 0) -> Path:
    """Write a tiny encoder: "hf" in one folder, "diffusers" as a pipeline's two."""
    weights, words = folder, folder
    if layout == "diffusers":
        weights, words = folder / "text_encoder", folder / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    save_tokenizer(words)
    torch.manual_seed(seed)
    config = transformers.UMT5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    transformers.UMT5EncoderModel(config).eval().save_pretrained(weights)
    return folder


def save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def save_wan(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Wan's form: one file, the tokenizer two folders down, a config.json of the video model."""
    save_tokenizer(folder / "google" / "umt5-xxl")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 1536}))
    torch.save(weights, folder / WAN_FILE)
    return folder / WAN_FILE


def wan_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' names of an encoder's weights turned into Wan's."""
    parts = {
        "layer.0.layer_norm": "norm1",
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.0.SelfAttention": "attn",
        "layer.1.layer_norm": "norm2",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
        "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
        "encoder.final_layer_norm": "norm",
        "shared": "token_embedding",
    }
    renamed = {}
    for name, tensor in state.items():
        if name == "encoder.embed_tokens.weight":
            continue
        for old, new in parts.items():
            name = name.replace(old, new)
        renamed[re.sub(r"^encoder\.block\.", "blocks.", name)] = tensor.clone()
    return renamed
