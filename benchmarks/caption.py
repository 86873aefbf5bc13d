"""How fast pairs are labelled: both stages, the same weights, the same photos, for each engine.

Run: python benchmarks/caption.py [--pairs 64] [--tokens 96] [--device cpu] [--picture FILE.svg]

Rows, each in a process of its own, one after the other:

  plain   one pair at a time on transformers' own classes, every image processed and encoded for
          each stage again: what ChronoEdit's script does, less its loading of the model every time
  ours    `chronoprep caption --generate-cot`, with its journal, on the same checkpoint

and with --vllm-python .venv-vllm/bin/python (`make test-vllm` makes it), in float32 on the CPU:

  raw-vllm     vLLM's own `LLM.chat`: all of stage 1 in one call, all of stage 2 in another
  ours-vllm    the command with --backend vllm
  ours-server  the command with --endpoint, on vLLM's own server, which has the same options; its
               memory is the client's

and, where it is named by --rows:

  ours-compiled   the command with --compile; what compiling takes comes before the clock

The checkpoint is a tiny Qwen3-VL with random weights unless --model names another. Its preprocessor
makes a picture 192² before the model sees it, so that generation is what is measured; --full-size
takes the published checkpoints' bounds, where a 1024² picture is 1,024 tokens and the encoder's
attention over its 4,096 patches is most of the work. Seconds count from the first pair; the model
is loaded by then and has answered once, since a first answer sets up much in any engine. The
processor's seconds are of the row's own process and, where the model runs in others, of those. In
the split, decoding and processing are sums over threads; generating is what a call of `generate`
takes less the encoder and the prefill. What these parts need is counted from the model's shape
(roofline.py), and held against what the card can do; a batch that --compile fills up counts whole.

--shape 8b and 30b-a3b measure Qwen3-VL-8B and Qwen3-VL-30B-A3B on a GPU, in bfloat16 and with the
published bounds on pixels; their weights are random and drawn on the card. --shape tiny does the
same on any machine, to see that it works.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import qwen3_vl
from roofline import Cost, peaks

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

EXAMPLES = ROOT / "examples" / "pairs"
PARTS = ("decode", "process", "vision", "prefill", "generate")
COUNTED = ("qwen3_vl", "qwen3_vl_moe")  # families whose work roofline.py knows


@dataclass
class Result:
    """What a row measured.

    Attributes:
        texts: Caption and CoT of each pair by key.
        seconds: From the first pair to the last label.
        cpu: The processor's seconds in that time, all threads together: other programs on the
            machine touch it less.
        engine_cpu: The same of the processes that the model runs in, where that is not this one.
        tokens: New tokens of both stages.
        encoded: Images that went through the vision encoder.
        split: Seconds by part.
        work: What a part needs: FLOPs of vision and prefill, bytes that generating reads.
        memory: Peak bytes: of the process on a CPU, of the allocator on a GPU.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu: float = 0.0
    engine_cpu: float = 0.0
    tokens: int = 0
    encoded: int = 0
    split: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    work: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS[2:], 0.0))
    memory: int = 0


@dataclass(frozen=True)
class Job:
    """What a row is to do."""

    pairs: str
    model: str
    tokens: int
    device: str
    dtype: str
    batch_size: int | None
    endpoint: str | None = None
    server: int | None = None
    shape: str | None = None


class Watch:
    """Adds the time between `start` and `stop` to a result.

    Args:
        server: The process of the server that the model runs in, if one does.
    """

    def __init__(self, result: Result, server: int | None = None) -> None:
        self._result = result
        self._server = server
        self._began = (0.0, 0.0, 0.0)

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> None:
        seconds, cpu, engine_cpu = self._now()
        self._result.seconds += seconds - self._began[0]
        self._result.cpu += cpu - self._began[1]
        self._result.engine_cpu += engine_cpu - self._began[2]

    def _now(self) -> tuple[float, float, float]:
        import psutil

        others = psutil.Process().children(recursive=True)
        if self._server is not None:
            server = psutil.Process(self._server)
            others += [server, *server.children(recursive=True)]
        times = [process.cpu_times() for process in others]
        engine_cpu = sum(spent.user + spent.system for spent in times)
        return time.perf_counter(), time.process_time(), engine_cpu


