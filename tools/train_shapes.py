"""Train the packaged `shapes` model: a micro Qwen3-VL that labels synthetic edits.

    make shapes                                   # two CPU cores: about half an hour
    python tools/train_shapes.py --pairs 2000 --steps 50 --output try --docs try

It writes a checkpoint in Hugging Face form, the log and the learning curve; `benchmarks/shapes.py`
then scores it. The model is the real
`Qwen3VLForConditionalGeneration`; only the way through it differs while it trains. Each of the
library's modules does its own part, but the images of a batch are all of one size, so that the
vision tower's attention runs once a batch instead of once an image, and the two images are encoded
once for both stages.

What makes two million parameters learn this in half an hour on two cores:
- Extra heads, thrown away at the end, ask each image token what lies in its cell (shape, colour,
  size), and each token of the target, half-way through the language model, what lay in the same
  cell of the source. Sight and comparison are then learnt in minutes, from dense signals, and the
  words only have to be attached to them.
- Words that carry content (a colour, a place) weigh more than the sentence around them.
- Every pair serves four times: as it is, swapped, mirrored and both, with its true labels.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from matplotlib.figure import Figure
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from chronoprep import synth
from chronoprep.config import LabelSettings
from chronoprep.labels import prompts

SEED = 7  # of the training series; scores are taken from other series
SIDE = 96  # pixels; nine tokens an image: one a cell of the 3×3 grid
CELLS = 9

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# ---------------------------------------------------------------------------------------------
# The checkpoint: tokenizer, processor, random weights


def build(folder: Path) -> transformers.Qwen3VLForConditionalGeneration:
    """Write tokenizer and processor, and return the untrained model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(folder)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        # Every square image becomes 96×96; the bounds leave room for the rounding of sizes to
        # multiples of 32, and other aspects get about as many pixels.
        "size": {"shortest_edge": 8400, "longest_edge": 10400},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": math.ceil(len(tokenizer) / 16) * 16,
        "hidden_size": 160,
        "intermediate_size": 448,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 3,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 3,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 160,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [1],
    }
    config = transformers.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(SEED)
    model = transformers.Qwen3VLForConditionalGeneration(config).float()
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    return model


def _tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the labels and of the prompts is one token."""
    words = [_prompt_text("caption"), _prompt_text("cot"), "system user assistant"]
    for i in range(4000):
        sample = synth.sample(SEED, i)
        words += [sample.instruction, sample.cot or ""]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=880,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def _prompt_text(stage: str, caption: str = "") -> str:
    """The text of a stage's one user turn, behind its two images."""
    templates = prompts.load_prompts(LabelSettings(preset="compact"))
    blank = Image.new("RGB", (1, 1))
    (turn,) = getattr(templates, stage).fill(blank, blank, caption)
    source, target, text = turn.parts
    assert isinstance(text, str)
    assert source is blank
    assert target is blank
    return text


# ---------------------------------------------------------------------------------------------
# The data


def pictures(pairs: int, cache: Path | None) -> np.ndarray:
    """Uint8 [pairs, 2, 96, 96, 3]: source and target as the processor resizes them."""
    if cache is not None and cache.exists():
        found = np.load(cache, mmap_mode="r")
        if len(found) >= pairs:
            return found
    print(f"drawing {pairs:,} pairs", flush=True)
    array = np.empty((pairs, 2, SIDE, SIDE, 3), np.uint8)
    with multiprocessing.Pool() as pool:
        for i, pair in enumerate(pool.imap(_draw, range(pairs), chunksize=200)):
            array[i] = pair
    if cache is not None:
        np.save(cache, array)
    return array


def _draw(index: int) -> np.ndarray:
    size = random.Random(index).choice((128, 192, 256))
    drawn = synth.sample(SEED, index).pictures(size)
    return np.stack(
        [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in drawn]
    )


@dataclass
class Batch:
    """B pairs: pixels [B, 2, 3, 96, 96] in -1…1; cells [B, 2, 9, 3] and backs [B, 2, 2] are what
    the extra heads must say; captions and cots are (prompt tokens, answer tokens); `with_cot` are
    the pairs that have a CoT here."""

    pixels: torch.Tensor
    cells: torch.Tensor
    backs: torch.Tensor
    captions: list[tuple[list[int], list[int]]]
    cots: list[tuple[list[int], list[int]]]
    with_cot: list[int]


