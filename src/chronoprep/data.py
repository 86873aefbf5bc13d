"""The values that travel between rooms: frozen, and without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

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
class Member:
    """A file in a zip archive.

    Attributes:
        archive: The zip file.
        name: The file's path in it, with `/` between folders.
    """

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.archive}#member={self.name}"


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


ImageRef = Path | Cell | Member | Frame | Remote


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


class Flaw(NamedTuple):
    """What is wrong with a file, as the room that knows its kind sees it.

    Attributes:
        code: As a finding's.
        message: What is the matter, in words.
    """

    code: str
    message: str


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
TRUTH = "truth.jsonl"
"""The manifest of synthetic pairs, with their true labels."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model picks its next token.

    Attributes:
        temperature: 0 is greedy: the same text on every run.
        top_p: Share of the probability mass that is drawn from; without effect when greedy.
        seed: Of the draws; without effect when greedy.
        schema: The JSON schema of the answer, as text, where a server or an engine can hold to one;
            a prompt has to ask for it, too.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    schema: str | None = None


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How sure a model was of its answer: natural logarithms of its tokens' probabilities, before
    temperature and the like, and without those of thoughts and of the end.

    Attributes:
        mean: Of all tokens.
        worst: The lowest.
        token: Which one that is.
    """

    mean: float
    worst: float
    token: str


class Served(NamedTuple):
    """What a server says of an answer of its own accord.

    Attributes:
        model: Which has answered; empty where it does not say.
        prompt_tokens: As it counts them; None where it does not.
        without: The parameters that it refused, and that the request was sent without.
    """

    model: str
    prompt_tokens: int | None
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered to one chat.

    Attributes:
        text: The answer without special tokens.
        tokens: New tokens generated, the end token included.
        truncated: Whether something else than the model ended the answer: the token limit, mostly.
        likelihood: Of the text; None where the backend does not tell.
        served: What a server says of it.
    """

    text: str
    tokens: int
    truncated: bool
    likelihood: Likelihood | None = field(default=None, compare=False)
    served: Served | None = field(default=None, compare=False)


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


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one item: a value or an error, never both."""

    key: str
    value: T | None = None
    error: ChronoprepError | None = None
