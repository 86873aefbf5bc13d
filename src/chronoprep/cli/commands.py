"""One function a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chronoprep.cli import options as o
from chronoprep.cli import render
from chronoprep.cli.app import command, needs_dataset, run, settings_of
from chronoprep.errors import ConfigError

if TYPE_CHECKING:
    from chronoprep.dataset import Label

# Each command imports `workflows` itself, so that --help does without it.

# The reference captioning script's defaults: where its users' files lie.
REFERENCE_INPUT = Path("./assets/images/input.jpg")
REFERENCE_OUTPUT = Path("./assets/images/output.jpg")
REFERENCE_FILE = Path("./assets/captions/caption.txt")


def _single(source: Path | None, target: Path | None, ctx: typer.Context) -> tuple[Path, Path]:
    """The images of a single pair, with the reference script's defaults.

    Raises:
        ConfigError: When one does not exist, showing both ways to call the command.
    """
    pair = (source or REFERENCE_INPUT, target or REFERENCE_OUTPUT)
    for path in pair:
        if not path.is_file():
            name = ctx.info_name
            raise ConfigError(
                f"{path}: no such image.",
                hint=f"One pair:   chronoprep {name} --input-image A.jpg --output-image B.jpg\n"
                f"Many pairs: chronoprep {name} FOLDER --dataset DATASET",
            )
    return pair


def _not_both(pairs: Path | None, *single: object) -> None:
    if pairs is not None and any(value is not None for value in single):
        raise ConfigError(
            "Either PAIRS or the options of a single pair.",
            hint="Leave out --input-image, --output-image, --output-file and --caption, or PAIRS.",
        )


@command("caption")
def caption(
    ctx: typer.Context,
    pairs: o.PairsArg = None,
    dataset: o.DatasetOpt = None,
    input_image: o.InputImage = None,
    output_image: o.OutputImage = None,
    output_file: o.OutputFile = None,
    generate_cot: o.GenerateCot = False,
    model: o.Model = None,
    revision: o.Revision = None,
    backend: o.Backend = None,
    endpoint: o.Endpoint = None,
    concurrency: o.Concurrency = None,
    request_timeout: o.RequestTimeout = None,
    dtype: o.DtypeOpt = None,
    device: o.Device = None,
    batch_size: o.BatchSize = None,
    max_new_tokens: o.MaxNewTokens = None,
    max_resolution: o.MaxResolution = None,
    max_long_edge: o.MaxLongEdge = None,
    background: o.Background = None,
    fit: o.FitOpt = None,
    preset: o.Preset = None,
    caption_prompt: o.CaptionPrompt = None,
    cot_prompt: o.CotPrompt = None,
    guard: o.Guard = None,
    retries: o.Retries = None,
    strict: o.Strict = None,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write the edit instruction of one pair, or of all pairs into a dataset's journal."""
    from chronoprep import workflows

    settings = settings_of(ctx)
    _not_both(pairs, input_image, output_image, output_file)
    if pairs is not None:
        folder = needs_dataset(dataset, ctx, str(pairs))
        run(
            ctx,
            lambda reporter: workflows.caption_pairs(
                folder,
                settings,
                pairs=pairs,
                with_cot=generate_cot,
                reporter=reporter,
                dry_run=dry_run,
            ),
            f"Labels: {folder / 'labels.jsonl'}",
        )
        return
    source, target = _single(input_image, output_image, ctx)
    destination = output_file or REFERENCE_FILE
    if dry_run:
        typer.echo(f"Would caption {source} → {target} with {settings.vlm.model}.", err=True)
        return
    label = workflows.label_one(source, target, settings, with_cot=generate_cot)
    _show_label(label, destination, with_cot=generate_cot, as_json=as_json)


