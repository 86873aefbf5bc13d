"""Events: what happened to a pair, and the state that follows from them.

A dataset's journal holds one event a line. Nothing in it is ever changed: what a pair's label is,
whether a human has spoken, which files were made of it, all follows from the order of its events.
The rules, all of them here:

- The last label stands. A failure never replaces a label: it says that a later try went wrong.
- A label is of the images that it names, and of the recipe that its digests name. One whose recipe
  and images match is taken again, without a model, by being written again.
- A review outranks every label of the same images that comes after it. It holds on to the text that
  it saw; what it edits replaces that text. Of several reviews the last verdict counts, and edits
  add up. With other images the label of those stands, and the review again when its images are
  back.
- An undo takes back the last review before it that still counts; what stood before stands again.
- A CoT that a model writes for the very caption that a human wrote completes the human's text.
- Where a human said which image is the one before the edit, a label of the two images the other way
  round is none of the pair's, unless a human takes it over. The last such word counts.
- Scores belong to the text that they judged: with another text they are gone.
- Where images are unknown, since the text came without a look at them, they count as the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from chronoprep import digest
from chronoprep.data import Likelihood, Status

Verdict = Literal["accept", "reject", "edit"]
Fault = Literal[
    "object", "place", "colour", "direction", "missing", "invented", "wording", "images", "other"
]
Severity = Literal["minor", "major", "critical"]

# What is trained on. A NUL would end it for some who read it.
Words = Annotated[str, Field(pattern=r"\A[^\x00]*\z")]


class Event(BaseModel):
    """A line of the journal.

    Attributes:
        key: Of the pair; empty where an event concerns the dataset.
        kind: What happened.
        time: When, in UTC.
    """

    # Hardly a text comes twice: looking for it among those that came would be in vain.
    model_config = ConfigDict(frozen=True, cache_strings="none")

    key: str = ""
    kind: str
    time: str | None = None


class Label(Event):
    """A label was written.

    `caption_id` and `cot_id` are digests of all inputs of stage 1 and stage 2 (images, image
    settings, model, revision, prompt, generation settings). `images` is the digest of both images'
    bytes, and `files` says how their files looked then: while they look the same, the bytes are not
    read again. `faults` says, by stage, what the guard has against a text that was kept while it
    was off: with the guard on again, that stage is stale. `answered_by` is the model that a server
    says has answered, `likelihood` by stage how sure the model was of its text. The other fields
    are for people.
    """

    kind: Literal["label"] = "label"
    caption: Words | None = None
    caption_cot: Words | None = None
    origin: Literal["model", "fixed", "brought", "human"] = "model"
    images: str | None = None
    files: str | None = None
    caption_id: str | None = None
    cot_id: str | None = None
    faults: dict[str, str] | None = None
    model: str | None = None
    revision: str | None = None
    cot_model: str | None = None
    cot_revision: str | None = None
    caption_prompt: str | None = None
    cot_prompt: str | None = None
    generation: dict[str, Any] | None = None
    retried: dict[str, dict[str, Any]] | None = None
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    answered_by: str | None = None
    likelihood: dict[str, Likelihood] | None = None

    @property
    def no_change(self) -> bool:
        return self.caption == "no change" and self.caption_cot is None


class Failure(Event):
    """A try went wrong: at a stage of the label, its verification, the video or the embedding."""

    kind: Literal["failure"] = "failure"
    stage: Literal["images", "caption", "cot", "video", "embedding", "verify"]
    error: str
    refused: str | None = None


class Review(Event):
    """A human looked at a label.

    Attributes:
        caption, caption_cot: With `edit`, the new texts; None leaves one as it is. A new caption
            alone takes the CoT away, which was written for the old one.
        images: What the label was of.
        error, severity: With `reject`, what is wrong with the label, and how much it matters.
        reason: The same in the reviewer's own words.
    """

    kind: Literal["review"] = "review"
    verdict: Verdict
    caption: Words | None = None
    caption_cot: Words | None = None
    images: str | None = None
    reviewer: str | None = None
    reason: str | None = None
    error: Fault | None = None
    severity: Severity | None = None


class Undo(Event):
    """A human took back the last review that counted."""

    kind: Literal["undo"] = "undo"
    reviewer: str | None = None


class Roles(Event):
    """A human said which of a pair's images is the one before the edit.

    Attributes:
        source, target: The references, as far as they tell the two apart: a set may move.
        images, instead: Digests of the images in this order, and in the other.
    """

    kind: Literal["roles"] = "roles"
    source: str
    target: str
    images: str
    instead: str
    reviewer: str | None = None

    def refuses(self, images: str | None) -> bool:
        """Whether a digest is of the images the other way round."""
        return images == self.instead != self.images


class Score(Event):
    """A text was judged.

    Attributes:
        of: Digest of that text.
        by: What judged it, with its version: with another one it is judged anew.
        images, files: As in a label: what it was held against.
        scores: By name, 0 to 1; 1 is the worst.
        reasons: In words, the weightiest first.
        edit: The kind of edit that the text speaks of.
        places: The places that it names.
        spots: Boxes, weights and areas of what changed, for judging places together.
    """

    kind: Literal["score"] = "score"
    of: str
    by: str | None = None
    images: str | None = None
    files: str | None = None
    scores: dict[str, float] = {}
    reasons: tuple[str, ...] = ()
    edit: str | None = None
    places: tuple[str, ...] = ()
    spots: tuple[tuple[float, float, float, float, float, float], ...] = ()


class Artefact(Event):
    """A file was written.

    Attributes:
        bytes, mtime, content: Size, time in nanoseconds and digest of the file.
    """

    bytes: int
    mtime: int
    content: str


class Video(Artefact):
    """The pair's video was written.

    Attributes:
        shows: Digest of what it shows: the images, and how they were brought to one frame.
        how: Digest of how that is encoded.
        images, files: As in a label.
    """

    kind: Literal["video"] = "video"
    shows: str
    how: str
    images: str
    files: str | None = None
    notes: tuple[str, ...] = ()
    not_copied: str | None = None


class Embedding(Artefact):
    """The pair's embedding was written.

    Attributes:
        prompt: Digest of the prompt.
        encoder: Model, revision and what else the numbers depend on; readable.
        tokens: Of the prompt before the cut at 512, the end token included.
    """

    kind: Literal["embedding"] = "embedding"
    prompt: str
    encoder: str
    tokens: int


class Table(Artefact):
    """metadata.csv was written, or read after a human had edited it."""

    kind: Literal["table"] = "table"


class Torn(Event):
    """A line that a crash had cut short, put into a whole one."""

    kind: Literal["torn"] = "torn"
    text: str


AnyEvent = Annotated[
    Label | Failure | Review | Undo | Roles | Score | Video | Embedding | Table | Torn,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Event]] = {
    kind.model_fields["kind"].default: kind
    for kind in (Label, Failure, Review, Undo, Roles, Score, Video, Embedding)
}
"""The events of a pair, by what they are called in the journal."""
read_event = TypeAdapter[Any](AnyEvent).validator.validate_json
"""An event of its line. Raises pydantic's ValidationError."""


