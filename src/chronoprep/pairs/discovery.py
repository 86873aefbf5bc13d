"""Discovery: which files under a folder, or rows of a manifest, are pairs.

Works on plain strings and one `scandir` a folder, so a million names stay cheap. Opens no image.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.data import ImagePair, Outcome
from chronoprep.errors import ConfigError, PairError
from chronoprep.pairs.keys import safe_key
from chronoprep.pairs.manifest import SUFFIXES, Candidate, Sidecars, read_manifest

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"})

# Names of two folders, source first; compared without case, `_` like `-`.
FOLDERS = (
    *(("input", "output"), ("inputs", "outputs"), ("input-images", "output-images")),
    *(("source", "target"), ("sources", "targets"), ("before", "after")),
    *(("control", "target"), ("a", "b")),
)
# Last words of stems in one folder (`ROOT_start`), or whole stems in a folder a pair (`start`).
WORDS = (
    *(("start", "end"), ("in", "out"), ("input", "output"), ("before", "after")),
    *(("source", "target"), ("control", "target"), ("a", "b"), ("original", "edited")),
)
_PLAIN = "|".join(sorted({word for words in WORDS for word in words} - {"edited"}))
_WORD = re.compile(
    rf"(?:(?P<root>.+)_)?(?:(?P<word>{_PLAIN})|edited(?:_(?P<number>\d+))?)",
    re.IGNORECASE | re.DOTALL,
)

_LAYOUTS = (
    "Understood are: two folders (input/0001.png + output/0001.png; also source/target, "
    "before/after, control/target, A/B), suffixes in one folder (0001_start.png + 0001_end.png; "
    "also _in/_out, _input/_output, _before/_after, _source/_target, _A/_B, _original/_edited), "
    "a folder a pair (0001/before.png + 0001/after.png), and a .csv or .jsonl manifest with the "
    "columns source and target."
)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found.

    Attributes:
        pairs: Usable pairs, sorted by key, at most `limit`.
        unmatched: Images without a partner.
        ambiguous: Lines that name files of which no one pair can be made.
        renamed: (name on disk, key used) where the name is no safe key.
        bad: Pairs that can't be used, each with its key and a `PairError`.
        layout: What was recognised, for people.
    """

    pairs: tuple[ImagePair, ...]
    unmatched: tuple[Path, ...]
    ambiguous: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    bad: tuple[Outcome[ImagePair], ...]
    layout: str


@dataclass(slots=True)
class _Found:
    layout: str
    candidates: list[Candidate] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    bad: list[Outcome[ImagePair]] = field(default_factory=list)
    sidecars: bool = True


def discover(where: Path, settings: PairSettings) -> Discovery:
    """Find the pairs in a folder or a manifest (.csv, .jsonl, .ndjson).

    Raises:
        ConfigError: `where` does not exist, holds no pairs, leaves open which image is the source,
            or (with `strict`) holds anything that does not become a pair.
    """
    if where.is_dir():
        found = _find_in_folder(where)
    elif where.is_file():
        found = _find_in_manifest(where)
    else:
        raise ConfigError(f"{where}: no such folder or manifest.", hint="Check the path.")

    named = _assign_keys(found)
    sidecars = Sidecars(str(where)) if found.sidecars else None
    pairs: list[ImagePair] = []
    renamed: list[tuple[str, str]] = []
    for key, candidate in sorted(named, key=lambda item: item[0]):
        if settings.limit is not None and len(pairs) == settings.limit:
            break
        caption, prompt = candidate.caption, candidate.prompt
        if sidecars:
            try:
                caption, prompt = sidecars.read(candidate)
            except PairError as error:
                found.bad.append(Outcome(key, error=error))
                continue
        pairs.append(
            ImagePair(key, Path(candidate.source), Path(candidate.target), caption, prompt)
        )
        if candidate.name.replace("/", "__") != key:
            renamed.append((candidate.name, key))

    discovery = Discovery(
        pairs=tuple(pairs),
        unmatched=tuple(map(Path, sorted(found.unmatched))),
        ambiguous=tuple(sorted(found.ambiguous)),
        renamed=tuple(renamed),
        bad=tuple(found.bad),
        layout=found.layout,
    )
    problems = _problems(discovery)
    if not pairs and not discovery.bad:
        raise ConfigError(f"{where}: no pairs found.{_lines(problems)}", hint=_LAYOUTS)
    if settings.strict and problems:
        raise ConfigError(
            f"{where}: {len(problems)} files or rows don't become pairs.{_lines(problems)}",
            hint="Correct or remove them, or leave strict off to go on without them.",
        )
    return discovery


