"""Prompt templates: chats in text files, versioned by their content.

A template is a text file whose turns begin with a line `[[system]]`, `[[user]]` or `[[assistant]]`.
`{source}` and `{target}` mark where the two images go, `{caption}` (stage 2 only) where the caption
of stage 1 goes; every other brace is plain text. A file without such lines is one system prompt,
followed by a user turn that holds only the two images: the order of ChronoEdit's own script.

A line `[[include images]]` stands for the text of `templates/shared/images.txt`: what the packaged
templates have in common is written there once, and a user's own template may take it from there.

A block `[[answer]]` is no turn: it says what the prompt asks of the answer, and the guard holds
answers against it. Without it an answer may open, run on and speak as it likes. Of several, the
last word counts: a template may change what an included one asks.

    [[answer]]
    begins: The user wants to
    words: 80-100
    language: English
    markdown: yes            (by default: no)
    images: no               it speaks of "the second image" (by default: yes)

The packaged templates put one shared system prompt first, then source and target, then the text of
the stage: an engine that caches prefixes can then reuse the images of stage 1 in stage 2.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, cast

from chronoprep import digest
from chronoprep.config import LabelSettings
from chronoprep.data import FREE_FORM, Chat, Form, Picture, Role, Turn
from chronoprep.errors import ConfigError

Stage = Literal["caption", "cot"]
"""A stage of labelling."""

_LARGEST = 1_000_000  # bytes; more is no prompt, whatever else it is
_INCLUDE = re.compile(r"^\[\[include(.*)\]\][ \t]*$", re.MULTILINE)
_MARKER = re.compile(r"^\[\[(\w+)\]\][ \t]*$", re.MULTILINE)
_RANGE = re.compile(r"(\d{1,4})\s*(?:-|–|to)\s*(\d{1,4})")
_IMAGE = re.compile(r"(\{source\}|\{target\})")


@dataclass(frozen=True)
class Template:
    """A prompt of one stage.

    Attributes:
        name: Of the preset or the file.
        turns: Role and text of each turn, with its placeholders.
        form: What it asks of the answer.
    """

    name: str
    turns: tuple[tuple[Role, str], ...]
    form: Form = FREE_FORM

    @cached_property
    def version(self) -> str:
        """Name and digest of what the model is shown and held to: `default@1f0c9a2b7d3e`."""
        return f"{self.name}@{digest.of_values(self.turns, asdict(self.form))[:12]}"

    def fill(self, source: Picture, target: Picture, caption: str = "") -> Chat:
        """Put two pictures and a caption into the placeholders; the line breaks around an image
        go.

        The caption is inserted as it is: take special tokens out of it first.
        """
        images: dict[str, str | Picture] = {"{source}": source, "{target}": target}
        chat = []
        for role, text in self.turns:
            parts = (
                images[piece]
                if piece in images
                else piece.strip("\n").replace("{caption}", caption)
                for piece in _IMAGE.split(text)
            )
            chat.append(Turn(role, tuple(part for part in parts if part != "")))
        return tuple(chat)


@dataclass(frozen=True)
class Prompts:
    """The templates of both stages."""

    caption: Template
    cot: Template


def presets() -> list[str]:
    """Names of the packaged presets."""
    return _names(".caption.txt")


def load_prompts(settings: LabelSettings, default: str = "default") -> Prompts:
    """The templates of a preset, each replaced by the user's own file where one is given.

    Args:
        default: The preset where the settings name none: the one that a model was trained for.

    Raises:
        ConfigError: For an unknown preset, an unreadable file or a template that lacks an image
            or, in stage 2, the caption.
    """
    preset = settings.preset or default
    if preset not in presets():
        raise ConfigError(f"Unknown preset {preset!r}.", hint=f"There are: {', '.join(presets())}.")
    return Prompts(
        caption=_load(preset, "caption", settings.caption_prompt),
        cot=_load(preset, "cot", settings.cot_prompt),
    )


@cache
def statements_prompt() -> Template:
    """What a judge is asked about a label's claims, which take the caption's place."""
    return parse(_packaged("judge.statements"), "judge", "cot")


@cache
def enhance_prompt() -> Template:
    """What is asked of one image, as the source, and a wish, which takes the caption's place."""
    return parse(_packaged("enhance"), "enhance", "cot", images=("{source}",))


