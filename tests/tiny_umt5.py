"""A tiny UMT5 of the real class, with a tokenizer trained here."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS = [
    "The user wants to change the colour of the car from red to blue and keep everything else.",
    "Add a hat to the person on the left and remove the tree in the background.",
]


def build_umt5(folder: Path, layout: str = "hf", seed: int = 0) -> Path:
    """Write a tiny encoder: "hf" in one folder, "diffusers" as a pipeline's two."""
    weights, words = folder, folder
    if layout == "diffusers":
        weights, words = folder / "text_encoder", folder / "tokenizer"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    words.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(words / "tokenizer.json"))

    torch.manual_seed(seed)
    config = transformers.UMT5Config(
        vocab_size=320,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    transformers.UMT5EncoderModel(config).eval().save_pretrained(weights)
    return folder
