"""Roles: which folders and files are the sources, by their names; and a question where names don't
say.

No way is ever shown that would pair two sources, or two targets.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

from chronoprep.errors import ConfigError
from chronoprep.pairs.folders import Tree, stem

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

# Words that people use for the two sides. Too loose to make pairs of; enough to know that two
# sources are no pair, and which of two folders comes first.
_SOURCES = (
    *("before", "input", "source", "original", "control", "start", "conditioning", "reference"),
    *("src", "orig", "old", "pre", "raw", "cond", "first", "from", "in", "a", "condition", "ref"),
)
_TARGETS = (
    *("after", "output", "target", "edited", "result", "final", "retouched", "modified", "goal"),
    *("out", "end", "edit", "tgt", "dst", "new", "post", "gt", "last", "to", "b", "res"),
)
_FILLERS = ("img", "imgs", "image", "images", "photo", "photos", "picture", "pictures", "folder")
_SURE = 5  # letters of a word that tells a side also among others
_MOST_COMPARED = 10  # folders of unknown names
_MOST_LOOKED_AT = 500  # names of images

UNDERSTOOD = (
    "Understood are: two folders (input/0001.png + output/0001.png; also source/target, "
    "before/after, control/target, A/B), suffixes in one folder (0001_start.png + 0001_end.png; "
    "also _in/_out, _input/_output, _before/_after, _source/_target, _A/_B, _original/_edited), "
    "a folder a pair (0001/before.png + 0001/after.png), InstructPix2Pix's raw folders "
    "(7_0.jpg + 7_1.jpg + prompt.json), clips (clip.mp4: its first and last frame), a .zip of "
    "these, and a .csv or .jsonl manifest with the columns source and target. For other names: "
    "--source-glob 'raw/*.jpg' --target-glob 'final/*.jpg'."
)


def role_folders(
    tree: Tree, where: Path, folders: Sequence[str], *, kohya: bool = False
) -> tuple[str, str] | None:
    """The folders of sources and of targets.

    Raises:
        ConfigError: There is more than one way to take them.
    """
    by_name = _by_plain_name(folders)
    roles = [(s, t) for s in KOHYA_SOURCES for t in KOHYA_TARGETS] if kohya else FOLDERS
    options = [(s, t) for one, other in roles for s in by_name[one] for t in by_name[other]]
    if len(options) > 1:
        raise ConfigError(
            f"{where}: the folders can be paired in more than one way:{_shown(tree, options)}",
            hint=f"The first, for example: {_flags(options[0])}",
        )
    return options[0] if options else None


def side_of(name: str) -> str | None:
    """Which side a name speaks of, as far as a word in it tells: `source`, `target` or None.

    Numbers and slips of the pen are looked through: `befor`, `input_2`, `Sources`.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    said = [word for word in re.findall(r"[^\W\d_]+", text) if word not in _FILLERS]
    sides = set()
    for word in said:
        if len(word) < _SURE and len(said) > 1:
            continue
        for side, words in (("source", _SOURCES), ("target", _TARGETS)):
            if word in words or difflib.get_close_matches(word.removesuffix("s"), words, 1, 0.8):
                sides.add(side)
    return sides.pop() if len(sides) == 1 else None


def refuse_unknown(tree: Tree, where: Path) -> None:
    """For a folder that gave no pairs: ask, if its names show pairs whose roles nothing tells, or
    come near to those that are understood.

    Raises:
        ConfigError: With two example pairs and the flags that decide, or what is missing.
    """
    images, folders = tree.listing()[:2]
    by_name = _by_plain_name(folders)
    pictures = [name for target in KOHYA_TARGETS[:2] for name in by_name[target]]
    controls = [name for source in KOHYA_SOURCES for name in by_name[source]]
    if pictures and controls:
        picture, control = pictures[0], controls[0]
        ways = [(control, picture), (picture, control)]
        raise ConfigError(
            f"{where}: can't tell which folder holds the sources: {control}, {picture}. In "
            f"kohya's and DiffSynth's sets {picture}/ holds the targets, in others the sources:"
            f"{_shown(tree, ways)}",
            hint=f"The first: --layout kohya. The second: {_flags(ways[1])}",
        )
    _ask_of_folders(tree, where, folders)
    _ask_of_seeds(where, images)
    for message, hint in _near_misses(tree, where, images, folders):
        raise ConfigError(message, hint=hint)


