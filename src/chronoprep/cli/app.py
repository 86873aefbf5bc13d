"""The Typer application, and what every command shares: its options, its errors, its exit code."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from chronoprep.cli import signals
from chronoprep.errors import ChronoprepError, ConfigError

if TYPE_CHECKING:
    from chronoprep.cli import render
    from chronoprep.config import Settings
    from chronoprep.workflows import Summary

# The reference captioning script's defaults: where its users' files lie.
REFERENCE_INPUT = Path("./assets/images/input.jpg")
REFERENCE_OUTPUT = Path("./assets/images/output.jpg")

_NAME = "chronoprep"
_COMPLETING = "_CHRONOPREP_COMPLETE"
_HELLO = """Before/after image pairs become a training set for ChronoEdit, in one folder.
  look at your pairs      chronoprep pairs my-pairs
  make the training set   chronoprep prepare my-pairs --dataset my-dataset
  try it without either   chronoprep synth 8 --output shapes
  see all commands        chronoprep --help"""

# The arguments that name what a command reads.
_READ = ("pairs", "folder", "table", "csv", "dataset", "input_image")

_declared: dict[str, Callable[[typer.Typer, bool], None]] = {}


class _Commands(TyperGroup):
    """The list of commands as plain text: importing what draws typer's panels would take longer
    than all else that --help does."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)

    def format_commands(self, _: Any, formatter: Any) -> None:
        """Whole sentences, where typer would cut them to a line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.help or "") for name, one in self.commands.items()])


def application(words: Collection[str] | None = None) -> typer.Typer:
    """The program.

    Args:
        words: Of the command line. Only the commands among them get their options: those of all
            take longer than anything else that --help does. Without words, all get them.
    """
    made = typer.Typer(
        name=_NAME,
        cls=_Commands,
        help="Turn folders of before/after image pairs into a training set for ChronoEdit.",
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback(invoke_without_command=True)(_app)
    for name, add in _declared.items():
        add(made, words is None or name in words)
    return made


def app(words: Sequence[str] | None = None) -> None:
    """Run the program by these words, else by those of the command line."""
    words = sys.argv[1:] if words is None else words
    # A shell that completes tells its words by the environment.
    made = application(None if _COMPLETING in os.environ else words)
    made(words, prog_name=_NAME, complete_var=_COMPLETING)


def run_option(*flags: str, help: str) -> Any:
    """An option about the run, and not about what is made."""
    return typer.Option(*flags, help=help, rich_help_panel="Run")


PAIRS = "A folder or a .zip of pairs, or a table of them (.csv, .xlsx, .jsonl, .parquet, …)."


@dataclass
class Call:
    """A command as it was called: its settings, and the options that several commands have."""

    name: str
    settings: Settings
    reporter: render.TerminalReporter
    pairs: Annotated[Path | None, typer.Argument(metavar="PAIRS", help=PAIRS)] = None
    dataset: Annotated[
        Path | None, typer.Option("--dataset", "-d", help="The dataset folder to fill.")
    ] = None
    input_image: Annotated[Path | None, typer.Option(help="Source image of a single pair.")] = None
    output_image: Annotated[Path | None, typer.Option(help="Target image of a single pair.")] = None
    output_file: Annotated[
        Path | None, typer.Option(help="Where a single pair's result goes; - is stdout.")
    ] = None
    dry_run: Annotated[
        bool, run_option("--dry-run", help="Say what would be done; write nothing.")
    ] = False
    config: Annotated[
        Path | None, run_option(help="Settings of this file, else of chronoprep.toml.")
    ] = None
    as_json: Annotated[bool, run_option("--json", help="The result as JSON on stdout.")] = False
    quiet: Annotated[bool, run_option("--quiet", "-q", help="Errors and results only.")] = False
    debug: Annotated[bool, run_option("--debug", help="Show the traceback of an error.")] = False

    def over_dataset(
        self, workflow: Callable[..., list[Summary]], result: str, **more: Any
    ) -> render.Answer:
        """Run a workflow over PAIRS and the dataset, into which it writes `result`.

        A dataset that knows its pairs may stand in the place of PAIRS.

        Raises:
            ConfigError: No dataset is named.
        """
        from chronoprep.cli import render
        from chronoprep.dataset.index import FILE
        from chronoprep.dataset.shards import Shard

        pairs, dataset = self.pairs, self.dataset
        shard = Shard.of(self.settings.run.shard) if self.settings.run.shard else None
        if dataset is None and pairs is not None:
            folders = [pairs, *([shard.place(pairs)] if shard else ())]
            if any((folder / FILE).is_file() for folder in folders):
                pairs, dataset = None, pairs
        if dataset is None:
            raise ConfigError(
                "Many pairs need a dataset folder to go to.",
                hint=f"For example: chronoprep {self.name} {pairs or 'my-pairs'} "
                "--dataset my-dataset",
            )
        more |= {"reporter": self.reporter, "dry_run": self.dry_run}
        done = workflow(dataset, self.settings, pairs=pairs, **more)
        place = shard.place(dataset) if shard else dataset
        return render.of_summaries(done, "" if self.dry_run else f"Result: {place / result}")

    def single(self, *more: object) -> tuple[Path, Path] | None:
        """The images of a single pair, with the reference script's defaults; None where the call is
        about a dataset.

        Raises:
            ConfigError: It is about both (`more`: further options of a single pair), or an image
                does not exist.
        """
        given = (self.input_image, self.output_image, self.output_file, *more)
        if self.pairs is not None or self.dataset is not None:
            if any(value is not None for value in given):
                raise ConfigError(
                    "Either PAIRS and --dataset, or the options of a single pair.",
                    hint="Leave out one or the other; --input-image, --output-image, --output-file "
                    "and --caption are of a single pair.",
                )
            return None
        pair = (self.input_image or REFERENCE_INPUT, self.output_image or REFERENCE_OUTPUT)
        for path in pair:
            if not path.is_file():
                raise ConfigError(
                    f"{path}: no such image.",
                    hint=f"One pair:   chronoprep {self.name} --input-image A.jpg --output-image "
                    f"B.jpg\nMany pairs: chronoprep {self.name} FOLDER --dataset DATASET",
                )
        return pair


@contextmanager
def written_out() -> Iterator[None]:
    """What is printed meanwhile has reached stdout in the end; if it can't, this exits with 1."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python writes what is left once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = error.strerror or error
        from chronoprep.cli.render import Terminal

        Terminal(stderr=True).print(f"[bold red]Error:[/] can't write to stdout: {reason}")
        raise SystemExit(1) from None


