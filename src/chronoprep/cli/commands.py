"""One function a command, in the order of use.

Each imports what it runs and what shows its answer itself, so that --help does without them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chronoprep.cli import completion
from chronoprep.cli.app import PAIRS, Call, app, command, run_option
from chronoprep.errors import ConfigError

if TYPE_CHECKING:
    from chronoprep.cli.render import Answer
    from chronoprep.dataset import Label

__all__ = ["app"]

MANY = "pairs dataset dry_run"
ONE = "input_image output_image output_file"
FRAMES = "images.max_pixels images.background images.fit images.align images.colour_management"
STAGE2 = "pairs vlm images labels.preset labels.cot_prompt labels.guard labels.retries"


REFERENCE_FILE = Path("./assets/captions/caption.txt")  # the reference script's default


@command("pairs", settings="pairs images.max_pixels images.background images.colour_management")
def pairs(
    call: Call,
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help=PAIRS)],
    sheet: Annotated[Path | None, typer.Option(help="A picture of some pairs goes here.")] = None,
    sheet_pairs: Annotated[int, typer.Option(min=1, help="How many pairs the sheet shows.")] = 24,
    link_manifest: Annotated[
        Path | None, typer.Option(help="A CSV of the pairs, to correct and to give as PAIRS.")
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Don't open the images.")
    ] = False,
) -> Answer:
    """Report what PAIRS holds: pairs, leftovers, duplicates, sizes that differ, broken files.

    chronoprep pairs my-pairs --sheet sheet.jpg
    chronoprep pairs my-pairs --source-glob 'raw/*.jpg' --target-glob 'final/*.jpg'
    """
    from chronoprep.cli import render
    from chronoprep.workflows.pairing import report_pairs

    report = report_pairs(
        pairs,
        call.settings,
        look=not names_only,
        sheet=sheet,
        sheet_pairs=sheet_pairs,
        manifest=link_manifest,
        reporter=call.reporter,
    )
    for file in (sheet, link_manifest):
        if file is not None:
            call.reporter.say(f"Written to {file}")
    return render.of_report(report)


@command("prepare", MANY, "pairs vlm labels video images umt5 run")
def prepare(
    call: Call,
    umt5: Annotated[bool, typer.Option("--umt5", help="Embed the prompts, too.")] = False,
) -> Answer:
    """Labels, videos, metadata.csv and embeddings in one go; run it again to go on.

    chronoprep prepare my-pairs --dataset my-dataset --model qwen3-vl-8b --umt5
    chronoprep prepare my-pairs --dataset my-dataset --endpoint http://localhost:8000/v1
    """
    from chronoprep import workflows

    return call.over_dataset(workflows.prepare, "metadata.csv", with_umt5=umt5)


@command("caption", f"{MANY} {ONE}", f"{STAGE2} labels.caption_prompt run")
def caption(
    call: Call,
    generate_cot: Annotated[bool, typer.Option("--generate-cot", help="Both stages.")] = False,
) -> Answer:
    """Write the edit instruction of one pair, or of all pairs into a dataset's journal.

    chronoprep caption my-pairs --dataset my-dataset --generate-cot
    chronoprep caption --input-image before.jpg --output-image after.jpg --output-file -
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    images = call.single()
    if images is None:
        return call.over_dataset(workflows.caption_pairs, "labels.jsonl", with_cot=generate_cot)
    if call.dry_run:
        return render.of_text(f"Would caption {images[0]} → {images[1]}.", {"todo": 1})
    label = workflows.label_one(
        *images, call.settings, with_cot=generate_cot, reporter=call.reporter
    )
    return _written(label, call, with_cot=generate_cot)


