"""From a prompt to its tokens, as the reference does it."""

from __future__ import annotations

import html
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chronoprep.errors import ConfigError

MAX_TOKENS = 512  # the trainer's room for a prompt, the end token included
# Beside the weights; in a diffusers pipeline; in Wan's own repositories.
_PLACES = ("", "tokenizer", "google/umt5-xxl")
_FILES = ("tokenizer.json", "spiece.model")


def clean(text: str) -> str:
    """The reference's cleaning: repaired Unicode, HTML entities resolved twice, white space
    collapsed."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())


def find_tokenizer(place: Path, given: str | None) -> Path:
    """A tokenizer.json or a folder with a tokenizer: the given one, else near the weights.

    Args:
        place: The model's folder, or Wan's file.

    Raises:
        ConfigError: When there is none, naming --tokenizer.
    """
    folder = place.parent if place.is_file() else place
    root = Path(given).expanduser() if given is not None else folder
    places = [root / place for place in _PLACES]
    if folder.name == "text_encoder" and given is None:
        places.append(folder.parent / "tokenizer")
    for found in places:
        if found.is_file() or any((found / name).is_file() for name in _FILES):
            return found
    raise ConfigError(
        f"{root}: no tokenizer ({' or '.join(_FILES)}) here.",
        hint="Point --tokenizer at the folder or the tokenizer.json of the same model.",
    )


class Tokens:
    """The tokenizer.

    Attributes:
        size: Of its vocabulary.
        pad, end: Token ids.
    """

    def __init__(self, place: Path) -> None:
        import transformers

        file = place if place.is_file() else place / "tokenizer.json"
        if file.suffix == ".json" and file.is_file():
            # Not AutoTokenizer: without a config.json beside it, it builds a T5 tokenizer that
            # ignores this file, and an emoji becomes <unk>.
            self._tokenizer: Any = transformers.PreTrainedTokenizerFast(
                tokenizer_file=str(file), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
            )
        else:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        self.size = len(self._tokenizer)
        self.end = int(self._tokenizer.eos_token_id)
        self.pad = int(self._tokenizer.pad_token_id or 0)

    def __call__(self, texts: Sequence[str]) -> list[array[int]]:
        """Token ids of cleaned texts, each with its end token, not cut."""
        # Arrays, since a list of Python integers takes nine times the memory.
        rows = [array("i", ids) for ids in self._tokenizer(list(texts))["input_ids"]]
        for ids in rows:
            if not ids or ids[-1] != self.end:
                ids.append(self.end)
        return rows

    def count(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens prompts have, cleaned, with the end token and not cut."""
        return [len(ids) for ids in self([clean(prompt) for prompt in prompts])]

    def cut(self, ids: array[int]) -> array[int]:
        """At most 512 tokens; the last stays the end token."""
        return ids if len(ids) <= MAX_TOKENS else array("i", [*ids[: MAX_TOKENS - 1], self.end])
