"""The transformers backend: Qwen2.5-VL, Qwen3-VL, Qwen3-Omni's thinker, Qwen3.5 and whatever loads
alike.

torchvision is not required: `AutoProcessor` asks for it only because of the video processor, so
the processor is built here without one (its tensors are bit-identical for images).
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from chronoprep.config import VLMSettings
from chronoprep.data import GREEDY, Chat, Completion, Likelihood, Picture, Sampling
from chronoprep.errors import BackendError
from chronoprep.vlm.fitting import Batches, piece
from chronoprep.vlm.likelihood import summed
from chronoprep.vlm.picking import Budget, Draw, Pick, Told
from chronoprep.vlm.prefix import Prefix, Prompt, new_cache
from chronoprep.vlm.thoughts import ENDS, begins_thought, without_thoughts
from chronoprep.vlm.vision import Vision

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


T = TypeVar("T")
U = TypeVar("U")


class TransformersVLM:
    """A vision-language checkpoint in a local folder.

    Args:
        settings: Device "auto" spreads it over every GPU there is, else takes the CPU; without a
            batch size, a batch is what the device's memory may hold.
        folder: Its files, in Hugging Face form.
        dtype: Of its weights, by torch's name; "auto" for the one that they were saved in.

    Raises:
        BackendError: When the checkpoint can't be loaded.
    """

    def __init__(self, settings: VLMSettings, folder: Path, dtype: str) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.max_new_tokens = settings.max_new_tokens
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            self.omni = config.model_type == "qwen3_omni_moe"
            self.processor = _processor(folder, config)
            self.model = _model(folder, config, dtype, settings.device)
            fast = config.model_type in _QWEN
            self._vision = Vision(self.model, self.processor.image_processor) if fast else None
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
        self._prefix: Prefix | None = None
        tokenizer = self.processor.tokenizer
        # What a template makes of silence differs between the sizes of one family.
        self._thinking = settings.thinking_tokens or 0
        switch = "enable_thinking" in str(self.processor.chat_template)
        self._template = {"enable_thinking": self._thinking > 0} if switch else {}
        words = tokenizer.get_vocab()
        self._closings = [words[end] for end in ENDS if end in words]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        ends = self.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        self._ends = {end for end in (*ends, tokenizer.eos_token_id) if end is not None}
        self._batches = Batches(self.model, settings.batch_size)

    @property
    def batch_size(self) -> int:
        """Chats a batch, at most: as many as memory was seen to hold; halved where it runs out."""
        return self._batches.size

    def prepare(self, picture: Picture) -> None:
        """Do ahead, in a worker thread, what a picture needs before the model sees it."""
        if self._vision is not None:
            # One that can't be prepared is refused where its chat is asked.
            with suppress(ValueError):
                self._vision.prepare(picture)

    @torch.inference_mode()
    def generate(self, chats: Sequence[Chat], sampling: Sampling = GREEDY) -> list[Completion]:
        """Answer chats in left-padded batches; a picture shown again is not encoded again.

        When a batch does not fit in memory, it is halved, and so are those after it.
        """
        return self._in_batches(chats, lambda batch: self._answers(batch, sampling))

    @torch.inference_mode()
    def likelihoods(self, chats: Sequence[Chat], texts: Sequence[str]) -> list[Likelihood | None]:
        """How sure it would be of a text as the answer to each chat.

        The texts are generated token by token, whatever the model would rather say: all that
        `generate` shares between prompts holds here, too. A model that thinks first can't tell.
        """
        tokens = [self.processor.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        asked = list(zip(chats, tokens, strict=True))
        return self._in_batches(asked, self._likelihoods)

    def _in_batches(self, asked: Sequence[T], ask: Callable[[Sequence[T]], list[U]]) -> list[U]:
        done: list[U] = []
        while rest := asked[len(done) :]:
            batch = rest[: self.batch_size]
            self._batches.begin()
            try:
                done += ask(batch)
                self._batches.done(len(batch))
                continue
            except RuntimeError as error:  # a kernel that the device lacks, main memory, …
                reason = str(error)
                memory = isinstance(error, torch.OutOfMemoryError)
                if not memory and "can't allocate memory" not in reason:
                    raise BackendError(
                        f"The model failed on a batch of {len(batch)} pairs: {reason}",
                        hint="Another --device or --dtype may help.",
                    ) from error
            # Here and not where it was caught: the error's traceback held the batch's tensors.
            kept = self._prefix is not None
            self._prefix = None
            _free_memory()
            if kept:
                continue  # without what was kept for the next stage, it may fit
            if len(batch) == 1:
                raise BackendError(
                    f"The memory does not hold a single pair: {reason}",
                    hint="Lower --max-resolution, or choose a smaller model; "
                    "what was done so far is kept.",
                )
            self._batches.too_large(len(batch))
        return done

    def _answers(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion]:
        return self._asked(chats, lambda inputs: self._generate(inputs, sampling))

    def _likelihoods(self, asked: Sequence[tuple[Chat, Sequence[int]]]) -> list[Likelihood | None]:
        told = [tokens for _, tokens in asked]
        return self._asked([chat for chat, _ in asked], lambda inputs: self._tell(inputs, told))

    def _asked(
        self, chats: Sequence[Chat], run: Callable[[dict[str, Any]], tuple[Any, list[U]]]
    ) -> list[U]:
        """What the model makes of a batch of chats; what it computed of their heads is kept.

        Args:
            run: Has the model run on inputs; gives the cache that is left, and what came of it.
        """
        if self._vision is None:
            return run(self._plain_inputs(chats))[1]
        prompts = [self._prompt(chat) for chat in chats]
        tails = self._padded([p.tail for p in prompts])
        inputs = self._prefix.inputs(prompts, tails) if self._prefix else None
        if inputs is None:
            self._prefix = None  # its memory is needed now
            inputs = self._fresh_inputs(prompts)
        cache, answers = run(inputs)
        if self._prefix is None and Prefix.fits(prompts, cache):
            inner = self.model.model
            # Up to transformers 5.20, Qwen3-Omni's thinker keeps its positions on the outside.
            keeper = inner if hasattr(inner, "rope_deltas") else self.model
            self._prefix = Prefix(prompts, inputs, cache, keeper.rope_deltas)
        return answers

    def _generate(self, inputs: dict[str, Any], sampling: Sampling) -> tuple[Any, list[Completion]]:
        """The cache that is left, and each row's answer."""
        pick = Pick(Draw(sampling, self.model.device) if sampling.temperature else None)
        start, begun = inputs["input_ids"].shape[1], self._begun(inputs)
        limits = []
        if begun and self._thinking and self._closings:
            limits.append(Budget(self._thinking, self._closings[0], start))
        most = self.max_new_tokens + self._thinking + len(limits)
        output = self._run(inputs, [pick, *limits], most)
        rows = zip(
            output.sequences[:, start:].tolist(),
            torch.stack(pick.chances, dim=1).tolist(),
            strict=True,
        )
        return output.past_key_values, [self._completion(*row, begun) for row in rows]

    def _tell(
        self, inputs: dict[str, Any], told: Sequence[Sequence[int]]
    ) -> tuple[Any, list[Likelihood | None]]:
        """The cache that is left, and how likely each row's tokens are."""
        thinks = self._thinking > 0 or self._begun(inputs)
        pick = Pick(Told([row or [0] for row in told], inputs["input_ids"].shape[1]))
        output = self._run(inputs, [pick], 1 if thinks else max(1, *map(len, told)))
        if thinks:
            return output.past_key_values, [None] * len(told)
        decode = self.processor.tokenizer.decode
        chances = torch.stack(pick.chances, dim=1).tolist()
        return output.past_key_values, [
            summed(chances[row][: len(ids)], lambda at, ids=ids: str(decode(ids[at])))  # type: ignore[misc]
            for row, ids in enumerate(told)
        ]

    def _begun(self, inputs: dict[str, Any]) -> bool:
        """Whether the prompts begin a thought, which the model goes on with."""
        return begins_thought(self.processor.tokenizer.decode(inputs["input_ids"][0, -8:]))

    def _run(self, inputs: dict[str, Any], processors: list[Any], most: int) -> Any:
        whole = inputs.get("past_key_values") is None  # only a cache goes on from piece to piece
        return self.model.generate(
            **inputs,
            **_PLAIN,
            prefill_chunk_size=None if whole else piece(*inputs["input_ids"].shape),
            logits_processor=processors,
            max_new_tokens=most,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )

    def _plain_inputs(self, chats: Sequence[Chat]) -> dict[str, Any]:
        """The arguments of `generate` as the checkpoint's own processor makes them."""
        images = [[picture.pixels for picture in _pictures(chat)] for chat in chats]
        inputs = self.processor(
            text=[self._text(chat) for chat in chats],
            images=images,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return dict(inputs.to(self.model.device, self.model.dtype))

    def _fresh_inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """The arguments of `generate` for prompts of which nothing is computed yet."""
        assert self._vision is not None
        padded = self._padded([p.head + p.tail for p in prompts])
        inputs = padded | self._vision.encoded([x for p in prompts for x in p.pictures])
        if not self.omni:
            marks = padded["input_ids"] == self.processor.image_token_id
            inputs["mm_token_type_ids"] = marks.long()
        tokens = padded["input_ids"].shape[1]
        return inputs | {"past_key_values": new_cache(self.model.config, tokens)}

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Token lists as tensors. Right padding, some real tokenizers' default, would silently
        give wrong text."""
        padded = self.processor.tokenizer.pad(
            {"input_ids": [list(row) for row in rows]}, padding_side="left", return_tensors="pt"
        )
        return dict(padded.to(self.model.device))

    def _text(self, chat: Chat) -> str:
        messages = [
            {
                "role": turn.role,
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                    for part in turn.parts
                ],
            }
            for turn in chat
        ]
        text: str = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **self._template
        )
        return text

    def _prompt(self, chat: Chat) -> Prompt:
        """A chat as tokens, with as many image tokens for each picture as it has features."""
        assert self._vision is not None
        text, pictures = self._text(chat), _pictures(chat)
        waiting, split = list(pictures), 0
        tokens: list[int] = []
        for token in self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]:
            if token != self.processor.image_token_id:
                tokens.append(token)
            elif waiting:
                tokens += [token] * self._vision.tokens(waiting.pop(0))
                split = len(tokens)
            else:
                raise ValueError(f"the prompt speaks the image token {self.processor.image_token}")
        return Prompt(tuple(tokens[:split]), tuple(tokens[split:]), tuple(pictures))

    def _completion(self, ids: list[int], chances: list[float], begun: bool) -> Completion:
        """What a row's new tokens say.

        Args:
            begun: Whether they go on with a thought.
        """
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        kept = ids[:end]
        decode = self.processor.tokenizer.decode
        start = self._thought(kept)
        if len(kept) - start > self.max_new_tokens:  # the thought left it more room than it has
            kept, end = kept[: start + self.max_new_tokens], None
        text = decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answer = without_thoughts(text, begun=begun)
        return Completion(
            text=answer,
            tokens=len(kept) + (end is not None),
            truncated=end is None,
            likelihood=summed(chances[start : len(kept)], lambda i: str(decode(kept[start + i]))),
        )

    def _thought(self, ids: Sequence[int]) -> int:
        """How many tokens there are up to the end of the last thought."""
        ends = (i for i in reversed(range(len(ids))) if ids[i] in self._closings)
        return next(ends, -1) + 1

    def close(self) -> None:
        """Free the model, so that the next one finds an empty GPU; a second time does nothing."""
        self.model = self._vision = self._prefix = None
        _free_memory()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _pictures(chat: Chat) -> list[Picture]:
    return [part for turn in chat for part in turn.parts if isinstance(part, Picture)]


def _model(folder: Path, config: Any, dtype: str, device: str) -> Any:
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    flash = on_gpu and dtype in ("bfloat16", "float16") and _works("flash_attn")
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


_QWEN = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe", "qwen3_5", "qwen3_5_moe")


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
        # Pillow even where torchvision is: the same pixels on every machine.
        return _ImageOnlyProcessor.from_pretrained(folder, backend="pil")
    return transformers.AutoProcessor.from_pretrained(folder)


def _works(module: str) -> bool:
    """Whether an optional module is there and works: a build for another torch breaks on import."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True
