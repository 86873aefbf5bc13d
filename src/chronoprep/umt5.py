"""Text embeddings of the editor's own encoder: UMT5, encoder only.

The numbers are those of the reference (one prompt at a time, padded to 512): the same text
cleaning, tokens and eager attention, padded only to a multiple of 16 within a batch of similar
lengths, which changes no bit in float32 and, as far as measured, none in bfloat16. It does not know
datasets, CSV files or keys.
"""

from __future__ import annotations

import html
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chronoprep import checkpoint
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import UMT5Settings
from chronoprep.dataset import replacing
from chronoprep.errors import BackendError, ConfigError, PairError

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 512  # the trainer's room for a prompt, the end token included
MULTIPLE = 16  # padding to a multiple of 8 was once seen to change a bit in bfloat16

# What to download of a diffusers pipeline: the encoder and its tokenizer, not the transformer.
_PIPELINE_FILES = ("model_index.json", "text_encoder/*", "tokenizer/*")


@dataclass(frozen=True)
class Embedding:
    """One prompt's embedding.

    Attributes:
        tensor: bfloat16 on the CPU, contiguous, [n_tokens ≤ 512, width], in storage of its own.
        tokens: Tokens of the prompt before the cut at 512, the end token included.
    """

    tensor: Tensor
    tokens: int

    @property
    def truncated(self) -> bool:
        return self.tokens > MAX_TOKENS


