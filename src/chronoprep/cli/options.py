"""The options, once: how each is spelled, what it says, and which setting it sets.

An option's default is None, "not given", so that the environment and `chronoprep.toml` can speak;
the help shows the default of `Settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chronoprep.config import Chroma, Codec, Dtype, Fit, Layout, Settings, UMT5Dtype

DEFAULTS = Settings()

# Parameter → (section, key) of Settings. `umt5` remaps the ones that its own section holds.
FLAGS: dict[str, tuple[str, str]] = {
    "strict": ("pairs", "strict"),
    "limit": ("pairs", "limit"),
    "layout": ("pairs", "layout"),
    "source_glob": ("pairs", "source_glob"),
    "target_glob": ("pairs", "target_glob"),
    "regex": ("pairs", "regex"),
    "columns": ("pairs", "columns"),
    "frames": ("pairs", "frames"),
    "keep_clip": ("video", "keep_clip"),
    "allow_urls": ("pairs", "allow_urls"),
    "max_resolution": ("images", "max_resolution"),
    "max_long_edge": ("images", "max_long_edge"),
    "background": ("images", "background"),
    "fit": ("images", "fit"),
    "model": ("vlm", "model"),
    "revision": ("vlm", "revision"),
    "backend": ("vlm", "backend"),
    "endpoint": ("vlm", "endpoint"),
    "concurrency": ("vlm", "concurrency"),
    "request_timeout": ("vlm", "request_timeout"),
    "dtype": ("vlm", "dtype"),
    "device": ("vlm", "device"),
    "batch_size": ("vlm", "batch_size"),
    "max_new_tokens": ("vlm", "max_new_tokens"),
    "preset": ("labels", "preset"),
    "caption_prompt": ("labels", "caption_prompt"),
    "cot_prompt": ("labels", "cot_prompt"),
    "prompt": ("labels", "prompt"),
    "guard": ("labels", "guard"),
    "retries": ("labels", "retries"),
    "allow_caption_as_prompt": ("labels", "allow_caption_as_prompt"),
    "codec": ("video", "codec"),
    "chroma": ("video", "chroma"),
    "crf": ("video", "crf"),
    "max_pixels": ("video", "max_pixels"),
    "check": ("video", "check"),
    "umt5_model": ("umt5", "model"),
    "tokenizer": ("umt5", "tokenizer"),
    "batch_tokens": ("umt5", "batch_tokens"),
}


def flags_of(params: dict[str, Any], *, section: str = "vlm") -> dict[str, dict[str, Any]]:
    """Command parameters as settings; the model's options go to `section`."""
    values: dict[str, dict[str, Any]] = {}
    for name, value in params.items():
        if name in FLAGS:
            place, key = FLAGS[name]
            values.setdefault(section if place == "vlm" else place, {})[key] = value
    return values


def _option(section: str, key: str, *names: str, help: str | None = None, **extra: Any) -> Any:
    """A typer option that shows the default and the description of its setting."""
    group = getattr(DEFAULTS, section)
    default = getattr(group, key)
    text = help or type(group).model_fields[key].description
    shown = "off" if default is False else "on" if default is True else str(default)
    return typer.Option(
        *names, help=text, show_default=False if default is None else shown, **extra
    )


PAIRS, MODEL, IMAGES, LABELS = "Pairs", "Model", "Images", "Labels"
VIDEO, RUN = "Videos", "Run"

PairsArg = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PAIRS]", help="A folder of pairs, or a table of them (.csv, .jsonl, .parquet, …)."
    ),
]
PairsRequired = Annotated[
    Path,
    typer.Argument(
        metavar="PAIRS", help="A folder of pairs, or a table of them (.csv, .jsonl, .parquet, …)."
    ),
]
DatasetOpt = Annotated[
    Path | None, typer.Option("--dataset", "-d", help="The dataset folder to fill.")
]
DatasetRequired = Annotated[
    Path, typer.Option("--dataset", "-d", help="The dataset folder to fill.")
]
InputImage = Annotated[
    Path | None, typer.Option("--input-image", help="Source image of a single pair.")
]
OutputImage = Annotated[
    Path | None, typer.Option("--output-image", help="Target image of a single pair.")
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output-file", help="Where a single pair's result goes; - is stdout."),
]
GenerateCot = Annotated[
    bool, typer.Option("--generate-cot", help="Both stages: the caption and its CoT prompt.")
]

