"""The rules that an answer is held against, in their order; their lists lie in `words/`."""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from chronoprep.data import Completion, Form
from chronoprep.labels.guard.cleaning import clean, leak, unwrapped

FaultName = Literal[
    "empty",
    "repeated character",
    "loop",
    "special token",
    "cut",
    "refusal",
    "meta talk",
    "language",
    "markdown",
    "opening",
    "length",
]

_QUOTED = re.compile(
    r'"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|「[^」\n]{1,300}」|『[^』\n]{1,300}』'
    r"|(?<!\w)'[^\n]{1,300}?'(?!\w)|‘[^\n]{1,300}?’(?!\w)|`[^`\n]{1,300}`"
)

# Ten of a kind: "Aaaaah" on a sign passes, the well-known wall of "!" does not.
_ONE_CHARACTER = re.compile(r"(\S)(?:\s*\1){9,}")
_SYLLABLES = re.compile(r"(\S{2,20}?)\1{5,}")
_LIST_NUMBER = re.compile(r"(?<!\S)\d{1,3}[.)](?=\s)")
# Of a text whose words are letters. One word may stand four times in a row on purpose; eight words
# twice may not, nor may a whole text be its beginning again.
_LOOP = re.compile(
    r"(.)\1{4,}|(.{2,3}?)\2{3,}|(.{4,7}?)\3{2,}|(.{8,200}?)\4|\A(.{3,}?)\5+\Z", re.DOTALL
)
# Whisper's bound for text that goes round in circles. Plain English of 100 words is near 1.8.
_MOST_COMPRESSION = 2.4

_LONGEST_NO_CHANGE = 40  # words
_SAID_AGAIN = (
    "(?:(?:the |final )*(?:answer|caption|instruction|output) (?:is )?)?"
    r"(?:(?:{})(?: (?:and|as|because|since|so))?(?: |\Z)){1,3}"
)

_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an answer is refused.

    Attributes:
        name: What kind of fault it is.
        detail: What was seen, for people; may be empty.
    """

    name: FaultName
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


def _lines(name: str) -> list[str]:
    """The lines of a packaged list; `#` begins a comment."""
    text = (files(__package__) / "words" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(" ".join(_lines(name)).split())


@cache
def _phrases(name: str, frame: str = "{}") -> re.Pattern[str]:
    """A pattern of any phrase of a list, whatever the case; `{clause}` stands for that piece."""
    pattern = frame.replace("{}", "|".join(_lines(name)))
    for line in _lines("pieces"):
        piece, _, meaning = line.partition(" = ")
        pattern = pattern.replace(f"{{{piece}}}", meaning)
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


def is_no_change(text: str) -> bool:
    """Whether an answer says "no change" and no more, in whatever words, case, punctuation, quotes
    or fences."""
    letters = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = re.findall(r"[^\W_]+", letters)
    if len(words) > _LONGEST_NO_CHANGE:
        return False
    return _phrases("no_change", _SAID_AGAIN).fullmatch(" ".join(words)) is not None


def spelled(caption: str) -> str:
    """A caption as it is stored: clean, and "no change" in its one spelling."""
    return "no change" if is_no_change(caption) else clean(caption)


def find_fault(answer: Completion, form: Form) -> Fault | None:
    """The first thing that is wrong with an answer, or None.

    "no change" is a good answer to stage 1, which the caller knows and hears first.
    """
    lines = unwrapped(answer.text)  # as it will be used, but with its line breaks
    text = " ".join(lines.split())
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    if not visible.strip():
        # A model that thinks up to the limit leaves nothing: what helps is more tokens.
        return _cut(answer) if answer.truncated else Fault("empty")
    judged = _QUOTED.sub('""', visible)
    if run := _ONE_CHARACTER.search(judged):
        return Fault("repeated character", f"{run.group(1)!r} again and again")
    if len(set(visible)) == 1 and len(visible) > 1:
        return Fault("repeated character", f"nothing but {visible[0]!r}")
    if not any(c.isalnum() for c in visible):
        return Fault("empty", f"no word in {visible[:20]!r}")
    if looped := _loop(judged):
        return Fault("loop", looped)
    if leaked := leak(answer.text):
        return Fault("special token", leaked)
    if answer.truncated:
        return _cut(answer)

    # Apostrophes as a keyboard writes them, and no words that stand in the image.
    spoken = _QUOTED.sub(' "" ', lines).replace("’", "'")
    if said := _phrases("refusal").search(spoken):
        return Fault("refusal", said.group().strip())
    said = _phrases("meta_talk").search(spoken)
    if said or (not form.images and (said := _phrases("images").search(spoken))):
        return Fault("meta talk", said.group().strip())
    if form.english and (seen := _not_english(spoken)):
        return Fault("language", seen)
    if not form.markdown and (
        mark := _phrases("markdown").search(spoken) or _INLINE_CODE.search(lines)
    ):
        return Fault("markdown", repr(mark.group().strip()[:40]))
    if form.begins and not text.casefold().startswith(form.begins.casefold()):
        return Fault("opening", f"not {form.begins!r} but {text[: len(form.begins)]!r}")
    if form.words:
        fewest, most = form.words
        # Models count badly, and a label that is somewhat long or short trains as well. Off by
        # more than half, it leaves out what stays, or rambles.
        count = len(text.split())
        if not fewest / 2 <= count <= most * 1.5:
            return Fault("length", f"{count} words instead of {fewest} to {most}")
    return None


def _cut(answer: Completion) -> Fault:
    """An answer without an end. The limit is not all that cuts: a server may break off as well."""
    after = f"after {answer.tokens or 'some'} new tokens"
    return Fault("cut", f"it broke off {after}: raise --max-new-tokens if that is the limit")


def _loop(text: str) -> str | None:
    """What a text says over and over."""
    words = _LIST_NUMBER.sub(" ", text).casefold().split()
    words = [word.strip(".,;:!?") for word in words]
    alphabet: dict[str, str] = {}
    letters = "".join(alphabet.setdefault(word, chr(len(alphabet))) for word in words)
    if (again := _LOOP.search(letters)) and again.lastindex:
        return repr(" ".join(words[slice(*again.span(again.lastindex))])[:60])
    if syllables := _SYLLABLES.search(text):
        return repr(syllables.group(1))
    data = text.encode("utf-8", "replace")
    if len(data) > 200 and len(data) / len(zlib.compress(data, 9)) > _MOST_COMPRESSION:
        return "the same words in turn"
    return None


def _not_english(text: str) -> str | None:
    """Another script, or the small words of another language that is written in Latin letters."""
    letters = [c for c in text if c.isalpha()]
    other = [c for c in letters if not unicodedata.name(c, "").startswith(("LATIN", "FULLWIDTH L"))]
    if len(other) > 1:
        return "".join(other[:20])
    words = re.findall(r"[^\W\d_]+", text.casefold())
    english = sum(word in _words("english") for word in words)
    edits = [word for word in words if word in _words("foreign_edits")]
    foreign = [word for word in words if word in _words("foreign") or word in edits]
    # An edit counts twice, for the shortest instruction is one and a noun.
    if len(foreign) + len(edits) > english:
        return ", ".join(dict.fromkeys(foreign[:5]))
    accented = [word for word in words if not word.isascii()]
    if len(accented) > max(1, english, 0.2 * len(words)):
        return ", ".join(accented[:5])
    return None
