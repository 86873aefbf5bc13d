"""What a Qwen3-VL forward costs, counted from its config, and what cards can do.

Counted is what an answer needs: a causal attention is half a square, and of the experts only those
that tokens were sent to. Norms, activations and positions are left out, less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Dense bfloat16 TFLOP/s with float32 accumulation, and GB/s of memory, from the makers' data
# sheets. The first whose words are all in the card's name.
PEAKS = {
    "B200": (2250, 8000),
    "H200": (989, 4800),
    "H100 PCIe": (756, 2000),
    "H100 NVL": (835, 3900),
    "H100": (989, 3350),
    "A100 80GB PCIe": (312, 1935),
    "A100 80GB": (312, 2039),
    "A100": (312, 1555),
    "L40S": (362, 864),
    "L4": (121, 300),
    "A10": (125, 600),
    "RTX 5090": (209, 1792),
    "RTX 4090": (165, 1008),
    "RTX 3090": (71, 936),
}


def peaks(card: str) -> tuple[float, float] | None:
    """FLOP/s and bytes/s that a card is sold for; None for one that is not in the table."""
    words = set(card.replace("-", " ").split())
    for name, (tflops, gbps) in PEAKS.items():
        if words >= set(name.split()):
            return tflops * 1e12, gbps * 1e9
    return None


@dataclass(frozen=True)
class Cost:
    """Counts of a model.

    Args:
        config: A Qwen3-VL's, dense or of experts.
        itemsize: Bytes a number.
    """

    config: Any
    itemsize: int = 2

    @property
    def _heads(self) -> int:
        text = self.config.text_config
        return int(text.num_attention_heads * text.head_dim)

    @property
    def _keys(self) -> int:
        """Numbers of keys and values that a token leaves in a layer."""
        text = self.config.text_config
        return int(2 * text.num_key_value_heads * text.head_dim)

    def _layer(self, experts: float) -> float:
        """Weights of a decoder layer that a matrix product takes, with so many experts."""
        text = self.config.text_config
        attention = text.hidden_size * (2 * self._heads + self._keys)
        if not (count := getattr(text, "num_experts", 0)):
            return float(attention + 3 * text.hidden_size * text.intermediate_size)
        each = 3 * text.hidden_size * text.moe_intermediate_size
        return float(attention + text.hidden_size * count + experts * each)

    @property
    def _head(self) -> int:
        return int(self.config.text_config.vocab_size * self.config.text_config.hidden_size)

    def vision_flops(self, patches: Sequence[int]) -> float:
        """Of encoding images, each of so many patches."""
        vision = self.config.vision_config
        width, merged = vision.hidden_size, vision.spatial_merge_size**2
        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        block = width * (4 * width + 2 * vision.intermediate_size)
        merger = merged * width * (merged * width + vision.out_hidden_size)
        mergers = 1 + len(vision.deepstack_visual_indexes)
        patch = pixels * width + vision.depth * block + mergers * merger / merged
        return sum(n * (2 * patch + vision.depth * 4 * width * n) for n in patches)

    def text_flops(self, rows: int, new: int, past: int) -> float:
        """Of running `new` tokens a row through the decoder after `past` ones, and of the logits
        of each row's last token."""
        text = self.config.text_config
        layer = self._layer(getattr(text, "num_experts_per_tok", 0))
        seen = new * past + new * (new + 1) / 2
        layers = text.num_hidden_layers * (2 * new * layer + 4 * self._heads * seen)
        return rows * (layers + 2 * self._head)

    def step_bytes(self, rows: int, tokens: int) -> float:
        """That a step which generates one token a row has to read: the weights once, and the keys
        and values of `tokens` tokens a row."""
        text = self.config.text_config
        experts = 0.0
        if count := getattr(text, "num_experts", 0):
            # As many as differ, where every token is sent to any of them alike.
            experts = count * (1 - (1 - text.num_experts_per_tok / count) ** rows)
        weights = text.num_hidden_layers * self._layer(experts) + self._head
        kept = text.num_hidden_layers * self._keys * tokens * rows
        return self.itemsize * (weights + kept)
