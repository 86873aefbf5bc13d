"""The command line: parse, call one workflow, render. The only place that prints or exits."""

import io
import sys

try:
    from chronoprep.cli.commands import app
    from chronoprep.cli.render import written_out
except KeyboardInterrupt:  # while the first imports run
    raise SystemExit(130) from None


def main() -> None:
    """The `chronoprep` console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with written_out():
        app()


__all__ = ["app", "main"]
