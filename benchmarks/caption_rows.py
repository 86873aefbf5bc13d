"""The rows of the captioning benchmark: each labels the same pairs in its own way."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from caption_watch import Result, Watch, watched

AT_ONCE = 32
# vLLM on the CPU: nothing is compiled, and its processor is not tried out beforehand.
VLLM_OPTIONS = {
    "max_model_len": 4096,
    "max_num_batched_tokens": 4096,  # the server's own default is half of `vllm.LLM`'s
    "enforce_eager": True,
    "skip_mm_profiling": True,
    "block_size": 32,
}


# On a GPU with weights that are drawn there.
SHAPE_OPTIONS = {"load_format": "dummy", "max_model_len": 8192}


def vllm_options(shape: str | None) -> dict[str, Any]:
    return dict(SHAPE_OPTIONS if shape else VLLM_OPTIONS)


@dataclass(frozen=True)
class Job:
    """What a row is to do.

    Attributes:
        plain_pairs: How many pairs the plain loop labels: it takes minutes for what others do in
            seconds.
    """

    pairs: str
    model: str
    tokens: int
    device: str
    dtype: str
    batch_size: int | None
    endpoint: str | None = None
    server: int | None = None
    shape: str | None = None
    plain_pairs: int | None = None


def warm_up(size: tuple[int, int] = (256, 256), count: int = 1) -> tuple[list[Any], list[Any]]:
    """Chats of stage 1 and stage 2 that no pair asks."""
    from PIL import Image

    from chronoprep.config import LabelSettings
    from chronoprep.data import Picture
    from chronoprep.labels.prompts import load_prompts

    prompts = load_prompts(LabelSettings())
    colours = ("navy", "gold")
    pairs = [[Picture(Image.new("RGB", size, colour)) for colour in colours] for _ in range(count)]
    caption = [prompts.caption.fill(*pair) for pair in pairs]
    return caption, [prompts.cot.fill(*pair, "Turn navy into gold") for pair in pairs]


def plain(job: Job) -> Result:
    import torch
    import transformers
    from PIL import Image

    from chronoprep.config import LabelSettings
    from chronoprep.data import Picture
    from chronoprep.labels.guard import clean
    from chronoprep.labels.prompts import load_prompts

    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        job.model, dtype=job.dtype, device_map=job.device
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model)
    pixels = transformers.AutoImageProcessor.from_pretrained(job.model, backend="pil")
    prompts = load_prompts(LabelSettings())
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    result = Result()

    def ask(chat: Any) -> str:
        began = time.perf_counter()
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
        values = pixels(images=images, return_tensors="pt")
        pieces = prompt.split("<|image_pad|>")
        text = pieces[0]
        for grid, piece in zip(values["image_grid_thw"], pieces[1:], strict=True):
            text += "<|image_pad|>" * (int(grid.prod()) // 4) + piece
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        inputs = inputs.to(model.device) | values.to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == image_token).long()
        result.split["process"] += time.perf_counter() - began
        output = model.generate(
            **inputs,
            max_new_tokens=job.tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
        )
        new = output[0, inputs["input_ids"].shape[1] :]
        result.tokens += len(new)
        return clean(tokenizer.decode(new, skip_special_tokens=True))

    with torch.inference_mode():
        ask(warm_up()[0][0])
    result = Result()
    watch = Watch(result)
    watch.start()
    with torch.inference_mode(), watched(model, result):
        for path in sorted((Path(job.pairs) / "input").iterdir())[: job.plain_pairs]:
            start = time.perf_counter()
            files = path, Path(job.pairs) / "output" / path.name
            source, target = (Picture(Image.open(file).convert("RGB")) for file in files)
            result.split["decode"] += time.perf_counter() - start
            caption = ask(prompts.caption.fill(source, target))
            cot = ask(prompts.cot.fill(source, target, caption))
            result.texts[path.stem] = [caption, cot]
    watch.stop()
    return result


def raw_vllm(job: Job) -> Result:
    """vLLM's own `LLM.chat`: all of stage 1, then all of stage 2, our prompts."""
    import vllm
    from PIL import Image

    from chronoprep.config import LabelSettings
    from chronoprep.data import Picture
    from chronoprep.labels.guard import clean
    from chronoprep.labels.prompts import load_prompts

    llm = vllm.LLM(
        job.model,
        dtype=job.dtype,
        max_num_seqs=128 if job.shape else AT_ONCE,
        limit_mm_per_prompt={"image": 2, "video": 0},
        **vllm_options(job.shape),
    )
    params = vllm.SamplingParams(
        temperature=0.0, max_tokens=job.tokens, ignore_eos=job.shape is not None
    )
    prompts = load_prompts(LabelSettings())
    result = Result()

    def ask(chats: Any) -> list[str]:
        messages = [
            [
                {
                    "role": turn.role,
                    "content": [
                        {"type": "text", "text": part}
                        if isinstance(part, str)
                        else {"type": "image_pil", "image_pil": part.pixels}
                        for part in turn.parts
                    ],
                }
                for turn in chat
            ]
            for chat in chats
        ]
        outputs = [answer.outputs[0] for answer in llm.chat(messages, params, use_tqdm=False)]
        result.tokens += sum(len(output.token_ids) for output in outputs)
        return [clean(output.text) for output in outputs]

    ask(warm_up()[0])
    result = Result()
    watch = Watch(result)
    watch.start()
    began = time.perf_counter()
    views = {}
    for path in sorted((Path(job.pairs) / "input").iterdir()):
        files = path, Path(job.pairs) / "output" / path.name
        views[path.stem] = [Picture(Image.open(file).convert("RGB")) for file in files]
    result.split["decode"] = time.perf_counter() - began
    captions = ask(prompts.caption.fill(*view) for view in views.values())
    cots = ask(
        prompts.cot.fill(*view, caption)
        for view, caption in zip(views.values(), captions, strict=True)
    )
    watch.stop()
    for key, caption, cot in zip(views, captions, cots, strict=True):
        result.texts[key] = [caption, cot]
    return result


