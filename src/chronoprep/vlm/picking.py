"""How transformers' `generate` picks the next token: greedily or drawn, and within what budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from chronoprep.data import Sampling


class Pick(transformers.LogitsProcessor):
    """Sees each token picked, and how likely it was by the model's own logits.

    Args:
        draw: What picks it; greedily where there is none.

    Attributes:
        chances: For each step, the log-probabilities of the rows' tokens; they stay on the device.
    """

    def __init__(self, draw: Draw | Told | None = None) -> None:
        self._draw = draw
        self.chances: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._draw is None:
            self.chances.append(scores.amax(-1) - scores.logsumexp(-1))
            return scores
        drawn = self._draw(input_ids, scores)
        picked = scores.gather(-1, drawn.argmax(-1, keepdim=True)).squeeze(-1)
        self.chances.append(picked - scores.logsumexp(-1))
        return drawn


class Draw(transformers.LogitsProcessor):
    """Sampling as the argmax of logits with Gumbel noise.

    A row draws the same tokens in any batch, which `do_sample` does not give: a label that was
    drawn again can be drawn again by anyone.
    """

    def __init__(self, sampling: Sampling, device: Any) -> None:
        self._cut = transformers.TopPLogitsWarper(sampling.top_p)
        self._temperature = sampling.temperature
        self._generator = torch.Generator(device).manual_seed(sampling.seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = self._cut(input_ids, scores.float() / self._temperature)
        noise = torch.empty(scores.shape[1], device=scores.device)
        return scores - noise.exponential_(generator=self._generator).log()


class Told(transformers.LogitsProcessor):
    """Picks the tokens that it was told, so that the model says how likely each of them was.

    Args:
        rows: The tokens of each row; a row that is through repeats its last one.
        start: Tokens of the prompt.
    """

    def __init__(self, rows: Sequence[Sequence[int]], start: int) -> None:
        self._rows, self._start = rows, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        step = input_ids.shape[1] - self._start
        told = [row[min(step, len(row) - 1)] for row in self._rows]
        forced = torch.full_like(scores, -torch.inf)
        forced[range(len(told)), told] = 0.0
        return forced


class Budget(transformers.LogitsProcessor):
    """Ends a thought that the prompt began once it has taken its tokens: the answer follows.

    Args:
        tokens: New tokens that a thought may take.
        closing: The token that ends it.
        start: Tokens of the prompt.
    """

    def __init__(self, tokens: int, closing: int, start: int) -> None:
        self._tokens, self._closing, self._start = tokens, closing, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        new = input_ids[:, self._start :]
        if new.shape[1] < self._tokens:
            return scores
        closed = (new == self._closing).any(-1, keepdim=True)
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._closing] = 0.0
        return torch.where(closed, scores, forced)
