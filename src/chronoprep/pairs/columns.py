"""Columns: which one of a table holds the source, the target, the key and the texts.

Knows names only; values and files are read elsewhere.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from chronoprep.errors import ConfigError

# Role → columns: several make up a key; of several captions the first that is there counts.
Roles = dict[str, Sequence[str]]

ROLES = ("source", "target", "key", "caption", "prompt")

_TRAPS = frozenset({"image", "input", "output", "images", "edit_image", "control"})
_PLACE = re.compile(r"(?P<column>.+)\[(?P<place>\d+)\]")
_RENAME = "Name the columns of the images before and after the edit `source` and `target`"

# Their `image` is the target: taken only by name.
_NAMED_ONLY = ("diffsynth", "kohya")


@lru_cache
def _known() -> dict[str, dict[str, Any]]:
    """`names`: columns by what they hold. Not there, because datasets disagree on them: `image`
    (the source in some, the target in DiffSynth and kohya), `input` and `output` (captions in
    AnyEdit). `presets`: the public edit datasets; an instruction is a stage-1 caption, also where
    it is called `prompt`."""
    known: dict[str, dict[str, Any]] = json.loads(
        (files(__package__) / "columns.json").read_text(encoding="utf-8")
    )
    return known


def presets() -> dict[str, Roles]:
    """The columns of the public edit datasets."""
    return _known()["presets"]


def place_of(name: str, columns: Container[str]) -> tuple[str, int | None]:
    """A column, and the place in its lists that a name such as `images[0]` asks for."""
    place = None if name in columns else _PLACE.fullmatch(name)
    return (place["column"], int(place["place"])) if place else (name, None)


def names_of(role: str) -> list[str]:
    """What a role's column may be called."""
    names: list[str] = _known()["names"][role]
    return names


def roles_of(
    columns: Sequence[str], wish: str | None, where: Path, examples: Iterable[str]
) -> Roles:
    """What each role's columns are called.

    Args:
        columns: Of the table.
        wish: A preset's name, or `source=a,target=b,caption=c,key=d+e`, of lists also `a[0]`; None
            recognises them.
        examples: Lines that show rows, for messages.

    Raises:
        ConfigError: Two columns claim one role, source and target are not both there, or the wish
            doesn't fit the table.
    """
    if wish is not None:
        return _by_wish(columns, wish, where)
    fitting = [
        roles
        for name, preset in presets().items()
        if name not in _NAMED_ONLY
        and {"source", "target", "caption"} <= (roles := _present(preset, columns)).keys()
    ]
    if len(fitting) == 1:
        return fitting[0]
    return _by_name(columns, where, "".join(f"\n  {example}" for example in examples))


def _present(roles: Roles, columns: Sequence[str]) -> Roles:
    return {
        role: names
        for role, names in roles.items()
        if {place_of(name, columns)[0] for name in names} <= set(columns)
    }


def _by_wish(columns: Sequence[str], wish: str, where: Path) -> Roles:
    if "=" in wish:
        roles: Roles = {}
        for part in wish.split(","):
            role, _, names = part.partition("=")
            if role.strip() not in ROLES or not names.strip():
                raise ConfigError(
                    f"--columns {wish}: {part!r} names no column of a role.",
                    hint=f"Roles are {', '.join(ROLES)}; for example: source=before,target=after",
                )
            roles[role.strip()] = [name.strip() for name in names.split("+")]
        needed = tuple(roles)
    elif wish.casefold() in presets():
        roles, needed = presets()[wish.casefold()], ()
    else:
        raise ConfigError(
            f"--columns {wish}: no preset of this name.",
            hint=f"Presets are {', '.join(presets())}; or name them: source=before,target=after",
        )
    for role in ("source", "target", *needed):
        asked = [place_of(name, columns)[0] for name in roles.get(role, ("",))]
        absent = [name for name in asked if name not in columns]
        if absent:
            raise ConfigError(
                f"{where}: no column {_listed(absent)} for the {role} (--columns {wish}).",
                hint=f"Its columns are {_listed(columns)}.",
            )
    return _present(roles, columns)


def _by_name(columns: Sequence[str], where: Path, examples: str) -> Roles:
    normal = {column: "_".join(column.casefold().replace("-", " ").split()) for column in columns}
    roles: Roles = {}
    for role, names in _known()["names"].items():
        claims = [column for column in columns if normal[column] in names]
        if role == "key":  # `id` beside `key` is no conflict: ours wins
            claims = sorted(claims, key=lambda column: names.index(normal[column]))[:1]
        if len(claims) > 1:
            raise ConfigError(
                f"{where}: columns {_listed(claims)} could each be the {role}.{examples}",
                hint=f"Keep one of them, named `{role}`, or say which: "
                f"--columns source=…,target=…,{role}={claims[0]}",
            )
        if claims:
            roles[role] = claims
    missing = [role for role in ("source", "target") if role not in roles]
    if missing:
        _refuse_several(columns, normal, missing, where)
        traps = [column for column in columns if normal[column] in _TRAPS]
        named_so = [name for role in missing for name in names_of(role)]
        near = [
            f"{column} for {alike[0]}"
            for column in columns
            if (alike := difflib.get_close_matches(normal[column], named_so, 1, 0.8))
        ]
        why = (
            f"{_listed(traps)} may be source, target or a caption, depending on the dataset"
            if traps
            else f"its columns are {_listed(columns)}"
        )
        named = (
            n for n in _NAMED_ONLY if {"source", "target"} <= {*_present(presets()[n], columns)}
        )
        flag = next(named, "source=before,target=after")
        raise ConfigError(
            f"{where}: no column is clearly the {' and the '.join(missing)} image: {why}."
            f"{examples}",
            hint=f"Say which: --columns {flag}. Or: {_RENAME} (source,target,key,caption)."
            + (f" Was {' and '.join(near)} meant?" if near else ""),
        )
    return roles


def _refuse_several(
    columns: Sequence[str], normal: Mapping[str, str], missing: Sequence[str], where: Path
) -> None:
    """Where a role has numbered columns, `source_1` and `source_2`: say how one is chosen.

    Raises:
        ConfigError: It has.
    """
    for role in missing:
        known = _known()["names"][role]
        several = [
            name for name in columns if normal[name].rstrip("0123456789").rstrip("_") in known
        ]
        if several:
            chosen = {"source": "source=…", "target": "target=…", role: f"{role}={several[0]}"}
            raise ConfigError(
                f"{where}: {_listed(several)} are several columns for the {role}: a pair has one.",
                hint=f"Say which: --columns {','.join(chosen.values())}",
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