F = TypeVar("F", bound="Callable[..., render.Answer]")


def command(name: str, shared: str = "", settings: str = "") -> Callable[[F], F]:
    """Register a command: its answer is shown, its errors become one clear message.

    0 all good · 1 some pairs failed or the run stopped · 2 usage or configuration · 130 Ctrl-C ·
    143 SIGTERM · 129 SIGHUP.

    Args:
        shared: The options of `Call` that it takes.
        settings: The settings that it takes, as `options.settings_named` reads them.

    The function gets a `Call` and its own options. Its docstring's first paragraph is its help, the
    second one has two examples.
    """

    def register(function: F) -> F:
        text, examples = (inspect.getdoc(function) or "").split("\n\n")

        def add(made: typer.Typer, whole: bool) -> None:
            if not whole:
                made.command(name, help=text)(lambda: None)
                return
            from rich.markup import escape

            run = _guarded(name, function, shared, settings)
            made.command(name, help=text, epilog=f"Examples:\n\n{escape(examples)}")(run)

        _declared[name] = add
        return function

    return register


def _guarded(
    name: str, function: Callable[..., render.Answer], shared: str, settings: str
) -> Callable[..., None]:
    """A command's function as typer takes it: with all options, its errors as messages."""
    from chronoprep.cli import options, render
    from chronoprep.config import Settings, load_settings

    taken = options.settings_named(settings)
    everywhere = ["config"] * bool(taken) + ["as_json", "quiet", "debug"]
    of_call = inspect.signature(Call).parameters
    own = [*inspect.signature(function).parameters.values()][1:]

    def guarded(**given: Any) -> None:
        try:
            values = options.flags_of(taken, given)
            _no_dataset(values.get("labels", {}).get("preset"))
            chosen = load_settings(values, config_file=given["config"]) if taken else Settings()
            common = {option: given[option] for option in (*shared.split(), *everywhere)}
            reporter = render.TerminalReporter(quiet=given["quiet"])
            if read := next(filter(None, map(given.get, _READ)), None):
                # Before what takes its time: importing what the command runs, and a large folder.
                reporter.say(f"Reading {read} …")
            with signals.working(), closing(reporter):
                call = Call(name, chosen, reporter, **common)
                answer = function(call, **{option.name: given[option.name] for option in own})
        except ChronoprepError as error:
            if given["debug"]:
                raise
            render.show_error(error)
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
        except KeyboardInterrupt:
            again = "What was done is kept; run it again to go on."
            if name == "synth":  # which draws into an empty folder only
                again = "Begin again with an empty folder."
            render.Terminal(stderr=True).print(f"Stopped. {again}")
            raise typer.Exit(signals.exit_code()) from None
        with written_out():
            render.show(answer, as_json=call.as_json)
        raise typer.Exit(int(answer.failed))

    def typed(option: inspect.Parameter, names: dict[str, Any]) -> inspect.Parameter:
        return option.replace(annotation=eval(option.annotation, names))

    parameters = [
        *(typed(of_call[option], globals()) for option in shared.split()),
        *(typed(option, function.__globals__) for option in own),
        *options.parameters(taken),
        *(typed(of_call[option], globals()) for option in everywhere),
    ]
    guarded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in parameters]
    )
    return guarded


def _no_dataset(preset: str | None) -> None:
    """Tell apart the two things that are chosen by a name."""
    if preset is None:
        return
    from chronoprep.pairs.columns import presets

    if preset in presets():
        raise ConfigError(
            f"--preset chooses prompt templates; {preset} is a dataset.",
            hint=f"--columns {preset}",
        )


def _version(value: bool) -> None:
    if value:
        from chronoprep import __version__

        typer.echo(f"chronoprep {__version__}")
        raise typer.Exit


def _app(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(f"{_HELLO}\nNext: {_next_step()}")


def _next_step() -> str:
    """What to do from here, as the folder that one is in suggests."""
    from chronoprep.data import LOCK

    datasets = sorted(lock.parent for lock in Path().glob(f"*/{LOCK}"))
    if datasets:
        return f"chronoprep check {shlex.quote(str(datasets[0]))}"
    return "chronoprep doctor, which says what this machine can do"
