"""The encoder in memory: token ids in, embeddings out, on one or several devices."""

from __future__ import annotations

import queue
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from chronoprep import checkpoint
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import UMT5Settings
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.umt5.text import MAX_TOKENS, Tokens, find_tokenizer
from chronoprep.umt5.weights import Weights, placed

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

MULTIPLE = 16  # padding to a multiple of 8 was once seen to change a bit in bfloat16
# Tokens a batch. A GPU's arithmetic outweighs reading the weights from a few hundred on; beyond
# these numbers a batch only takes memory and makes progress coarse.
GPU_TOKENS, CPU_TOKENS = 16384, 2048


class Encoder:
    """The encoder. Opening it, with a download if need be, takes a second and no memory: `tokens`
    works and `width` is known. `load` brings the weights to every device.

    Attributes:
        tokens: The tokenizer.
        width: Length of an embedding's rows.
        devices: How many forwards may run at once.
        on_cpu: Whether they share the cores with what prepares and writes.
        replicas: The model on each device, once loaded.
        batch_tokens: Padded tokens that a batch should have, at most; known once loaded.

    Raises:
        ConfigError: When a device is not there.
        BackendError: When the download fails or a file can't be read.
    """

    def __init__(self, found: Checkpoint, settings: UMT5Settings) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self._devices = _devices(settings.device)
        self._settings = settings
        self._free: queue.SimpleQueue[Replica] = queue.SimpleQueue()
        place = checkpoint.ensure(found)
        self._weights = Weights(place, settings.dtype)
        self.tokens = Tokens(find_tokenizer(place, settings.tokenizer))
        self.width = self._weights.width
        self.devices = len(self._devices)
        self.on_cpu = self._devices == ["cpu"]
        self.replicas: list[Replica] = []
        self.batch_tokens = 0

    def load(self) -> None:
        """Bring the weights to every device, if they are not there.

        Raises:
            ConfigError: When the tokenizer is another model's.
            BackendError: When the weights lack a part of the encoder, or their embedding table is
                all zero: the trainer would silently see no text.
        """
        if self.replicas:
            return
        weights, tokens = self._weights, self.tokens
        model = weights.load()
        table = model.shared.weight
        if not bool(table[:1024].any()):
            raise BackendError(
                f"{weights.place}: the token embeddings are all zero.",
                hint="The checkpoint is broken: download it again.",
            )
        if tokens.size > len(table):
            raise ConfigError(
                f"{weights.place}: the tokenizer has {tokens.size} tokens, the encoder "
                f"{len(table)}.",
                hint="Point --tokenizer at the tokenizer of the same model.",
            )
        self.replicas = [
            Replica(placed(model, name), tokens, self._settings.batch_tokens)
            for name in self._devices
        ]
        self.batch_tokens = min(replica.batch_tokens for replica in self.replicas)
        for replica in self.replicas:
            self._free.put(replica)

    def encode(self, batch: Sequence[array[int]]) -> list[Tensor | PairError]:
        """Embed token sequences, each cut at 512; the results are in their order.

        May run in any number of threads: each device takes one at a time. A GPU is handed the next
        batch while it computes one; results are copied, checked and cloned meanwhile.

        A result is bfloat16 on the CPU, contiguous, [n_tokens ≤ 512, width], in storage of its
        own; or a PairError where the trainer would misread it: it counts the rows that do not sum
        to zero.

        Raises:
            BackendError: When the memory does not hold a single sequence, or the numbers overflow.
        """
        replica = self._free.get()
        try:
            parts = replica.encode(batch)
        finally:  # another thread queues the next batch behind this one
            self._free.put(replica)
        # Clones: a slice would be pickled with the storage of the whole batch.
        return [_checked(row.clone()) for part in parts for row in part.rows()]


class Computed(NamedTuple):
    """Hidden states on their way from a device.

    Attributes:
        hidden: On the CPU, [sequences, padded tokens, width].
        lengths: Tokens of each sequence.
        ready: Of the device: when `hidden` is there; None where it is already.
    """

    hidden: Tensor
    lengths: list[int]
    ready: Any

    def rows(self) -> Iterator[Tensor]:
        """The states of each sequence, slices of their batch."""
        if self.ready is not None:
            self.ready.synchronize()
        for states, length in zip(self.hidden, self.lengths, strict=True):
            yield states[:length]


