"""Sidecars: captions and prompts in text files that lie beside the images of a pair."""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from itertools import product
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
        names = dict.fromkeys((name, stem(os.path.basename(target))))
        # Text → the file that says so first.
        captions: dict[str, str] = {}
        prompts: dict[str, str] = {}
        for near, called, suffix in product(folders, names, (".txt", ".json")):
            if file := self._list(near).get(called + suffix):
                path = os.path.join(near, file)
                for texts, text in zip((captions, prompts), _read_sidecar(path), strict=True):
                    if text:
                        texts.setdefault(text, path)
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
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith((".txt", ".json"))]
                self._listed[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listed.setdefault(folder, {})


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
    texts = []
    for name in ("caption", "caption_cot"):
        text = "" if record.get(name) is None else record[name]
        if not isinstance(text, str):
            raise PairError(f"{path}: {name!r} is not text.", hint=hint)
        if not is_unicode(text):
            raise PairError(f"{path}: {name!r} holds half a character.", hint=hint)
        texts.append(text.strip() or None)
    return texts[0], texts[1]
