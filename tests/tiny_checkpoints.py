"""Tiny checkpoints of the real classes: random float32 weights in the real folder form.

`initializer_range` is large, so that the text depends on the images and on their order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

FAMILIES = (
    *("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe"),
    *("qwen3_5", "qwen3_5_moe"),
)
# Those that think before they answer unless their chat template is told not to.
THINKING = ("qwen3_5", "qwen3_5_moe")

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As the published ones end.
THINKING_TEMPLATE = CHAT_TEMPLATE + (
    "{% if add_generation_prompt %}{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)

CORPUS = [
    "The user wants to change the colour of the car from red to blue and keep all else.",
    "Add a hat to the person on the left; remove the tree in the background of the photo.",
    "system user assistant no change image source target edit instruction before after",
]


def build_vlm(
    folder: Path,
    family: str,
    seed: int = 0,
    head_dim: int = 16,
    corpus: Sequence[str] = CORPUS,
    vocab: int = 416,
) -> Path:
    """Write a tiny checkpoint of a family; the same seed gives the same weights.

    The tokenizer learns its words from `corpus`; where it knows few, a prompt has more tokens than
    with a published one.
    """
    ids = write_processor(folder, family, corpus, vocab)
    torch.manual_seed(seed + (family in THINKING))  # so that the images' order shows in them, too
    model = _model(family, ids, vocab, head_dim).float().eval()
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_processor(folder: Path, family: str, corpus: Sequence[str], vocab: int) -> dict[str, int]:
    """All of a checkpoint but config and weights; gives the ids of its special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder, family, corpus, vocab)
    patch = 14 if family == "qwen2_5_vl" else 16
    name = "Qwen2VLProcessor" if family == "qwen2_5_vl" else "Qwen3VLProcessor"
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Qwen2VLImageProcessorFast",
                "processor_class": name,
                "size": {
                    "shortest_edge": 4 * (2 * patch) ** 2,
                    "longest_edge": 36 * (2 * patch) ** 2,
                },
                "patch_size": patch,
                "temporal_patch_size": 2,
                "merge_size": 2,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        )
    )
    # The hub's checkpoints sample by default; a label must not.
    (folder / "generation_config.json").write_text(
        json.dumps(
            {
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 20,
                "repetition_penalty": 1.1,
                "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
                "pad_token_id": ids["<|endoftext|>"],
            }
        )
    )
    return ids


def _write_tokenizer(
    folder: Path, family: str, corpus: Sequence[str], vocab: int
) -> dict[str, int]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 36,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    # The Omni family wants each role to be one token.
    tokenizer.add_tokens([AddedToken(w, normalized=False) for w in ("system", "user", "assistant")])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    if family in THINKING:
        tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "audio_token": "<|audio_pad|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        },
    )
    fast.chat_template = THINKING_TEMPLATE if family in THINKING else CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return {t: tokenizer.token_to_id(t) for t in [*SPECIAL, "system", "user", "assistant"]}


def _model(
    family: str, ids: dict[str, int], vocab: int, head_dim: int
) -> transformers.PreTrainedModel:
    text = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "max_position_embeddings": 4096,
        "initializer_range": 0.25,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [head_dim // 8, 3 * head_dim // 16, 3 * head_dim // 16],
            "mrope_interleaved": family != "qwen2_5_vl",
        },
    }
    moe = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.25,
    }
    tokens = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
    }
    if family == "qwen2_5_vl":
        # Its heads share the hidden size out between them.
        text |= {"num_attention_heads": 64 // head_dim, "num_key_value_heads": 32 // head_dim}
        vision |= {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        return transformers.Qwen2_5_VLForConditionalGeneration(config)
    if family == "qwen3_vl":
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **tokens)
        return transformers.Qwen3VLForConditionalGeneration(config)
    if family == "qwen3_vl_moe":
        config = transformers.Qwen3VLMoeConfig(
            text_config=text | moe, vision_config=vision, **tokens
        )
        return transformers.Qwen3VLMoeForConditionalGeneration(config)
    if family in THINKING:
        del vision["deepstack_visual_indexes"], moe["norm_topk_prob"], moe["decoder_sparse_step"]
        text |= {
            # This way round, the text depends on the images.
            "layer_types": ["full_attention", "linear_attention"],
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        }
        # Half of a head turns; of the published ones' larger heads, a quarter.
        quarter = head_dim // 4
        text["rope_parameters"] |= {
            "partial_rotary_factor": 0.5,
            "mrope_section": [quarter // 2, quarter // 4, quarter // 4],
        }
        if family == "qwen3_5":
            config = transformers.Qwen3_5Config(text_config=text, vision_config=vision, **tokens)
            return transformers.Qwen3_5ForConditionalGeneration(config)
        text |= moe | {"shared_expert_intermediate_size": 48}
        del text["intermediate_size"]
        config = transformers.Qwen3_5MoeConfig(text_config=text, vision_config=vision, **tokens)
        return transformers.Qwen3_5MoeForConditionalGeneration(config)
    thinker = {
        "text_config": text | moe,
        "vision_config": vision,
        "audio_config": {
            "d_model": 32,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 16,
            "downsample_hidden_size": 8,
            "output_dim": 64,
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "audio_token_id": ids["<|audio_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "audio_start_token_id": ids["<|audio_start|>"],
        "user_token_id": ids["user"],
        "initializer_range": 0.25,
    }
    config = transformers.Qwen3OmniMoeConfig(
        thinker_config=thinker,
        enable_audio_output=False,
        im_start_token_id=ids["<|im_start|>"],
        im_end_token_id=ids["<|im_end|>"],
        system_token_id=ids["system"],
        user_token_id=ids["user"],
        assistant_token_id=ids["assistant"],
    )
    return transformers.Qwen3OmniMoeForConditionalGeneration(config)
