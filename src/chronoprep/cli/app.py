"""The Typer application, and what every command shares: its options, its errors, its exit code."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from chronoprep.cli import options as o
from chronoprep.cli import render
from chronoprep.config import Settings, load_settings
from chronoprep.errors import ChronoprepError, ConfigError

if TYPE_CHECKING:
    from chronoprep.workflows import Summary

app = typer.Typer(
    name="chronoprep",
    help="Turn folders of before/after image pairs into a training set for ChronoEdit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

F = TypeVar("F", bound=Callable[..., None])


def command(name: str) -> Callable[[F], F]:
    """Register a command whose errors become one clear message and an exit code.

    0 all good · 1 some pairs failed or the run stopped · 2 usage or configuration · 130 Ctrl-C.
    A command that takes PAIRS gets the options that say how they lie, too.
    """

    def register(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        shared = o.PAIR_OPTIONS if "pairs" in signature.parameters else {}

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            for option in shared:
                kwargs.pop(option)
            try:
                function(*args, **kwargs)
            except ChronoprepError as error:
                if kwargs.get("debug"):
                    raise
                render.show_error(error)
                raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
            except KeyboardInterrupt:
                sys.stderr.write("Stopped. What was done is kept; run it again to go on.\n")
                raise typer.Exit(130) from None

        parameters = [
            *signature.parameters.values(),
            *(
                inspect.Parameter(
                    option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
                )
                for option, kind in shared.items()
            ),
        ]
        guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        app.command(name)(guarded)
        return function

    return register


def _version(value: bool) -> None:
    if value:
        from chronoprep import __version__

        typer.echo(f"chronoprep {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def settings_of(ctx: typer.Context, section: str = "vlm") -> Settings:
    preset = ctx.params.get("preset")
    if preset is not None:
        from chronoprep.pairs.columns import PRESETS

        if preset in PRESETS:
            raise ConfigError(
                f"--preset chooses prompt templates; {preset} is a dataset.",
                hint=f"--columns {preset}",
            )
    return load_settings(
        o.flags_of(ctx.params, section=section), config_file=ctx.params.get("config")
    )


def run(
    ctx: typer.Context,
    work: Callable[[render.TerminalReporter], Sequence[Summary]],
    where: str = "",
) -> None:
    """Run a workflow, show its summaries, exit 1 if anything failed."""
    reporter = render.TerminalReporter(quiet=ctx.params["quiet"])
    try:
        summaries = work(reporter)
    finally:
        reporter.close()
    dry = ctx.params.get("dry_run")
    render.show_summaries(summaries, "" if dry else where, as_json=ctx.params["as_json"])
    if any(summary.failed for summary in summaries):
        raise typer.Exit(1)


def needs_dataset(dataset: Path | None, ctx: typer.Context, example: str) -> Path:
    if dataset is None:
        raise ConfigError(
            "Many pairs need a dataset folder to go to.",
            hint=f"For example: chronoprep {ctx.info_name} {example} --dataset my-dataset",
        )
    return dataset
