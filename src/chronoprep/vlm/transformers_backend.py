"""The transformers backend: Qwen2.5-VL, Qwen3-VL, Qwen3-Omni's thinker, and whatever loads alike.

torchvision is not required: `AutoProcessor` asks for it only because of the video processor, so
the processor is built here without one (its tensors are bit-identical for images).
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from chronoprep.data import GREEDY, Chat, Completion, Sampling
from chronoprep.errors import BackendError
from chronoprep.vlm.thoughts import without_thoughts

# Greedy unless asked, whatever the checkpoint's generation_config says: labels must be
# reproducible.
_PLAIN: dict[str, Any] = {
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "num_beams": 1,
}


class TransformersVLM:
    """A vision-language checkpoint in a local folder.

    Args:
        folder: In Hugging Face form.
        dtype: "auto" takes the checkpoint's own.
        device: "auto" spreads the model over every GPU there is, else takes the CPU.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        BackendError: When the checkpoint can't be loaded.
    """

    def __init__(self, folder: Path, *, dtype: str, device: str, max_new_tokens: int) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.max_new_tokens = max_new_tokens
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            self.omni = config.model_type == "qwen3_omni_moe"
            self.processor = _processor(folder, config)
            self.model = _model(folder, config, dtype, device)
        except torch.cuda.OutOfMemoryError:
            raise BackendError(
                f"{folder}: the GPU's memory does not hold this model.",
                hint="Choose a smaller model, or --device auto to spread it.",
            ) from None
        except Exception as error:  # whatever a broken file or a missing device makes torch raise
            reason = str(error).strip() or type(error).__name__
            raise BackendError(
                f"{folder}: the model can't be loaded: {reason}",
                hint="`chronoprep models` lists models that work; --debug shows the traceback.",
            ) from error
        tokenizer = self.processor.tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        ends = self.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        self._ends = {end for end in (*ends, tokenizer.eos_token_id) if end is not None}

    @torch.inference_mode()
    def generate(self, chats: Sequence[Chat], sampling: Sampling = GREEDY) -> list[Completion]:
        """Answer chats in one left-padded batch."""
        if not chats:
            return []
        texts, images = [], []
        for chat in chats:
            messages, own = _messages(chat)
            texts.append(
                self.processor.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
            images.append(own)
        # The processor keeps the checkpoint's own bounds on pixels. Right padding, some real
        # tokenizers' default, would silently give wrong text: so it is said on every call.
        inputs = self.processor(
            text=texts, images=images, padding=True, padding_side="left", return_tensors="pt"
        )
        try:
            inputs = inputs.to(self.model.device)
            for name, value in inputs.items():
                if torch.is_tensor(value) and value.is_floating_point():
                    inputs[name] = value.to(self.model.dtype)
            if self.omni:
                inputs.pop("mm_token_type_ids", None)
            output = self.model.generate(
                **inputs,
                **_decoding(sampling),
                max_new_tokens=self.max_new_tokens,
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        except torch.cuda.OutOfMemoryError:
            raise BackendError(
                f"The GPU's memory does not hold a batch of {len(chats)} pairs.",
                hint="Lower --batch-size or --max-resolution; what was done so far is kept.",
            ) from None
        except RuntimeError as error:  # out of main memory, a kernel that the device lacks, …
            raise BackendError(
                f"The model failed on a batch of {len(chats)} pairs: {error}",
                hint="A smaller --batch-size or another --device or --dtype may help.",
            ) from error
        start = inputs["input_ids"].shape[1]
        return [self._completion(row[start:].tolist()) for row in output]

    def _completion(self, ids: list[int]) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        kept = ids if end is None else ids[:end]
        text = self.processor.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Completion(
            text=without_thoughts(text),
            tokens=len(kept) + (end is not None),
            truncated=end is None,
        )

    def close(self) -> None:
        """Free the model, so that the next one finds an empty GPU; a second time does nothing."""
        self.model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _decoding(sampling: Sampling) -> dict[str, Any]:
    if not sampling.temperature:
        return _PLAIN
    torch.manual_seed(sampling.seed)
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
    return _PLAIN | drawn


def _messages(chat: Chat) -> tuple[list[dict[str, Any]], list[Any]]:
    """A chat in the processor's form, and its images in order."""
    messages, images = [], []
    for turn in chat:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                content.append({"type": "image"})
                images.append(part)
        messages.append({"role": turn.role, "content": content})
    return messages, images


def _model(folder: Path, config: Any, dtype: str, device: str) -> Any:
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    half = dtype in ("bfloat16", "float16") or (dtype == "auto" and _is_half(config))
    flash = on_gpu and half and _works("flash_attn")
    options: dict[str, Any] = {
        "dtype": dtype if dtype == "auto" else getattr(torch, dtype),
        "attn_implementation": "flash_attention_2" if flash else "sdpa",
        # Straight to where it belongs: the machine's memory may be smaller than the GPU's.
        "device_map": _device_map(device),
    }
    if config.model_type == "qwen3_omni_moe":
        # The thinker alone: the talker, which speaks, would be 8 GB for nothing.
        kind: Any = transformers.Qwen3OmniMoeThinkerForConditionalGeneration
        options["config"] = config.thinker_config
    else:
        kind = transformers.AutoModelForImageTextToText
    model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    if report["missing_keys"]:
        # transformers fills what is missing with random numbers: labels would be noise.
        names = sorted(report["missing_keys"])
        raise ValueError(f"{len(names)} weights are missing, the first is {names[0]}")
    return model.eval()


def _device_map(device: str) -> str:
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "auto"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_half(config: Any) -> bool:
    parts = (config, getattr(config, "text_config", None), getattr(config, "thinker_config", None))
    return any(getattr(p, "dtype", None) in (torch.bfloat16, torch.float16) for p in parts)


_QWEN = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe")


class _ImageOnlyProcessor(transformers.Qwen3VLProcessor):
    """The Qwen families' processor less its video half, which is what asks for torchvision.

    For images all of them do the same: one placeholder an image, expanded to its merged patches.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            image_processor, tokenizer, None, chat_template=chat_template, **kwargs
        )


def _processor(folder: Path, config: Any) -> Any:
    if config.model_type in _QWEN:
        backend = "torchvision" if _works("torchvision") else "pil"  # the former is faster
        return _ImageOnlyProcessor.from_pretrained(folder, backend=backend)
    return transformers.AutoProcessor.from_pretrained(folder)


def _works(module: str) -> bool:
    """Whether an optional module is there and works: a build for another torch breaks on import."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True