def _load(preset: str, stage: Stage, path: Path | None) -> Template:
    if path is None:
        return parse(_packaged(f"{preset}.{stage}"), preset, stage)
    try:
        # Before it is opened: a pipe would wait for its other end, a device has no end.
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > _LARGEST:
            raise ValueError(f"it has {status.st_size:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: can't read the prompt template: {error}",
            hint="A template is a text file in UTF-8, of 1 MB at most.",
        ) from None
    return parse(text, path.name, stage)


def parse(
    text: str, name: str, stage: Stage, images: tuple[str, ...] = ("{source}", "{target}")
) -> Template:
    """Read a template from text.

    Raises:
        ConfigError: When a role or an included text is unknown, an image is missing or named twice,
            the answer's form is not understood, or a stage-2 template has no place for the caption.
    """
    head, *rest = _MARKER.split(_with_shared(text, name))
    blocks = [(kind, body.strip()) for kind, body in zip(rest[::2], rest[1::2], strict=True)]
    asked = "\n".join(body for kind, body in blocks if kind == "answer")
    turns = tuple((cast("Role", kind), body) for kind, body in blocks if kind != "answer")
    for role, _ in turns:
        if role not in ("system", "user", "assistant"):
            raise ConfigError(
                f"{name}: unknown role [[{role}]].",
                hint="Use system, user, assistant or answer.",
            )
    if not turns:
        turns = (("system", head.strip()), ("user", "{source}{target}"))
    elif head.strip():
        raise ConfigError(
            f"{name}: text before the first [[role]] line.",
            hint="Put it under [[system]] or [[user]].",
        )

    if not any(_IMAGE.sub("", body).strip() for _, body in turns):
        raise ConfigError(
            f"{name}: the prompt template is empty.", hint="Write what the model is to do."
        )
    for image in images:
        if [role for role, body in turns for _ in range(body.count(image))] != ["user"]:
            raise ConfigError(
                f"{name}: {image} must stand exactly once, in a user turn.",
                hint="Or leave all [[role]] lines out: the images then follow your text.",
            )
    if stage == "cot" and not any("{caption}" in body for _, body in turns):
        raise ConfigError(
            f"{name}: a stage-2 template needs {{caption}} where the edit instruction goes.",
            hint="Write it into a user turn.",
        )
    return Template(name, turns, _form(asked, name))


def _packaged(name: str) -> str:
    return (files(__package__) / "templates" / f"{name}.txt").read_text(encoding="utf-8")


def _names(suffix: str, folder: str = "") -> list[str]:
    """Names of packaged texts, without their suffix."""
    entries = (files(__package__) / "templates" / folder).iterdir()
    return sorted(e.name.removesuffix(suffix) for e in entries if e.name.endswith(suffix))


def _with_shared(text: str, name: str) -> str:
    """A template with the texts that it includes in their places."""

    def shared(line: re.Match[str]) -> str:
        included, known = line[1].strip(), _names(".txt", "shared")
        if included not in known:
            raise ConfigError(
                f"{name}: there is no text {included!r} to include.",
                hint=f"There are: {', '.join(known)}.",
            )
        return _with_shared(_packaged(f"shared/{included}"), name).rstrip("\n")

    return _INCLUDE.sub(shared, text)


def _form(asked: str, name: str) -> Form:
    """What the lines of `[[answer]]` blocks ask for; of two that differ, the later one counts."""
    values: dict[str, Any] = {}
    for line in asked.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "begins" and value:
            values["begins"] = value
        elif key == "words" and (range_ := _RANGE.fullmatch(value)):
            fewest, most = int(range_[1]), int(range_[2])
            if not 0 < most >= fewest:
                raise ConfigError(
                    f"{name}: [[answer]] asks for {value!r} words, which no answer can have.",
                    hint="Write the fewest first, then the most: `words: 80-100`.",
                )
            values["words"] = (fewest, most)
        elif key == "language" and value.casefold() == "english":
            values["english"] = True
        elif key in ("markdown", "images") and value in ("yes", "no"):
            values[key] = value == "yes"
        elif line.strip():
            raise ConfigError(
                f"{name}: [[answer]] does not understand {line.strip()!r}.",
                hint="It takes lines such as `begins: The user wants to`, `words: 80-100`, "
                "`language: English` (the only one that can be checked), `markdown: yes` and "
                "`images: no`.",
            )
    return Form(**values)
