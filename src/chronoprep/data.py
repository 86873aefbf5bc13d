"""The values that travel between rooms: frozen, and without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from chronoprep.errors import ChronoprepError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

Role = Literal["system", "user", "assistant"]
Status = Literal["ok", "no_change", "failed", "rejected"]


@dataclass(frozen=True, slots=True)
class Cell:
    """An image that lies as bytes in a table.

    Attributes:
        table: A Parquet or Arrow file, or a folder of the `datasets` library.
        row: Its row, from 0.
        column: Its column.
        item: Its place in a list, from 0; None where the column holds no lists.
    """

    table: Path
    row: int
    column: str
    item: int | None = None

    def __str__(self) -> str:
        item = "" if self.item is None else f"&item={self.item}"
        return f"{self.table}#row={self.row}&column={quote(self.column)}{item}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video.

    Attributes:
        clip: The video file.
        at: The first or the last frame, or the one shown at so many seconds.
    """

    clip: Path
    at: Literal["first", "last"] | float

    def __str__(self) -> str:
        return f"{self.clip}#t={self.at}"


@dataclass(frozen=True, slots=True)
class Remote:
    """An image at a web address."""

    url: str

    def __str__(self) -> str:
        return self.url


ImageRef = Path | Cell | Frame | Remote


class Pair(NamedTuple):
    """One before/after pair, as text: a million of them stay cheap, and any machine can be told.

    Attributes:
        key: Names every artefact of the pair; a safe, unique file name without a suffix.
        source: Reference to the image before the edit; `images.refs` resolves it.
        target: Reference to the image after the edit.
        caption: A short edit instruction that the data brought along (stage 1), if any.
        prompt: A finished training prompt that the data brought along (stage 2), if any.
    """

    key: str
    source: str
    target: str
    caption: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a user should know of a pair, a file or a dataset.

    Attributes:
        code: Names its kind, for machines and for looking it up: `unmatched`, `damaged-line`, …
        severity: An error makes a command exit with 1.
        key: Of the pair that it concerns, if it concerns one.
        message: What is the matter, with the file or the line.
        remedy: What to do about it.
    """

    code: str
    severity: Literal["error", "warning", "note"]
    key: str | None
    message: str
    remedy: str | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as a model sees it. It is known by its identity: what a backend makes of it is kept
    as long as it lives.

    Attributes:
        pixels: In RGB.
        jpeg: The JPEG file of these very pixels, where there is one that says nothing beside them.
    """

    pixels: Image
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat: text and pictures in the order in which the model sees them."""

    role: Role
    parts: tuple[str | Picture, ...]


Chat = tuple[Turn, ...]

LOCK = ".chronoprep.lock"
"""Lies in every dataset folder, and so tells what is one."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model picks its next token.

    Attributes:
        temperature: 0 is greedy: the same text on every run.
        top_p: Share of the probability mass that is drawn from; without effect when greedy.
        seed: Of the draws; without effect when greedy.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered to one chat.

    Attributes:
        text: The answer without special tokens.
        tokens: New tokens generated, the end token included.
        truncated: Whether something else than the model ended the answer: the token limit, mostly.
    """

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Form:
    """What a prompt asks of its answer, so that an answer can be held against it.

    Attributes:
        begins: The words that open it.
        words: The fewest and the most of them.
        english: Whether it is in English.
        markdown: Whether it may hold markdown.
        images: Whether it may speak of the images as such ("the second image").
    """

    begins: str | None = None
    words: tuple[int, int] | None = None
    english: bool = False
    markdown: bool = False
    images: bool = True


FREE_FORM = Form()


class Standing(BaseModel):
    """What of a record decides whether it is up to date; a run asks for a million of them.

    `caption_id` and `cot_id` are digests of all inputs of stage 1 and stage 2 (images, image
    settings, model, revision, prompt version, generation settings). `images` is the digest of both
    images' bytes, and `files` says how their files looked then: while they look the same, the bytes
    are not read again. `faults` says, by stage, what the guard has against a text that was kept
    while it was off: with the guard on again, that stage is stale.
    """

    # Hardly a text comes twice: looking for it among those that came would be in vain.
    model_config = ConfigDict(frozen=True, cache_strings="none")

    key: str
    status: Status
    caption: str | None = None
    caption_cot: str | None = None
    origin: Literal["model", "fixed", "brought", "human"] = "model"
    images: str | None = None
    files: str | None = None
    caption_id: str | None = None
    cot_id: str | None = None
    faults: dict[str, str] | None = None
    edited_by_human: bool = False


class Label(Standing):
    """A record of the journal: what a pair's label is and where it came from.

    A record holds the identity of everything that it was made from, so that a later run can tell
    which stage is stale; the readable fields beside the digests are for people.
    """

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    revision: str | None = None
    cot_model: str | None = None
    cot_revision: str | None = None
    caption_prompt: str | None = None
    cot_prompt: str | None = None
    generation: dict[str, object] | None = None
    error: str | None = None
    refused: str | None = None
    retried: dict[str, dict[str, object]] | None = None
    notes: tuple[str, ...] = ()
    scores: dict[str, float] | None = None
    seconds: float | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A record of the embedding index: what a file in `umt5/` was made from, and what it is.

    Attributes:
        prompt: Digest of the prompt.
        encoder: Model, revision and what else the numbers depend on; readable.
        tokens: Of the prompt before the cut at 512, the end token included.
        bytes, mtime, content: Size, time in nanoseconds and digest of the file as it was written.
    """

    key: str
    prompt: str
    encoder: str
    tokens: int
    bytes: int
    mtime: int
    content: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one item: a value or an error, never both."""

    key: str
    value: T | None = None
    error: ChronoprepError | None = None
