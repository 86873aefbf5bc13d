"""The options: every setting by flag, environment and file, and what the help says of it."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import pytest
import typer

import chronoprep.cli.commands  # noqa: F401 - which declares them
from chronoprep.cli.app import application
from chronoprep.config import SECTIONS, Settings, load_settings, variable
from chronoprep.errors import ConfigError
from test_cli import Run

COMMANDS: dict[str, Any] = typer.main.get_command(application()).commands  # type: ignore[attr-defined]
SETTINGS = [
    (section, key)
    for section, kind in SECTIONS.items()
    for key, field in kind.model_fields.items()
    if get_origin(field.annotation) is not dict
]


def options_of(section: str, key: str) -> list[tuple[str, Any]]:
    """The commands that have a setting, each with its option."""
    name = f"[env: {variable(section, key)}]"
    return [
        (command, option)
        for command, described in COMMANDS.items()
        for option in described.params
        if name in (getattr(option, "help", None) or "")
    ]


def another_value(section: str, key: str) -> Any:
    """A value of a setting that is not its default."""
    field = SECTIONS[section].model_fields[key]
    parts = [part for part in get_args(field.annotation) if part is not NoneType]
    if all(isinstance(part, str) for part in parts) and parts:
        return next(choice for choice in parts if choice != field.default)
    if key == "shard":
        return "1/2"
    kind = parts[0] if parts else field.annotation
    if kind is bool:
        return not field.default
    return {int: 300 if key != "crf" else 30, float: 0.25, str: "x", Path: "x.txt"}[kind]


NEEDED = {
    "pairs": ["somewhere"],
    "merge": ["somewhere"],
    "export": ["somewhere", "--to", "musubi", "--output", "elsewhere"],
}


@pytest.mark.parametrize(("section", "key"), SETTINGS)
def test_a_setting_arrives_by_flag_environment_and_file(
    section: str, key: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[Settings] = []

    def seen(*arguments: Any, **more: Any) -> Settings:
        arrived.append(load_settings(*arguments, **more))
        raise ConfigError("seen")

    monkeypatch.setattr(importlib.import_module("chronoprep.config"), "load_settings", seen)
    if key in ("chroma", "crf"):
        monkeypatch.setenv("CHRONOPREP_VIDEO_CODEC", "h264")
    value = another_value(section, key)
    places = options_of(section, key)
    assert places, "no command has it"
    for command, option in places:
        needed = NEEDED.get(command, [])
        words = [option.opts[0], value]
        if isinstance(value, bool):
            words = option.opts[:1] if value else option.secondary_opts[:1]
        assert "seen" in run(command, *needed, *words).stderr
    command = places[0][0]
    needed = NEEDED.get(command, [])
    with monkeypatch.context() as environment:
        environment.setenv(variable(section, key), str(value).lower())
        run(command, *needed)
    (tmp_path / "s.toml").write_text(f"[{section}]\n{key.replace('_', '-')} = {json.dumps(value)}")
    run(command, *needed, "--config", "s.toml")
    assert len(arrived) == len(places) + 2
    assert {str(getattr(getattr(settings, section), key)) for settings in arrived} == {str(value)}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = run(command, "--help").stdout
    here = [
        (section, key, option)
        for section, key in SETTINGS
        for place, option in options_of(section, key)
        if place == command
    ]
    assert bool(here) == (command not in ("synth", "models"))
    for section, key, option in here:
        field = SECTIONS[section].model_fields[key]
        (line,) = [
            line for line in shown.splitlines() if f"[env: {variable(section, key)}]" in line
        ]
        assert line.split()[1] == option.opts[0]
        assert field.description
        assert field.description in line
        if field.default is not None:
            default = {True: "on", False: "off"}[field.default] if isinstance(
                field.default, bool) else field.default  # fmt: skip
            assert f"[default: {default}]" in line
        for choice in get_args(field.annotation):
            assert choice is NoneType or not isinstance(choice, str) or choice in line
    assert shown.index("─ Options ─") < shown.index("─ Run ─"), "the common ones come first"
    examples = [line.strip() for line in shown.split("Examples:")[1].splitlines() if line.strip()]
    assert len(examples) == 2
    for example in examples:
        program, name, *words = shlex.split(example)
        assert (program, name) == ("chronoprep", command)
        COMMANDS[command].make_context(command, words)


def test_commands_stand_in_the_order_of_use(run: Run) -> None:
    order = ["pairs", "prepare", "caption", "cot", "pair2video", "build-csv", "umt5", "check"]
    order += ["verify", "review", "export", "enhance", "merge", "report", "stats", "synth"]
    assert list(COMMANDS) == [*order, "models", "doctor"]
    shown = run("--help").stdout
    places = [shown.index(f" {command} ") for command in order]
    assert places == sorted(places)


def test_a_name_of_two_sections_is_the_first_ones() -> None:
    def flags(command: str) -> set[str]:
        return {option.opts[0] for option in COMMANDS[command].params}

    own = {"--model", "--revision", "--dtype", "--device", "--batch-tokens", "--tokenizer"}
    assert own <= flags("umt5")
    prefixed = {"--umt5-model", "--umt5-revision", "--umt5-dtype", "--umt5-device"}
    assert own | prefixed | {"--max-pixels", "--images-max-pixels"} <= flags("prepare")
    assert not prefixed & flags("umt5")
    assert {"--input-image", "--output-image", "--output-file", "--max-resolution",
            "--generate-cot", "--model"} <= flags("caption")  # fmt: skip