@command("cot", f"{MANY} {ONE}", f"{STAGE2} run")
def cot(
    call: Call,
    caption: Annotated[
        str | None, typer.Option(help="The edit instruction of a single pair.")
    ] = None,
) -> Answer:
    """Expand captions that exist into chain-of-thought prompts (stage 2 alone).

    chronoprep cot --dataset my-dataset
    chronoprep cot --input-image before.jpg --output-image after.jpg --caption 'Add a hat'
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    images = call.single(caption)
    if images is None:
        return call.over_dataset(workflows.add_cot, "labels.jsonl")
    if caption is None or not caption.strip():
        raise ConfigError(
            "A single pair needs --caption TEXT.",
            hint="`chronoprep caption --generate-cot` writes the caption and the CoT at once.",
        )
    if call.dry_run:
        return render.of_text(f"Would expand {caption!r}.", {"todo": 1})
    label = workflows.label_one(
        *images, call.settings, with_cot=True, caption=caption, reporter=call.reporter
    )
    return _written(label, call, with_cot=True)


def _written(label: Label, call: Call, *, with_cot: bool) -> Answer:
    """A single label, written to its file: as JSON with the CoT, else as text; - is stdout."""
    from chronoprep import workflows
    from chronoprep.cli import render

    pair = {"caption": label.caption, "caption_cot": label.caption_cot}
    content = json.dumps(pair, ensure_ascii=False, indent=2) if with_cot else str(label.caption)
    record = label.model_dump(mode="json", exclude_none=True)
    file = call.output_file or REFERENCE_FILE
    if str(file) == "-":
        return render.of_text(content, record)
    file = file.with_suffix(".json" if with_cot else ".txt")
    workflows.write_text(file, content + "\n")
    call.reporter.say(f"Written to {file}")
    return render.of_text("\n\n".join(filter(None, pair.values())), record)


@command("pair2video", f"{MANY} {ONE}", f"pairs video {FRAMES} run")
def pair2video(call: Call) -> Answer:
    """Write 2-frame videos: frame 1 the source, frame 2 the target, 1 fps.

    chronoprep pair2video --dataset my-dataset --codec copy
    chronoprep pair2video --input-image before.jpg --output-image after.jpg --output-file pair.mp4
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    images, file = call.single(), call.output_file
    if images is None:
        return call.over_dataset(workflows.write_videos, "videos")
    if file is None or file.suffix.lower() != ".mp4":
        raise ConfigError(
            "A single pair needs --output-file NAME.mp4.",
            hint=f"Given was {file}." if file else None,
        )
    if call.dry_run:
        return render.of_text(f"Would write {file}.", {"todo": 1})
    for note in workflows.video_one(*images, file, call.settings):
        call.reporter.say(note)
    return render.of_text(
        f"{file}: 2 frames, {file.stat().st_size / 1000:.0f} kB",
        {"video": str(file), "codec": call.settings.video.codec},
    )


@command(
    "build-csv",
    MANY,
    f"pairs video labels.prompt labels.allow_caption_as_prompt verify.min_score {FRAMES} run.shard",
)
def build_csv(call: Call) -> Answer:
    """Write metadata.csv from pairs and the labels that exist; no model runs.

    chronoprep build-csv --dataset my-dataset
    chronoprep build-csv my-pairs --dataset my-dataset --prompt 'Remove the noise.'
    """
    from chronoprep import workflows

    return call.over_dataset(workflows.build_csv, "metadata.csv")