def build_model(folder: Path, *, full_size: bool) -> Path:
    """A tiny checkpoint for which a prompt has about as many tokens as for the published ones, and
    which never ends an answer: each has as many tokens as it may."""
    from importlib.resources import files

    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    from tiny_checkpoints import build_vlm

    templates = files("chronoprep.prompts") / "templates"
    corpus = [path.read_text(encoding="utf-8") for path in templates.iterdir()]
    build_vlm(folder, "qwen3_vl", head_dim=32, corpus=corpus, vocab=1536)
    tensors = load_file(folder / "model.safetensors")
    ends = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(
        ["<|im_end|>", "<|endoftext|>"]
    )
    tensors["lm_head.weight"][ends] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if full_size:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"size": qwen3_vl.PIXELS}))
    return folder


def write_pairs(folder: Path, count: int, size: int) -> None:
    """Pairs of real photos: crops of the example pairs, source and target cut alike."""
    import random

    from PIL import Image

    names = sorted(path.stem for path in (EXAMPLES / "input").glob("*.jpg"))
    rng = random.Random(0)
    for number in range(count):
        sides = [Image.open(EXAMPLES / s / f"{names[number % len(names)]}.jpg") for s in SIDES]
        edge = int(min(sides[0].size) * rng.uniform(0.7, 1.0))
        left, top = (rng.randint(0, length - edge) for length in sides[0].size)
        for side, image in zip(SIDES, sides, strict=True):
            path = folder / side / f"pair{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cut = image.convert("RGB").crop((left, top, left + edge, top + edge))
            cut.resize((size, size), Image.Resampling.LANCZOS).save(path, quality=92)


SIDES = ("input", "output")
AT_ONCE = 32
# vLLM on the CPU: nothing is compiled, and its processor is not tried out beforehand.
VLLM_OPTIONS = {
    "max_model_len": 4096,
    "max_num_batched_tokens": 4096,  # the server's own default is half of `vllm.LLM`'s
    "enforce_eager": True,
    "skip_mm_profiling": True,
    "block_size": 32,
}
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def warm_up(size: tuple[int, int] = (256, 256), count: int = 1) -> tuple[list[Any], list[Any]]:
    """Chats of stage 1 and stage 2 that no pair asks."""
    from PIL import Image

    from chronoprep.config import LabelSettings
    from chronoprep.prompts import load_prompts

    prompts = load_prompts(LabelSettings())
    colours = ("navy", "gold")
    pairs = [[Image.new("RGB", size, colour) for colour in colours] for _ in range(count)]
    caption = [prompts.caption.fill(*pair) for pair in pairs]
    return caption, [prompts.cot.fill(*pair, "Turn navy into gold") for pair in pairs]


@contextmanager
def watched(model: Any, result: Result) -> Iterator[None]:
    """Time the model's parts and count what its encoder sees, and what it all needs."""
    import torch

    cost = Cost(model.config, model.dtype.itemsize) if model.config.model_type in COUNTED else None
    began: dict[str, float] = {}
    split, work = result.split, result.work

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def before_vision(*_: Any) -> None:
        began["vision"] = now()

    def after_vision(_: Any, _args: Any, kwargs: Any, _output: Any) -> None:
        split["vision"] += now() - began["vision"]
        patches = kwargs["grid_thw"].prod(-1).tolist()
        result.encoded += len(patches)
        if cost:
            work["vision"] += cost.vision_flops(patches)

    def before_text(_: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] > 1:
            began["prefill"] = now() - split["vision"]

    def after_text(_: Any, _args: Any, kwargs: Any, output: Any) -> None:
        rows, new = kwargs["input_ids"].shape
        if new > 1:
            split["prefill"] += now() - split["vision"] - began["prefill"]
            if cost:
                past = int(output.past_key_values.get_seq_length()) - new
                work["prefill"] += cost.text_flops(rows, new, past)

    def generate(**inputs: Any) -> Any:
        began["generate"] = now() - split["vision"] - split["prefill"]
        output = untimed(**inputs)
        split["generate"] += now() - split["vision"] - split["prefill"] - began["generate"]
        tokens, asked = getattr(output, "sequences", output), inputs["input_ids"].shape[1]
        if cost:  # the first token comes out of the prefill
            lengths = range(asked + 1, tokens.shape[1])
            work["generate"] += sum(cost.step_bytes(len(tokens), length) for length in lengths)
        return output

    untimed, model.generate = model.generate, generate
    visual = getattr(model, "model", model).visual
    hooks = [
        visual.register_forward_pre_hook(before_vision),
        visual.register_forward_hook(after_vision, with_kwargs=True),
        model.register_forward_pre_hook(before_text, with_kwargs=True),
        model.register_forward_hook(after_text, with_kwargs=True),
    ]
    try:
        yield
    finally:
        model.generate = untimed
        for hook in hooks:
            hook.remove()