class Pairs:
    """Batches of pairs and of their mirrored and swapped forms, in a seeded order."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast, array: np.ndarray) -> None:
        self.tokenizer = tokenizer
        self.array = array
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.ends = [end]
        self.caption_prompt = self._prompt(_prompt_text("caption"))

    def _prompt(self, text: str) -> list[int]:
        return self._ids(f"{text}<|im_end|>\n<|im_start|>assistant\n")

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def batches(self, size: int, cots: int, seed: int) -> Iterator[Batch]:
        rng = random.Random(f"order {seed}")
        while True:
            order = list(range(len(self.array)))
            rng.shuffle(order)
            for i in range(0, len(order) - size + 1, size):
                yield self.batch(order[i : i + size], cots, rng)

    def batch(self, indices: list[int], cots: int, rng: random.Random) -> Batch:
        samples, images = [], []
        for index in indices:
            sample, image = synth.sample(SEED, index), self.array[index]
            if rng.random() < 0.5:
                sample, image = sample.mirrored(), image[:, :, ::-1]
            if rng.random() < 0.5:
                sample, image = sample.swapped(), image[::-1]
            samples.append(sample)
            images.append(image)
        pixels = torch.from_numpy(np.stack(images)).float().permute(0, 1, 4, 2, 3)
        with_cot = [i for i, sample in enumerate(samples) if sample.cot][:cots]
        return Batch(
            pixels=pixels / 127.5 - 1,
            cells=torch.tensor([[_cells(s.source), _cells(s.target)] for s in samples]),
            backs=torch.tensor([[_back(s.source), _back(s.target)] for s in samples]),
            captions=[(self.caption_prompt, self._ids(s.instruction) + self.ends) for s in samples],
            cots=[
                (
                    self._prompt(_prompt_text("cot", samples[i].instruction)),
                    self._ids(samples[i].cot or "") + self.ends,
                )
                for i in with_cot
            ],
            with_cot=with_cot,
        )


def _cells(scene: synth.Scene) -> list[list[int]]:
    """Shape, colour and size of each cell; 0 is nothing."""
    cells = [[0, 0, 0] for _ in range(CELLS)]
    for thing in scene.things:
        cells[thing.place] = [
            1 + synth.SHAPES.index(thing.shape),
            1 + list(synth.COLOURS).index(thing.colour),
            1 + synth.SIZES.index(thing.size),
        ]
    return cells


def _back(scene: synth.Scene) -> list[int]:
    return [
        list(synth.TONES).index(scene.backdrop.tone),
        synth.PATTERNS.index(scene.backdrop.pattern),
    ]


# ---------------------------------------------------------------------------------------------
# The way through the model while it trains


class Trainee(nn.Module):
    """The model, with the extra heads that only training has."""

    def __init__(self, model: transformers.Qwen3VLForConditionalGeneration, tokenizer: object):
        super().__init__()
        self.model = model
        model.set_attn_implementation("trainee")
        self.vision = model.model.visual
        self.text = model.model.language_model
        width = model.config.text_config.hidden_size
        cell = 1 + len(synth.SHAPES) + 1 + len(synth.COLOURS) + 1 + len(synth.SIZES)
        self.sight = nn.Linear(width, cell)
        self.memory = nn.Linear(width, cell)
        self.back = nn.Linear(width, len(synth.TONES) + len(synth.PATTERNS))
        config = model.config
        head = tokenizer("<|im_start|>user\n", add_special_tokens=False)["input_ids"]
        image = [
            config.vision_start_token_id,
            *[config.image_token_id] * CELLS,
            config.vision_end_token_id,
        ]
        self.prefix = [*head, *image, *image]
        first = len(head) + 1
        self.spots = [
            *range(first, first + CELLS),
            *range(first + CELLS + 2, first + 2 * CELLS + 2),
        ]
        self.register_buffer("grid", torch.tensor([[1, 6, 6]]), persistent=False)
        # Positions of the prefix as the library counts them; behind it they go up by one.
        types = torch.tensor([[int(t == config.image_token_id) for t in self.prefix]])
        place, _ = model.model.get_rope_index(
            torch.tensor([self.prefix]),
            mm_token_type_ids=types,
            image_grid_thw=self.grid.repeat(2, 1),
        )
        tail = torch.arange(1, 513).expand(3, 1, -1) + place.max()
        self.register_buffer("places", torch.cat([place, tail], -1), persistent=False)

    def see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, 3, 96, 96] → image tokens and deepstack features, both [N, 9, width]."""
        n = len(pixels)
        # The processor's order: cell by cell, the four patches of each, channel, time, row, column.
        x = pixels.view(n, 3, 3, 2, 16, 3, 2, 16).permute(0, 2, 5, 3, 6, 1, 4, 7)
        x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(n, 36, 1536)
        vision = self.vision
        weight = vision.patch_embed.proj.weight.view(vision.config.hidden_size, -1)
        x = F.linear(x, weight, vision.patch_embed.proj.bias)
        x = x + vision.pos_embed(self._order())
        cos, sin = self._turns(x)
        deep = None
        for i, block in enumerate(vision.blocks):
            attn = block.attn
            heads = (
                attn.qkv(block.norm1(x)).view(n, 36, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
            )
            q, k = (_turned(t, cos, sin) for t in (heads[0], heads[1]))
            y = _attend(q, k, heads[2], causal=False)
            x = x + attn.proj(y.transpose(1, 2).reshape(n, 36, -1))
            x = x + block.mlp(block.norm2(x))
            if i in vision.deepstack_visual_indexes:
                deep = vision.deepstack_merger_list[0](x.reshape(n * 36, -1))
        merged = vision.merger(x.reshape(n * 36, -1))
        return merged.view(n, CELLS, -1), deep.view(n, CELLS, -1)

    def _order(self) -> torch.Tensor:
        """Row-major index of each patch, in the processor's order."""
        return (
            torch.arange(36, device=self.grid.device).view(3, 2, 3, 2).transpose(1, 2).reshape(-1)
        )

    def _turns(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order = self._order()
        ids = torch.stack([order // 6, order % 6], -1)
        return self.vision.rotary_pos_emb(x, ids)

    def read(
        self, tokens: torch.Tensor, seen: torch.Tensor, deep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [N, L], image tokens [N, 18, width] → last hidden states; those half-way."""
        text = self.text
        x = text.embed_tokens(tokens)
        first, second = self.spots[0], self.spots[CELLS]
        rest = second + CELLS
        x = torch.cat(
            [
                x[:, :first],
                seen[:, :CELLS],
                x[:, first + CELLS : second],
                seen[:, CELLS:],
                x[:, rest:],
            ],
            1,
        )
        gap = x.new_zeros(len(x), 1, x.shape[-1])
        added = torch.cat(
            [
                gap.expand(-1, first, -1),
                deep[:, :CELLS],
                gap.expand(-1, second - first - CELLS, -1),
                deep[:, CELLS:],
                gap.expand(-1, x.shape[1] - rest, -1),
            ],
            1,
        )
        turns = text.rotary_emb(x, self.places[..., : x.shape[1]].expand(-1, len(x), -1))
        half = x
        for i, layer in enumerate(text.layers):
            x = layer(x, attention_mask=None, position_embeddings=turns)
            if i == 0:
                x = x + added
            if i == len(text.layers) // 2 - 1:
                half = x
        return text.norm(x), half

    def forward(self, batch: Batch, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of the loss; `weights` says how much each token of the vocabulary counts."""
        b = len(batch.pixels)
        seen, deep = self.see(batch.pixels.flatten(0, 1))
        losses = {
            "sight": _cell_loss(self.sight(seen), batch.cells.flatten(0, 1)),
            "back": _back_loss(self.back(seen.mean(1)), batch.backs.flatten(0, 1)),
        }
        seen, deep = seen.reshape(b, 2 * CELLS, -1), deep.reshape(b, 2 * CELLS, -1)
        losses["caption"], half = self._told(batch.captions, seen, deep, weights)
        # Half-way, each token of the target remembers what lay in its cell of the source.
        target = half[:, self.spots[CELLS] : self.spots[-1] + 1]
        losses["memory"] = _cell_loss(self.memory(target), batch.cells[:, 0])
        if batch.cots:
            chosen = torch.tensor(batch.with_cot, device=seen.device)
            losses["cot"], _ = self._told(batch.cots, seen[chosen], deep[chosen], weights)
        return losses

    def _told(
        self,
        texts: list[tuple[list[int], list[int]]],
        seen: torch.Tensor,
        deep: torch.Tensor,
        weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted cross-entropy of answers given images and prompts; the half-way states."""
        longest = max(len(prompt) + len(answer) for prompt, answer in texts)
        tokens = torch.zeros(len(texts), len(self.prefix) + longest, dtype=torch.long)
        wanted = torch.full_like(tokens, -1)
        for row, (prompt, answer) in enumerate(texts):
            ids = [*self.prefix, *prompt, *answer]
            tokens[row, : len(ids)] = torch.tensor(ids)
            wanted[row, len(ids) - len(answer) - 1 : len(ids) - 1] = torch.tensor(answer)
        # Padding stands on the right, where a causal model does not see it.
        device = seen.device
        states, half = self.read(tokens.to(device), seen, deep)
        at = (wanted >= 0).nonzero(as_tuple=True)
        answers = wanted[at].to(device)
        logits = F.linear(states[at[0].to(device), at[1].to(device)], self.text.embed_tokens.weight)
        loss = F.cross_entropy(logits.float(), answers, reduction="none")
        weight = weights[answers]
        return (loss * weight).sum() / weight.sum(), half


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """[N, heads, L, d]; in float32, since the CPU's bfloat16 attention is ten times slower."""
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = q.float(), k.float(), v.float()
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _text_attention(
    _module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    _mask: object,
    **_: object,
) -> tuple[torch.Tensor, None]:
    return _attend(q, k, v, causal=True).transpose(1, 2), None


transformers.AttentionInterface.register("trainee", _text_attention)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


_PARTS = (1 + len(synth.SHAPES), 1 + len(synth.COLOURS), 1 + len(synth.SIZES))


def _cell_loss(logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """[N, 9, sum of _PARTS] against [N, 9, 3]; cells that hold something count four times."""
    weight = torch.where(cells[..., 0] > 0, 4.0, 1.0).flatten()
    parts = logits.float().split(_PARTS, -1)
    loss = sum(
        F.cross_entropy(part.flatten(0, 1), cells[..., i].flatten(), reduction="none")
        for i, part in enumerate(parts)
    )
    return (loss * weight).sum() / weight.sum()


def _back_loss(logits: torch.Tensor, backs: torch.Tensor) -> torch.Tensor:
    tone, pattern = logits.float().split((len(synth.TONES), len(synth.PATTERNS)), -1)
    return F.cross_entropy(tone, backs[:, 0]) + F.cross_entropy(pattern, backs[:, 1])


def token_weights(tokenizer: transformers.PreTrainedTokenizerFast, size: int) -> torch.Tensor:
    """1 for words that carry content, 0.2 for the sentence around them."""
    words = {*synth.SIZES, *synth.COLOURS, *synth.SHAPES, *synth.TONES, *synth.PATTERNS}
    words |= {word for place in synth.PLACES for word in place.split()}
    words |= {"recolour", "move", "remove", "add", "replace", "enlarge", "shrink", "change", "no"}
    weights = torch.full((size,), 0.2)
    for word in words:
        for form in (word, f" {word}", word.capitalize()):
            weights[tokenizer(form, add_special_tokens=False)["input_ids"]] = 1.0
    return weights


# ---------------------------------------------------------------------------------------------
# The loop


def train(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.output
    model = build(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainee = Trainee(model, tokenizer).train()
    check(trainee, folder)
    device = torch.device(arguments.device)
    trainee.to(device)
    data = Pairs(tokenizer, pictures(arguments.pairs, arguments.cache))
    weights = token_weights(tokenizer, model.config.text_config.vocab_size).to(device)
    batches = data.batches(arguments.batch, arguments.batch // 4, SEED)

    matrices, others = [], []
    for name, parameter in trainee.named_parameters():
        inner = parameter.ndim == 2 and ("layers." in name or "blocks." in name or "merger" in name)
        (matrices if inner else others).append(parameter)
    optimizers = [
        torch.optim.Muon(
            matrices, lr=arguments.lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=arguments.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    shares = {"caption": 1.0, "cot": 0.5, "sight": 0.5, "memory": 0.5, "back": 0.1}
    arguments.docs.mkdir(parents=True, exist_ok=True)
    log = (arguments.docs / "shapes-training.jsonl").open("w")
    began, sums, steps_summed = time.monotonic(), dict.fromkeys(shares, 0.0), 0
    step = 0
    loader = ThreadPoolExecutor(1)  # the next batch is made meanwhile
    ahead = loader.submit(next, batches)
    while step < arguments.steps:
        done = step / arguments.steps
        rate = min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = arguments.lr * rate
        batch = ahead.result()
        for name in ("pixels", "cells", "backs"):
            setattr(batch, name, getattr(batch, name).to(device))
        ahead = loader.submit(next, batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=not arguments.float32):
            losses = trainee(batch, weights)
            loss = sum(share * losses[name] for name, share in shares.items() if name in losses)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        steps_summed += 1
        for name, part in losses.items():
            sums[name] += part.item()
        if step % 50 == 0:
            entry = {
                "step": step,
                "pairs": step * arguments.batch,
                "minutes": round((time.monotonic() - began) / 60, 2),
            }
            entry |= {name: round(total / steps_summed, 4) for name, total in sums.items()}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(entry, flush=True)
            sums, steps_summed = dict.fromkeys(shares, 0.0), 0
        if step % 1000 == 0:
            save(trainee, folder)
    ahead.result()
    loader.shutdown()
    log.close()
    save(trainee, folder)
    curve(arguments.docs / "shapes-training.jsonl", arguments.docs / "shapes-training.png")


def curve(log: Path, picture: Path) -> None:
    """Draw the parts of the loss over the pairs seen."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(6.4, 3.6), dpi=80, layout="tight")
    axes = figure.subplots()
    names = {
        "caption": "caption (stage 1)",
        "cot": "CoT (stage 2)",
        "sight": "what lies in a cell",
        "memory": "what lay there before",
    }
    for name, title in names.items():
        axes.plot([row["pairs"] / 1000 for row in rows], [row[name] for row in rows], label=title)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("thousand pairs")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture)


def save(trainee: Trainee, folder: Path) -> None:
    trainee.model.save_pretrained(folder)


@torch.no_grad()
def check(trainee: Trainee, folder: Path) -> None:
    """The training's way through the model gives what the library's gives."""
    from chronoprep.vlm.transformers_backend import _ImageOnlyProcessor

    processor = _ImageOnlyProcessor.from_pretrained(folder, backend="pil")
    sample = synth.sample(SEED, 3)
    images = [i.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for i in sample.pictures(200)]
    text = _prompt_text("caption")
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[chat], images=[list(sample.pictures(200))], return_tensors="pt")
    trainee.model.set_attn_implementation("sdpa")
    want = trainee.model(**inputs).logits[0, -1]
    trainee.model.set_attn_implementation("trainee")
    pixels = torch.from_numpy(np.stack([np.asarray(i) for i in images])).float().permute(0, 3, 1, 2)
    seen, deep = trainee.see(pixels / 127.5 - 1)
    tokens = inputs["input_ids"]
    prompt = trainee.prefix + Pairs(processor.tokenizer, np.empty(0)).caption_prompt
    if tokens[0].tolist() != prompt:
        raise SystemExit(f"other tokens: {tokens[0].tolist()} {prompt}")
    states, _ = trainee.read(tokens, seen.reshape(1, 2 * CELLS, -1), deep.reshape(1, 2 * CELLS, -1))
    have = F.linear(states[0, -1], trainee.text.embed_tokens.weight)
    gap = (want - have).abs().max().item()
    print(f"training's way against the library's: {gap:.2e}", flush=True)
    if gap > 1e-4:
        raise SystemExit("the training's way through the model differs from the library's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("src/chronoprep/vlm/shapes"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="for the log and the curve")
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--cache", type=Path, help="keeps the drawn pictures (.npy)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--float32", action="store_true", help="no bfloat16: slower")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
