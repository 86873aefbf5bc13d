"""Prompt templates: chats in text files, versioned by their content.

A template is a text file whose turns begin with a line `[[system]]`, `[[user]]` or `[[assistant]]`.
`{source}` and `{target}` mark where the two images go, `{caption}` (stage 2 only) where the caption
of stage 1 goes; every other brace is plain text. A file without such lines is one system prompt,
followed by a user turn that holds only the two images: the order of ChronoEdit's own script.

A block `[[answer]]` is no turn: it says what the prompt asks of the answer, and the guard holds
answers against it. Without it an answer may open, run on and speak as it likes.

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

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from chronoprep.config import LabelSettings
from chronoprep.data import FREE_FORM, Chat, Form, Picture, Role, Turn
from chronoprep.errors import ConfigError

Stage = Literal["caption", "cot"]

_MARKER = re.compile(r"^\[\[(\w+)\]\][ \t]*$", re.MULTILINE)
_RANGE = re.compile(r"(\d{1,4})\s*(?:-|–|to)\s*(\d{1,4})")
_SLOT = re.compile(r"(\{source\}|\{target\}|\{caption\})")


@dataclass(frozen=True)
class Template:
    """A prompt of one stage.

    Attributes:
        version: Name and digest of the content, for example `default@1f0c9a2b7d3e`.
        turns: Role and text of each turn, with its placeholders.
        form: What it asks of the answer.
    """

    version: str
    turns: tuple[tuple[Role, str], ...]
    form: Form = FREE_FORM

    def fill(self, source: Picture, target: Picture, caption: str = "") -> Chat:
        """Put two pictures and a caption into the placeholders.

        The caption is inserted as it is: take special tokens out of it first.
        """
        slots: dict[str, str | Picture] = {
            "{source}": source,
            "{target}": target,
            "{caption}": caption,
        }
        return tuple(
            Turn(role, _join([slots.get(p, p) for p in _SLOT.split(text)]))
            for role, text in self.turns
        )


@dataclass(frozen=True)
class Prompts:
    """The templates of both stages."""

    caption: Template
    cot: Template


def presets() -> list[str]:
    """Names of the packaged presets."""
    names = (entry.name for entry in (files(__package__) / "templates").iterdir())
    return sorted(name.removesuffix(".caption.txt") for name in names if ".caption." in name)


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


def _load(preset: str, stage: Stage, path: Path | None) -> Template:
    if path is None:
        resource = files(__package__) / "templates" / f"{preset}.{stage}.txt"
        return parse(resource.read_text(encoding="utf-8"), preset, stage)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't read the prompt template: {error}") from None
    return parse(text, path.name, stage)


def parse(text: str, name: str, stage: Stage) -> Template:
    """Read a template from text.

    Raises:
        ConfigError: When a role is unknown, an image is missing or named twice, the answer's form
            is not understood, or a stage-2 template has no place for the caption.
    """
    version = f"{name}@{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
    pieces = _MARKER.split(text)
    form = FREE_FORM
    if "answer" in pieces[1::2]:
        at = 2 * pieces[1::2].index("answer") + 1
        form = _form(pieces[at + 1], name)
        del pieces[at : at + 2]
    if len(pieces) == 1:
        turns: tuple[tuple[Role, str], ...] = (
            ("system", pieces[0].strip()),
            ("user", "{source}{target}"),
        )
    else:
        if pieces[0].strip():
            raise ConfigError(f"{name}: text before the first [[role]] line.")
        for role in pieces[1::2]:
            if role not in ("system", "user", "assistant"):
                raise ConfigError(
                    f"{name}: unknown role [[{role}]].",
                    hint="Use system, user or assistant, and one [[answer]] at most.",
                )
        turns = tuple(
            (cast("Role", role), body.strip())
            for role, body in zip(pieces[1::2], pieces[2::2], strict=True)
        )
    if not "".join(body for _, body in turns).replace("{source}{target}", "").strip():
        raise ConfigError(f"{name}: the prompt template is empty.")
    for image in ("{source}", "{target}"):
        if sum(body.count(image) for role, body in turns if role == "user") != 1:
            raise ConfigError(
                f"{name}: {image} must stand exactly once, in a user turn.",
                hint="Or leave all [[role]] lines out: the images then follow your text.",
            )
    if any(image in body for image in ("{source}", "{target}") for r, body in turns if r != "user"):
        raise ConfigError(f"{name}: images belong in a user turn.")
    if stage == "cot" and not any("{caption}" in body for _, body in turns):
        raise ConfigError(
            f"{name}: a stage-2 template needs {{caption}} where the edit instruction goes."
        )
    return Template(version, turns, form)


def _form(block: str, name: str) -> Form:
    """The lines of an `[[answer]]` block."""
    values: dict[str, Any] = {}
    for line in block.strip().splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "begins" and value:
            values["begins"] = value
        elif key == "words" and (range_ := _RANGE.fullmatch(value)):
            values["words"] = (int(range_.group(1)), int(range_.group(2)))
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


def _join(parts: list[str | Picture]) -> tuple[str | Picture, ...]:
    """Join neighbouring texts, and drop the line breaks around images."""
    joined: list[str | Picture] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    trimmed: list[str | Picture] = []
    for i, part in enumerate(joined):
        if isinstance(part, str):
            if i > 0:
                part = part.lstrip("\n")
            if i + 1 < len(joined):
                part = part.rstrip("\n")
        if part != "":
            trimmed.append(part)
    return tuple(trimmed)