def _problems(discovery: Discovery) -> list[str]:
    return [
        *(f"no partner: {path}" for path in discovery.unmatched),
        *(f"ambiguous: {line}" for line in discovery.ambiguous),
        *(str(outcome.error) for outcome in discovery.bad),
    ]


def _lines(problems: list[str], most: int = 20) -> str:
    more = [f"… and {len(problems) - most} more"] if len(problems) > most else []
    return "".join(f"\n  {line}" for line in problems[:most] + more)


def _assign_keys(found: _Found) -> list[tuple[str, Candidate]]:
    """Safe keys; pairs whose keys collide, also on file systems that fold case, become bad."""
    by_key: defaultdict[str, list[tuple[str, Candidate]]] = defaultdict(list)
    for candidate in found.candidates:
        key = safe_key(candidate.name.replace("/", "__"))
        by_key[unicodedata.normalize("NFC", key.casefold())].append((key, candidate))
    named: list[tuple[str, Candidate]] = []
    for same in by_key.values():
        if len(same) == 1:
            named += same
            continue
        files = "; ".join(f"{pair.source} → {pair.target}" for _, pair in same[:5])
        more = f"; and {len(same) - 5} more" if len(same) > 5 else ""
        for key, pair in same:
            error = PairError(
                f"{pair.source} → {pair.target}: key {key!r} is claimed by {len(same)} pairs: "
                f"{files}{more}.",
                hint="Rename the files, or give each pair its own key in a manifest.",
            )
            found.bad.append(Outcome(key, error=error))
    return named


def _find_in_manifest(path: Path) -> _Found:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{path}: not a folder, and not a manifest that can be read.",
            hint=f"Give a folder of pairs or a manifest ({', '.join(SUFFIXES)}).",
        )
    candidates, bad = read_manifest(path)
    return _Found(f"manifest: {path.name}", candidates, bad=bad, sidecars=False)


def _find_in_folder(where: Path) -> _Found:
    images, folders = _list(str(where))
    normal = defaultdict(list)
    for name in folders:
        normal[name.casefold().replace("_", "-")].append(name)
    options = [
        (source, target)
        for names in FOLDERS
        for source in normal.get(names[0], ())
        for target in normal.get(names[1], ())
    ]
    if len(options) > 1:
        choices = "".join(f"\n  {source}/ → {target}/" for source, target in options)
        raise ConfigError(
            f"{where}: the folders can be paired in more than one way:{choices}",
            hint="Move the pair of folders that you mean into a folder of its own, or write a "
            "manifest with the columns source and target.",
        )
    if options:
        found = _match_folders(where, *options[0])
        found.unmatched += [os.path.join(where, name) for name in images]  # noqa: PTH118
        return found
    found = _match_words(where)
    if not found.candidates and {"images", "image"} & normal.keys():
        raise ConfigError(
            f"{where}: can't tell which folder holds the sources: {', '.join(folders)}. In some "
            "sets `image` is the source, in others (kohya, DiffSynth) the target.",
            hint="Rename the folders of images before and after the edit to source and target: "
            "source/0001.png is edited into target/0001.png, source/0002.png into "
            "target/0002.png.",
        )
    return found


