"""Pairs by the user's own patterns: two globs, or a regular expression with named groups."""

from __future__ import annotations

import os
import re
from pathlib import Path

from chronoprep.config import PairSettings
from chronoprep.errors import ConfigError
from chronoprep.pairs.folders import stem
from chronoprep.pairs.scan import Classify, Part, Scan

_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")
_WILDCARDS = {"**/": "((?:[^/]+/)*)", "**": "([^/]*)", "*": "([^/]*)", "?": "([^/])"}


def find_by_pattern(where: Path, settings: PairSettings) -> Scan:
    """The pairs that `source_glob` and `target_glob`, or `regex`, describe.

    Raises:
        ConfigError: A pattern is missing, no pattern, or makes one file source and target.
    """
    found = Scan()
    if settings.regex is not None:
        if settings.source_glob or settings.target_glob:
            raise ConfigError("Either --regex or the globs.", hint="Leave one of them out.")
        classify = _by_regex(settings.regex)
        found.layouts.add(f"--regex {settings.regex}")
    else:
        globs = (settings.source_glob, settings.target_glob)
        if globs[0] is None or globs[1] is None:
            raise ConfigError(
                "--source-glob and --target-glob go together.",
                hint="For example: --source-glob 'raw/*.jpg' --target-glob 'final/*.jpg'",
            )
        classify = _by_globs(where, globs[0], globs[1])
        found.layouts.add(f"{globs[0]} → {globs[1]}")
    found.candidates = found.match(found.slots(str(where), classify))
    return found


def _by_globs(where: Path, source_glob: str, target_glob: str) -> Classify:
    """Files pair up when the wildcards stand for the same; what a target's glob has in excess tells
    the targets of one source apart."""
    source, count = _compiled(where, source_glob, "--source-glob")
    target, more = _compiled(where, target_glob, "--target-glob")
    if count > more:
        raise ConfigError(
            f"--source-glob {source_glob} has more wildcards than --target-glob {target_glob}.",
            hint="Files pair up when the wildcards stand for the same text; a target may have "
            "more of them, one source has many targets then.",
        )

    def classify(path: str) -> Part | None:
        before, after = source.fullmatch(path), target.fullmatch(path)
        if before and after:
            raise ConfigError(
                f"{where / path} fits both --source-glob {source_glob} and "
                f"--target-glob {target_glob}.",
                hint="Narrow one of them, so that a file is a source or a target.",
            )
        if before:
            return Part(_text(before.groups()), "source")
        if after:
            groups = after.groups()
            return _target(path, _text(groups[:count]), _text(groups[count:]))
        return None

    return classify


def _target(path: str, group: str, edit: str) -> Part:
    """A target; `edit` tells those of one source apart."""
    name = "/".join(filter(None, (group, edit)))
    return Part(group, "target", name or stem(os.path.basename(path)))


def _text(groups: tuple[str | None, ...]) -> str:
    return "/".join(group.strip("/") for group in groups if group)


def _compiled(where: Path, glob: str, flag: str) -> tuple[re.Pattern[str], int]:
    """A glob as an expression with a group a wildcard, and the number of groups."""
    pattern = glob.removeprefix("./")
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
        expression = re.compile(text)
    except re.error as error:
        raise ConfigError(f"--regex {text}: {error}.", hint=hint) from None
    missing = {"key", "source", "target"} - expression.groupindex.keys()
    if missing:
        raise ConfigError(
            f"--regex {text}: no group called {' or '.join(sorted(missing))}.", hint=hint
        )
    edits = "edit" in expression.groupindex

    def classify(path: str) -> Part | None:
        match = expression.fullmatch(path)
        if match is None or (match["source"] is None) == (match["target"] is None):
            return None
        group = (match["key"] or "").strip("/")
        if match["target"] is None:
            return Part(group, "source")
        return _target(path, group, (edits and match["edit"]) or "")

    return classify
