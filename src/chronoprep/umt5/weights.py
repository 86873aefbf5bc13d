"""Where the encoder's weights are, and how they come into memory.

Three forms are read: a folder of transformers' UMT5 (with or without its decoder), a diffusers
pipeline's `text_encoder`, and Wan's `models_t5_umt5-xxl-enc-bf16.pth`. All become the parameters of
one `UMT5EncoderModel`, mapped from the file: nothing is copied unless the number format changes,
and a decoder is never read.
"""

from __future__ import annotations

import copy
import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep import checkpoint, digest, memory
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
    """An encoder's weights, found but not read yet.

    Args:
        place: The folder, or Wan's file.

    Attributes:
        width: Length of an embedding's rows.

    Raises:
        BackendError: When Wan's file can't be read or holds no encoder.
    """

    def __init__(self, place: Path, dtype: str) -> None:
        import transformers

        self.place, self._dtype = place, dtype
        self._path, config = _weights_of(place)
        self._state = _wan_state(self._path) if config is None else None
        self._config: Any = transformers.UMT5Config(**(config or _config_of(self._state or {})))
        # One table under two names; where a file says otherwise, the second would stay empty.
        self._config.tie_word_embeddings = True
        self.width = int(self._config.d_model)

    def load(self) -> Any:
        """A `UMT5EncoderModel` on the CPU; mapped from the file where the number format is its own.

        Raises:
            BackendError: When a file can't be read, or a part of the encoder is missing.
        """
        import transformers

        transformers.utils.logging.disable_progress_bar()
        kind: Any = transformers.UMT5EncoderModel
        try:
            model, info = kind.from_pretrained(
                None if self._state else self._path,
                config=self._config,
                state_dict=self._state,
                dtype=self._dtype,
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:  # the library's own, safetensors', pickle's and torch's
            raise _unreadable(self._path, error) from None
        missing = sorted(info["missing_keys"])
        if missing:
            what = f"{len(missing)} of the encoder's weights, among them {missing[0]}"
            if "shared.weight" in missing:
                what = "the token embeddings (shared.weight)"
            raise BackendError(
                f"{self.place}: the checkpoint lacks {what}.",
                hint="Download it again, or point --model at a UMT5 encoder.",
            )
        return model.requires_grad_(False)


def placed(model: Any, device: str) -> Any:
    """A model of its own on a device; on the CPU it shares the memory of the one given.

    Raises:
        BackendError: When the device is too small.
    """
    import torch

    # In place of its parameters, which moving one copy would take from the others.
    shared = {id(p): torch.nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    try:
        return copy.deepcopy(model, shared).to(device)
    except torch.OutOfMemoryError:
        raise BackendError(
            f"The memory of {device} does not hold the encoder.",
            hint="Free some of it, or choose another --device.",
        ) from None


def _wan_state(file: Path) -> dict[str, Tensor]:
    """The tensors of Wan's file under transformers' names: mapped, not read.

    Raises:
        BackendError: When the file can't be read, or holds more than tensors.
    """
    import torch

    try:
        # Only tensors: a checkpoint from the net must not run code here.
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise _unreadable(file, error) from None
    if not isinstance(tensors, dict):
        raise BackendError(
            f"{file}: holds no table of weights.", hint="Point --model at a UMT5 encoder."
        )
    state = {}
    for name, tensor in tensors.items():
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        if isinstance(tensor, torch.Tensor):
            state[name] = tensor
    return state


def _unreadable(path: Path, error: Exception) -> BackendError:
    return BackendError(f"{path}: the weights can't be read: {error}", hint="Download it again.")


def _weights_of(place: Path) -> tuple[Path, dict[str, Any] | None]:
    """Wan's file, which has no configuration, or the folder of transformers' form and its own.

    Raises:
        ConfigError: When there is no UMT5, or it is incomplete.
    """
    if place.is_file():
        if place.suffix.lower() in (".safetensors", ".gguf", ".sft"):
            raise ConfigError(
                f"{place}: weights in a form for other programs (ComfyUI, llama.cpp).",
                hint="The trainer's own numbers come from Wan's models_t5_umt5-xxl-enc-bf16.pth, "
                "which --model Wan-AI/Wan2.1-T2V-1.3B downloads; folders of transformers or "
                "diffusers do as well.",
            )
        if not zipfile.is_zipfile(place):
            raise ConfigError(
                f"{place}: not a PyTorch checkpoint (a Git LFS pointer, or cut short?).",
                hint="Download it again; --model also takes a folder or a hub id.",
            )
        return place, None
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
    for file in checkpoint.check_weights(folder):
        _refuse_scaled(file)
    return folder, dict(config)


def _refuse_scaled(file: Path) -> None:
    """Refuse numbers of 8 bits, which mean something only with scales that lie elsewhere.

    Raises:
        ConfigError: Naming the file.
    """
    if file.suffix != ".safetensors":
        return
    with file.open("rb") as opened:
        header = opened.read(int.from_bytes(opened.read(8), "little"))
    if b'"dtype":"F8_' in header.replace(b" ", b"") or b'"scale_weight' in header:
        raise ConfigError(
            f"{file}: weights in fp8 with scales, which only the program that made them reads.",
            hint="Give --model the encoder in bfloat16: Wan-AI/Wan2.1-T2V-1.3B has it.",
        )


def _config_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """The configuration of Wan's file, which has none of its own, from the shapes of its weights.

    What shapes do not tell is fixed in the reference's code, and transformers' default.
    """
    first = "encoder.block.0.layer."
    try:
        vocabulary, width = state["shared.weight"].shape
        buckets, heads = state[first + "0.SelfAttention.relative_attention_bias.weight"].shape
        inner = len(state[first + "0.SelfAttention.q.weight"])
        hidden = len(state[first + "1.DenseReluDense.wi_0.weight"])
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
        "num_layers": 1 + max(int(n.split(".")[2]) for n in state if n.startswith("encoder.bl")),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _bytes(place: Path, dtype: str) -> int:
    """Bytes that the encoder takes in memory; its files may hold a decoder as well."""
    path, config = _weights_of(place)
    if config is None:  # Wan's: no decoder, bfloat16
        return path.stat().st_size * (2 if dtype == "float32" else 1)
    names = ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")
    sizes: list[Any] = [config.get(name) for name in names]
    if not all(isinstance(size, int) for size in sizes):
        raise ConfigError(
            f"{place}: config.json lacks one of {', '.join(names)}.",
            hint="Copy it from the model's repository.",
        )
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
        files = filter(Path.is_file, (place, place / "tokenizer.json", place / "spiece.model"))
        parts.append(f"tokenizer-{digest.of_values(*map(digest.of_file, files))}")
    return " ".join(parts)
