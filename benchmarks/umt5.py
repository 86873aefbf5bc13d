"""Embedding prompts: the reference script's loop, one prompt at a time padded to 512, against ours.

Run: python benchmarks/umt5.py [--shape small|tiny|xxl] [--prompts N] [--repeats 2]

Random weights in bfloat16, the same for both sides, in the same run; ours is the whole command from
opening the weights to the rewritten metadata.csv. `small` is 8 layers × 1,024, for a CPU; `xxl` the
real shape, for a GPU: it needs 12 GB of disk and of GPU memory. By default `small` has few prompts:
some two minutes on two cores that know no bfloat16. Where other programs use the machine, the ratio
of CPU seconds is the one to trust. "encoder alone" makes the same batches of the same prompts
without cleaning, tokens or files; opening the weights is told beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from roofline import peaks  # noqa: E402

import plain_t5  # noqa: E402
from chronoprep.config import Settings, UMT5Settings  # noqa: E402
from chronoprep.umt5 import Encoder, batches, clean, find_encoder  # noqa: E402
from chronoprep.workflows import embed_prompts  # noqa: E402
from tiny_umt5 import save_wan  # noqa: E402

# Layers, width, heads, width of a head, inner width, vocabulary.
SHAPES = {
    "tiny": (2, 64, 4, 16, 160, 8_000),
    "small": (8, 1024, 16, 64, 2560, 8_000),
    "xxl": (24, 4096, 64, 64, 10240, 256_384),
}
PROMPTS = {"tiny": 200, "small": 10, "xxl": 200}
PIECES = 540  # of the tokenizer: a CoT prompt gets about 155 tokens, as it does with UMT5's


def cot_prompts(count: int) -> list[str]:
    """Different prompts of 80 to 100 words, out of the sentences of the examples' own."""
    sentences = []
    for path in sorted((ROOT / "examples" / "pairs" / "output").glob("*.json")):
        text = json.loads(path.read_text("utf-8")).get("caption_cot", "")
        sentences += [sentence.strip(" .") + "." for sentence in text.split(". ") if sentence]
    chance = random.Random(0)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        words: list[str] = []
        target = chance.randint(80, 100)
        while len(words) < target:
            words += chance.choice(sentences).split()
        prompts[" ".join(words[:target])] = None
    return list(prompts)


def write_model(folder: Path, shape: str, prompts: list[str]) -> Path:
    layers, width, heads, head, inner, vocabulary = SHAPES[shape]
    weights = plain_t5.random_weights(
        layers, width, heads, head, inner, vocabulary=vocabulary, dtype=torch.bfloat16
    )
    folder.mkdir()
    file = save_wan(folder, weights)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "google" / "umt5-xxl" / "tokenizer.json"))
    return file


def reference(encoder: Encoder, prompts: list[str], folder: Path) -> None:
    """One prompt, one forward at 512, one pickle."""
    replica = encoder.replicas[0]
    device = replica.model.device
    for number, prompt in enumerate(prompts):
        ids = list(encoder.tokens.cut(encoder.tokens([clean(prompt)])[0]))
        padded = torch.tensor([ids + [0] * (512 - len(ids))], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (512 - len(ids))], device=device)
        with torch.no_grad():
            hidden = replica.model(input_ids=padded, attention_mask=mask).last_hidden_state
        rows = hidden[0][: len(ids)].to(torch.bfloat16).cpu()
        with (folder / f"{number}.pkl").open("wb") as file:
            pickle.dump(rows.clone(), file)


def encoder_alone(encoder: Encoder, tokens: list[array[int]]) -> None:
    """The forwards of all prompts, two batches on their way at a time."""
    made = batches([(ids, len(ids)) for ids in tokens], encoder.batch_tokens)
    with ThreadPoolExecutor(2 * encoder.devices) as pool:
        for _ in pool.map(encoder.encode, made):
            pass


def ours(settings: Settings, prompts: list[str], folder: Path) -> None:
    path = folder / "metadata.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["key", "prompt"], *([f"k{n}", p] for n, p in
                                                         enumerate(prompts))])  # fmt: skip
    (summary,) = embed_prompts(path, settings)
    assert summary.done + len(summary.failures) == len(prompts)
    # What random weights give sums to zero in one row of some 30,000, which is refused.
    assert all("sums to zero" in reason for _, reason in summary.failures), summary.failures


