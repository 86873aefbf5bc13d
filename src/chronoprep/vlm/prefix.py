"""What the model computed of prompts that begin alike: kept from one batch for the next.

Both stages begin with the same system text and the same two images, which are nearly all of their
tokens. Their keys and values are computed in stage 1 and taken over by stage 2 and by further
draws.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

from chronoprep.data import Picture

# Tokens that a cache may grow by before it is copied to a larger place.
_ROOM = 128


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a new token is written there. The library's layer
    copies all of them for each token, which for long prompts costs more than the attention.

    Args:
        tokens: That surely come: no room is sought again for them.
    """

    _place: torch.Tensor  # keys, then values

    def __init__(self, tokens: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not start or self._place.shape[-2] < end:
            *outer, _tokens, width = key_states.shape
            size = max(end, self._tokens) + _ROOM
            place = key_states.new_empty(2, *outer, size, width)
            if start:
                place[..., :start, :] = self._place[..., :start, :]
            self._place = place
        self._place[0, ..., start:end, :] = key_states
        self._place[1, ..., start:end, :] = value_states
        self.keys, self.values = self._place[..., :end, :]
        return self.keys, self.values


def new_cache(config: Any, tokens: int) -> Cache | None:
    """An empty cache for a batch; None where a model's layers want caches of other kinds.

    Args:
        tokens: Of the longest prompt.
    """
    layers: dict[str, Callable[[], Any]] = {
        "full_attention": lambda: _RoomyLayer(tokens),
        "linear_attention": LinearAttentionLayer,
    }
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    if {*kinds} - {*layers}:
        return None
    return Cache([layers[kind]() for kind in kinds])


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
        head: All tokens up to the last picture's last one.
        tail: The tokens after that; never empty.
        pictures: Those in the head.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]
    pictures: tuple[Picture, ...]

    @property
    def start(self) -> tuple[object, ...]:
        """What the keys and values of the head depend on, without keeping the pictures alive."""
        return self.head, *map(weakref.ref, self.pictures)


class Prefix:
    """The heads of one batch.

    Args:
        prompts: The batch, whose tails are equally long: the left-padded heads then end together.
        inputs: `input_ids` and `attention_mask` of the batch, [prompts, tokens].
        cache: Of the batch, whatever was generated after it included.
        shifts: How far each prompt's positions lag behind its tokens, since an image takes fewer
            positions than tokens; [prompts, 1].
    """

    def __init__(
        self, prompts: Sequence[Prompt], inputs: dict[str, Any], cache: Any, shifts: torch.Tensor
    ) -> None:
        self._width = inputs["input_ids"].shape[1] - len(prompts[0].tail)
        self._ids = inputs["input_ids"][:, : self._width]
        self._mask = inputs["attention_mask"][:, : self._width]
        self._cache, self._shifts = cache, shifts
        self._rows = {prompt.start: i for i, prompt in enumerate(prompts)}

    @staticmethod
    def fits(prompts: Sequence[Prompt], cache: Any) -> bool:
        """Whether a batch's heads can be kept: the state of linear attention is that of the last
        token and can't be taken back to theirs."""
        kinds = {type(layer) for layer in getattr(cache, "layers", ())}
        return kinds == {_RoomyLayer} and len({len(p.tail) for p in prompts}) == 1

    def inputs(self, prompts: Sequence[Prompt], tails: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments of `generate` for prompts whose heads are here; None unless all are.

        Args:
            tails: Of the prompts, left-padded.
        """
        rows = [self._rows[p.start] for p in prompts if p.start in self._rows]
        if len(rows) < len(prompts):
            return None
        mask = torch.cat([self._mask[rows], tails["attention_mask"]], dim=1)
        text = (mask.cumsum(-1) - 1).clamp(min=0)
        return {
            "input_ids": torch.cat([self._ids[rows], tails["input_ids"]], dim=1),
            "attention_mask": mask,
            # Of the text, then in time, down and across: after the images all three are equal.
            "position_ids": torch.stack([text, *[text + self._shifts[rows]] * 3]),
            "past_key_values": self._taken(rows),
        }

    def _taken(self, rows: list[int]) -> Any:
        """The cache of these rows, which grows; what was generated after the heads is not in it."""
        self._cache.crop(self._width - self._cache.get_seq_length())
        if rows == list(range(len(self._ids))):
            return self._cache
        taken = Cache(layer_class_to_replicate=_RoomyLayer)
        for i, layer in enumerate(self._cache.layers):
            taken.update(layer.keys[rows], layer.values[rows], i)
        return taken
