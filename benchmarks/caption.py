"""How fast pairs are labelled: both stages, the same weights, the same photos, for each engine.

Run: python benchmarks/caption.py [--pairs 64] [--tokens 96] [--rounds 3] [--picture FILE.svg]

Rows, each in a process of its own, one after the other, and all of them --rounds times: the run in
the middle counts, since a machine is rarely alone for long.

  plain   one pair at a time on transformers' own classes, every image processed and encoded for
          each stage again: what ChronoEdit's script does, less its loading of the model every time
  ours    `chronoprep caption --generate-cot`, with its journal, on the same checkpoint

and with --vllm-python .venv-vllm/bin/python (`make test-vllm` makes it), in float32 on the CPU:

  raw-vllm     vLLM's own `LLM.chat`: all of stage 1 in one call, all of stage 2 in another
  ours-vllm    the command with --backend vllm
  ours-server  the command with --endpoint, on vLLM's own server, which has the same options; its
               memory is the client's

The checkpoint is a tiny Qwen3-VL with random weights unless --model names another. Its preprocessor
makes a picture 192² before the model sees it, so that generation is what is measured; --full-size
takes the published checkpoints' bounds, where a 1024² picture is 1,024 tokens and the encoder's
attention over its 4,096 patches is most of the work. Seconds count from the first pair; the model
is loaded by then and has answered once, since a first answer sets up much in any engine. The
processor's seconds are of the row's own process and, where the model runs in others, of those. In
the split, decoding and processing are sums over threads; generating is what a call of `generate`
takes less the encoder and the prefill. What these parts need is counted from the model's shape
(roofline.py), and held against what the card can do.

--shape 8b and 30b-a3b measure Qwen3-VL-8B and Qwen3-VL-30B-A3B on a GPU, in bfloat16 and with the
published bounds on pixels; their weights are random and drawn on the card, by transformers and by
vLLM (where it is installed in this environment, or in that of --vllm-python). --shape tiny does the
same on any machine, to see that it works; with it, vLLM is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import qwen3_vl
from caption_report import hardware, picture, table
from caption_rows import AT_ONCE, ROWS, VLLM_OPTIONS, Job
from caption_watch import Result
from roofline import peaks

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

EXAMPLES = ROOT / "examples" / "pairs"
SIDES = ("input", "output")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def build_model(folder: Path, *, full_size: bool) -> Path:
    """A tiny checkpoint for which a prompt has about as many tokens as for the published ones, and
    which never ends an answer: each has as many tokens as it may."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    from tiny_checkpoints import build_vlm

    corpus, vocab = qwen3_vl.corpus(), qwen3_vl.VOCABULARY
    build_vlm(folder, "qwen3_vl", head_dim=32, corpus=corpus, vocab=vocab)
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
    if job.shape and not ROWS[name].needs:
        import transformers

        transformers.AutoModelForImageTextToText.from_pretrained = qwen3_vl.drawn()
    result = ROWS[name].run(job)
    result.memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if job.device.startswith("cuda"):
        import torch

        result.memory = torch.cuda.max_memory_allocated()
    path.write_text(json.dumps(asdict(result)))


def there_is_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def card_of(device: str) -> str | None:
    """The name of a GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


def main() -> None:
    if sys.argv[1:2] == ["--row"]:
        run_row(sys.argv[2], Job(**json.loads(sys.argv[3])), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024, help="edge of the photos in pixels")
    parser.add_argument("--tokens", type=int, default=96, help="longest answer of a stage")
    parser.add_argument("--rounds", type=int, default=3, help="of which the middle one counts")
    parser.add_argument("--model", help="a checkpoint folder; by default a tiny Qwen3-VL")
    parser.add_argument("--full-size", action="store_true", help="published bounds on pixels")
    parser.add_argument("--shape", choices=qwen3_vl.SHAPES, help="a Qwen3-VL of random weights")
    parser.add_argument("--device", help="cpu; with --shape the GPU")
    parser.add_argument("--dtype", help="float32; bfloat16 on a GPU")
    parser.add_argument("--peak-tflops", type=float, help="of a card that roofline.py doesn't know")
    parser.add_argument("--peak-gbps", type=float, help="its memory bandwidth")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--plain-pairs", type=int, help="of the plain loop; with --shape 8")
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--vllm-python", help="of an environment with vLLM, for its rows")
    parser.add_argument("--picture", type=Path, help="where an SVG of the bars goes")
    args = parser.parse_args()
    vllm_python = args.vllm_python
    if args.shape and vllm_python is None and importlib.util.find_spec("vllm"):
        vllm_python = sys.executable
    if args.shape == "tiny":
        vllm_python = None
    needs = ["", *(["vllm"] if vllm_python else []), *(["server"] * bool(args.vllm_python))]
    usual = [name for name, row in ROWS.items() if row.needs in needs[: 2 if args.shape else None]]
    rows = args.rows or usual
    if not set(rows) <= set(usual):
        parser.error(f"these rows can be had here: {', '.join(usual)}")
    device = args.device or ("cuda" if args.shape and there_is_a_gpu() else "cpu")
    if args.shape not in (None, "tiny") and args.device is None and device == "cpu":
        parser.error(f"--shape {args.shape} needs a GPU, and there is none; tiny runs anywhere")
    card = card_of(device)
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
            shape=args.shape, plain_pairs=args.plain_pairs or (8 if args.shape else None),
        )  # fmt: skip
        jobs = dict.fromkeys(rows, job)
        if args.shape and vllm_python:
            folder = qwen3_vl.write_folder(folder / "vllm", args.shape, small_vocabulary=True)
            jobs |= {row: replace(job, model=str(folder)) for row in rows if ROWS[row].needs}
        rounds = [
            {row: measure(row, jobs[row], vllm_python) for row in rows} for _ in range(args.rounds)
        ]
    results = {
        row: sorted((once[row] for once in rounds), key=lambda run: run.seconds)[len(rounds) // 2]
        for row in rows
    }
    print(table(results))
    known = peaks(card or "") or (None, None)
    flops = args.peak_tflops * 1e12 if args.peak_tflops else known[0]
    bandwidth = args.peak_gbps * 1e9 if args.peak_gbps else known[1]
    if reached := hardware(results, flops, bandwidth):
        print(f"\n{card or 'the processor'}, {dtype}\n{reached}")
    if args.picture:
        args.picture.write_text(picture(results, args.pairs), encoding="utf-8")


if __name__ == "__main__":
    main()