@command("cot")
def cot(
    ctx: typer.Context,
    pairs: o.PairsArg = None,
    dataset: o.DatasetOpt = None,
    input_image: o.InputImage = None,
    output_image: o.OutputImage = None,
    output_file: o.OutputFile = None,
    caption: Annotated[
        str | None, typer.Option("--caption", help="The edit instruction of a single pair.")
    ] = None,
    model: o.Model = None,
    revision: o.Revision = None,
    backend: o.Backend = None,
    endpoint: o.Endpoint = None,
    concurrency: o.Concurrency = None,
    request_timeout: o.RequestTimeout = None,
    dtype: o.DtypeOpt = None,
    device: o.Device = None,
    batch_size: o.BatchSize = None,
    max_new_tokens: o.MaxNewTokens = None,
    max_resolution: o.MaxResolution = None,
    max_long_edge: o.MaxLongEdge = None,
    background: o.Background = None,
    fit: o.FitOpt = None,
    preset: o.Preset = None,
    cot_prompt: o.CotPrompt = None,
    guard: o.Guard = None,
    retries: o.Retries = None,
    strict: o.Strict = None,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Expand captions that exist into chain-of-thought prompts (stage 2 alone)."""
    from chronoprep import workflows

    settings = settings_of(ctx)
    _not_both(pairs, input_image, output_image, output_file, caption)
    if pairs is not None:
        folder = needs_dataset(dataset, ctx, str(pairs))
        run(
            ctx,
            lambda reporter: workflows.add_cot(
                folder, settings, pairs=pairs, reporter=reporter, dry_run=dry_run
            ),
            f"Labels: {folder / 'labels.jsonl'}",
        )
        return
    source, target = _single(input_image, output_image, ctx)
    if caption is None or not caption.strip():
        raise ConfigError(
            "A single pair needs --caption TEXT.",
            hint="`chronoprep caption --generate-cot` writes the caption and the CoT at once.",
        )
    if dry_run:
        typer.echo(f"Would expand {caption!r} with {settings.vlm.model}.", err=True)
        return
    label = workflows.label_one(source, target, settings, with_cot=True, caption=caption)
    destination = output_file or REFERENCE_FILE.with_suffix(".json")
    _show_label(label, destination, with_cot=True, as_json=as_json)


def _show_label(label: Label, destination: Path, *, with_cot: bool, as_json: bool) -> None:
    """Write a single label to its file and show it."""
    from chronoprep import workflows

    pair = {"caption": label.caption, "caption_cot": label.caption_cot}
    content = json.dumps(pair, ensure_ascii=False, indent=2) if with_cot else str(label.caption)
    if str(destination) == "-":
        print(content)  # noqa: T201
        shown = sys.stderr
    else:
        destination = destination.with_suffix(".json" if with_cot else ".txt")
        workflows.write_text(destination, content + "\n")
        shown = sys.stdout
    if as_json and shown is sys.stdout:
        render.print_json(json.loads(label.model_dump_json(exclude_none=True)))
        shown = sys.stderr
    lines = [str(label.caption)]
    if label.caption_cot:
        lines += ["", label.caption_cot]
    shown.write("\n".join(lines) + "\n")
    if str(destination) != "-":
        sys.stderr.write(f"Written to {destination}\n")


@command("pair2video")
def pair2video(
    ctx: typer.Context,
    pairs: o.PairsArg = None,
    dataset: o.DatasetOpt = None,
    input_image: o.InputImage = None,
    output_image: o.OutputImage = None,
    output_file: o.OutputFile = None,
    codec: o.CodecOpt = None,
    keep_clip: o.KeepClip = None,
    chroma: o.ChromaOpt = None,
    crf: o.Crf = None,
    max_pixels: o.MaxPixels = None,
    check: o.Check = None,
    background: o.Background = None,
    fit: o.FitOpt = None,
    strict: o.Strict = None,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write 2-frame videos: frame 1 the source, frame 2 the target, 1 fps."""
    from chronoprep import workflows

    settings = settings_of(ctx)
    _not_both(pairs, input_image, output_image, output_file)
    if pairs is not None:
        folder = needs_dataset(dataset, ctx, str(pairs))
        run(
            ctx,
            lambda reporter: workflows.write_videos(
                folder, settings, pairs=pairs, reporter=reporter, dry_run=dry_run
            ),
            f"Videos: {folder / 'videos'}",
        )
        return
    source, target = _single(input_image, output_image, ctx)
    if output_file is None or output_file.suffix.lower() != ".mp4":
        raise ConfigError(
            "A single pair needs --output-file NAME.mp4.",
            hint=f"Given was {output_file}." if output_file else None,
        )
    if dry_run:
        typer.echo(f"Would write {output_file}.", err=True)
        return
    for note in workflows.video_one(source, target, output_file, settings):
        typer.echo(note, err=True)
    if as_json:
        render.print_json({"video": str(output_file), "codec": settings.video.codec})
    else:
        typer.echo(f"{output_file}: 2 frames, {output_file.stat().st_size / 1000:.0f} kB")


@command("build-csv")
def build_csv(
    ctx: typer.Context,
    pairs: o.PairsRequired,
    dataset: o.DatasetRequired,
    prompt: o.FixedPrompt = None,
    allow_caption_as_prompt: o.AllowCaption = None,
    codec: o.CodecOpt = None,
    keep_clip: o.KeepClip = None,
    chroma: o.ChromaOpt = None,
    crf: o.Crf = None,
    max_pixels: o.MaxPixels = None,
    check: o.Check = None,
    background: o.Background = None,
    fit: o.FitOpt = None,
    strict: o.Strict = None,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write metadata.csv from pairs and the labels that exist; no model runs."""
    from chronoprep import workflows

    settings = settings_of(ctx)
    run(
        ctx,
        lambda reporter: workflows.build_csv(
            dataset, settings, pairs=pairs, reporter=reporter, dry_run=dry_run
        ),
        f"Dataset: {dataset / 'metadata.csv'}",
    )


@command("umt5")
def umt5(
    ctx: typer.Context,
    csv: Annotated[
        Path,
        typer.Option("--csv", "--csv-path", "--csv_path", help="The metadata.csv to embed."),
    ],
    model: o.UMT5ModelHere = None,
    revision: o.Revision = None,
    tokenizer: o.Tokenizer = None,
    dtype: o.UMT5DtypeOpt = None,
    device: o.UMT5Device = None,
    batch_tokens: o.BatchTokens = None,
    force: Annotated[
        bool, typer.Option("--force", help="Embed again what is up to date.", rich_help_panel=o.RUN)
    ] = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Embed the prompts of a metadata.csv with UMT5 and fill its umt5 column."""
    from chronoprep import workflows

    settings = settings_of(ctx, section="umt5")
    run(
        ctx,
        lambda reporter: workflows.embed_prompts(
            csv, settings, force=force, reporter=reporter, dry_run=dry_run
        ),
        f"Embeddings: {csv.parent / 'umt5'}",
    )


@command("prepare")
def prepare(
    ctx: typer.Context,
    pairs: o.PairsRequired,
    dataset: o.DatasetRequired,
    umt5: Annotated[bool, typer.Option("--umt5", help="Embed the prompts, too.")] = False,
    model: o.Model = None,
    revision: o.Revision = None,
    backend: o.Backend = None,
    endpoint: o.Endpoint = None,
    concurrency: o.Concurrency = None,
    request_timeout: o.RequestTimeout = None,
    dtype: o.DtypeOpt = None,
    device: o.Device = None,
    batch_size: o.BatchSize = None,
    max_new_tokens: o.MaxNewTokens = None,
    max_resolution: o.MaxResolution = None,
    max_long_edge: o.MaxLongEdge = None,
    background: o.Background = None,
    fit: o.FitOpt = None,
    preset: o.Preset = None,
    caption_prompt: o.CaptionPrompt = None,
    cot_prompt: o.CotPrompt = None,
    prompt: o.FixedPrompt = None,
    guard: o.Guard = None,
    retries: o.Retries = None,
    allow_caption_as_prompt: o.AllowCaption = None,
    codec: o.CodecOpt = None,
    keep_clip: o.KeepClip = None,
    chroma: o.ChromaOpt = None,
    crf: o.Crf = None,
    max_pixels: o.MaxPixels = None,
    check: o.Check = None,
    umt5_model: o.UMT5Model = None,
    tokenizer: o.Tokenizer = None,
    strict: o.Strict = None,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Labels, videos, metadata.csv and embeddings in one go; run it again to go on."""
    from chronoprep import workflows

    settings = settings_of(ctx)
    run(
        ctx,
        lambda reporter: workflows.prepare(
            dataset, settings, pairs=pairs, with_umt5=umt5, reporter=reporter, dry_run=dry_run
        ),
        f"Dataset: {dataset / 'metadata.csv'}",
    )


@command("synth")
def synth(
    ctx: typer.Context,
    count: Annotated[int, typer.Argument(metavar="N", min=1, help="How many pairs.")],
    output: Annotated[
        Path, typer.Option("--output", "--dataset", "-o", help="A new folder for the pairs.")
    ],
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives other pairs.")] = 0,
    size: Annotated[int, typer.Option("--size", min=32, help="Side of the images, pixels.")] = 256,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Draw synthetic pairs whose true labels are known, for trying things out."""
    from chronoprep import workflows

    run(
        ctx,
        lambda reporter: [
            workflows.write_synthetic(output, count, seed=seed, size=size, reporter=reporter)
        ],
        f"Pairs: {output}; their true labels: {output / 'truth.jsonl'}",
    )


@command("models")
def models(as_json: o.Json = False, debug: o.Debug = False) -> None:
    """List the known models, what they need and what fits this machine."""
    from chronoprep import workflows

    render.show_models(workflows.known_models(), as_json=as_json)
