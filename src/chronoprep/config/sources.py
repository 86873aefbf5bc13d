"""Where the values of settings come from: flags, the environment, a file.

Plain pydantic, and not pydantic-settings: each message here names the file or the variable that a
wrong value came from and the nearest valid key, which takes less code than to teach it to another
library's sources.
"""

from __future__ import annotations

import difflib
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chronoprep.config.settings import SECTIONS, Settings
from chronoprep.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_NAME = "chronoprep.toml"
ENV_PREFIX = "CHRONOPREP_"
CONFIG_VARIABLE = "CHRONOPREP_CONFIG"
MOST_BYTES = 1_000_000  # of a file of settings

# Section, key, value, and where it came from, for messages.
_Given = tuple[str, str, Any, str]

_TOML = "Write a table a section, such as [vlm], and under it lines such as batch_size = 8."
_REPR = reprlib.Repr()
_REPR.maxstring = 200


def variable(section: str, key: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{section}_{key}".upper()


def load_settings(
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Resolve settings from flags, environment, file and defaults.

    Args:
        flags: Section → key → value; a value of None means "not given".
        config_file: A TOML file; by default `$CHRONOPREP_CONFIG`, then `./chronoprep.toml` if it
            exists.
        environ: The environment to read; by default `os.environ`.

    Raises:
        ConfigError: For an unreadable file, an unknown key (naming the nearest valid one) or a
            value that doesn't fit, naming where it came from.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, dict[str, Any]] = {}
    origin: dict[tuple[str, str], str] = {}
    given = [*_from_file(config_file, environ), *_from_environ(environ)]
    for section, values in (flags or {}).items():
        given += [(section, key, value, "the command line") for key, value in values.items()]
    for section, key, value, where in given:
        if value is not None:
            merged.setdefault(section, {})[key] = value
            origin[section, key] = where
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        section, key = map(str, (*first["loc"], "")[:2])
        if not key:  # a section as a whole: settings that don't go together
            message = f"[{section}]: {first['msg'].removeprefix('Value error, ')}"
        else:
            where = origin.get((section, key), "?")
            message = f"{section}.{key} = {_shown(first['input'])} (from {where}): {first['msg']}"
        hint = "`--help` of a command says what each setting takes."
        raise ConfigError(message, hint=hint) from None


def _shown(value: object) -> str:
    """A value as a message shows it, however large or nested it is."""
    try:
        return _REPR.repr(value)
    except ValueError:  # beyond what Python turns into decimals
        return "a number of thousands of digits"


def _nearest(word: str, valid: Iterable[str]) -> str:
    return difflib.get_close_matches(word[:100], valid, n=1, cutoff=0)[0]


def _from_file(config_file: Path | None, environ: Mapping[str, str]) -> Iterator[_Given]:
    named = config_file or environ.get(CONFIG_VARIABLE)
    file = Path(named or CONFIG_NAME)
    if not named and not file.exists():
        return
    for name, table in _tables(file).items():
        if name not in SECTIONS or not isinstance(table, dict):
            field = name.replace("-", "_")
            known = [s for s, section in SECTIONS.items() if field in section.model_fields]
            hint = (
                f"Put it under [{known[0]}]."
                if known
                else f"Did you mean [{_nearest(name, SECTIONS)}]?"
            )
            raise ConfigError(f"{file}: unknown table or key {_shown(name)}.", hint=hint)
        keys = SECTIONS[name].model_fields
        for key, value in table.items():
            field = key.replace("-", "_")
            if field not in keys:
                raise ConfigError(
                    f"{file}: unknown key {_shown(key)} in [{name}].",
                    hint=f"Did you mean {_nearest(field, keys)!r}?",
                )
            yield name, field, value, str(file)


def _tables(file: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        ConfigError: It is no regular file of at most `MOST_BYTES`, or no TOML.
    """
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ConfigError(f"{file}: not a regular file.", hint="Give a TOML file of settings.")
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(
                f"{file}: larger than {MOST_BYTES / 1e6:.0f} MB, so no settings.",
                hint="Give a TOML file of settings.",
            )
        tables: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
        return tables
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: can't read the configuration: {error}",
            hint="Give --config a TOML file in UTF-8.",
        ) from None
    except RecursionError:
        raise ConfigError(f"{file}: not valid TOML: nested too deeply", hint=_TOML) from None
    except ValueError as error:  # a number of thousands of digits, too
        raise ConfigError(f"{file}: not valid TOML: {error}", hint=_TOML) from None


def _from_environ(environ: Mapping[str, str]) -> Iterator[_Given]:
    variables = {variable(s, key): (s, key) for s in SECTIONS for key in SECTIONS[s].model_fields}
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_VARIABLE:
            continue
        if name not in variables:
            raise ConfigError(
                f"Unknown environment variable {name}.",
                hint=f"Did you mean {_nearest(name, variables)}?",
            )
        yield *variables[name], text, "the environment"
