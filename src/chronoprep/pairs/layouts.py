"""Layouts: how the pairs of a folder are told from names alone.

Every layout says of a file which group it belongs to and which side of a pair it is; `Scan.match`
makes pairs of that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.errors import ConfigError, PairError
from chronoprep.pairs.archives import Archive
from chronoprep.pairs.folders import VIDEO_SUFFIXES, Listing, Tree, stem
from chronoprep.pairs.roles import role_folders, side_of
from chronoprep.pairs.scan import Candidate, Part, Scan

# Last words of stems in one folder (`ROOT_start`), or whole stems in a folder a pair (`start`).
WORDS = {
    **{"start": "end", "in": "out", "input": "output", "before": "after", "source": "target"},
    **{"control": "target", "a": "b", "original": "edited"},
}
_SHORT = ("a", "b", "in", "out")  # words of their own: these follow `_` alone
# `before_1 after_1 before_2 after_2` are two pairs; without numbered sources, `after_1 after_2` are
# two targets of one. `(1)` is how Windows numbers files.
_WORD = re.compile(
    rf"(?:(?P<root>.+)(?P<sep>[_\-. ]))?(?P<word>{'|'.join({*WORDS, *WORDS.values()})})"
    r"(?:(?P<gap>[_\-. ]?)\(?(?P<number>\d+)\)?)?",
    re.IGNORECASE | re.DOTALL,
)
_MANY = re.compile(r"(?P<root>.+)[_-]\d+", re.DOTALL)
_EDITS = "prompt.json"  # of InstructPix2Pix: the instruction of all pairs in its folder
_SEED = re.compile(r"(?P<root>.+)_(?P<side>[01])", re.DOTALL)


def find_in_folder(tree: Tree, where: Path, settings: PairSettings) -> Scan:
    """The pairs of a folder by the layout that is asked for, or the one that is recognised.

    Raises:
        ConfigError: The roles are ambiguous, or the layout that was asked for is not there.
    """
    found, layout = Scan(tree), settings.layout
    if layout in ("auto", "folders", "kohya"):
        here = tree.listing()
        sides = role_folders(tree, where, here.folders, kohya=layout == "kohya")
        if sides:
            _match_folders(found, tree, here, *sides)
            return found
        if layout != "auto":
            names = "control/ and images/" if layout == "kohya" else "input/ and output/"
            raise ConfigError(
                f"{where}: no two folders such as {names} in it.",
                hint=f"Its folders are: {', '.join(here.folders) or 'none'}. For other names: "
                "--source-glob 'raw/*' --target-glob 'final/*'.",
            )
    words = _Words(found, where, layout)
    slots = found.slots(tree, words)
    pairs = found.match(tree, words.renumbered(slots))
    if layout in ("auto", "instructpix2pix"):
        pairs = _with_edits(found, tree, pairs)
    if layout in ("auto", "clips"):
        pairs = _or_clips(found, tree, pairs, _frames(settings.frames))
    found.candidates = pairs
    return found


def _match_folders(found: Scan, tree: Tree, here: Listing, source: str, target: str) -> None:
    """Two folders: pairs are files of equal relative path without suffix."""
    found.layouts.add(f"two folders: {source}/ → {target}/")
    found.take(tree, "", here)
    found.unmatched += here.images
    sides = [f"{source}/", f"{target}/"]

    def classify(folder: str, name: str) -> Part:
        side = folder.startswith(sides[1])
        path = folder[len(sides[side]) :] + stem(name)
        return Part(path, "target", path) if side else Part(path, "source")

    slots = [slot for side in sides for slot in found.slots(tree, classify, side)]
    others = [name for name in here.folders if name not in (source, target)]
    for name in others:
        found.slots(tree, None, f"{name}/")
    if others:
        found.layouts.add(f"without {', '.join(f'{name}/' for name in others)}")
    kohya = source.casefold().startswith("control")
    found.candidates = found.match(tree, slots, partial(_adopted, kohya=kohya))


def _adopted(slots: list[str], lone: list[str], *, kohya: bool) -> list[str]:
    """Targets without a partner go to the source whose name theirs goes on from: `x` may have the
    targets `x_1`, `x_2`, or what lies in a folder `x/`. A source of kohya's may be called `x_0`."""
    if not lone:
        return []
    groups: dict[str, set[str]] = {"source": set(), "target": set()}
    for slot in lone:
        group, side, _ = slot.split("\0", 2)
        groups[side].add(group)
    sources, targets = groups["source"], groups["target"]
    # Where sources are numbered themselves, `x_2` is no target of `x`.
    for slot in slots:
        group, side, _ = slot.split("\0", 2)
        if side == "source":
            sources.difference_update(_owners(group))

    def regrouped(slot: str) -> str:
        group, side, rest = slot.split("\0", 2)
        if side == "target":
            group = next((owner for owner in _owners(group) if owner in sources), group)
        elif kohya and (owner := _owners(group)[0]) in targets and f"{owner}_0" in sources:
            group = owner
        return f"{group}\0{side}\0{rest}"

    return [regrouped(slot) for slot in lone]


def _owners(group: str) -> tuple[str, str]:
    """What the source may be called of which a file is one of many targets."""
    many = _MANY.fullmatch(group)
    return many["root"] if many else "", group.rpartition("/")[0]


