"""Columns: which one of a table holds the source, the target, the key and the texts.

Knows names only; values and files are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from chronoprep.errors import ConfigError

# Role → columns: several make up a key; of several captions the first that is there counts.
Roles = dict[str, tuple[str, ...]]

ROLES = ("source", "target", "key", "caption", "prompt")

# Columns by what they hold. Not here, because datasets disagree on them: `image` (the source in
# some, the target in DiffSynth and kohya), `input` and `output` (captions in AnyEdit).
COLUMNS = {
    "source": (
        *("source", "source_image", "source_img", "original_image", "src_img", "input_image"),
        "before",
    ),
    "target": (
        *("target", "target_image", "target_img", "edited_image", "edited_img", "output_image"),
        "after",
    ),
    "key": ("key", "id"),
    "caption": ("caption", "instruction", "edit_prompt", "edit"),
    "prompt": ("prompt", "caption_cot"),
}
_TRAPS = frozenset({"image", "input", "output", "images", "edit_image", "control"})
_RENAME = "Name the columns of the images before and after the edit `source` and `target`"

# The public edit datasets. An instruction is a stage-1 caption, also where it is called `prompt`.
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "instructpix2pix": {
        "source": ("original_image",),
        "target": ("edited_image",),
        "caption": ("edit_prompt",),
    },
    "magicbrush": {
        "source": ("source_img",),
        "target": ("target_img",),
        "key": ("img_id", "turn_index"),
        "caption": ("instruction",),
    },
    "omniedit": {
        "source": ("src_img",),
        "target": ("edited_img",),
        "key": ("omni_edit_id",),
        "caption": ("edited_prompt_list",),
    },
    "ultraedit": {
        "source": ("source_image",),
        "target": ("edited_image",),
        "caption": ("edit_prompt",),
    },
    "hq-edit": {"source": ("input_image",), "target": ("output_image",), "caption": ("edit",)},
    "imgedit": {"source": ("input_images",), "target": ("output_images",), "caption": ("prompt",)},
    "seed-data-edit": {
        "source": ("source_image",),
        "target": ("target_image",),
        "caption": ("instruction",),
    },
    "anyedit": {"source": ("image_file",), "target": ("edited_file",), "caption": ("edit",)},
    "pico-banana": {
        "source": ("open_image_input_url",),
        "target": ("output_image",),
        "caption": ("text",),
    },
    "sharegpt-4o-image": {
        "source": ("input_image",),
        "target": ("output_image",),
        "caption": ("input_prompt",),
    },
    "diffsynth": {"source": ("edit_image",), "target": ("image",), "caption": ("prompt",)},
    "kohya": {"source": ("control_path",), "target": ("image_path",), "caption": ("caption",)},
}
# Their `image` is the target: taken only by name.
_NAMED_ONLY = frozenset({"diffsynth", "kohya"})


def roles_of(
    columns: Sequence[str], wish: str | None, where: Path, examples: Iterable[str]
) -> Roles:
    """What each role's columns are called.

    Args:
        columns: Of the table.
        wish: A preset's name, or `source=a,target=b,caption=c,key=d+e`; None recognises them.
        examples: Lines that show rows, for messages.

    Raises:
        ConfigError: Two columns claim one role, source and target are not both there, or the wish
            doesn't fit the table.
    """
    if wish is not None:
        return _by_wish(columns, wish, where)
    fitting = [
        name
        for name, preset in PRESETS.items()
        if name not in _NAMED_ONLY
        and all(set(preset[role]) <= set(columns) for role in ("source", "target", "caption"))
    ]
    if len(fitting) == 1:
        return _present(PRESETS[fitting[0]], columns)
    return _by_name(columns, where, list(examples))


def _present(roles: Roles, columns: Sequence[str]) -> Roles:
    return {role: names for role, names in roles.items() if set(names) <= set(columns)}


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
            roles[role.strip()] = tuple(name.strip() for name in names.split("+"))
        needed = tuple(roles)
    elif wish.casefold() in PRESETS:
        roles, needed = PRESETS[wish.casefold()], ()
    else:
        raise ConfigError(
            f"--columns {wish}: no preset of this name.",
            hint=f"Presets are {', '.join(PRESETS)}; or name them: source=before,target=after",
        )
    for role in ("source", "target", *needed):
        absent = [name for name in roles.get(role, ("",)) if name not in columns]
        if absent:
            raise ConfigError(
                f"{where}: no column {_listed(absent)} for the {role} (--columns {wish}).",
                hint=f"Its columns are {_listed(columns)}.",
            )
    return _present(roles, columns)


def _by_name(columns: Sequence[str], where: Path, examples: list[str]) -> Roles:
    normal = {column: "_".join(column.casefold().replace("-", " ").split()) for column in columns}
    roles: Roles = {}
    for role, names in COLUMNS.items():
        claims = [column for column in columns if normal[column] in names]
        if role == "key":  # `id` beside `key` is no conflict: ours wins
            claims.sort(key=lambda column: names.index(normal[column]))
            del claims[1:]
        if len(claims) > 1:
            raise ConfigError(
                f"{where}: columns {_listed(claims)} could each be the {role}.{_shown(examples)}",
                hint=f"Keep one of them, named `{role}`, or say which: "
                f"--columns source=…,target=…,{role}={claims[0]}",
            )
        if claims:
            roles[role] = (claims[0],)
    missing = [role for role in ("source", "target") if role not in roles]
    if missing:
        traps = [column for column in columns if normal[column] in _TRAPS]
        why = (
            f"{_listed(traps)} may be source, target or a caption, depending on the dataset"
            if traps
            else f"its columns are {_listed(columns)}"
        )
        preset = next((n for n in _NAMED_ONLY if _fits(n, columns)), None)
        flag = f"--columns {preset}" if preset else "--columns source=before,target=after"
        raise ConfigError(
            f"{where}: no column is clearly the {' and the '.join(missing)} image: {why}."
            f"{_shown(examples)}",
            hint=f"Say which: {flag}. Or: {_RENAME} (source,target,key,caption).",
        )
    return roles


def _fits(preset: str, columns: Sequence[str]) -> bool:
    return {*PRESETS[preset]["source"], *PRESETS[preset]["target"]} <= set(columns)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _shown(examples: Iterable[str]) -> str:
    return "".join(f"\n  {example}" for example in examples)