class Text(NamedTuple):
    """What a label says: the edit instruction and the chain-of-thought prompt."""

    caption: str | None = None
    cot: str | None = None


NO_TEXT = Text()


class State:
    """What a pair's events come to, in their order.

    Attributes:
        events: All of them.
        label: The last label.
        failure: The last failure of a label, unless a label came after it.
        roles: The last word of a human on which image is which, if any.
        review: The last one that counts for the pair's images; None where none does.
        verdict: A human's, on the label's images; None where none stands.
        text: What is trained on: the human's words, or the label's.
        video, embedding: The last ones that were written.
    """

    __slots__ = (
        "_reviews", "embedding", "events", "failure", "label", "review", "roles", "text", "verdict",
        "video",
    )  # fmt: skip

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = tuple(events)
        self.label: Label | None = None
        self.failure: Failure | None = None
        self.video: Video | None = None
        self.embedding: Embedding | None = None
        self.roles: Roles | None = None
        self.review: Review | None = None
        self.verdict: Verdict | None = None
        self._reviews: list[tuple[Review, Label | None]] = []  # each with the label that it saw
        # Of exact types, which is several times quicker: a million pairs are asked for this.
        for event in self.events:
            if type(event) is Label:
                self.label, self.failure = event, None
            elif type(event) is Video:
                self.video = event
            elif type(event) is Embedding:
                self.embedding = event
            elif type(event) is Failure and event.stage not in ("video", "embedding", "verify"):
                self.failure = event
            elif type(event) is Review:
                self._reviews.append((event, self.label))
            elif type(event) is Undo:
                del self._reviews[-1:]
            elif type(event) is Roles:
                self.roles = event
        label, images = self.label, self.images
        own = label is not None and same_images(label.images, images)
        self.text = Text(label.caption, label.caption_cot) if label is not None and own else NO_TEXT
        if (word := self.reviewed(images)) is not None:
            self.verdict, self.text = word
            of_these = (r for r, _ in reversed(self._reviews) if same_images(r.images, images))
            self.review = next(of_these, None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.events == other.events

    @property
    def labels(self) -> list[Label]:
        """The labels, the last one first."""
        return [event for event in reversed(self.events) if type(event) is Label]

    @property
    def images(self) -> str | None:
        """The images that the text is of."""
        images = self.label.images if self.label is not None else None
        if self.roles is not None and self.roles.refuses(images):
            return self.roles.images
        return images

    @property
    def revision(self) -> str:
        """Names what a reviewer sees: the text, its images and what humans have said. A decision on
        another revision is on something else; scores, videos and the like don't count."""
        said = sum(isinstance(event, Review | Undo | Roles) for event in self.events)
        return digest.of_values(*self.text, self.images, said)

    @property
    def scores(self) -> list[Score]:
        """Those of the text, in their order."""
        scores = [event for event in self.events if isinstance(event, Score)]
        return [score for score in scores if score.of == text_digest(self.text)]

    @property
    def status(self) -> Status | None:
        """None where nothing has happened to the label yet."""
        if self.verdict == "reject":
            return "rejected"
        if self.text == NO_TEXT:
            return "failed" if self.failure is not None else None
        return "no_change" if self.text == ("no change", None) else "ok"

    def reviewed(self, images: str | None) -> tuple[Verdict, Text] | None:
        """What humans have said of a label of these images."""
        verdict: Verdict | None = None
        text: Text | None = None
        for review, at in self._reviews:
            if not same_images(review.images, images):
                continue
            verdict = review.verdict
            if text is None:
                text = Text(at.caption, at.caption_cot) if at is not None else NO_TEXT
            if verdict == "edit":
                cot = None if review.caption not in (None, text.caption) else text.cot
                text = Text(review.caption or text.caption, review.caption_cot or cot)
        if verdict is None or text is None:
            return None
        if text.cot is None:
            completed = (
                label.caption_cot
                for label in self.labels
                if label.caption == text.caption and same_images(label.images, images)
            )
            text = Text(text.caption, next(filter(None, completed), None))
        return verdict, text

    def images_of(self, files: str | None) -> str | None:
        """The digest of the pair's images, if an event saw their files look like this."""
        for event in reversed(self.events) if files is not None else ():
            if isinstance(event, Label | Video | Score) and event.files == files:
                return event.images
        return None

    @property
    def knows_images(self) -> bool:
        """Whether something was made of the pair's images, whose digest is known."""
        return any(
            isinstance(event, Label | Video | Review | Score) and event.images is not None
            for event in self.events
        )


def text_digest(text: Text) -> str:
    """Names a text, for the scores that judge it."""
    return digest.of_values(*text)


def same_images(one: str | None, other: str | None) -> bool:
    """Whether two digests may be of the same images."""
    return one is None or other is None or one == other


def renamed(events: Iterable[Event], key: str) -> Iterator[Event]:
    """What is known of a pair's text, for the same images under another key."""
    for event in events:
        if isinstance(event, Label | Review | Undo | Score):
            yield event.model_copy(update={"key": key})