def _match_folders(where: Path, source: str, target: str) -> _Found:
    """Two folders: pairs are files of equal relative path without suffix."""
    found = _Found(f"two folders: {source}/ → {target}/")
    sides = []
    for folder in (source, target):
        top = os.path.join(where, folder)  # noqa: PTH118
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for relative, names, _ in _walk(top):
            for name in names:
                stems[relative + _stem(name)].append(f"{top}{os.sep}{relative}{name}")
        sides.append(stems)
    sources, targets = sides
    for stem in sources.keys() | targets.keys():
        before, after = sources.get(stem, []), targets.get(stem, [])
        if len(before) > 1 or len(after) > 1:
            found.ambiguous.append(_clash([files for files in (before, after) if len(files) > 1]))
        elif before and after:
            found.candidates.append(Candidate(stem, before[0], after[0]))
        else:
            found.unmatched += before or after
    return found


def _match_words(where: Path) -> _Found:
    """Stems that end in, or are, a word for source or target; folder by folder."""
    found = _Found("")
    seen: set[str] = set()
    for relative, names, _ in _walk(str(where)):
        roots: defaultdict[str, defaultdict[tuple[str, str], list[str]]]
        roots = defaultdict(lambda: defaultdict(list))
        folder = f"{where}{os.sep}{relative}"
        for name in names:
            match = _WORD.fullmatch(_stem(name))
            if match:
                word = (match["word"] or "edited").casefold()
                roots[match["root"] or ""][word, match["number"] or ""].append(folder + name)
            else:
                found.unmatched.append(folder + name)
        for root, by_word in roots.items():
            # `before.jpg` names no root: the pair is called after its folder.
            name = relative + root if root else relative[:-1] or where.resolve().name
            seen |= _match_root(found, name, by_word, whole=not root)
    found.layout = ", ".join(sorted(seen)) or "nothing recognised"
    return found


def _match_root(
    found: _Found, name: str, by_word: dict[tuple[str, str], list[str]], *, whole: bool
) -> set[str]:
    """The pairs among the files of one root; returns the layouts that they show."""
    layouts = set()
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
                found.ambiguous.append(_clash([f for f in (before, after) if len(f) > 1]))
                continue
            numbered = f"{name}_{slot[1]}" if slot[1] else name
            found.candidates.append(Candidate(numbered, before[0], after[0]))
            layouts.add(
                f"a folder a pair: {source_word} → {target_word}"
                if whole
                else f"suffixes in one folder: _{source_word} → _{target_word}"
            )
    for slot, files in by_word.items():
        if slot not in used:
            found.unmatched += files
    return layouts


def _clash(sides: Iterable[list[str]]) -> str:
    return "; ".join(
        " and ".join(sorted(files)) + " differ only in their suffix: keep one" for files in sides
    )


def _stem(name: str) -> str:
    stem = name[: name.rindex(".")]
    # macOS writes names decomposed: composed, they match those from elsewhere.
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


def _list(folder: str) -> tuple[list[str], list[str]]:
    """Names of images and of folders, sorted, hidden ones left out.

    What is named like an image counts as one, also a broken link or a folder: loading it says what
    is wrong, where leaving it out would only report its partner.
    """
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES:
                    images.append(name)
                elif entry.is_dir():
                    folders.append(name)
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't list the folder: {error.strerror}.", hint="Check its permissions."
        ) from None
    return sorted(images), sorted(folders)


def _walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """(relative folder with a final `/` or "", images, folders); links followed, loops not."""
    pending, visited = [""], set()
    while pending:
        relative = pending.pop()
        status = os.stat(os.path.join(top, relative))  # noqa: PTH116, PTH118
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        images, folders = _list(os.path.join(top, relative))  # noqa: PTH118
        yield relative, images, folders
        pending += [f"{relative}{name}/" for name in reversed(folders)]
