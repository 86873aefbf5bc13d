"""A T5 encoder with UMT5's changes, written from the papers, in plain tensor arithmetic.

Raffel et al. 2020 (T5), Shazeer 2020 (gated GELU), Zhang and Sennrich 2019 (RMS norm), Chung et al.
2023 (UMT5: every layer has a position bias of its own). Weights go by Wan's names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-6) -> Tensor:
    """x / √(mean x² + eps) · gain: no mean is taken off, nothing is added."""
    size = (x.float().square().mean(-1, keepdim=True) + eps).sqrt()
    return (x.float() / size).to(gain.dtype) * gain


def gelu(x: Tensor) -> Tensor:
    """The tanh form of the Gaussian error unit."""
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bucket(distance: int, buckets: int, furthest: int) -> int:
    """Which bias a key at `distance` from its query gets.

    Half of the buckets are for keys behind the query, half for those ahead. Of each half, the first
    half is one bucket a distance, the rest grows with the logarithm up to `furthest`.
    """
    half = buckets // 2
    side, away = (half if distance > 0 else 0), abs(distance)
    exact = half // 2
    if away < exact:
        return side + away
    # In float32, like everybody's weights were trained with.
    ratio = torch.tensor(away, dtype=torch.float32) / exact
    grown = torch.log(ratio) / math.log(furthest / exact) * (half - exact)
    return side + min(exact + int(grown), half - 1)


def position_bias(table: Tensor, length: int, furthest: int) -> Tensor:
    """[heads, queries, keys] out of a table [buckets, heads]."""
    near = [bucket(d, len(table), furthest) for d in range(-length + 1, length)]
    index = torch.tensor([[near[k - q + length - 1] for k in range(length)] for q in range(length)])
    return table[index].permute(2, 0, 1)


def encode(weights: Weights, ids: list[int], heads: int, *, pad: int = 0, width: int = 0,
           furthest: int = 128) -> Tensor:  # fmt: skip
    """Hidden states [len(ids), model width] of one sequence, computed at `width` with padding."""
    width = max(width, len(ids))
    mask = torch.arange(width) < len(ids)
    x = weights["token_embedding.weight"][torch.tensor(ids + [pad] * (width - len(ids)))]
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for number in range(layers):
        w = {
            name.removeprefix(f"blocks.{number}.").removesuffix(".weight"): tensor
            for name, tensor in weights.items()
            if name.startswith(f"blocks.{number}.")
        }
        y = rms_norm(x, w["norm1"])
        q, k, v = (
            (y @ w[f"attn.{part}"].T).view(width, heads, -1).transpose(0, 1) for part in "qkv"
        )
        scores = q @ k.transpose(1, 2)  # no division by √d
        scores = scores + position_bias(w["pos_embedding.embedding"], width, furthest)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        share = scores.float().softmax(-1).to(v.dtype)
        x = x + (share @ v).transpose(0, 1).reshape(width, -1) @ w["attn.o"].T
        y = rms_norm(x, w["norm2"])
        x = x + (gelu(y @ w["ffn.gate.0"].T) * (y @ w["ffn.fc1"].T)) @ w["ffn.fc2"].T
    return rms_norm(x, weights["norm.weight"])[: len(ids)]


def random_weights(
    layers: int, width: int, heads: int, head: int, inner: int, *,
    vocabulary: int = 320, buckets: int = 32, seed: int = 0, dtype: torch.dtype = torch.float32,
) -> Weights:  # fmt: skip
    """Weights whose activations keep a size of about 1, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).to(dtype)

    every = heads * head
    weights = {"token_embedding.weight": normal(vocabulary, width, scale=1.0)}
    for number in range(layers):
        at = f"blocks.{number}."
        weights |= {
            at + "norm1.weight": 1 + normal(width, scale=0.1),
            at + "attn.q.weight": normal(every, width, scale=(width * head) ** -0.5),
            at + "attn.k.weight": normal(every, width, scale=width**-0.5),
            at + "attn.v.weight": normal(every, width, scale=width**-0.5),
            at + "attn.o.weight": normal(width, every, scale=every**-0.5),
            at + "pos_embedding.embedding.weight": normal(buckets, heads, scale=0.5),
            at + "norm2.weight": 1 + normal(width, scale=0.1),
            at + "ffn.gate.0.weight": normal(inner, width, scale=width**-0.5),
            at + "ffn.fc1.weight": normal(inner, width, scale=width**-0.5),
            at + "ffn.fc2.weight": normal(width, inner, scale=inner**-0.5),
        }
    return weights | {"norm.weight": 1 + normal(width, scale=0.1)}