def clean(text: str) -> str:
    """The reference's cleaning: repaired Unicode, HTML entities resolved twice, white space
    collapsed."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())


def find_encoder(settings: UMT5Settings) -> Checkpoint:
    """Where the encoder is, before anything heavy is imported.

    Raises:
        ConfigError: When it is incomplete, no UMT5, without a tokenizer, too large for this
            machine, or neither cached nor to be had.
    """

    if settings.tokenizer is not None:
        _tokenizer_folder(Path(), settings)  # a wrong --tokenizer shows before any download

    def check(folder: Path) -> dict[str, object]:
        weights = _weights_folder(folder)
        config = checkpoint.read_config(weights)
        if config.get("model_type") != "umt5":
            raise ConfigError(
                f"{weights}: {config.get('model_type', 'this')!r} is not a UMT5 model.",
                hint="Give a folder or id of UMT5, or of a diffusers pipeline that holds one.",
            )
        checkpoint.check_weights(weights)
        _tokenizer_folder(folder, settings)
        return config

    found = checkpoint.find(
        settings.model,
        revision=settings.revision,
        check=check,
        patterns=_PIPELINE_FILES if settings.model.endswith("-Diffusers") else None,
    )
    if found.folder is not None:
        size = _encoder_bytes(found.config, settings.dtype)
        checkpoint.check_memory(int(size * 1.15), settings.device, settings.model)
    return found


class UMT5Encoder:
    """The encoder in memory.

    Raises:
        ConfigError: When the device is not there, or the tokenizer is another model's.
        BackendError: When the weights can't be loaded, lack a part of the encoder, or their
            embedding table is all zero: the trainer would silently see no text.
    """

    def __init__(self, found: Checkpoint, settings: UMT5Settings) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        folder = checkpoint.ensure(found)
        self._batch_size = settings.batch_size
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"--device {device}: torch sees no GPU here.", hint="Use --device cpu or auto."
            )
        dtype: Any = "auto" if settings.dtype == "auto" else getattr(torch, settings.dtype)
        try:
            self.tokenizer = _tokenizer(_tokenizer_folder(folder, settings))
            loaded: Any = transformers.UMT5EncoderModel.from_pretrained(
                _weights_folder(folder),
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
            )
            model, report = loaded
            self.model = model.to(device).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise BackendError(f"{folder}: the encoder can't be loaded: {error}") from error
        if report["missing_keys"]:
            # transformers fills them with random numbers and only warns.
            raise BackendError(
                f"{folder}: the checkpoint lacks {len(report['missing_keys'])} of the encoder's "
                f"weights, among them {min(report['missing_keys'])}.",
                hint="Download it again, or point --model at a UMT5 encoder.",
            )
        if not bool(self.model.get_input_embeddings().weight.any()):
            raise BackendError(
                f"{folder}: the token embeddings are all zero after loading.",
                hint="The checkpoint lacks shared.weight / encoder.embed_tokens.weight.",
            )
        if len(self.tokenizer) > self.model.config.vocab_size:
            raise ConfigError(
                f"{folder}: the tokenizer has {len(self.tokenizer)} tokens, the encoder "
                f"{self.model.config.vocab_size}.",
                hint="Point --tokenizer at the tokenizer of the same model.",
            )
        self._end = self.tokenizer.eos_token_id
        self._pad = self.tokenizer.pad_token_id or 0

    def token_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt, the end token included, not cut."""
        ids = list(self.tokenizer(clean(prompt), add_special_tokens=True)["input_ids"])
        return ids if ids and ids[-1] == self._end else [*ids, self._end]

    def encode(self, prompts: Sequence[str]) -> list[Embedding | PairError]:
        """Embed prompts; the results are in their order, and each distinct prompt runs once.

        A result is a PairError where the trainer would misread it: it counts the rows that do not
        sum to zero.

        Raises:
            BackendError: When the GPU's memory does not hold a batch, or the numbers overflow.
        """
        # Prompts that the cleaning makes equal are one.
        cleaned = [clean(prompt) for prompt in prompts]
        tokens = {text: self.token_ids(text) for text in dict.fromkeys(cleaned)}
        order = sorted(tokens, key=lambda text: len(tokens[text]))
        done: dict[str, Embedding | PairError] = {}
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            tensors = self._forward([self._cut(tokens[text]) for text in batch])
            for text, tensor in zip(batch, tensors, strict=True):
                if int(tensor.sum(-1).nonzero().shape[0]) != tensor.shape[0]:
                    done[text] = PairError(
                        "a row of the embedding sums to zero: the trainer would lose that token",
                        hint="Reword the prompt.",
                    )
                else:
                    done[text] = Embedding(tensor, len(tokens[text]))
        return [done[text] for text in cleaned]

    def _cut(self, ids: list[int]) -> list[int]:
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], self._end]

    def _forward(self, batch: list[list[int]]) -> list[Tensor]:
        import torch

        width = max(len(ids) for ids in batch)
        width = min(MAX_TOKENS, -(-width // MULTIPLE) * MULTIPLE)
        ids = torch.full((len(batch), width), self._pad)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        device = self.model.device
        try:
            with torch.inference_mode():
                output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        except torch.cuda.OutOfMemoryError:
            raise BackendError(
                f"The GPU's memory does not hold a batch of {len(batch)} prompts.",
                hint="Lower --batch-size; what was done so far is kept.",
            ) from None
        hidden = output.last_hidden_state.to(torch.bfloat16).cpu()
        if not bool(hidden[mask == 1].isfinite().all()):
            raise BackendError(
                "The encoder gives numbers that are not finite.", hint="Use --dtype bfloat16."
            )
        # A clone: a slice would be pickled with the storage of the whole batch.
        return [hidden[row, : len(tokens)].clone() for row, tokens in enumerate(batch)]


def save(embedding: Embedding, path: Path) -> None:
    """Pickle an embedding as the trainer reads it, atomically.

    Raises:
        BackendError: When the disk is full or the folder can't be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        pickle.dump(embedding.tensor, file, protocol=4)


def _weights_folder(folder: Path) -> Path:
    """The folder itself, or the text encoder of a diffusers pipeline."""
    part = folder / "text_encoder"
    return part if (part / "config.json").is_file() else folder


def _encoder_bytes(config: dict[str, object], dtype: str) -> int:
    """Bytes that the encoder takes in memory; its files may hold a decoder as well."""
    names = ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")
    sizes = [config.get(name) for name in names]
    if not all(isinstance(size, int) for size in sizes):
        raise ConfigError(f"The encoder's config.json lacks one of {', '.join(names)}.")
    vocabulary, width, layers, heads, head, inner = cast("list[int]", sizes)
    parameters = vocabulary * width + layers * width * (4 * heads * head + 3 * inner)
    if dtype == "auto":
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return parameters * (4 if dtype == "float32" else 2)


def _tokenizer_folder(folder: Path, settings: UMT5Settings) -> Path:
    """Where the tokenizer lies.

    Raises:
        ConfigError: When there is none, naming --tokenizer.
    """
    if settings.tokenizer is not None:
        place = Path(settings.tokenizer).expanduser()
        places = [place, place / "tokenizer"]
    else:
        places = [folder, folder / "tokenizer"]
        if folder.name == "text_encoder":
            places.append(folder.parent / "tokenizer")
    for place in places:
        if place.is_file() or any(
            (place / name).is_file() for name in ("tokenizer.json", "spiece.model")
        ):
            return place
    raise ConfigError(
        f"{places[0]}: no tokenizer (tokenizer.json or spiece.model) here.",
        hint="Point --tokenizer at the folder or the tokenizer.json of the same model.",
    )


def _tokenizer(place: Path) -> Any:
    import transformers

    file = place if place.is_file() else place / "tokenizer.json"
    if file.suffix == ".json" and file.is_file():
        # Not AutoTokenizer: without a config.json beside it, it builds a T5 tokenizer that ignores
        # this file, and an emoji becomes <unk>.
        return transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(file), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
        )
    return transformers.AutoTokenizer.from_pretrained(place)
