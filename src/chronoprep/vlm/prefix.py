"""What the model computed of prompts that begin alike: kept from one batch for the next.

Both stages begin with the same system text and the same two images, which are nearly all of their
tokens. Their keys and values are computed in stage 1 and taken over by stage 2 and by further
draws.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from chronoprep.data import Picture

# Tokens that a cache may grow by before it is copied to a larger place.
_ROOM = 128


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a new token is written there. The library's layer
    copies all of them for each token, which for long prompts costs more than the attention."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._places: list[torch.Tensor | None] = [None, None]
        self.keys = self._appended(0, self.keys, key_states)
        self.values = self._appended(1, self.values, value_states)
        return self.keys, self.values

    def _appended(self, which: int, kept: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        start = kept.shape[-2] if kept is not None and kept.numel() else 0
        end = start + new.shape[-2]
        place = self._places[which]
        if place is None or place.shape[-2] < end or not _begins(place, kept, start):
            place = new.new_empty(*new.shape[:-2], end + _ROOM, new.shape[-1])
            if kept is not None and start:
                place[..., :start, :] = kept
            self._places[which] = place
        place[..., start:end, :] = new
        return place[..., :end, :]


def _begins(place: torch.Tensor, kept: torch.Tensor | None, length: int) -> bool:
    """Whether what is kept is the beginning of a place, and not a selection of it."""
    return length == 0 or (kept is not None and kept.data_ptr() == place.data_ptr())


def new_cache(config: Any) -> Cache | None:
    """An empty cache for a batch; None where a model's layers want caches of other kinds."""
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return None
    return Cache(layer_class_to_replicate=_RoomyLayer)


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
        self._all = list(range(len(prompts)))
        self.rewind()

    @staticmethod
    def fits(prompts: Sequence[Prompt], cache: Any) -> bool:
        """Whether a batch's heads can be kept."""
        kinds = {type(layer) for layer in getattr(cache, "layers", ())}
        return kinds == {_RoomyLayer} and len({len(p.tail) for p in prompts}) == 1

    def rows(self, prompts: Sequence[Prompt]) -> list[int] | None:
        """Where the heads of prompts stand in this batch; None unless all do."""
        found = [self._rows[p.start] for p in prompts if p.start in self._rows]
        return found if len(found) == len(prompts) else None

    def inputs(self, rows: list[int], tails: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `generate` for left-padded tails after the heads of these rows."""
        mask = torch.cat([self._mask[rows], tails["attention_mask"]], dim=1)
        text = (mask.cumsum(-1) - 1).clamp(min=0)
        return {
            "input_ids": torch.cat([self._ids[rows], tails["input_ids"]], dim=1),
            "attention_mask": mask,
            # Of the text, then in time, down and across: after the images all three are equal.
            "position_ids": torch.stack([text, *[text + self._shifts[rows]] * 3]),
            "past_key_values": self._taken(rows),
        }

    def rewind(self) -> None:
        """Forget what was generated after the heads."""
        if grown := self._cache.get_seq_length() - self._width:
            self._cache.crop(-grown)

    def _taken(self, rows: list[int]) -> Any:
        if rows == self._all:
            return self._cache  # grows in place, until `rewind`
        taken = Cache(layer_class_to_replicate=_RoomyLayer)
        for i, layer in enumerate(self._cache.layers):
            taken.update(layer.keys[rows], layer.values[rows], i)
        return taken
