"""Pairs by the user's own patterns: two globs, or a regular expression with named groups."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.errors import ConfigError
from chronoprep.pairs.folders import Tree, stem
from chronoprep.pairs.scan import Classify, Part, Scan

_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")
_WILDCARDS = {"**/": "((?:[^/]+/)*)", "**": "([^/]*)", "*": "([^/]*)", "?": "([^/])"}


def find_by_pattern(tree: Tree, where: Path, settings: PairSettings) -> Scan:
    """The pairs that `source_glob` and `target_glob`, or `regex`, describe.

    Raises:
        ConfigError: A pattern is missing, no pattern, fits no file, or makes one file source and
            target.
    """
    found = Scan(tree)
    if settings.regex is not None:
        if settings.source_glob or settings.target_glob:
            raise ConfigError("Either --regex or the globs.", hint="Leave one of them out.")
        classify = _by_regex(settings.regex)
        found.layouts.add(f"--regex {settings.regex}")
        found.candidates = found.match(tree, found.slots(tree, classify))
        return found
    globs = (settings.source_glob, settings.target_glob)
    if globs[0] is None or globs[1] is None:
        raise ConfigError(
            "--source-glob and --target-glob go together.",
            hint="For example: --source-glob 'raw/*.jpg' --target-glob 'final/*.jpg'",
        )
    by_globs = _Globs(tree, where, globs[0], globs[1])
    found.layouts.add(f"{globs[0]} → {globs[1]}")
    slots = found.slots(tree, by_globs)
    by_globs.require_files(where)
    found.candidates = found.match(tree, slots)
    return found


class _Globs:
    """Files pair up when the wildcards stand for the same; what a target's glob has in excess tells
    the targets of one source apart. Names fit in whatever Unicode form they are."""

    def __init__(self, tree: Tree, where: Path, source_glob: str, target_glob: str) -> None:
        self._tree, self._globs = tree, (source_glob, target_glob)
        self._source, count = _compiled(where, source_glob, "--source-glob")
        self._target, more = _compiled(where, target_glob, "--target-glob")
        if count > more:
            raise ConfigError(
                f"--source-glob {source_glob} has more wildcards than --target-glob {target_glob}.",
                hint="Files pair up when the wildcards stand for the same text; a target may have "
                "more of them, one source has many targets then.",
            )
        self._count = count
        self._fitting = [0, 0]
        self._loose = [
            re.compile(pattern.pattern, re.IGNORECASE) for pattern in (self._source, self._target)
        ]
        self._near = ["", ""]

    def __call__(self, folder: str, name: str) -> Part | None:
        path = _composed(folder + name)
        before, after = self._source.fullmatch(path), self._target.fullmatch(path)
        if before and after:
            raise ConfigError(
                f"{self._tree.shown(path)} fits both --source-glob {self._globs[0]} and "
                f"--target-glob {self._globs[1]}.",
                hint="Narrow one of them, so that a file is a source or a target.",
            )
        if before:
            self._fitting[0] += 1
            return Part(_text(before.groups()), "source")
        if after:
            self._fitting[1] += 1
            groups = after.groups()
            return _target(name, _text(groups[: self._count]), _text(groups[self._count :]))
        for side, loose in enumerate(self._loose):
            if not self._near[side] and not self._fitting[side] and loose.fullmatch(path):
                self._near[side] = path
        return None

    def require_files(self, where: Path) -> None:
        """Refuse a glob that fits nothing.

        Raises:
            ConfigError: Naming a file that it would fit, were it not for capital letters.
        """
        for flag, glob, count, near in zip(
            ("--source-glob", "--target-glob"), self._globs, self._fitting, self._near, strict=True
        ):
            if not count:
                hint = (
                    f"{near} would, but for capital letters: write the glob as the file is called."
                    if near
                    else "Patterns are relative to PAIRS; only images are looked at."
                )
                raise ConfigError(f"{where}: no image fits {flag} {glob}.", hint=hint)


def _target(file: str, group: str, edit: str) -> Part:
    """A target; `edit` tells those of one source apart."""
    name = "/".join(filter(None, (group, edit)))
    return Part(group, "target", name or stem(file))


def _composed(text: str) -> str:
    """A text in composed form: macOS writes names decomposed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _text(groups: tuple[str | None, ...]) -> str:
    return "/".join(group.strip("/") for group in groups if group)


def _compiled(where: Path, glob: str, flag: str) -> tuple[re.Pattern[str], int]:
    """A glob as an expression with a group a wildcard, and the number of groups."""
    pattern = _composed(glob).removeprefix("./")
    if "\\" in pattern and "/" not in pattern:
        pattern = pattern.replace("\\", "/").removeprefix("./")  # as Windows writes paths
    if os.path.isabs(pattern):
        pattern = os.path.relpath(pattern, where.absolute())
    if pattern.startswith("../"):
        raise ConfigError(
            f"{flag} {glob} leads out of {where}.",
            hint="Patterns are relative to PAIRS: give the folder above as PAIRS.",
        )
    pattern = pattern.replace(os.sep, "/")
    suffix = ""
    folder, _, last = pattern.rpartition("/")
    # Suffixes say nothing of what belongs together.
    if last.endswith(".*"):
        pattern, suffix = pattern[:-2], r"\.[^./]+"
    elif "." not in last:
        suffix = r"\.[^./]+"
    if "**" in last:
        pattern = f"{folder}/{last.replace('**', '**/*')}".lstrip("/")
    # Wildcards lie between the texts.
    parts = _WILDCARD.split(pattern)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [_WILDCARDS.get(word) or f"({word.replace('[!', '[^')})" for word in parts[1::2]]
    try:
        return re.compile("".join(parts) + suffix), len(parts) // 2
    except re.error as error:
        raise ConfigError(
            f"{flag} {glob}: no pattern: {error}.",
            hint="Understood are *, ?, [abc], [!abc] and **.",
        ) from None


def _by_regex(text: str) -> Classify:
    """`key` is what a pair shares; the group that takes part, `source` or `target`, is the side."""
    hint = r"For example: --regex '(?P<key>.+)_((?P<source>raw)|(?P<target>final))\.jpg'"
    try:
        expression = re.compile(_composed(text))
    except re.error as error:
        raise ConfigError(f"--regex {text}: {error}.", hint=hint) from None
    missing = {"key", "source", "target"} - expression.groupindex.keys()
    if missing:
        raise ConfigError(
            f"--regex {text}: no group called {' or '.join(sorted(missing))}.", hint=hint
        )
    edits = "edit" in expression.groupindex

    def classify(folder: str, name: str) -> Part | None:
        match = expression.fullmatch(_composed(folder + name))
        if match is None or (match["source"] is None) == (match["target"] is None):
            return None
        group = (match["key"] or "").strip("/")
        if match["target"] is None:
            return Part(group, "source")
        return _target(name, group, (edits and match["edit"]) or "")

    return classify
