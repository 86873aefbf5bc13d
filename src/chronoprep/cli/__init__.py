"""The command line: parse, call one workflow, render. The only place that prints or exits."""

import io
import sys

try:
    from chronoprep.cli import signals

    with signals.handled(signals.leave):  # while the first imports run
        from chronoprep.cli.app import written_out
        from chronoprep.cli.commands import app
except KeyboardInterrupt:  # in the moment before
    raise SystemExit(130) from None


def main() -> None:
    """The `chronoprep` console script."""
    # To the end of the process: as Python leaves, a signal would print a traceback.
    signals.handle(signals.stop)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with written_out():
            app()
    finally:
        if signals.caught():
            signals.finish(signals.exit_code())


__all__ = ["app", "main"]