def seconds(function: Callable[[Path], None]) -> tuple[float, float]:
    """Wall and CPU seconds of work in an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        wall, cpu = time.perf_counter(), time.process_time()
        function(Path(name))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu


def spread(values: list[float]) -> str:
    return f"{min(values):.2f}–{max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--prompts", type=int, help="tiny and xxl 200, small 10")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--few", type=int, help="prompts of the reference; with xxl 200")
    parser.add_argument("--peak", type=float, help="TFLOP/s of a card that roofline.py lacks")
    arguments = parser.parse_args()
    prompts = cot_prompts(arguments.prompts or PROMPTS[arguments.shape])
    with tempfile.TemporaryDirectory() as name:
        file = write_model(Path(name) / "model", arguments.shape, prompts)
        settings = Settings(umt5=UMT5Settings(model=str(file), device=arguments.device))
        encoder = Encoder(find_encoder(settings.umt5), settings.umt5)
        loading, _ = seconds(lambda _: encoder.load())
        ids = encoder.tokens([clean(p) for p in prompts])
        tokens = [min(512, len(row)) for row in ids]
        mean = sum(tokens) / len(tokens)
        device = encoder.replicas[0].model.device
        print(
            f"{arguments.shape} on {device}, {torch.get_num_threads()} threads: {len(prompts)} "
            f"prompts, {mean:.0f} tokens on average; 512 / {mean:.0f} = {512 / mean:.2f}"
        )
        print(f"opening the weights: {loading:.2f} s")
        few = prompts[:5]
        some = prompts[: arguments.few or (200 if arguments.shape == "xxl" else None)]
        reference(encoder, few[:2], Path(name))  # warm
        rows = few * 200
        works: dict[str, tuple[int, Callable[[Path], None]]] = {
            "reference": (len(some), lambda folder: reference(encoder, some, folder)),
            "encoder alone": (len(prompts), lambda _: encoder_alone(encoder, ids)),
            "ours": (len(prompts), lambda folder: ours(settings, prompts, folder)),
            "reference, 5 prompts": (5, lambda folder: reference(encoder, few, folder)),
            "ours, 1,000 rows of them": (1000, lambda folder: ours(settings, rows, folder)),
        }
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(arguments.repeats):
            for what, (_, work) in works.items():
                times.setdefault(what, []).append(seconds(work))
        print(f"{'':26} {'wall s':>15} {'CPU s':>15} {'prompts/s':>15}")
        for what, values in times.items():
            walls, cpus = [wall for wall, _ in values], [cpu for _, cpu in values]
            rates = spread([works[what][0] / wall for wall in walls])
            print(f"{what:26} {spread(walls):>15} {spread(cpus):>15} {rates:>15}")
        for what, one, other, factor in (
            ("each prompt once", "reference", "ours", len(prompts) / len(some)),
            ("whole command / encoder alone", "encoder alone", "ours", 1),
            ("1,000 rows, 5 prompts", "reference, 5 prompts", "ours, 1,000 rows of them", 200),
        ):
            for clock, unit in enumerate(("wall", "CPU")):
                ratios = [
                    factor * a[clock] / b[clock]
                    for a, b in zip(times[one], times[other], strict=True)
                ]
                print(f"{what}: {spread(ratios)}× by {unit} seconds")
        layers, width, heads, head, inner, _ = SHAPES[arguments.shape]
        flop = sum(
            layers * n * (2 * width * (4 * heads * head + 3 * inner) + 4 * n * heads * head)
            for n in tokens
        )
        best = flop / min(wall for wall, _ in times["encoder alone"]) / 1e12
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        known = peaks(card or "")
        peak = arguments.peak or (known[0] / 1e12 if known else None)
        share = f", {best / peak:.0%} of the peak of {peak:.0f}" if peak and card else ""
        print(f"encoder alone on {card or 'the processor'}: {best:.3f} TFLOP/s{share}; no padding")


if __name__ == "__main__":
    main()
