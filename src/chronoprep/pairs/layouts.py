"""Layouts: how the pairs of a folder are told from names alone.

Every layout puts each file under a root that its pair shares and a slot that says which side it is,
as one text, `root NUL slot NUL path`: sorting brings pairs together without an object a file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.data import Outcome
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.refs import of_path
from chronoprep.pairs.folders import VIDEO_SUFFIXES, listing, stem, walk
from chronoprep.pairs.scan import Candidate, Scan

# Names of two folders, source first; compared without case, `_` like `-`.
FOLDERS = (
    *(("input", "output"), ("inputs", "outputs"), ("input-images", "output-images")),
    *(("source", "target"), ("sources", "targets"), ("before", "after")),
    *(("control", "target"), ("a", "b"), ("original", "edited"), ("originals", "edits")),
    # kohya's own names for them: the images are what the training aims at.
    ("control-directory", "image-directory"),
)
# What kohya's and DiffSynth's sets call the two sides. Read only when asked for: elsewhere `images`
# are the sources.
KOHYA_SOURCES = ("control", "control-images", "control-image", "controls", "conditioning-images")
KOHYA_TARGETS = ("image", "images", "img", "target", "targets")
# Last words of stems in one folder (`ROOT_start`), or whole stems in a folder a pair (`start`).
WORDS = (
    *(("start", "end"), ("in", "out"), ("input", "output"), ("before", "after")),
    *(("source", "target"), ("control", "target"), ("a", "b"), ("original", "edited")),
)
# One source has many targets as `ROOT_edited_1`, `ROOT_edited_2`; `b_1` would be too little to say.
_NUMBERED = sorted({target for _, target in WORDS} - {"b"})
_PLAIN = sorted({word for words in WORDS for word in words} - set(_NUMBERED))
_WORD = re.compile(
    rf"(?:(?P<root>.+)_)?(?:(?P<plain>{'|'.join(_PLAIN)})"
    rf"|(?P<word>{'|'.join(_NUMBERED)})(?:_(?P<number>\d+))?)",
    re.IGNORECASE | re.DOTALL,
)
# Folders of unknown names are compared two by two, to ask a better question.
_MOST_COMPARED = 10
_MANY = re.compile(r"(?P<root>.+)[_-]\d+", re.DOTALL)
_SEED = re.compile(r"(?P<root>.+)_(?P<side>[01])", re.DOTALL)

UNDERSTOOD = (
    "Understood are: two folders (input/0001.png + output/0001.png; also source/target, "
    "before/after, control/target, A/B), suffixes in one folder (0001_start.png + 0001_end.png; "
    "also _in/_out, _input/_output, _before/_after, _source/_target, _A/_B, _original/_edited), "
    "a folder a pair (0001/before.png + 0001/after.png), InstructPix2Pix's raw folders "
    "(7_0.jpg + 7_1.jpg + prompt.json), clips (clip.mp4: its first and last frame), and a .csv or "
    ".jsonl manifest with the columns source and target. For other names: "
    "--source-glob 'raw/*.jpg' --target-glob 'final/*.jpg'."
)


def find_in_folder(where: Path, settings: PairSettings) -> Scan:
    """The pairs of a folder by the layout that is asked for, or the one that is recognised.

    Raises:
        ConfigError: The roles are ambiguous, or the layout that was asked for is not there.
    """
    top, found = str(where), Scan()
    layout = settings.layout
    images, folders, _ = listing(top)
    if layout in ("auto", "folders", "kohya"):
        sides = role_folders(where, folders, kohya=layout == "kohya")
        if sides:
            found.unmatched += [os.path.join(top, name) for name in images]
            found.candidates = _match_folders(found, top, *sides)
            if others := [f"{name}/" for name in folders if name not in sides]:
                found.layouts.add(f"without {', '.join(others)}")
            return found
        if layout != "auto":
            names = "control/ and images/" if layout == "kohya" else "input/ and output/"
            raise ConfigError(
                f"{where}: no two folders such as {names} in it.",
                hint=f"Its folders are: {', '.join(folders) or 'none'}. For other names: "
                "--source-glob 'raw/*' --target-glob 'final/*'.",
            )
    frames = _frames(settings.frames)
    if layout == "clips":
        found.candidates = _match_clips(found, where, frames)
    else:
        words = _match_words(found, where, layout)
        found.candidates = _or_clips(found, words, where, frames) if layout == "auto" else words
    return found


def role_folders(where: Path, folders: list[str], *, kohya: bool = False) -> tuple[str, str] | None:
    """The folders of sources and of targets.

    Raises:
        ConfigError: There is more than one way to take them.
    """
    normal = [(name, name.casefold().replace("_", "-")) for name in folders]
    pairs = (
        [(source, target) for source in KOHYA_SOURCES for target in KOHYA_TARGETS]
        if kohya
        else FOLDERS
    )
    options = [
        (source, target)
        for names in pairs
        for source, before in normal
        for target, after in normal
        if (before, after) == names
    ]
    if len(options) > 1:
        raise ConfigError(
            f"{where}: the folders can be paired in more than one way:{_shown(where, options)}",
            hint=f"The first, for example: {_flags(options[0])}",
        )
    return options[0] if options else None


def refuse_unknown(where: Path) -> None:
    """For a folder that gave no pairs: ask, if its names show pairs whose roles nothing tells.

    Raises:
        ConfigError: With two example pairs and the flags that decide.
    """
    images, folders, _ = listing(str(where))
    normal = {name.casefold().replace("_", "-"): name for name in folders}
    pictures = next((normal[name] for name in KOHYA_TARGETS[:2] if name in normal), None)
    control = next((normal[name] for name in KOHYA_SOURCES if name in normal), None)
    if pictures and control:
        ways = [(control, pictures), (pictures, control)]
        raise ConfigError(
            f"{where}: can't tell which folder holds the sources: {control}, {pictures}. In "
            f"kohya's and DiffSynth's sets {pictures}/ holds the targets, in others the sources:"
            f"{_shown(where, ways)}",
            hint=f"The first: --layout kohya. The second: {_flags(ways[1])}",
        )
    if len(folders) > _MOST_COMPARED:
        folders = []
    stems = {
        name: set(map(stem, listing(os.path.join(str(where), name)).images)) for name in folders
    }
    for one in folders:
        for other in folders:
            if one < other and stems[one] & stems[other]:
                ways = [(one, other), (other, one)]
                raise ConfigError(
                    f"{where}: can't tell which folder holds the sources:{_shown(where, ways)}",
                    hint=f"The first: {_flags(ways[0])}\nThe second: {_flags(ways[1])}",
                )
    names = set(map(stem, images))
    roots = sorted({match["root"] for name in names if (match := _SEED.fullmatch(name))})
    both = [root for root in roots if {f"{root}_0", f"{root}_1"} <= names]
    if both:
        shown = "".join(f"\n  {root}_0 → {root}_1, or the reverse" for root in both[:2])
        raise ConfigError(
            f"{where}: can't tell which images are the sources:{shown}",
            hint="If _0 is before the edit, as in InstructPix2Pix: --layout instructpix2pix. "
            "If not: --source-glob '*_1.*' --target-glob '*_0.*'.",
        )


def _shown(where: Path, ways: list[tuple[str, str]]) -> str:
    """Two example pairs: one of each way to take the folders."""
    lines = []
    for source, target in ways:
        before, after = (
            listing(os.path.join(str(where), side)).images for side in (source, target)
        )
        stems = {stem(name): name for name in after}
        name = next((n for n in before if stem(n) in stems), None)
        if name is None:
            lines.append(f"\n  {source}/ → {target}/")
        else:
            lines.append(f"\n  {source}/{name} → {target}/{stems[stem(name)]}")
    return "".join(lines)


def _flags(sides: tuple[str, str]) -> str:
    return f"--source-glob '{sides[0]}/*' --target-glob '{sides[1]}/*'"


def _match_folders(found: Scan, where: str, source: str, target: str) -> Iterator[Candidate]:
    """Two folders: pairs are files of equal relative path without suffix.

    Where a source has no such partner, several targets may be its: `x_1`, `x_2`, or what lies in a
    folder `x/`. A source of kohya's may be called `x_0`.
    """
    found.layouts.add(f"two folders: {source}/ → {target}/")
    tops = [os.path.join(where, side) for side in (source, target)]
    kohya = source.casefold().startswith("control")
    # Source without a partner → what waits for it in a folder of its name.
    parents: dict[str, str] = {}
    for relative, (befores, afters) in walk(*tops):
        before, after = (f"{top}{os.sep}{relative}" for top in tops)
        parent = parents.pop(relative, None)
        if parent:
            if not afters.images:
                found.unmatched.append(parent)
            for name in afters.images:
                yield Candidate.of_files(relative + stem(name), parent, after + name)
            continue
        slots = [f"{stem(name)}\0s\0{before}{name}" for name in befores.images]
        slots += [f"{stem(name)}\0t\0{after}{name}" for name in afters.images]
        lone: dict[str, str] = {}
        rest: list[tuple[str, str]] = []
        for root, sources, targets in _grouped(slots, found):
            if sources and targets:
                yield Candidate.of_files(relative + root, sources, targets)
            elif sources:
                lone[root] = sources
            elif targets:
                rest.append((root, targets))
        used = set()
        # Where sources are numbered themselves, `x_2` is no target of `x`.
        numbered = rest and {m["root"] for n in befores.images if (m := _MANY.fullmatch(stem(n)))}
        for root, path in rest:
            many = _MANY.fullmatch(root)
            if kohya and f"{root}_0" in lone:
                if f"{root}_1" in lone:
                    found.ambiguous.append(f"{path} has more than one control image: keep one")
                    used |= {name for name in lone if name.rpartition("_")[0] == root}
                    continue
                owner = f"{root}_0"
            elif many and many["root"] in lone and many["root"] not in numbered:
                owner = many["root"]
            else:
                found.unmatched.append(path)
                continue
            used.add(owner)
            yield Candidate.of_files(relative + root, lone[owner], path)
        for root, path in lone.items():
            if root in afters.folders and root not in befores.folders and root not in used:
                parents[f"{relative}{root}/"] = path
            elif root not in used:
                found.unmatched.append(path)
    found.unmatched += parents.values()


def _grouped(slots: list[str], found: Scan) -> Iterator[tuple[str, str | None, str | None]]:
    """(root, source, target) of `root NUL s|t NUL path`; clashes go to `found.ambiguous`."""
    slots.sort()
    for root, group in groupby(slots, key=lambda slot: slot.partition("\0")[0]):
        sides: dict[str, list[str]] = {"s": [], "t": []}
        for slot in group:
            _, side, path = slot.split("\0")
            sides[side].append(path)
        if max(map(len, sides.values())) > 1:
            found.refuse(*sides.values())
        else:
            yield root, *(files[0] if files else None for files in sides.values())


def _match_words(found: Scan, where: Path, layout: str) -> Iterator[Candidate]:
    """Stems that end in, or are, a word for source or target; folder by folder.

    Raw folders of InstructPix2Pix, known by their prompt.json, are read on the way.
    """
    for relative, (here,) in walk(str(where)):
        folder = f"{where}{os.sep}{relative}"
        raw = "prompt.json" in here.others if layout == "auto" else layout == "instructpix2pix"
        if raw:
            yield from _match_seeds(found, folder, relative, here.images, here.others)
            continue
        slots = []
        for name in here.images:
            match = _WORD.fullmatch(stem(name))
            root = (match["root"] or "") if match else ""
            if match and (layout == "auto" or bool(root) == (layout == "suffixes")):
                word = (match["plain"] or match["word"]).casefold()
                slots.append(f"{root}\0{word}\0{match['number'] or ''}\0{folder}{name}")
            else:
                found.unmatched.append(folder + name)
        slots.sort()
        for root, group in groupby(slots, key=lambda slot: slot.partition("\0")[0]):
            by_word: dict[tuple[str, str], list[str]] = {}
            for slot in group:
                _, word, number, path = slot.split("\0")
                by_word.setdefault((word, number), []).append(path)
            # `before.jpg` names no root: the pair is called after its folder.
            name = relative + root if root else relative[:-1] or where.resolve().name
            yield from _match_root(found, name, by_word, whole=not root)


def _or_clips(
    found: Scan, images: Iterator[Candidate], where: Path, frames: tuple[str, str]
) -> Iterator[Candidate]:
    """The pairs of images, or those of clips where there are none."""
    first = next(images, None)
    if first is not None:
        yield first
        yield from images
    elif not found.bad and not found.ambiguous:
        yield from _match_clips(found, where, frames)


def _match_clips(found: Scan, where: Path, frames: tuple[str, str]) -> Iterator[Candidate]:
    """Each video is a pair of two of its frames."""
    for relative, (here,) in walk(str(where)):
        for name in here.others:
            if name.lower().endswith(VIDEO_SUFFIXES):
                found.layouts.add(f"clips: {frames[0]} → {frames[1]} frame")
                clip = f"{where}{os.sep}{relative}{name}"
                source, target = (f"{of_path(clip)}#t={at}" for at in frames)
                yield Candidate(relative + stem(name), source, target)


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


def _match_root(
    found: Scan, name: str, by_word: dict[tuple[str, str], list[str]], *, whole: bool
) -> Iterator[Candidate]:
    """The pairs among the files of one root."""
    used = set()
    for source_word, target_word in WORDS:
        before = by_word.get((source_word, ""), [])
        afters = [slot for slot in by_word if slot[0] == target_word]
        if not before or not afters:
            continue
        used |= {(source_word, ""), *afters}
        for slot in afters:
            after = by_word[slot]
            if len(before) > 1 or len(after) > 1:
                found.refuse(before, after)
                continue
            found.layouts.add(
                f"a folder a pair: {source_word} → {target_word}"
                if whole
                else f"suffixes in one folder: _{source_word} → _{target_word}"
            )
            numbered = f"{name}_{slot[1]}" if slot[1] else name
            yield Candidate.of_files(numbered, before[0], after[0])
    for slot, files in by_word.items():
        if slot not in used:
            found.unmatched += files


def _match_seeds(
    found: Scan, folder: str, relative: str, images: list[str], others: list[str]
) -> Iterator[Candidate]:
    """InstructPix2Pix as it was generated: SEED_0 is edited into SEED_1, prompt.json says how."""
    slots = []
    for name in images:
        match = _SEED.fullmatch(stem(name))
        if match:
            slots.append(f"{match['root']}\0{'st'[int(match['side'])]}\0{folder}{name}")
        else:
            found.unmatched.append(folder + name)
    caption, error = None, None
    if slots and "prompt.json" in others:
        try:
            caption = _edit(f"{folder}prompt.json")
        except PairError as caught:
            error = caught
    for root, source, target in _grouped(slots, found):
        if source is None or target is None:
            found.unmatched.append(source or target or "")
        elif error:
            found.bad.append(Outcome((relative + root).replace("/", "__"), error=error))
        else:
            found.layouts.add("InstructPix2Pix's raw folders")
            yield Candidate.of_files(relative + root, source, target, caption)


def _edit(path: str) -> str | None:
    """The instruction of an InstructPix2Pix prompt.json.

    Raises:
        PairError: It is no JSON object with a text `edit`.
    """
    try:
        edit = json.loads(Path(path).read_text(encoding="utf-8-sig"))["edit"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PairError(
            f"{path}: can't read its edit instruction: {error!r}.",
            hint='InstructPix2Pix writes {"edit": "…"}.',
        ) from None
    if not isinstance(edit, str):
        raise PairError(f"{path}: `edit` is not text.", hint='Write {"edit": "add a hat"}.')
    return edit.strip() or None