@command("umt5", "dataset dry_run", "umt5 run")
def umt5(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", "--csv-path", "--csv_path", help="Or any metadata.csv."),
    ] = None,
    force: Annotated[bool, run_option("--force", help="Embed again what is up to date.")] = False,
) -> Answer:
    """Embed the prompts of a dataset with UMT5 and fill the umt5 column of its metadata.csv.

    chronoprep umt5 my-dataset
    chronoprep umt5 --csv elsewhere/metadata.csv --model google/umt5-xxl
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    given = [path for path in (folder, call.dataset, csv) if path is not None]
    if len(given) != 1:
        raise ConfigError(
            "Give one dataset folder, or one --csv FILE.",
            hint="For example: chronoprep umt5 my-dataset",
        )
    done = workflows.embed_prompts(
        given[0], call.settings, force=force, reporter=call.reporter, dry_run=call.dry_run
    )
    return render.of_summaries(done)


@command("check", "dataset", f"video labels.allow_caption_as_prompt umt5.tokenizer {FRAMES}")
def check(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder, anybody's.")
    ] = None,
    csv: Annotated[
        list[Path] | None, typer.Option("--csv", help="Or any tables; several are splits.")
    ] = None,
    trainer: Annotated[
        Literal["auto", "full", "lora"],
        typer.Option(help="Who is to read it; auto: full where there are embeddings."),
    ] = "auto",
    world_size: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share the samples.")
    ] = None,
    quick: Annotated[bool, run_option("--quick", help="Don't decode the videos.")] = False,
    fix: Annotated[
        bool, run_option("--fix", help="Write anew what can be; move strays to quarantine.")
    ] = False,
) -> Answer:
    """Say what ChronoEdit's trainers could not read of a dataset, or would read otherwise.

    chronoprep check my-dataset
    chronoprep check my-dataset --trainer full --world-size 8 --fix
    """
    from chronoprep.cli import render
    from chronoprep.workflows.check import Checks, check_dataset

    place = folder or call.dataset
    if (place is None) == (not csv) or (folder and call.dataset):
        raise ConfigError(
            "Give one dataset folder, or tables by --csv FILE.",
            hint="For example: chronoprep check my-dataset",
        )
    if fix and place is None:
        raise ConfigError("--fix needs a dataset folder.", hint="chronoprep check my-dataset --fix")
    tokenizer = call.settings.umt5.tokenizer
    checks = Checks(trainer, world_size, quick, Path(tokenizer) if tokenizer else None)
    report = check_dataset(place, csv or (), checks, reporter=call.reporter)
    if fix and place is not None:
        from chronoprep.workflows.mending import mend

        done = []
        for _ in range(2):  # a table that is whole again leads to files
            mended = mend(place, report, call.settings, call.reporter)
            if not mended:
                break
            done += mended
            report = check_dataset(place, (), checks, reporter=call.reporter)
        report.findings += done
    return render.of_check(report)


@command(
    "verify",
    "dataset dry_run",
    "verify.suspect_above verify.false_alarms verify.passes vlm.revision vlm.backend vlm.endpoint "
    "vlm.concurrency vlm.request_timeout vlm.dtype vlm.device vlm.batch_size vlm.max_new_tokens "
    f"vlm.thinking_tokens vlm.reasoning_effort {FRAMES} run",
)
def verify(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A VLM that judges the labels, too: their own or, better, another one.",
            autocompletion=completion.models,
        ),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many of the worst labels to show.")] = 20,
) -> Answer:
    """Find labels that don't say what changed between the images, the worst first.

    chronoprep verify my-dataset
    chronoprep verify my-dataset --model qwen3-vl-8b --json
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    done = workflows.verify_labels(
        _one_dataset(call, folder),
        call.settings,
        model=model,
        reporter=call.reporter,
        dry_run=call.dry_run,
    )
    return render.of_verification(done, show)


@command(
    "review",
    "dataset",
    "review pairs.allow_urls vlm.model vlm.endpoint vlm.request_timeout labels.preset "
    f"umt5.tokenizer verify.suspect_above verify.false_alarms labels.allow_caption_as_prompt "
    f"{FRAMES}",
)
def review(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
) -> Answer:
    """Look at pairs and their labels in the browser, and accept, reject or change them.

    chronoprep review my-dataset --reviewer Ada
    chronoprep review my-dataset --endpoint http://localhost:8000/v1 --no-browser
    """
    from chronoprep.cli import render
    from chronoprep.workflows.review import review_dataset

    place = _one_dataset(call, folder)

    def ready(address: str) -> None:
        call.reporter.say("Stop it with Ctrl-C. The page:")
        typer.echo(address)
        if call.settings.review.browser:
            import webbrowser

            webbrowser.open(address)

    review_dataset(place, call.settings, ready=ready, reporter=call.reporter)
    return render.of_text("", {})


