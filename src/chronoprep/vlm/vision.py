"""The pictures of the Qwen-VL families, each preprocessed and encoded once while it lives: a chat
that shows the same picture again (stage 2, a further draw) costs no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from chronoprep.data import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

# Patches that the encoder takes at a time: bounds its memory whatever the batch.
_PATCHES_AT_A_TIME = 65_536


@dataclass(slots=True, eq=False)
class _Seen:
    """What was made of one picture.

    Attributes:
        grid: Patches in time, down and across.
        patches: uint8 [patches, channels, pixels], until they are encoded.
        features: [tokens, hidden] each: the pooled output, and one more for every deepstack layer.
    """

    grid: tuple[int, int, int]
    patches: np.ndarray[Any, np.dtype[np.uint8]] | None
    features: list[torch.Tensor] | None = None


class Vision:
    """The vision half of a loaded Qwen-VL model.

    Args:
        model: Has `get_image_features`.
        processor: Its image processor, on the Pillow backend.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        self._kind: Any = None
        self._seen: WeakKeyDictionary[Picture, _Seen] = WeakKeyDictionary()
        # What each of the 256 values of a channel becomes: the processor's own arithmetic.
        steps = np.repeat(np.arange(256, dtype=np.uint8)[None, None], 3, axis=0)
        if processor.do_rescale:
            steps = processor.rescale(steps, processor.rescale_factor)
        if processor.do_normalize:
            steps = processor.normalize(steps, processor.image_mean, processor.image_std)
        self._values = torch.from_numpy(steps.reshape(3 * 256).astype(np.float32))

    def prepare(self, picture: Picture) -> _Seen:
        """Resize a picture and cut it into patches; safe in threads.

        Raises:
            ValueError: When its aspect ratio is out of bounds.
        """
        seen = self._seen.get(picture)
        if seen is None:
            seen = self._seen[picture] = self._cut(picture.pixels)
        return seen

    def tokens(self, picture: Picture) -> int:
        """How many tokens stand for a picture in the text."""
        time, down, across = self.prepare(picture).grid
        return int(time * down * across // self._processor.merge_size**2)

    def encoded(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        """The arguments of `generate` that stand for pictures, in order, without their pixels."""
        seen = [self.prepare(picture) for picture in pictures]
        self._encode([entry for entry in dict.fromkeys(seen) if not entry.features])
        parts = [entry.features or [] for entry in seen]
        output = self._kind(pooler_output=tuple(part[0] for part in parts))
        if len(parts[0]) > 1:
            layers = range(1, len(parts[0]))
            output["deepstack_features"] = [tuple(part[i] for part in parts) for i in layers]
        return {
            "mm_encoder_outputs": {"image": output},
            "image_grid_thw": self._grids(seen),
        }

    def _encode(self, entries: list[_Seen]) -> None:
        while entries:
            ends = np.cumsum([np.prod(entry.grid) for entry in entries])
            count = max(1, int(np.searchsorted(ends, _PATCHES_AT_A_TIME, side="right")))
            some, entries = entries[:count], entries[count:]
            output = self._model.get_image_features(self._pixels(some), self._grids(some))
            self._kind = type(output)
            layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
            for entry, features in zip(some, zip(*layers, strict=True), strict=True):
                # A part of the batch's tensor would keep all of it alive.
                entry.features = [part.clone() for part in features]
                entry.patches = None

    def _cut(self, image: Image) -> _Seen:
        """As the library's Pillow processor cuts them, but before they become numbers, and once
        for the two equal frames of a still image: a quarter of the memory, half the time."""
        made, size = self._processor, self._processor.size
        patch, merge = made.patch_size, made.merge_size
        height, width = smart_resize(
            image.height,
            image.width,
            factor=patch * merge,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        pixels = np.asarray(image.resize((width, height), made.resample))
        down, across = height // patch, width // patch
        cut = pixels.reshape(down // merge, merge, patch, across // merge, merge, patch, 3)
        patches = cut.transpose(0, 3, 1, 4, 6, 2, 5).reshape(down * across, 3, patch * patch)
        return _Seen((1, down, across), np.ascontiguousarray(patches))

    def _pixels(self, entries: Sequence[_Seen]) -> torch.Tensor:
        """[patches, channels · frames · pixels] in the model's dtype, on its device."""
        device, dtype = self._model.device, self._model.dtype
        patches = [torch.from_numpy(e.patches) for e in entries if e.patches is not None]
        steps = torch.cat(patches).to(device).int()
        steps += torch.arange(0, 768, 256, dtype=torch.int32, device=device)[:, None]
        values = self._values.to(device, dtype)[steps]
        frames = self._processor.temporal_patch_size
        return values[:, :, None].expand(-1, -1, frames, -1).reshape(len(values), -1)

    def _grids(self, entries: Sequence[_Seen]) -> torch.Tensor:
        return torch.tensor([entry.grid for entry in entries], device=self._model.device)