def ours(job: Job, backend: str = "transformers") -> Result:
    """The command's own workflow, less the time to load the model and to give it back."""
    from PIL import Image

    from chronoprep import vlm, workflows
    from chronoprep.config import load_settings
    from chronoprep.dataset import Dataset
    from chronoprep.images import load as images

    result = Result()
    watch = Watch(result, job.server)
    model: Any = None

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                result.split[part] += time.perf_counter() - began

        return call

    real_load = vlm.Model.load

    def load(found: vlm.Model) -> Any:
        nonlocal model
        watch.stop()
        model = real_load(found)
        if job.device.startswith("cuda") and backend == "transformers":
            size = Image.open(next((Path(job.pairs) / "input").iterdir())).size
            for chats in warm_up(size, model.batch_size):  # a full batch, of both stages
                model.generate(chats)
        else:
            model.generate(warm_up()[0])
        watch.start()
        if (inner := getattr(model, "model", None)) is not None:
            parts.append(watched(inner, result))
            parts[0].__enter__()
            model.prepare = timed(model.prepare, "process")
        generate = model.generate

        def counted(*args: Any) -> Any:
            answers = generate(*args)
            result.tokens += sum(answer.tokens for answer in answers)
            return answers

        def close() -> None:
            watch.stop()
            closed()
            watch.start()

        closed = model.close
        model.generate, model.close = counted, close
        return model

    parts: list[Any] = []
    vlm.Model.load = load
    images.load_pair = timed(images.load_pair, "decode")
    settings = load_settings(
        {
            "vlm": {
                "backend": backend,
                "model": job.model,
                "device": job.device if backend == "transformers" else None,
                "dtype": job.dtype,
                "max_new_tokens": job.tokens,
                "batch_size": job.batch_size,
                "concurrency": None if job.shape else 2 * AT_ONCE,
                "vllm": vllm_options(job.shape),
                "endpoint": job.endpoint,
            },
            # Random weights write nonsense, which the guard would refuse.
            "labels": {"guard": False},
        },
        environ={},
    )
    if backend == "vllm" and job.shape:
        import vllm

        # Of random weights no answer ends by itself at any sensible place.
        vllm.SamplingParams = partial(vllm.SamplingParams, ignore_eos=True)
    with tempfile.TemporaryDirectory() as folder:
        for module in ("polars", f"chronoprep.vlm.{backend}_backend"):
            importlib.import_module(module)  # is loading, too
        watch.start()
        workflows.caption_pairs(Path(folder), settings, pairs=Path(job.pairs), with_cot=True)
        watch.stop()
        journal = Dataset(Path(folder)).journal
        for key in journal:
            text = journal.state(key).text
            result.texts[key] = [text.caption or "", text.cot or ""]
    return result


@dataclass(frozen=True)
class Row:
    """An engine to measure.

    Attributes:
        run: Labels the pairs.
        title: What the table calls it.
        against: The row that it is compared with.
        needs: Whether it runs in the environment with vLLM, or against a server from there.
    """

    run: Callable[[Job], Result]
    title: str
    against: str | None = None
    needs: Literal["", "vllm", "server"] = ""


ROWS = {
    "plain": Row(plain, "plain loop, transformers"),
    "ours": Row(ours, "chronoprep, transformers", against="plain"),
    "raw-vllm": Row(raw_vllm, "LLM.chat, vllm", needs="vllm"),
    "ours-vllm": Row(
        partial(ours, backend="vllm"), "chronoprep, vllm", against="raw-vllm", needs="vllm"
    ),
    "ours-server": Row(
        partial(ours, backend="openai"),
        "chronoprep, vllm's server",
        against="ours-vllm",
        needs="server",
    ),
}