class _Words:
    """Stems that end in, or are, a word for source or target; folder by folder.

    Raw folders of InstructPix2Pix, known by their prompt.json, are read on the way.
    """

    def __init__(self, found: Scan, where: Path, layout: str) -> None:
        self._found, self._layout = found, layout
        self._name = where.resolve().name if where.is_dir() else where.stem
        self._raw = ("", False)
        self._numbered: set[str] = set()

    def __call__(self, folder: str, name: str) -> Part | None:
        if self._layout == "clips":
            return None
        last = stem(name)
        seed = _SEED.fullmatch(last) if self._is_raw(folder) else None
        # SEED_0 is edited into SEED_1; `before_0` is no seed, and a seed is a number.
        if seed and (
            seed["root"].isdigit() or (self._layout != "auto" and side_of(seed["root"]) is None)
        ):
            root = folder + seed["root"]
            if seed["side"] == "0":
                return Part(f"{root}/0", "source", "InstructPix2Pix's raw folders")
            return Part(f"{root}/0", "target", root)
        match = _WORD.fullmatch(last)
        return self._part(folder, match) if match else None

    def renumbered(self, slots: list[str]) -> list[str]:
        """The slots with targets beside the sources of their number, where sources are numbered."""
        return list(map(self._beside_its_source, slots)) if self._numbered else slots

    def _beside_its_source(self, slot: str) -> str:
        group, side, rest = slot.split("\0", 2)
        if side == "source" or group not in self._numbered:
            return slot
        name = rest.partition("\0")[0]
        return f"{group}\1{name.rpartition('_')[2]}\0{side}\0{rest}"

    def _part(self, folder: str, match: re.Match[str]) -> Part | None:
        root, sep, gap, number = (match[name] or "" for name in ("root", "sep", "gap", "number"))
        word = match["word"].casefold()
        if word in _SHORT and (sep not in ("", "_") or (number and gap != "_")):
            return None
        wanted = "suffixes" if root else "pair-folders"
        if self._layout not in ("auto", wanted) and not (self._layout == "suffixes" and number):
            return None
        after = WORDS.get(word, word)
        group = f"{folder}{root}{sep}/{after}"
        if word in WORDS:
            if number:
                self._numbered.add(group)
                kind = f"numbered in one folder: {word}{gap}N → {after}{gap}N"
                return Part(f"{group}\1{number}", "source", kind)
            kind = f"suffixes in one folder: {sep}{word} → {sep}{after}"
            return Part(group, "source", kind if root else f"a folder a pair: {word} → {after}")
        # `before.jpg` names no root: the pair is called after its folder.
        name = folder + root if root else folder[:-1] or self._name
        if number and (word == "b" or match.end("gap") != match.start("number") or gap != "_"):
            # Too little to say that it is one of many: `after (1)` may be a copy.
            return Part(f"{group}\1{number}", "target", f"{name}_{number}")
        return Part(group, "target", f"{name}_{number}" if number else name)

    def _is_raw(self, folder: str) -> bool:
        if self._layout != "auto":
            return self._layout == "instructpix2pix"
        if folder != self._raw[0]:
            self._raw = (folder, _EDITS in self._found.beside.get(folder, ()))
        return self._raw[1]


def _or_clips(
    found: Scan, tree: Tree, pairs: Iterator[Candidate], frames: tuple[str, str]
) -> Iterator[Candidate]:
    """The pairs of images; where there are none, each video is a pair of two of its frames."""
    first = next(pairs, None)
    if first is not None:
        yield first
        yield from pairs
    elif not found.bad and not found.ambiguous and not isinstance(tree, Archive):
        found.clips = True
        for folder, names in found.beside.items():
            for name in names:
                if name.lower().endswith(VIDEO_SUFFIXES):
                    found.layouts.add(f"clips: {frames[0]} → {frames[1]} frame")
                    clip = tree.ref(folder + name)
                    yield Candidate(folder + stem(name), *(f"{clip}#t={at}" for at in frames))


def _frames(text: str) -> tuple[str, str]:
    """The two frames of `first,last` or of `0.5,2`.

    Raises:
        ConfigError: They are not two different frames.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not re.fullmatch(r"first|last|\d+(\.\d+)?", word)]
    # 2 and 2.0 are one time.
    times = {word if word in ("first", "last") or wrong else float(word) for word in words}
    if len(words) != 2 or wrong or len(times) == 1:
        raise ConfigError(
            f"--frames {text}: not two frames of a clip.",
            hint="The frames before and after: first,last, or seconds as in 0.5,2.",
        )
    return words[0], words[1]


def _with_edits(found: Scan, tree: Tree, pairs: Iterator[Candidate]) -> Iterator[Candidate]:
    """Pairs with the caption that a prompt.json of InstructPix2Pix beside them holds, if any."""
    edits: dict[str, str | PairError | None] = {}
    for pair in pairs:
        path = tree.below(pair.source)
        folder = path[: path.rfind("/") + 1]
        if folder not in edits:
            known = _EDITS in found.beside.get(folder, ())
            edits[folder] = _edit(tree, folder + _EDITS) if known else None
            found.read.update([folder + _EDITS] * known)
        edit = edits[folder]
        if isinstance(edit, PairError):
            found.refuse(pair.name, edit, pair)
        else:
            yield pair._replace(caption=edit)


def _edit(tree: Tree, path: str) -> str | PairError | None:
    """The instruction of an InstructPix2Pix prompt.json; an error if that is no JSON object with a
    text `edit`."""
    try:
        edit: str = json.loads(tree.read(path).decode("utf-8-sig"))["edit"].strip()
        return edit or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        wrong = f"{tree.shown(path)}: can't read its edit instruction: {error!r}."
        return PairError(wrong, hint='Write {"edit": "add a hat"}.')
