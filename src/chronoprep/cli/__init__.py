"""The command line: parse, call one workflow, render. The only place that prints or exits."""

import io
import sys

from chronoprep.cli import commands as commands  # registers its commands
from chronoprep.cli import pairing as pairing  # registers its command
from chronoprep.cli.app import app


def main() -> None:
    """The `chronoprep` console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


__all__ = ["app", "main"]
