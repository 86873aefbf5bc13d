"""The worker that embeds prompts: it opens the encoder, writes the files, and knows no dataset."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chronoprep.checkpoint import Checkpoint
from chronoprep.config import UMT5Settings
from chronoprep.data import Outcome
from chronoprep.engine import Working, batched, cores, mapped, until_stopped
from chronoprep.errors import BackendError, PairError
from chronoprep.umt5.encoder import Encoder, batches
from chronoprep.umt5.pickles import OVERHEAD, can_share, save
from chronoprep.umt5.text import MAX_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

TEXTS = 1000  # prompts that the tokenizer takes at once
# Threads that write, beside those that keep the devices busy: a GPU gives some 400 MB a second.
WRITERS, MOST_WRITERS = 2, 8


class EmbedTask(NamedTuple):
    """A prompt to be embedded.

    Attributes:
        text: The prompt, cleaned.
        path: Where the file goes.
        others: How many files will have the same content, as text.
    """

    key: str
    text: str
    path: str
    others: str = "0"


class Written(NamedTuple):
    """A file that was written.

    Attributes:
        tokens: Of the prompt before the cut at 512, the end token included.
        bytes, mtime, content: Size, time in nanoseconds and digest of the file.
    """

    tokens: int
    bytes: int
    mtime: int
    content: str


@dataclass(frozen=True)
class Embedder:
    """Embeds prompts with an encoder that it opens itself."""

    checkpoint: Checkpoint
    settings: UMT5Settings

    @contextmanager
    def opened(self) -> Iterator[Working[EmbedTask, Written]]:
        """Embed prompts of similar length together, and write files while the next are computed.

        Raises:
            ConfigError: A device or the tokenizer is not there.
            BackendError: The disk or the memory is too small, or the encoder can't be loaded.
        """
        yield partial(_embedded, Encoder(self.checkpoint, self.settings))


def _embedded(encoder: Encoder, tasks: Iterable[EmbedTask]) -> Iterator[list[Outcome[Written]]]:
    todo: list[tuple[EmbedTask, array[int]]] = []
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(encoder.load)
        for part in batched(tasks, TEXTS):
            todo += zip(part, encoder.tokens([task.text for task in part]), strict=True)
        _check_disk(todo, encoder.width)
        loading.result()

    def embedded(batch: list[tuple[EmbedTask, array[int]]]) -> list[Outcome[Written]]:
        tensors = encoder.encode([ids for _, ids in batch])
        return [_saved(*one, tensor) for one, tensor in zip(batch, tensors, strict=True)]

    writers = WRITERS if encoder.on_cpu else max(WRITERS, min(MOST_WRITERS, cores()))
    workers = 2 * encoder.devices + writers
    made = until_stopped(batches([(one, len(one[1])) for one in todo], encoder.batch_tokens))
    for done in mapped(embedded, made, key=lambda batch: batch[0][0].key, workers=workers):
        yield done.value or []


def _saved(task: EmbedTask, ids: Sequence[int], tensor: Tensor | PairError) -> Outcome[Written]:
    if isinstance(tensor, PairError):
        return Outcome(task.key, error=tensor)
    path = Path(task.path)
    content = save(tensor, path)
    status = path.stat()
    return Outcome(task.key, Written(len(ids), status.st_size, status.st_mtime_ns, content))


def _check_disk(todo: Sequence[tuple[EmbedTask, array[int]]], width: int) -> None:
    """Refuse before the disk is full, from the real numbers of tokens.

    Raises:
        BackendError: Saying what is needed and what is free.
    """
    if not todo:
        return
    folder = Path(todo[0][0].path).parent
    links = can_share(folder)
    needed = there = 0
    for task, ids in todo:
        size = min(MAX_TOKENS, len(ids)) * width * 2 + OVERHEAD
        needed += size * (1 if links else 1 + int(task.others))
        path = Path(task.path)
        # A file that is replaced gives back its own space, unless others share it.
        if path.is_file() and (old := path.stat()).st_nlink == 1:
            there += old.st_size
    free = shutil.disk_usage(folder).free
    if needed > there + free:
        raise BackendError(
            f"{folder}: {len(todo)} embeddings need {needed / 1e6:,.1f} MB, "
            f"{(there + free) / 1e6:,.1f} MB are free.",
            hint="Free some space, or embed on another disk.",
        )
