"""The exceptions that chronoprep raises on purpose.

Every message says what happened, to which file, and what to do about it. The command line turns
them into one line and an exit code; a library user can catch `ChronoprepError` for all of them.
"""

from __future__ import annotations

import re

# What a reason says of one pair alone: quotations, paths, and whatever holds a number.
_OWN = re.compile(r"(?<!\w)('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")|\S*[/\\]\S*|\S*\d\S*")


class ChronoprepError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What happened, and to which file.
        hint: What the user can do about it; shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def reason(self) -> str:
        """Message and remedy in one line, for a record."""
        end = "" if self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.message}{end} {self.hint}" if self.hint else self.message


class ConfigError(ChronoprepError):
    """Wrong usage or configuration, found before any model loads (exit code 2)."""


class BackendError(ChronoprepError):
    """The machine, a model or an endpoint can't go on: the run stops and blames no pair."""


class PairError(ChronoprepError):
    """Something is wrong with one pair: it is recorded as failed and the run goes on."""


class ToolError(PairError):
    """A model, a server or an encoder fails at one pair, which may not be to blame: a stage that
    meets the same cause again and again stops."""


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop. What was under way is written down."""


def cause(reason: str, key: str = "") -> str:
    """A reason less what is one pair's own: equal for two pairs that fail of the same cause."""
    text = _OWN.sub("…", reason)
    return text.replace(key, "…") if len(key) > 2 else text