Model = Annotated[str | None, _option("vlm", "model", "--model", rich_help_panel=MODEL)]
Revision = Annotated[str | None, _option("vlm", "revision", "--revision", rich_help_panel=MODEL)]
Backend = Annotated[
    str | None,
    _option(
        "vlm",
        "backend",
        "--backend",
        help="transformers, vllm, openai; auto: openai where an endpoint is given, else the first.",
        rich_help_panel=MODEL,
    ),
]
Endpoint = Annotated[str | None, _option("vlm", "endpoint", "--endpoint", rich_help_panel=MODEL)]
Concurrency = Annotated[
    int | None, _option("vlm", "concurrency", "--concurrency", rich_help_panel=MODEL)
]
RequestTimeout = Annotated[
    float | None, _option("vlm", "request_timeout", "--request-timeout", rich_help_panel=MODEL)
]
DtypeOpt = Annotated[Dtype | None, _option("vlm", "dtype", "--dtype", rich_help_panel=MODEL)]
Device = Annotated[str | None, _option("vlm", "device", "--device", rich_help_panel=MODEL)]
BatchSize = Annotated[
    int | None, _option("vlm", "batch_size", "--batch-size", rich_help_panel=MODEL)
]
MaxNewTokens = Annotated[
    int | None, _option("vlm", "max_new_tokens", "--max-new-tokens", rich_help_panel=MODEL)
]
MaxResolution = Annotated[
    int | None, _option("images", "max_resolution", "--max-resolution", rich_help_panel=IMAGES)
]
MaxLongEdge = Annotated[
    int | None, _option("images", "max_long_edge", "--max-long-edge", rich_help_panel=IMAGES)
]
Background = Annotated[
    str | None, _option("images", "background", "--background", rich_help_panel=IMAGES)
]
FitOpt = Annotated[Fit | None, _option("images", "fit", "--fit", rich_help_panel=IMAGES)]
Preset = Annotated[
    str | None,
    _option(
        "labels",
        "preset",
        "--preset",
        help="Prompt templates: default, detail, lighting, video, compact; else the model's own.",
        rich_help_panel=LABELS,
    ),
]
CaptionPrompt = Annotated[
    Path | None,
    _option("labels", "caption_prompt", "--caption-prompt", rich_help_panel=LABELS),
]
CotPrompt = Annotated[
    Path | None, _option("labels", "cot_prompt", "--cot-prompt", rich_help_panel=LABELS)
]
FixedPrompt = Annotated[str | None, _option("labels", "prompt", "--prompt", rich_help_panel=LABELS)]
Guard = Annotated[
    bool | None, _option("labels", "guard", "--guard/--no-guard", rich_help_panel=LABELS)
]
Retries = Annotated[int | None, _option("labels", "retries", "--retries", rich_help_panel=LABELS)]
AllowCaption = Annotated[
    bool | None,
    _option(
        "labels",
        "allow_caption_as_prompt",
        "--allow-caption-as-prompt/--no-allow-caption-as-prompt",
        rich_help_panel=LABELS,
    ),
]
KeepClip = Annotated[
    bool | None,
    _option("video", "keep_clip", "--keep-clip/--no-keep-clip", rich_help_panel=VIDEO),
]
CodecOpt = Annotated[Codec | None, _option("video", "codec", "--codec", rich_help_panel=VIDEO)]
ChromaOpt = Annotated[Chroma | None, _option("video", "chroma", "--chroma", rich_help_panel=VIDEO)]
Crf = Annotated[int | None, _option("video", "crf", "--crf", rich_help_panel=VIDEO)]
MaxPixels = Annotated[
    int | None, _option("video", "max_pixels", "--max-pixels", rich_help_panel=VIDEO)
]
Check = Annotated[
    bool | None, _option("video", "check", "--check/--no-check", rich_help_panel=VIDEO)
]
UMT5Model = Annotated[
    str | None, _option("umt5", "model", "--umt5-model", rich_help_panel="Embeddings")
]
UMT5ModelHere = Annotated[str | None, _option("umt5", "model", "--model", rich_help_panel=MODEL)]
UMT5DtypeOpt = Annotated[
    UMT5Dtype | None,
    _option("umt5", "dtype", "--dtype", help="Of the computation.", rich_help_panel=MODEL),
]
UMT5Device = Annotated[
    str | None,
    _option("umt5", "device", "--device", rich_help_panel=MODEL),
]
BatchTokens = Annotated[
    int | None, _option("umt5", "batch_tokens", "--batch-tokens", rich_help_panel=MODEL)
]
Tokenizer = Annotated[
    str | None, _option("umt5", "tokenizer", "--tokenizer", rich_help_panel="Embeddings")
]

Strict = Annotated[
    bool | None, _option("pairs", "strict", "--strict/--no-strict", rich_help_panel=RUN)
]
Limit = Annotated[int | None, _option("pairs", "limit", "--limit", rich_help_panel=RUN)]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=RUN),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="The result as JSON on stdout.", rich_help_panel=RUN),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file of settings.",
        show_default="chronoprep.toml",
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Errors and results only.", rich_help_panel=RUN)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=RUN)
]

# Of every command that takes PAIRS: it need not repeat them, they arrive through the context.
PAIR_OPTIONS: dict[str, Any] = {
    "layout": Annotated[
        Layout | None, _option("pairs", "layout", "--layout", rich_help_panel=PAIRS)
    ],
    "source_glob": Annotated[
        str | None, _option("pairs", "source_glob", "--source-glob", rich_help_panel=PAIRS)
    ],
    "target_glob": Annotated[
        str | None, _option("pairs", "target_glob", "--target-glob", rich_help_panel=PAIRS)
    ],
    "regex": Annotated[str | None, _option("pairs", "regex", "--regex", rich_help_panel=PAIRS)],
    "frames": Annotated[str | None, _option("pairs", "frames", "--frames", rich_help_panel=PAIRS)],
    "columns": Annotated[
        str | None, _option("pairs", "columns", "--columns", rich_help_panel=PAIRS)
    ],
    "allow_urls": Annotated[
        bool | None,
        _option("pairs", "allow_urls", "--allow-urls/--no-allow-urls", rich_help_panel=PAIRS),
    ],
}
