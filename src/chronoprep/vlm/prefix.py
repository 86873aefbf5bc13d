"""What the model computed of prompts that begin alike: kept from one batch for the next.

Both stages begin with the same system text and the same two images, which are nearly all of their
tokens. Their keys and values are computed in stage 1 and taken over by stage 2 and by further
draws.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
        head: All tokens up to the last image's last one.
        tail: The tokens after that; never empty.
        images: The images in the head.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]
    images: tuple[Image, ...]


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
        self._rows = {(p.head, *map(id, p.images)): i for i, p in enumerate(prompts)}
        # An identity says nothing once its object is gone.
        self._images = [[weakref.ref(image) for image in p.images] for p in prompts]
        self.rewind()

    @staticmethod
    def fits(prompts: Sequence[Prompt], cache: Any) -> bool:
        """Whether a batch's heads can be kept."""
        kinds = {type(layer) for layer in getattr(cache, "layers", ())}
        return kinds == {DynamicLayer} and len({len(p.tail) for p in prompts}) == 1

    def rows(self, prompts: Sequence[Prompt]) -> list[int] | None:
        """Where the heads of prompts stand in this batch; None unless all do."""
        found = []
        for prompt in prompts:
            row = self._rows.get((prompt.head, *map(id, prompt.images)))
            if row is None or any(
                seen() is not image
                for seen, image in zip(self._images[row], prompt.images, strict=True)
            ):
                return None
            found.append(row)
        return found

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
        if rows == list(range(len(self._images))):
            return self._cache  # grows in place, until `rewind`
        taken = transformers.DynamicCache()
        for i, layer in enumerate(self._cache.layers):
            taken.update(layer.keys[rows], layer.values[rows], i)
        return taken