def plain(job: Job) -> Result:
    import torch
    import transformers
    from PIL import Image

    from chronoprep.config import LabelSettings
    from chronoprep.guard import clean
    from chronoprep.prompts import load_prompts

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
                    images.append(part)
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
        for path in sorted((Path(job.pairs) / "input").iterdir()):
            start = time.perf_counter()
            source = Image.open(path).convert("RGB")
            target = Image.open(Path(job.pairs) / "output" / path.name).convert("RGB")
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
    from chronoprep.guard import clean
    from chronoprep.prompts import load_prompts

    llm = vllm.LLM(
        job.model,
        dtype=job.dtype,
        max_num_seqs=AT_ONCE,
        limit_mm_per_prompt={"image": 2, "video": 0},
        **VLLM_OPTIONS,
    )
    params = vllm.SamplingParams(temperature=0.0, max_tokens=job.tokens)
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
                        else {"type": "image_pil", "image_pil": part}
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
        source = Image.open(path).convert("RGB")
        views[path.stem] = source, Image.open(Path(job.pairs) / "output" / path.name).convert("RGB")
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


def ours(job: Job, backend: str = "transformers", compile: bool = False) -> Result:
    """The command's own workflow, less the time to load the model and to give it back."""
    from PIL import Image

    from chronoprep import vlm, workflows
    from chronoprep.config import load_settings
    from chronoprep.dataset import Dataset
    from chronoprep.pairs import images

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

    real_load = vlm.load

    def load(*args: Any) -> Any:
        nonlocal model
        watch.stop()
        model = real_load(*args)
        if compile or (job.device.startswith("cuda") and backend == "transformers"):
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
    vlm.load = load
    images.load_image = timed(images.load_image, "decode")
    settings = load_settings(
        {
            "vlm": {
                "backend": backend,
                "model": job.model,
                "device": job.device if backend == "transformers" else None,
                "dtype": job.dtype,
                "max_new_tokens": job.tokens,
                "batch_size": job.batch_size,
                "compile": compile,
                "concurrency": 2 * AT_ONCE,
                "vllm": VLLM_OPTIONS,
                "endpoint": job.endpoint,
            },
            # Random weights write nonsense, which the guard would refuse.
            "labels": {"guard": False},
        },
        environ={},
    )
    with tempfile.TemporaryDirectory() as folder:
        for module in ("polars", f"chronoprep.vlm.{backend}_backend"):
            importlib.import_module(module)  # is loading, too
        watch.start()
        workflows.caption_pairs(Path(job.pairs), Path(folder), settings, with_cot=True)
        watch.stop()
        for key, label in Dataset(Path(folder)).labels().items():
            result.texts[key] = [label.caption or "", label.caption_cot or ""]
    return result


@dataclass(frozen=True)
class Row:
    """An engine to measure.

    Attributes:
        run: Labels the pairs.
        title: What the table calls it.
        against: The row that it is compared with.
        needs: Whether it runs in the environment with vLLM, or against a server from there.
        asked: Whether it runs only where it is named.
    """

    run: Callable[[Job], Result]
    title: str
    against: str | None = None
    needs: Literal["", "vllm", "server"] = ""
    asked: bool = False


