"""Layouts: how the pairs of a folder are told from names alone.

Every layout says of a file which group it belongs to and which side of a pair it is; `Scan.match`
makes pairs of that.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import combinations
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.refs import file_of, of_path
from chronoprep.pairs.folders import VIDEO_SUFFIXES, listing, stem, walk
from chronoprep.pairs.scan import Candidate, Classify, Part, Scan

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
WORDS = {
    **{"start": "end", "in": "out", "input": "output", "before": "after", "source": "target"},
    **{"control": "target", "a": "b", "original": "edited"},
}
# One source has many targets as `ROOT_edited_1`, `ROOT_edited_2`; `b_1` would be too little to say.
_WORD = re.compile(
    rf"(?:(?P<root>.+)_)?(?:(?P<plain>{'|'.join(WORDS)}|b)"
    rf"|(?P<word>{'|'.join({*WORDS.values()} - {'b'})})(?:_(?P<number>\d+))?)",
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
            _match_folders(found, top, *sides)
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
    pairs: Iterator[Candidate] = iter(())
    if layout != "clips":
        pairs = found.match(found.slots(top, _by_words(where, layout)))
    if layout in ("auto", "instructpix2pix"):
        pairs = _with_edits(found, pairs)
    if layout in ("auto", "clips"):
        pairs = _or_clips(found, pairs, top, _frames(settings.frames))
    found.candidates = pairs
    return found


def role_folders(
    where: Path, folders: Sequence[str], *, kohya: bool = False
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
            f"{where}: the folders can be paired in more than one way:{_shown(where, options)}",
            hint=f"The first, for example: {_flags(options[0])}",
        )
    return options[0] if options else None


def _by_plain_name(folders: Sequence[str]) -> defaultdict[str, list[str]]:
    """Folders by their names as `FOLDERS` has them."""
    by_name = defaultdict(list)
    for name in folders:
        by_name[name.casefold().replace("_", "-")].append(name)
    return by_name


def refuse_unknown(where: Path) -> None:
    """For a folder that gave no pairs: ask, if its names show pairs whose roles nothing tells.

    Raises:
        ConfigError: With two example pairs and the flags that decide.
    """
    images, folders, _ = listing(str(where))
    by_name = _by_plain_name(folders)
    pictures = [name for target in KOHYA_TARGETS[:2] for name in by_name[target]]
    controls = [name for source in KOHYA_SOURCES for name in by_name[source]]
    if pictures and controls:
        picture, control = pictures[0], controls[0]
        ways = [(control, picture), (picture, control)]
        raise ConfigError(
            f"{where}: can't tell which folder holds the sources: {control}, {picture}. In "
            f"kohya's and DiffSynth's sets {picture}/ holds the targets, in others the sources:"
            f"{_shown(where, ways)}",
            hint=f"The first: --layout kohya. The second: {_flags(ways[1])}",
        )
    compared = folders if len(folders) <= _MOST_COMPARED else []
    stems = {name: _by_stem(where, name).keys() for name in compared}
    for one, other in combinations(compared, 2):
        if stems[one] & stems[other]:
            ways = [(one, other), (other, one)]
            raise ConfigError(
                f"{where}: can't tell which folder holds the sources:{_shown(where, ways)}",
                hint=f"The first: {_flags(ways[0])}\nThe second: {_flags(ways[1])}",
            )
    names = set(map(stem, images))
    both = sorted(n[:-2] for n in names if n.endswith("_0") and f"{n[:-2]}_1" in names)
    if both:
        shown = "".join(f"\n  {root}_0 → {root}_1, or the reverse" for root in both[:2])
        raise ConfigError(
            f"{where}: can't tell which images are the sources:{shown}",
            hint="If _0 is before the edit, as in InstructPix2Pix: --layout instructpix2pix. "
            "If not: --source-glob '*_1.*' --target-glob '*_0.*'.",
        )


def _by_stem(where: Path, folder: str) -> dict[str, str]:
    return {stem(name): name for name in listing(os.path.join(str(where), folder)).images}


def _shown(where: Path, ways: Sequence[tuple[str, str]]) -> str:
    """Two example pairs: one of each way to take the folders."""
    lines = []
    for source, target in ways:
        befores, afters = _by_stem(where, source), _by_stem(where, target)
        root = next((root for root in befores if root in afters), None)
        before, after = ("", "") if root is None else (befores[root], afters[root])
        lines.append(f"\n  {source}/{before} → {target}/{after}")
    return "".join(lines)


def _flags(sides: tuple[str, str]) -> str:
    return f"--source-glob '{sides[0]}/*' --target-glob '{sides[1]}/*'"


def _match_folders(found: Scan, where: str, source: str, target: str) -> None:
    """Two folders: pairs are files of equal relative path without suffix."""
    found.layouts.add(f"two folders: {source}/ → {target}/")
    slots = found.slots(os.path.join(where, source), lambda path: Part(stem(path), "source"))
    slots += found.slots(
        os.path.join(where, target), lambda path: Part(stem(path), "target", stem(path))
    )
    kohya = source.casefold().startswith("control")
    found.candidates = found.match(slots, partial(_adopted, kohya=kohya))


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


def _by_words(where: Path, layout: str) -> Classify:
    """Stems that end in, or are, a word for source or target; folder by folder.

    Raw folders of InstructPix2Pix, known by their prompt.json, are read on the way.
    """

    @lru_cache(maxsize=1)
    def is_raw(folder: str) -> bool:
        known = layout == "auto" and os.path.isfile(f"{where}{os.sep}{folder}prompt.json")
        return known or layout == "instructpix2pix"

    def classify(path: str) -> Part | None:
        folder = path[: path.rfind("/") + 1]
        last = stem(path[len(folder) :])
        if is_raw(folder):
            # SEED_0 is edited into SEED_1.
            if seed := _SEED.fullmatch(last):
                name = folder + seed["root"]
                if seed["side"] == "0":
                    return Part(f"{name}/0", "source", "InstructPix2Pix's raw folders")
                return Part(f"{name}/0", "target", name)
            return None
        match = _WORD.fullmatch(last)
        root = (match["root"] or "") if match else ""
        if match is None or (layout != "auto" and bool(root) != (layout == "suffixes")):
            return None
        word = (match["plain"] or match["word"]).casefold()
        if word in WORDS:
            after = WORDS[word]
            kind = "suffixes in one folder: _{} → _{}" if root else "a folder a pair: {} → {}"
            return Part(f"{folder}{root}/{after}", "source", kind.format(word, after))
        # `before.jpg` names no root: the pair is called after its folder.
        name = folder + root if root else folder[:-1] or where.resolve().name
        number = f"_{match['number']}" if match["number"] else ""
        return Part(f"{folder}{root}/{word}", "target", name + number)

    return classify


def _or_clips(
    found: Scan, pairs: Iterator[Candidate], top: str, frames: tuple[str, str]
) -> Iterator[Candidate]:
    """The pairs of images; where there are none, each video is a pair of two of its frames."""
    first = next(pairs, None)
    if first is not None:
        yield first
        yield from pairs
    elif not found.bad and not found.ambiguous:
        for relative, here in walk(top):
            for name in here.others:
                if name.lower().endswith(VIDEO_SUFFIXES):
                    found.layouts.add(f"clips: {frames[0]} → {frames[1]} frame")
                    clip = of_path(f"{top}{os.sep}{relative}{name}")
                    yield Candidate(relative + stem(name), *(f"{clip}#t={at}" for at in frames))


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


def _with_edits(found: Scan, pairs: Iterator[Candidate]) -> Iterator[Candidate]:
    """Pairs with the caption that a prompt.json of InstructPix2Pix beside them holds, if any."""
    edits: dict[str, str | PairError | None] = {}
    for pair in pairs:
        path = os.path.join(os.path.dirname(file_of(pair.source)), "prompt.json")
        if path not in edits:
            edits[path] = _edit(path)
        edit = edits[path]
        if isinstance(edit, PairError):
            found.refuse(pair.name, edit)
        else:
            yield pair._replace(caption=edit)


def _edit(path: str) -> str | PairError | None:
    """The instruction of an InstructPix2Pix prompt.json, if there is one; an error if that is no
    JSON object with a text `edit`."""
    try:
        edit: str = json.loads(Path(path).read_text(encoding="utf-8-sig"))["edit"].strip()
        return edit or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        wrong = f"{path}: can't read its edit instruction: {error!r}."
        return PairError(wrong, hint='Write {"edit": "add a hat"}.')
