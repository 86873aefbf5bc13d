"""Options made from the fields of `Settings`.

An option's default is None, "not given", so that the environment and
`chronoprep.toml` can speak; the help shows the default of `Settings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from chronoprep.cli import completion
from chronoprep.config import SECTIONS, variable

# Among a command's own options, which come first; the others stand in the panel of their section.
COMMON = {"vlm.model", "vlm.endpoint", "labels.preset", "labels.prompt", "pairs.limit"}


# What a shell offers for them.
KNOWN: dict[str, Callable[..., list[str]]] = {
    "vlm.model": completion.models,
    "labels.preset": completion.presets,
    "pairs.columns": completion.columns,
    "run.keys": completion.keys,
}


class Setting(NamedTuple):
    """A setting, and the parameter of a command that sets it."""

    parameter: str
    section: str
    key: str

    @property
    def field(self) -> FieldInfo:
        return SECTIONS[self.section].model_fields[self.key]

    @property
    def kind(self) -> Any:
        """Its type, without None."""
        kinds = [part for part in get_args(self.field.annotation) if part is not NoneType]
        return kinds[0] if NoneType in get_args(self.field.annotation) else self.field.annotation


def settings_named(names: str) -> list[Setting]:
    """The settings that a command takes, in the order of `Settings`.

    Args:
        names: Sections and single settings, such as "vlm labels.guard".

    A name that an earlier section has, too, is led by its own section's (`--umt5-model`), unless
    the command takes but one section beside that of the run.
    """
    wanted = set(names.split())
    several = len({name.split(".")[0] for name in wanted} - {"run"}) > 1
    taken: set[str] = set()
    chosen = []
    for section, kind in SECTIONS.items():
        for key, field in kind.model_fields.items():
            parameter = f"{section}_{key}" if several and key in taken else key
            if {section, f"{section}.{key}"} & wanted and get_origin(field.annotation) is not dict:
                chosen.append(Setting(parameter, section, key))
        taken |= set(kind.model_fields)
    return chosen


def parameters(settings: list[Setting]) -> Iterator[inspect.Parameter]:
    """The settings as parameters that typer makes options of."""
    several = len({setting.section for setting in settings} - {"run"}) > 1
    for setting in settings:
        section, key, kind = setting.section, setting.key, setting.kind
        flag = "--" + setting.parameter.replace("_", "-")
        limits = {
            name: getattr(bound, attribute)
            for bound in setting.field.metadata
            for name, attribute in (("min", "ge"), ("max", "le"))
            if hasattr(bound, attribute)
        }
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            help=_help(setting),
            autocompletion=KNOWN.get(f"{section}.{key}"),
            metavar="CHOICE" if get_origin(kind) is Literal else None,
            rich_help_panel=SECTIONS[section].model_config["title"]
            if section == "run" or (several and f"{section}.{key}" not in COMMON)
            else None,
            **limits,
        )
        yield inspect.Parameter(
            setting.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )


def flags_of(settings: list[Setting], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a command was given, by section and key."""
    values: dict[str, dict[str, Any]] = {}
    for parameter, section, key in settings:
        values.setdefault(section, {})[key] = given[parameter]
    return values


def _help(setting: Setting) -> str:
    """What a setting does, its choices, its default and its environment variable."""
    default = setting.field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    parts = [escape(setting.field.description or "")]
    if get_origin(setting.kind) is Literal:
        parts.append(f"[yellow]{', '.join(get_args(setting.kind))}[/]")
    if default is not None:
        parts.append(f"[dim]\\[default: {escape(str(default))}][/]")
    parts.append(f"[dim]\\[env: {variable(setting.section, setting.key)}][/]")
    return " ".join(parts)