class Replica:
    """The encoder on one device.

    Attributes:
        batch_tokens: Padded tokens of a forward, at most; halved for good when memory runs out.
    """

    def __init__(self, model: Any, tokens: Tokens, batch_tokens: int | None) -> None:
        self.model = model
        self._tokens = tokens
        self.batch_tokens = batch_tokens or _batch_tokens(model)

    def encode(self, batch: Sequence[array[int]]) -> list[Computed]:
        """The hidden states of sequences, in order; in as many forwards as the memory asks for.

        A GPU may still be at work on them: only its queue was filled.
        """
        import torch

        if not batch:
            return []
        size = len(batch) * padded(max(len(ids) for ids in batch))
        if len(batch) == 1 or size <= self.batch_tokens:
            reason = ""
            try:
                return [self._forward(batch)]
            except RuntimeError as error:
                # The CPU's allocator has no exception of its own.
                full = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
                if not full:
                    raise
                reason = str(error).splitlines()[0]
            # Out of the handler, which holds the tensors of the failed forward.
            if len(batch) == 1:
                raise BackendError(
                    f"The memory does not hold a prompt of {len(batch[0])} tokens: {reason}",
                    hint="Free some memory, or use --device cpu; what was done so far is kept.",
                )
            self.batch_tokens = max(MULTIPLE, size // 2)
            torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self.encode(batch[:middle]) + self.encode(batch[middle:])

    def _forward(self, batch: Sequence[array[int]]) -> Computed:
        import numpy as np
        import torch

        rows = [self._tokens.cut(ids) for ids in batch]
        lengths = np.fromiter(map(len, rows), np.int64)
        there = np.arange(padded(int(lengths.max()))) < lengths[:, None]
        ids = np.full(there.shape, self._tokens.pad, np.int64)
        ids[there] = np.concatenate(rows)
        device, on_gpu = self.model.device, self.model.device.type == "cuda"

        def moved(values: np.ndarray[Any, Any]) -> Tensor:
            tensor = torch.from_numpy(values)
            return (tensor.pin_memory() if on_gpu else tensor).to(device, non_blocking=on_gpu)

        with torch.inference_mode():
            output = self.model(
                input_ids=moved(ids), attention_mask=moved(there.astype(np.int64))
            ).last_hidden_state.to(torch.bfloat16)
            if not on_gpu:
                return Computed(output.cpu(), lengths.tolist(), None)
            hidden = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            hidden.copy_(output, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(torch.cuda.current_stream(device))
        return Computed(hidden, lengths.tolist(), ready)


def padded(tokens: int) -> int:
    """The width at which a sequence of so many tokens runs."""
    return min(MAX_TOKENS, -(-tokens // MULTIPLE) * MULTIPLE)


def batches(items: Sequence[tuple[T, int]], batch_tokens: int) -> Iterator[list[T]]:
    """Items of similar length together, the longest first: if the memory is short, it shows soon.

    Args:
        items: With the number of tokens of each.
        batch_tokens: Padded tokens a batch, at most; an item that has more comes alone.
    """
    batch: list[T] = []
    width = 0
    for item, tokens in sorted(items, key=lambda item: -item[1]):
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        if not batch:
            width = padded(tokens)
        batch.append(item)
    if batch:
        yield batch


def _checked(tensor: Tensor) -> Tensor | PairError:
    sums = tensor.sum(-1)
    if not bool(sums.isfinite().all()):
        raise BackendError(
            "The encoder gives numbers that are not finite.",
            hint="Use --dtype bfloat16; if that is what ran, the checkpoint is broken.",
        )
    if int(sums.nonzero().shape[0]) == len(tensor):
        return tensor
    return PairError(
        "a row of the embedding sums to zero: the trainer would lose that token",
        hint="Reword the prompt.",
    )


def _devices(setting: str) -> list[str]:
    """The devices of `--device`: all GPUs for auto.

    Raises:
        ConfigError: When torch does not see one.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return [f"cuda:{number}" for number in range(count)] or ["cpu"]
    names = [name.strip() for name in setting.split(",")]
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError:
            raise ConfigError(
                f"--device {setting}: torch knows no device {name!r}.",
                hint="Use auto, cpu, cuda:N, or several: cuda:0,cuda:1.",
            ) from None
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ConfigError(
                f"--device {setting}: torch sees no GPU {name} here ({count} in all).",
                hint="Use --device cpu or auto.",
            )
    return names


def _batch_tokens(model: Any) -> int:
    """How many padded tokens fit beside the weights, counted for the longest prompts."""
    import torch

    if model.device.type != "cuda":
        return CPU_TOKENS
    config = model.config
    number = model.dtype.itemsize
    # Eager attention holds scores, bias, their sums and both ends of the softmax at once.
    token = 8 * number * config.num_heads * MAX_TOKENS
    token += 3 * number * config.d_ff + 16 * config.d_model
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(max(MAX_TOKENS, min(GPU_TOKENS, 0.8 * free // token)))
