"""Where the encoder's weights are, and how they come into memory.

Three forms are read: a folder of transformers' UMT5 (with or without its decoder), a diffusers
pipeline's `text_encoder`, and Wan's `models_t5_umt5-xxl-enc-bf16.pth`. All become the state of one
`UMT5EncoderModel` that was built without memory of its own and takes the file's mapped pages as
its parameters: nothing is copied unless the number format changes, and a decoder is never read.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep import checkpoint, memory
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import UMT5Settings
from chronoprep.errors import BackendError, ConfigError
from chronoprep.umt5.text import find_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

# What to download: an encoder in any of the three forms and its tokenizer. A pipeline's
# transformer, Wan's video model and VAE stay where they are.
_FILES = (
    *("model_index.json", "text_encoder/*", "tokenizer/*"),
    *("models_t5_umt5*.pth", "google/umt5-xxl/*"),
    *("config.json", "model.safetensors*", "model-*.safetensors", "pytorch_model*.bin*"),
    *("tokenizer*.json", "spiece.model", "special_tokens_map.json"),
)
_PIECE = 256 << 20  # bytes that are converted between two openings of a file

_NAMES = (  # Wan's → transformers'
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.", r"encoder.block.\1."),
    (r"\.norm1\.", ".layer.0.layer_norm."),
    (r"\.attn\.([qkvo])\.", r".layer.0.SelfAttention.\1."),
    (r"\.pos_embedding\.embedding\.", ".layer.0.SelfAttention.relative_attention_bias."),
    (r"\.norm2\.", ".layer.1.layer_norm."),
    (r"\.ffn\.gate\.0\.", ".layer.1.DenseReluDense.wi_0."),
    (r"\.ffn\.fc1\.", ".layer.1.DenseReluDense.wi_1."),
    (r"\.ffn\.fc2\.", ".layer.1.DenseReluDense.wo."),
)
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # two names of one table


def find_encoder(settings: UMT5Settings) -> Checkpoint:
    """Where the encoder is, before anything heavy is imported.

    Raises:
        ConfigError: When it is incomplete, no UMT5, without a tokenizer, too large for this
            machine, or neither cached nor to be had.
    """
    if settings.tokenizer is not None:
        find_tokenizer(Path(), settings.tokenizer)  # a wrong one shows before any download

    def check(place: Path) -> dict[str, object]:
        _, config = _weights_of(place)
        find_tokenizer(place, settings.tokenizer)
        return config or {}

    path = Path(settings.model).expanduser()
    if path.is_file():
        config = check(path)
        size = path.stat().st_size
        found = Checkpoint(path.name, path, checkpoint.content_revision(path), config, size)
    else:
        found = checkpoint.find(
            settings.model, revision=settings.revision, check=check, patterns=_FILES
        )
    if found.folder is not None:
        needed = int(_bytes(found.folder, settings.dtype) * 1.15)
        for device in dict.fromkeys(settings.device.split(",")):
            memory.check(needed, device.strip(), settings.model)
    return found


class Weights:
    """An encoder's weights, opened but not read yet.

    Args:
        place: The folder, or Wan's file.

    Attributes:
        width: Length of an embedding's rows.

    Raises:
        BackendError: When a file can't be read or a part of the encoder is missing.
    """

    def __init__(self, place: Path, dtype: str) -> None:
        import torch
        import transformers

        self.place = place
        self._files, config = _weights_of(place)
        self._dtype = None if dtype == "auto" else getattr(torch, dtype)
        shapes = {
            name: tuple(tensor.shape) for file in self._files for name, tensor in self._open(file)
        }
        if "shared.weight" not in shapes:
            raise BackendError(
                f"{place}: lacks the token embeddings ({' or '.join(_EMBEDDINGS)}).",
                hint="Download it again, or point --model at a UMT5 encoder.",
            )
        self._config: Any = transformers.UMT5Config(**(config or _config_of(shapes)))
        self._config._attn_implementation = "eager"
        self.width = int(self._config.d_model)

    def load(self) -> dict[str, Tensor]:
        """The weights in the wanted number format; mapped from the file where it has that one."""
        state: dict[str, Tensor] = {}
        for file in self._files:
            tensors = dict(self._open(file))
            other = {n for n, t in tensors.items() if self._dtype not in (None, t.dtype)}
            state |= {name: tensor for name, tensor in tensors.items() if name not in other}
            if other:
                state |= self._convert(file, other)
        return state

    def model(self, state: dict[str, Tensor], device: str) -> Any:
        """A `UMT5EncoderModel` on a device; on the CPU it shares the state's memory.

        Raises:
            BackendError: When the state lacks a part of the encoder or has one of another shape,
                or the device is too small.
        """
        import torch
        import transformers

        with torch.device("meta"):
            model: Any = transformers.UMT5EncoderModel(self._config)
        model.set_input_embeddings(model.shared)  # one table, also on a GPU
        given = state | {_EMBEDDINGS[1]: state[_EMBEDDINGS[0]]}
        missing = sorted(model.state_dict().keys() - given.keys())
        if missing:
            raise BackendError(
                f"{self.place}: the checkpoint lacks {len(missing)} of the encoder's weights, "
                f"among them {missing[0]}.",
                hint="Download it again, or point --model at a UMT5 encoder.",
            )
        try:
            model.load_state_dict(given, strict=True, assign=True)
        except RuntimeError as error:
            raise BackendError(f"{self.place}: the encoder can't be loaded: {error}") from None
        model.set_input_embeddings(model.shared)
        try:
            return model.requires_grad_(False).to(device).eval()
        except torch.OutOfMemoryError:
            raise BackendError(
                f"{self.place}: the memory of {device} does not hold the encoder.",
                hint="Free some of it, or choose another --device.",
            ) from None

    def _open(self, file: Path) -> Iterator[tuple[str, Tensor]]:
        """The encoder's tensors of a file under transformers' names: mapped, not read.

        Raises:
            BackendError: When the file can't be read, or holds more than tensors.
        """
        import pickle

        import safetensors
        import safetensors.torch
        import torch

        try:
            tensors: Any
            if file.suffix == ".safetensors":
                tensors = safetensors.torch.load_file(file)
            else:
                # Only tensors: a checkpoint from the net must not run code here. Files of a
                # torch older than 1.6 are no zip archives and can't be mapped.
                tensors = torch.load(
                    file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
                )
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError,
                safetensors.SafetensorError) as error:  # fmt: skip
            raise BackendError(
                f"{file}: the weights can't be read: {error}", hint="Download it again."
            ) from None
        if not isinstance(tensors, dict):
            raise BackendError(f"{file}: holds no table of weights.")
        wan = any(name.startswith("blocks.") for name in tensors)
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.Tensor):
                continue
            if wan:
                for pattern, new in _NAMES:
                    name = re.sub(pattern, new, name)
            if name in _EMBEDDINGS:
                name = _EMBEDDINGS[0]
            elif not name.startswith("encoder."):
                continue
            yield name, tensor

    def _convert(self, file: Path, names: set[str]) -> dict[str, Tensor]:
        """Tensors of a file in the wanted number format.

        The file is opened anew for every piece, so that its pages that were read leave memory: the
        peak is the result and one piece, however large the file is.
        """
        import torch

        todo = {name: tensor for name, tensor in self._open(file) if name in names}
        done = {name: torch.empty_like(tensor, dtype=self._dtype) for name, tensor in todo.items()}
        pieces: list[list[tuple[str, slice]]] = []
        room = 0
        for name, tensor in todo.items():
            row = max(1, tensor.numel() // max(1, len(tensor)) * tensor.element_size())
            step = max(1, _PIECE // row)
            for start in range(0, len(tensor), step):
                part = slice(start, min(start + step, len(tensor)))
                size = (part.stop - part.start) * row
                if room < size:
                    pieces.append([])
                    room = _PIECE
                pieces[-1].append((name, part))
                room -= size
        del todo
        for piece in pieces:
            tensors = dict(self._open(file))
            for name, part in piece:
                done[name][part] = tensors[name][part]
            del tensors  # before the next piece's pages come
        return done


def _weights_of(place: Path) -> tuple[list[Path], dict[str, Any] | None]:
    """The weight files of a folder and its configuration; None for Wan's file, which has none.

    Raises:
        ConfigError: When there is no UMT5, or it is incomplete.
    """
    if place.is_file():
        if not zipfile.is_zipfile(place):
            raise ConfigError(
                f"{place}: not a PyTorch checkpoint (a Git LFS pointer, or cut short?).",
                hint="Download it again; --model also takes a folder or a hub id.",
            )
        return [place], None
    part = place / "text_encoder"
    folder = part if (part / "config.json").is_file() else place
    wan = sorted(place.glob("models_t5_umt5*.pth"))
    if wan and folder == place:
        return _weights_of(wan[0])
    config = checkpoint.read_config(folder)
    if config.get("model_type") != "umt5":
        raise ConfigError(
            f"{folder}: {config.get('model_type', 'this')!r} is not a UMT5 model.",
            hint="Give a UMT5, a diffusers pipeline that holds one, or Wan's models_t5_umt5….pth.",
        )
    return checkpoint.check_weights(folder), dict(config)


def _config_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The configuration of Wan's file, which has none of its own, from the shapes of its weights.

    What shapes do not tell is fixed in the reference's code.
    """
    first = "encoder.block.0.layer."
    vocabulary, width = shapes["shared.weight"]
    try:
        buckets, heads = shapes[first + "0.SelfAttention.relative_attention_bias.weight"]
        inner = shapes[first + "0.SelfAttention.q.weight"][0]
        hidden = shapes[first + "1.DenseReluDense.wi_0.weight"][0]
    except KeyError as error:
        raise BackendError(
            f"The checkpoint lacks {error} of the encoder's weights.",
            hint="Point --model at a UMT5 encoder.",
        ) from None
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": 1 + max(int(n.split(".")[2]) for n in shapes if n.startswith("encoder.bl")),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def _bytes(place: Path, dtype: str) -> int:
    """Bytes that the encoder takes in memory; its files may hold a decoder as well."""
    files, config = _weights_of(place)
    if config is None:  # Wan's: no decoder, bfloat16
        return sum(file.stat().st_size for file in files) * (2 if dtype == "float32" else 1)
    names = ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")
    sizes: list[Any] = [config.get(name) for name in names]
    if not all(isinstance(size, int) for size in sizes):
        raise ConfigError(f"{place}: config.json lacks one of {', '.join(names)}.")
    vocabulary, width, layers, heads, head, inner = sizes
    parameters = vocabulary * width + layers * width * (4 * heads * head + 3 * inner)
    if dtype == "auto":
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return int(parameters) * (4 if dtype == "float32" else 2)


def identity(found: Checkpoint, settings: UMT5Settings) -> str:
    """What embeddings depend on beside the prompt, readable: model, revision, dtype, tokenizer.

    The tokenizer counts by its content where the revision, a commit on the hub, does not cover it.
    """
    parts = [f"{found.name}@{found.revision}", settings.dtype]
    local = Path(settings.model).expanduser().exists()
    if settings.tokenizer is not None or local:
        place = find_tokenizer(found.folder or Path(), settings.tokenizer)
        digest = hashlib.blake2b(digest_size=8)
        for file in (place, place / "tokenizer.json", place / "spiece.model"):
            if file.is_file():
                digest.update(file.read_bytes())
        parts.append(f"tokenizer-{digest.hexdigest()}")
    return " ".join(parts)