ROWS = {
    "plain": Row(plain, "plain loop, transformers"),
    "ours": Row(ours, "chronoprep, transformers", against="plain"),
    "ours-compiled": Row(
        partial(ours, compile=True), "chronoprep --compile", against="plain", asked=True
    ),
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


def measure(name: str, job: Job, vllm_python: str) -> Result:
    """A row in a process of its own: its peak memory is its own."""
    needs = ROWS[name].needs
    python = vllm_python if needs == "vllm" else sys.executable
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if needs == "server":
            address, process = stack.enter_context(server(job, vllm_python))
            job = replace(job, endpoint=address, server=process)
        path = Path(folder) / "result.json"
        command = [python, __file__, "--row", name, json.dumps(asdict(job)), str(path)]
        subprocess.run(command, check=True, env=os.environ | ENVIRONMENT)
        return Result(**json.loads(path.read_text()))


@contextmanager
def server(job: Job, python: str) -> Iterator[tuple[str, int]]:
    """vLLM's server on the same checkpoint, with the same options; gives its address and its
    process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", job.model]
    command += ["--disable-log-stats"]  # as `vllm.LLM` does
    command += ["--port", str(port), "--dtype", job.dtype, "--max-num-seqs", str(AT_ONCE)]
    command += ["--limit-mm-per-prompt", '{"image": 2, "video": 0}']
    for name, value in VLLM_OPTIONS.items():
        command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, **quiet)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit("vLLM's server does not start: " + " ".join(command))
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        process.wait()


def run_row(name: str, job: Job, path: Path) -> None:
    if job.shape:
        import transformers

        transformers.AutoModelForImageTextToText.from_pretrained = qwen3_vl.drawn()
    result = ROWS[name].run(job)
    result.memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if job.device.startswith("cuda"):
        import torch

        result.memory = torch.cuda.max_memory_allocated()
    path.write_text(json.dumps(asdict(result)))


def table(results: dict[str, Result], pairs: int) -> str:
    lines = [
        f"{'row':26} {'seconds':>8} {'pairs/s':>8} {'tok/s':>7} {'ratio':>7} {'CPU s':>7} "
        f"{'engine':>7} {'ratio':>7} {'images':>7} "
        f"{'peak MB':>8}  " + " ".join(f"{part:>8}" for part in PARTS) + f" {'same text':>10}"
    ]
    for name, result in results.items():
        base = results.get(ROWS[name].against or "")
        ratio = f"{base.seconds / result.seconds:.2f}×" if base else ""
        spent = result.cpu + result.engine_cpu
        cpu = f"{(base.cpu + base.engine_cpu) / spent:.2f}×" if base else ""
        same = ""
        if base:
            equal = sum(result.texts.get(key) == texts for key, texts in base.texts.items())
            same = f"{equal}/{len(base.texts)}"
        lines.append(
            f"{ROWS[name].title:26} {result.seconds:8.2f} {pairs / result.seconds:8.2f} "
            f"{result.tokens / result.seconds:7.0f} {ratio:>7} {result.cpu:7.1f} "
            f"{result.engine_cpu:7.1f} {cpu:>7} {result.encoded:7} "
            f"{result.memory / 1e6:8.0f}  "
            + " ".join(f"{spent:8.2f}" if (spent := result.split[p]) else 8 * " " for p in PARTS)
            + f" {same:>10}"
        )
    return "\n".join(lines)


def hardware(results: dict[str, Result], flops: float | None, bytes_: float | None) -> str:
    """What was reached, and as a share of the card's FLOP/s and bytes/s where they are known."""

    def rate(result: Result, parts: tuple[str, ...], unit: float, peak: float | None) -> str:
        reached = sum(result.work[p] for p in parts) / sum(result.split[p] for p in parts)
        return f"{reached / unit:9.2f} " + (f"{reached / peak:6.1%}" if peak else 6 * " ")

    parts = {"vision": ("vision",), "prefill": ("prefill",), "both": ("vision", "prefill")}
    names = " ".join(f"{part:>9} {'share':>6}" for part in (*parts, "generate"))
    lines = [f"{'row':26} {names}", 26 * " " + 3 * "    TFLOP/s       " + "      GB/s"]
    for name, result in results.items():
        if all(result.work.values()):
            computed = " ".join(rate(result, part, 1e12, flops) for part in parts.values())
            read = rate(result, ("generate",), 1e9, bytes_)
            lines.append(f"{ROWS[name].title:26} {computed} {read}")
    return "\n".join(lines)


def picture(results: dict[str, Result], pairs: int) -> str:
    """Bars of pairs per second, as SVG."""
    most = max(pairs / result.seconds for result in results.values())
    bars = []
    for i, (name, result) in enumerate(results.items()):
        speed = pairs / result.seconds
        y, width = 30 + 44 * i, 430 * speed / most
        bars.append(
            f'<text x="10" y="{y + 19}">{ROWS[name].title}</text>'
            f'<rect x="210" y="{y}" width="{width:.1f}" height="28" fill="#3b6ea8"/>'
            f'<text x="{218 + width:.1f}" y="{y + 19}">{speed:.2f} pairs/s</text>'
        )
    height = 40 + 44 * len(results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{height}" '
        'font-family="sans-serif" font-size="14"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(bars)}</svg>\n"
    )


def main() -> None:
    if sys.argv[1:2] == ["--row"]:
        run_row(sys.argv[2], Job(**json.loads(sys.argv[3])), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024, help="edge of the photos in pixels")
    parser.add_argument("--tokens", type=int, default=96, help="longest answer of a stage")
    parser.add_argument("--model", help="a checkpoint folder; by default a tiny Qwen3-VL")
    parser.add_argument("--full-size", action="store_true", help="published bounds on pixels")
    parser.add_argument("--shape", choices=qwen3_vl.SHAPES, help="a Qwen3-VL of random weights")
    parser.add_argument("--device", help="cpu; with --shape the GPU")
    parser.add_argument("--dtype", help="float32; bfloat16 on a GPU")
    parser.add_argument("--peak-tflops", type=float, help="of a card that roofline.py doesn't know")
    parser.add_argument("--peak-gbps", type=float, help="its memory bandwidth")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--vllm-python", help="of an environment with vLLM, for its rows")
    parser.add_argument("--picture", type=Path, help="where an SVG of the bars goes")
    args = parser.parse_args()
    vllm_python = None if args.shape else args.vllm_python
    usual = [n for n, row in ROWS.items() if not row.asked and (vllm_python or not row.needs)]
    rows = args.rows or usual
    if args.shape and any(ROWS[row].needs for row in rows):
        parser.error("vLLM reads its weights from files, and --shape has none")
    device, card = args.device or "cpu", None
    if args.shape and args.device != "cpu":
        import torch

        if torch.cuda.is_available():
            device = args.device or "cuda"
        elif args.shape != "tiny":
            parser.error(f"--shape {args.shape} needs a GPU, and there is none; tiny runs anywhere")
    if device.startswith("cuda"):
        import torch

        card = torch.cuda.get_device_name(device)
    dtype = args.dtype or ("bfloat16" if card else "float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs", args.pairs, args.size)
        model = args.model
        if args.shape:
            model = str(qwen3_vl.write_folder(folder / "model", args.shape))
        elif model is None:
            model = str(build_model(folder / "model", full_size=args.full_size))
        job = Job(
            str(folder / "pairs"), model, args.tokens, device, dtype, args.batch_size,
            shape=args.shape,
        )  # fmt: skip
        results = {row: measure(row, job, vllm_python) for row in rows}
    print(table(results, args.pairs))
    known = peaks(card or "") or (None, None)
    flops = args.peak_tflops * 1e12 if args.peak_tflops else known[0]
    bandwidth = args.peak_gbps * 1e9 if args.peak_gbps else known[1]
    print()
    print(f"{card or 'the processor'}, {dtype}")
    print(hardware(results, flops, bandwidth))
    if args.picture:
        args.picture.write_text(picture(results, args.pairs), encoding="utf-8")


if __name__ == "__main__":
    main()