def _ask_of_folders(tree: Tree, where: Path, folders: Sequence[str]) -> None:
    """Ask of two folders that share names; where words tell their sides, only of those ways."""
    compared = folders if len(folders) <= _MOST_COMPARED else []
    stems = {name: _by_stem(tree, name).keys() for name in compared}
    sides = {name: side_of(name) for name in compared}
    ways = [
        (one, other)
        for one, other in permutations(compared, 2)
        if stems[one] & stems[other]
        and sides[one] != "target" and sides[other] != "source"
    ]  # fmt: skip
    # Those whose two names both tell come first.
    ways.sort(key=lambda way: (sides[way[0]] is None) + (sides[way[1]] is None))
    if not ways:
        return
    one, other = ways[0]
    back = [(other, one)] if (other, one) in ways else []
    flags = [f"The first: {_flags((one, other))}", *(f"The second: {_flags(way)}" for way in back)]
    several = [name for name in folders if sides.get(name) == "source"]
    more = (
        f" A pair has one source; {', '.join(several)} look like several: choose one of them."
        if len(several) > 1
        else ""
    )
    raise ConfigError(
        f"{where}: can't tell which folder holds the sources:{_shown(tree, [(one, other), *back])}",
        hint="\n".join(flags) + more,
    )


def _ask_of_seeds(where: Path, images: Sequence[str]) -> None:
    """Ask of files that are called `x_0` and `x_1`, unless these are more numbers of one side."""
    numbers = defaultdict(set)
    for name in map(stem, images):
        root, _, number = name.rpartition("_")
        if root and number.isdigit():
            numbers[root].add(number)
    both = sorted(
        root for root, found in numbers.items() if found == {"0", "1"} and side_of(root) is None
    )
    if both:
        shown = "".join(f"\n  {root}_0 → {root}_1, or the reverse" for root in both[:2])
        raise ConfigError(
            f"{where}: can't tell which images are the sources:{shown}",
            hint="If _0 is before the edit, as in InstructPix2Pix: --layout instructpix2pix. "
            "If not: --source-glob '*_1.*' --target-glob '*_0.*'.",
        )


def _near_misses(
    tree: Tree, where: Path, images: Sequence[str], folders: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """What is nearly a layout, and how it would be one: message and remedy."""
    known = dict(FOLDERS)
    for name in folders:
        inner = tree.listing(f"{name}/").folders
        if sides := role_folders(tree, where / name, inner):
            yield (
                f"{where}: no pairs at its top, but {name}/ holds {sides[0]}/ and {sides[1]}/.",
                f"Give {where / name} as PAIRS"
                + "; other folders one by one." * (len(folders) > 1),
            )
    by_side: dict[str | None, list[str]] = {"source": [], "target": []}
    for name in folders:
        by_side.setdefault(side_of(name), []).append(name)
    sources, targets = by_side["source"], by_side["target"]
    if sources and targets:
        pair = (sources[0], targets[0])
        yield (
            f"{where}: {pair[0]}/ and {pair[1]}/ look like sources and targets, but share no file "
            f"name.",
            f"Call a pair's files the same in both, or give patterns whose wildcards are: "
            f"{_flags(pair)}",
        )
    for name in sources + targets:
        plain = name.casefold().replace("_", "-")
        partner = known.get(plain) or {t: s for s, t in FOLDERS}.get(plain) or "its partner"
        side = "targets" if name in sources else "sources"
        yield (
            f"{where}: {name}/ is there, but no folder of {side} such as {partner}/.",
            f"Put them beside it, or name the folder: {_flags((name, 'OTHER'))}"
            if name in sources
            else f"Put them beside it, or name the folder: {_flags(('OTHER', name))}",
        )
    of_files: dict[str, list[str]] = {"source": [], "target": []}
    for name in images[:_MOST_LOOKED_AT]:
        if told := side_of(stem(name)):
            of_files[told].append(name)
    for side, other in (("source", "target"), ("target", "source")):
        if of_files[side] and not of_files[other]:
            yield (
                f"{where}: {of_files[side][0]} is named as a {side}, and no {other} goes with it.",
                UNDERSTOOD,
            )
    if of_files["source"] and of_files["target"]:
        yield (
            f"{where}: {of_files['source'][0]} and {of_files['target'][0]} look like source and "
            "target, but their names share nothing that says so.",
            UNDERSTOOD,
        )


def _by_plain_name(folders: Sequence[str]) -> defaultdict[str, list[str]]:
    """Folders by their names as `FOLDERS` has them."""
    by_name = defaultdict(list)
    for name in folders:
        by_name[name.casefold().replace("_", "-")].append(name)
    return by_name


def _by_stem(tree: Tree, folder: str) -> dict[str, str]:
    return {stem(name): name for name in tree.listing(f"{folder}/").images}


def _shown(tree: Tree, ways: Sequence[tuple[str, str]]) -> str:
    """Two example pairs: one of each way to take the folders."""
    lines = []
    for source, target in ways:
        befores, afters = _by_stem(tree, source), _by_stem(tree, target)
        root = next((root for root in befores if root in afters), None)
        before, after = ("", "") if root is None else (befores[root], afters[root])
        lines.append(f"\n  {source}/{before} → {target}/{after}")
    return "".join(lines)


def _flags(sides: tuple[str, str]) -> str:
    return f"--source-glob '{sides[0]}/*' --target-glob '{sides[1]}/*'"
