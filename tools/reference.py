"""Write the reference pages of docs/reference from the program itself.

python tools/reference.py           # write them
python tools/reference.py --check   # exit with 1 where one is not what it should be
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from rich.text import Text
from typer.main import get_command

from chronoprep.cli.app import application
from chronoprep.config import SECTIONS, variable
from chronoprep.dataset import events
from chronoprep.workflows.faults import FAULTS
from chronoprep.workflows.pairing import REMEDIES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTICE = "<!-- Written by `make reference` from the program; changes here are lost. -->"


def pages() -> dict[str, str]:
    """Each file's name and what it should hold."""
    made = {
        "commands.md": _page("Commands", _commands()),
        "settings.md": _page("Settings", _settings()),
        "findings.md": _page("Findings and remedies", _findings()),
        "journal.md": _page("The journal", _journal()),
    }
    schema: dict[str, Any] = TypeAdapter(events.AnyEvent).json_schema()
    return made | {"journal.schema.json": json.dumps(schema, indent=1) + "\n"}


def stale() -> list[str]:
    """The files that are not what they should be."""
    wanted = pages()
    known = {path.name for path in FOLDER.iterdir()} if FOLDER.is_dir() else set()
    return sorted(known ^ set(wanted)) + [
        name
        for name, text in wanted.items()
        if name in known and (FOLDER / name).read_text("utf-8") != text
    ]


def _page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", NOTICE, "", *lines]).rstrip() + "\n"


def _prose(text: str) -> list[str]:
    return [*textwrap.wrap(" ".join(text.split()), 99, break_on_hyphens=False), ""]


def _table(heads: str, rows: Iterable[Iterable[object]]) -> Iterator[str]:
    names = heads.split("|")
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
    yield ""


def _commands() -> Iterator[str]:
    yield from _prose("""
        `--help` of a command says the same. Exit codes: 0 all good, 1 something failed, was found
        or the run stopped, 2 usage or configuration, 130, 143 and 129 stopped by a signal.
    """)
    program: Any = get_command(application())
    for name, command in program.commands.items():
        yield f"## `chronoprep {name}`"
        yield ""
        yield _plain(command.help)
        yield ""
        yield "```text"
        yield from (line for line in _plain(command.epilog).splitlines()[2:] if line)
        yield "```"
        yield ""
        rows = []
        for option in command.params:
            if option.name == "help":
                continue
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            if option.param_type_name == "argument":
                flags = f"`{option.metavar or option.name.upper()}`"
            rows.append((flags, _cell(_plain(option.help))))
        yield from _table("option|what it does", rows)


def _settings() -> Iterator[str]:
    yield from _prose("""
        Flags come first, then the environment, then `chronoprep.toml` (or the file that `--config`
        or `CHRONOPREP_CONFIG` names), then these defaults. In the file, each section is a table.
    """)
    for name, section in SECTIONS.items():
        yield f"## `[{name}]`"
        yield ""
        yield inspect.getdoc(section) or ""
        yield ""
        rows = []
        for key, field in section.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "" if default in (None, {}) else f"`{json.dumps(default)}`"
            what = _cell(f"{field.description} {_choices(field)}".strip())
            rows.append((f"`{key}`", shown, what, f"`{variable(name, key)}`"))
        yield from _table("key|default|what it does|environment", rows)


def _choices(field: FieldInfo) -> str:
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            return "(" + ", ".join(f"`{word}`" for word in get_args(kind)) + ")"
    return ""


def _findings() -> Iterator[str]:
    yield from _prose("""
        What `pairs`, `check`, `verify` and runs can find, by the `code` that `--json` gives. An
        error makes the command exit with 1.
    """)
    found = {code: (severity, remedy) for code, severity, remedy in _said_in_code()}
    found |= {code: ("warning", remedy) for code, remedy in REMEDIES.items()}
    found |= FAULTS
    order = ("error", "warning", "note")
    rows = sorted(found.items(), key=lambda item: (order.index(item[1][0]), item[0]))
    yield from _table("code|severity|remedy", ((f"`{c}`", s, _cell(r)) for c, (s, r) in rows))


def _said_in_code() -> Iterator[tuple[str, str, str]]:
    """Findings whose code and severity stand where they are made."""
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name == "_fault" and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), "error", "The finding says it."
            if name != "Finding":
                continue
            words = [part.value if isinstance(part, ast.Constant) else "" for part in node.args]
            if len(words) >= 4 and words[0] and words[1]:
                yield str(words[0]), str(words[1]), str(words[4] or "") if len(words) > 4 else ""


def _journal() -> Iterator[str]:
    yield from _prose("""
        `labels.jsonl` holds one event a line, and nothing in it is ever changed: what a pair's
        label is follows from the order of its events. [The schema](journal.schema.json) is for
        programs.
    """)
    yield from (
        (inspect.getdoc(events) or "").split("The rules, all of them here:\n\n")[1].splitlines()
    )
    yield ""
    yield from _prose("""
        Every event has `key` (of its pair; empty where it concerns the dataset), `kind` and `time`
        (UTC).
    """)
    for kind in (*events.KINDS.values(), events.Table, events.Torn):
        name = kind.model_fields["kind"].default
        yield f"## `{name}`"
        yield ""
        yield from re.sub(r"(?m)^Attributes:\n", "", inspect.getdoc(kind) or "").splitlines()
        yield ""
        types = get_type_hints(kind)
        rows = [
            (f"`{field}`", f"`{_kind(types[field])}`", "yes" if info.is_required() else "")
            for field, info in kind.model_fields.items()
            if field not in ("key", "kind", "time")
        ]
        yield from _table("field|type|always there", rows)


def _kind(annotation: object) -> str:
    """A type as it is written, without the modules of its parts."""
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_kind, get_args(annotation)))
    if annotation is NoneType:
        return "None"
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    return re.sub(r"[a-z_.]+\.(?=[A-Z])", "", text)


def _plain(text: str | None) -> str:
    """A help text without its colours."""
    return Text.from_markup(text or "").plain


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def main() -> int:
    if "--check" in sys.argv:
        names = stale()
        if names:
            print(f"Stale: {', '.join(names)}. `make reference` writes them.")
        return bool(names)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
