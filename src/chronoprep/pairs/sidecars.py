"""Sidecars: captions and prompts in text files that lie beside the images of a pair."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from itertools import product

from chronoprep.errors import PairError
from chronoprep.keys import is_unicode
from chronoprep.pairs.columns import names_of
from chronoprep.pairs.folders import Tree, stem
from chronoprep.pairs.scan import Candidate
from chronoprep.pairs.words import text_of

# As trainers and captioners call them.
SUFFIXES = (".txt", ".caption", ".captions", ".cap", ".json")


class Sidecars:
    """Captions in text and JSON files beside the images or in the root, called after the pair or
    its target: `x.txt`, `x_after.txt`, `x.png.txt`, `x.caption`, `x.TXT`.

    Args:
        beside: By folder, the files that are no images.
        nothings: Takes the words for no text that stand in place of one.

    Attributes:
        count: How many files pairs have taken.
    """

    def __init__(self, tree: Tree, beside: Mapping[str, list[str]], nothings: Counter[str]) -> None:
        self._tree = tree
        self._nothings = nothings
        self._listed = {folder: _by_name(names) for folder, names in beside.items()}
        self._listed = {folder: names for folder, names in self._listed.items() if names}
        self._used: dict[str, set[str]] = {}
        self.count = 0

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._listed)

    def of(self, pair: Candidate) -> list[str]:
        """The paths of a pair's sidecars, which are taken from now on."""
        if not self._listed:
            return []
        source, target = self._tree.below(pair.source), self._tree.below(pair.target)
        folder, _, name = pair.name.rpartition("/")
        before, after = os.path.basename(source), os.path.basename(target)
        folders = dict.fromkeys(
            (source[: -len(before)], target[: -len(after)], f"{folder}/" * bool(folder))
        )
        names = [name, stem(after), unicodedata.normalize("NFC", after)]
        if stem(before) == name:
            names.append(unicodedata.normalize("NFC", before))
        found = []
        for near, called in product(folders, dict.fromkeys(names)):
            if files := self._listed.get(near, {}).get(called):
                names_there = files.split("/")
                used = self._used.setdefault(near, set())
                self.count += 0 if called in used else len(names_there)
                used.add(called)
                found += [near + file for file in names_there]
        return found

    def read(self, pair: Candidate) -> tuple[str | None, str | None]:
        """Caption and prompt of a pair, if any.

        Raises:
            PairError: A sidecar can't be read, or two of them disagree.
        """
        # Text → the file that says so first.
        captions: dict[str, str] = {}
        prompts: dict[str, str] = {}
        for path in self.of(pair):
            caption, prompt = self._texts(path)
            if caption := text_of(caption, self._nothings):
                captions.setdefault(caption, self._tree.shown(path))
            if prompt:
                prompts.setdefault(prompt, self._tree.shown(path))
        for texts in (captions, prompts):
            if len(texts) > 1:
                raise PairError(
                    f"{self._tree.shown(self._tree.below(pair.source))}: its captions disagree: "
                    f"{' and '.join(texts.values())}.",
                    hint="Keep one of these files.",
                )
        return next(iter(captions), None), next(iter(prompts), None)

    def has(self, folder: str, name: str) -> bool:
        """Whether a file of a folder is a sidecar that a pair has."""
        return folder in self._used and _called_after(name) in self._used[folder]

    def _texts(self, path: str) -> tuple[str | None, str | None]:
        hint = 'Save it as UTF-8 text, or as JSON like {"caption": "…", "caption_cot": "…"}.'
        shown = self._tree.shown(path)
        try:
            text = self._tree.read(path).decode("utf-8-sig")
            if not path.lower().endswith(".json"):
                return text, None
            record = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise PairError(f"{shown}: can't read the caption: {error}.", hint=hint) from None
        if not isinstance(record, dict):
            raise PairError(f"{shown}: not a JSON object.", hint=hint)
        texts = []
        for names in (names_of("caption"), ("caption_cot",)):
            name = next((name for name in names if isinstance(record.get(name), str)), names[0])
            text = "" if record.get(name) is None else record[name]
            if not isinstance(text, str):
                raise PairError(f"{shown}: {name!r} is not text.", hint=hint)
            if not is_unicode(text):
                raise PairError(f"{shown}: {name!r} holds half a character.", hint=hint)
            texts.append(text.strip())
        return texts[0], texts[1]


def _by_name(names: list[str]) -> dict[str, str]:
    """What a sidecar is called after, composed (macOS writes it decomposed) → its name on disk, or
    several with `/` between them."""
    found: dict[str, str] = {}
    for name in names:
        if (after := _called_after(name)) is not None:
            found[after] = f"{found[after]}/{name}" if after in found else name
    return found


def _called_after(name: str) -> str | None:
    """What a sidecar is called after; None where a file is none by its suffix."""
    after, dot, suffix = name.rpartition(".")
    if not after or f"{dot}{suffix.lower()}" not in SUFFIXES:
        return None
    return after if after.isascii() else unicodedata.normalize("NFC", after)
