"""The command line: parse, call one workflow, render. The only place that prints or exits."""

from chronoprep.cli.commands import app


def main() -> None:
    """The `chronoprep` console script."""
    app()


__all__ = ["app", "main"]