def _trainers() -> str:
    """Their names: looked up only where `export` needs its options."""
    from chronoprep.export import TRAINERS

    return ", ".join(TRAINERS)


@command("export", "dataset dry_run", f"export verify.min_score {FRAMES}")
def export(
    call: Call,
    to: Annotated[str, typer.Option("--to", help=f"A trainer: {_trainers()}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the export.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
) -> Answer:
    """Write the pairs and their texts as another trainer reads them, with its settings.

    chronoprep export my-dataset --to ai-toolkit --output my-edits
    chronoprep export my-dataset --to diffusers --output my-edits --split train=0.95,val=0.05
    """
    from chronoprep.cli import render
    from chronoprep.workflows.export import export_dataset

    done = export_dataset(
        _one_dataset(call, folder, " --to ai-toolkit --output my-edits"),
        call.settings,
        to=to,
        output=output,
        reporter=call.reporter,
        dry_run=call.dry_run,
    )
    if done.start is None:
        result = f"{output} holds no pairs to train on."
    else:
        result = "" if call.dry_run else f"Result: {output}. To train:\n{done.start}"
    answer = render.of_summaries(done.summaries, result, start=done.start)
    return answer._replace(failed=answer.failed or done.start is None)


@command(
    "enhance",
    "input_image output_file dry_run",
    "vlm images.max_resolution images.max_long_edge images.max_pixels images.background "
    "images.colour_management labels.guard labels.retries",
)
def enhance(
    call: Call,
    table: Annotated[
        Path | None,
        typer.Argument(metavar="TABLE", help="A table with the columns image and prompt."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "--input-prompt", help="What the user wishes.")
    ] = None,
) -> Answer:
    """Turn a wish for one image into the prompt that the editor was trained on.

    chronoprep enhance --input-image photo.jpg --prompt 'give her a red coat'
    chronoprep enhance wishes.csv --output-file enhanced.jsonl
    """
    from chronoprep.cli import render
    from chronoprep.workflows.enhance import enhance_one, enhance_table

    image, file = call.input_image, call.output_file
    if table is not None and image is None and prompt is None:
        if file is None:
            raise ConfigError(
                "A table needs --output-file NAME.jsonl.",
                hint="For example: chronoprep enhance wishes.csv --output-file enhanced.jsonl",
            )
        done = enhance_table(
            table, file, call.settings, reporter=call.reporter, dry_run=call.dry_run
        )
        return render.of_summaries([done], "" if call.dry_run else f"Result: {file}")
    if table is not None or image is None or prompt is None:
        raise ConfigError(
            "Give --input-image and --prompt, or a table of images and prompts.",
            hint="For example: chronoprep enhance --input-image photo.jpg --prompt 'add a hat'",
        )
    if call.dry_run:
        return render.of_text(f"Would enhance {prompt!r}.", {"todo": 1})
    text = enhance_one(image, prompt, call.settings, reporter=call.reporter)
    if file is not None and str(file) != "-":
        from chronoprep import workflows

        workflows.write_text(file, text + "\n")
        call.reporter.say(f"Written to {file}")
    return render.of_text(text, {"image": str(image), "prompt": prompt, "enhanced": text})


@command("merge", settings="labels.allow_caption_as_prompt verify.min_score")
def merge(
    call: Call,
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="The dataset folder.")],
    shards: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SHARD]...", help="Folders of shards; by default all of DATASET."),
    ] = None,
    partial: Annotated[
        bool, run_option("--partial", help="Take what is there though shards are missing.")
    ] = False,
) -> Answer:
    """Put the shards of a dataset together, as if one run had made it.

    chronoprep merge my-dataset
    chronoprep merge my-dataset /scratch/0000?-of-00004
    """
    from chronoprep.cli import render
    from chronoprep.workflows.merge import merge_shards

    done = merge_shards(
        folder, call.settings, shards=shards or (), partial=partial, reporter=call.reporter
    )
    return render.of_summaries(done, f"Result: {folder}")


