"""Sidecars: captions and prompts in text files that lie beside the images of a pair."""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from pathlib import Path

from chronoprep.errors import PairError
from chronoprep.images.refs import file_of
from chronoprep.keys import is_unicode
from chronoprep.pairs.folders import stem
from chronoprep.pairs.scan import Candidate


class Sidecars:
    """Captions in `.txt` and `.json` files beside the images or in the root, called after the pair
    or its target: `x.txt`, `x_after.txt`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._listed: dict[str, dict[str, str]] = {}

    def read(self, pair: Candidate) -> tuple[str | None, str | None]:
        """Caption and prompt of a pair, if any.

        Raises:
            PairError: A sidecar can't be read, or two of them disagree.
        """
        folder, _, name = pair.name.rpartition("/")
        source, target = file_of(pair.source), file_of(pair.target)
        folders = dict.fromkeys(map(os.path.dirname, (source, target, f"{self._root}/{folder}/")))
        captions: dict[str, str] = {}
        prompts: dict[str, str] = {}
        names = dict.fromkeys((name, stem(os.path.basename(target))))
        for near in folders:
            for called in (name + suffix for name in names for suffix in (".txt", ".json")):
                file = self._list(near).get(called)
                if file:
                    path = os.path.join(near, file)
                    caption, prompt = _read_sidecar(path)
                    if caption:
                        captions.setdefault(caption, path)
                    if prompt:
                        prompts.setdefault(prompt, path)
        for texts in (captions, prompts):
            if len(texts) > 1:
                raise PairError(
                    f"{source}: its captions disagree: {' and '.join(texts.values())}.",
                    hint="Keep one of these files.",
                )
        return next(iter(captions), None), next(iter(prompts), None)

    def _list(self, folder: str) -> dict[str, str]:
        """Sidecars of a folder: composed name → name on disk (macOS writes it decomposed)."""
        if folder not in self._listed:
            names: dict[str, str] = {}
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith((".txt", ".json")):
                        names[unicodedata.normalize("NFC", entry.name)] = entry.name
            self._listed[folder] = names
        return self._listed[folder]


def _read_sidecar(path: str) -> tuple[str | None, str | None]:
    hint = 'Save it as UTF-8 text, or as JSON like {"caption": "…", "caption_cot": "…"}.'
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
        if path.endswith(".txt"):
            return text or None, None
        record = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise PairError(f"{path}: can't read the caption: {error}.", hint=hint) from None
    if not isinstance(record, dict):
        raise PairError(f"{path}: not a JSON object.", hint=hint)
    values = []
    for name in ("caption", "caption_cot"):
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise PairError(f"{path}: {name!r} is not text.", hint=hint)
        if value and not is_unicode(value):
            raise PairError(f"{path}: {name!r} holds half a character.", hint=hint)
        values.append((value or "").strip() or None)
    return values[0], values[1]