SHOWN = f"verify.suspect_above verify.false_alarms umt5.model umt5.tokenizer {FRAMES}"


@command("report", "dataset", SHOWN)
def report(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; else DATASET/report.html.")
    ] = None,
    gallery: Annotated[int, typer.Option(min=0, help="How many pairs the page shows.")] = 100,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Show the numbers here; write no page.")
    ] = False,
) -> Answer:
    """Write one HTML file of a dataset's numbers and pictures, to look at or to send around.

    chronoprep report my-dataset --output report.html
    chronoprep report my-dataset --terminal
    """
    from chronoprep.cli import numbers
    from chronoprep.workflows.report import FILE, report_dataset

    place = _one_dataset(call, folder)
    if terminal and output is not None:
        raise ConfigError("Either --terminal or --output.", hint="--terminal writes no page.")
    page = None if terminal else output or place / FILE
    done = report_dataset(place, call.settings, page=page, gallery=gallery, reporter=call.reporter)
    return numbers.of_report(done) if terminal else numbers.of_page(done)


@command("stats", "dataset", SHOWN)
def stats(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset folder.")
    ] = None,
) -> Answer:
    """Count a dataset: labels, kinds of edit, words and tokens, sizes, duplicates.

    chronoprep stats my-dataset
    chronoprep stats my-dataset --json
    """
    from chronoprep.cli import numbers
    from chronoprep.workflows.report import report_dataset

    done = report_dataset(_one_dataset(call, folder), call.settings, reporter=call.reporter)
    return numbers.of_report(done)


def _one_dataset(call: Call, folder: Path | None, more: str = "") -> Path:
    """The dataset that a command is about.

    Args:
        more: What else the command's example has.

    Raises:
        ConfigError: None is named, or two are.
    """
    given = [path for path in (folder, call.dataset) if path is not None]
    if len(given) != 1:
        raise ConfigError(
            "Give one dataset folder.",
            hint=f"For example: chronoprep {call.name} my-dataset{more}",
        )
    return given[0]


@command("synth")
def synth(
    call: Call,
    count: Annotated[int, typer.Argument(metavar="N", min=1, help="How many pairs.")],
    output: Annotated[
        Path, typer.Option("--output", "--dataset", "-o", help="A new folder for the pairs.")
    ],
    seed: Annotated[int, typer.Option(help="Another seed gives other pairs.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Side of the images, pixels.")] = 256,
) -> Answer:
    """Draw synthetic pairs whose true labels are known, for trying things out.

    chronoprep synth 8 --output shapes
    chronoprep synth 1000 --output more-shapes --seed 1 --size 512
    """
    from chronoprep import workflows
    from chronoprep.cli import render

    done = workflows.write_synthetic(output, count, seed=seed, size=size, reporter=call.reporter)
    return render.of_summaries([done], f"Result: {output}, true labels in truth.jsonl")


@command("models")
def models(call: Call) -> Answer:
    """List the known models, what they need and what fits this machine.

    chronoprep models
    chronoprep models --json
    """
    from chronoprep.cli import render
    from chronoprep.vlm.registry import known_models

    return render.of_models(known_models())


@command("doctor", settings="vlm.endpoint")
def doctor(call: Call) -> Answer:
    """Say what this machine can do: GPU, memory, backends, videos, hub, disk, extras.

    chronoprep doctor
    chronoprep doctor --endpoint http://localhost:8000/v1 --json
    """
    from chronoprep.cli import render
    from chronoprep.workflows.doctor import examine

    call.reporter.say("Trying what this machine has …")
    return render.of_abilities(list(examine(call.settings, Path.cwd())))
