"""What this machine can do, each thing tried and not guessed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from chronoprep import checkpoint, memory
from chronoprep.config import Settings
from chronoprep.engine import cores
from chronoprep.errors import ChronoprepError

# A library that is broken may end the process that imports it, and a large one takes a while.
_IMPORT_SECONDS = 300
_LEAST_ROOM = 1e9  # bytes

_TORCH = """
import torch, transformers
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
apple = torch.backends.mps.is_available()
print(f"torch {torch.__version__}, transformers {transformers.__version__},",
      f"{gpus} GPU(s)" if gpus else "Apple GPU" if apple else "CPU only")
"""
_VLLM = "import vllm; print(f'vllm {vllm.__version__}')"


class Ability(NamedTuple):
    """Something that a machine can do or not.

    Attributes:
        what: In a word or two.
        able: Whether it can.
        found: What was seen.
        remedy: What to do about a "no".
        needed: Whether nothing works without it.
    """

    what: str
    able: bool
    found: str
    remedy: str | None = None
    needed: bool = False


def examine(settings: Settings, folder: Path) -> Iterator[Ability]:
    """Try what the commands need, one after the other.

    Args:
        settings: The model's device and the server's address are asked about.
        folder: Where datasets will lie.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    yield Ability("chronoprep", True, f"{metadata.version('chronoprep')}, Python {python}")
    yield _memory()
    yield _gpu()
    yield _imported("transformers", _TORCH, "pip install --upgrade torch transformers")
    yield _imported("vllm", _VLLM, "pip install 'chronoprep[vllm]'")
    if settings.vlm.endpoint:
        yield _tried("server", lambda: _server(settings.vlm.endpoint or ""))
    yield _tried("videos", _video, needed=True)
    yield _hub()
    yield from (_room(name, place) for name, place in _places(folder))
    yield from _extras()


def _memory() -> Ability:
    import psutil

    there = psutil.virtual_memory()
    found = f"{there.available / 1e9:.0f} of {there.total / 1e9:.0f} GB free, {cores()} core(s)"
    return Ability("memory", True, found)


def _gpu() -> Ability:
    gpus = memory.of_gpus()
    if gpus:
        return Ability("gpu", True, ", ".join(f"{size / 1e9:.0f} GB" for size in gpus))
    if any(Path(driver).exists() for driver in memory.GPU_DEVICES):
        return Ability(
            "gpu", False, "a driver, but nvidia-smi lists no GPU",
            "See what `nvidia-smi` and CUDA_VISIBLE_DEVICES say; other makes' GPUs work without.",
        )  # fmt: skip
    return Ability(
        "gpu", False, "none by NVIDIA",
        "Small models run on the CPU (`chronoprep models`); a server does it for you: --endpoint.",
    )  # fmt: skip


def _imported(package: str, script: str, remedy: str) -> Ability:
    """Whether a backend's packages can be imported, in a process of its own."""
    if importlib.util.find_spec(package) is None:
        return Ability(package, False, "not installed", remedy)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=_IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Ability(package, False, f"takes more than {_IMPORT_SECONDS} s to import", remedy)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = said[-1] if said else f"ended with {done.returncode}"
    return Ability(package, done.returncode == 0, last, remedy if done.returncode else None)


def _tried(what: str, trial: Callable[[], str], *, needed: bool = False) -> Ability:
    try:
        return Ability(what, True, trial(), needed=needed)
    except ChronoprepError as error:
        return Ability(what, False, error.message, error.hint, needed)
    except (ImportError, OSError) as error:
        return Ability(what, False, str(error), "pip install --force-reinstall av pillow", needed)


def _server(endpoint: str) -> str:
    from chronoprep.vlm.endpoint import list_models

    models = list_models(endpoint)
    if models is None:
        return f"{endpoint} answers, and lists no models"
    return f"{endpoint} serves {', '.join(model.name for model in models) or 'no model'}"


def _video() -> str:
    """Write a 2-frame video of each kind and read it back, which needs no ffmpeg program."""
    from PIL import Image

    from chronoprep.config import VideoSettings
    from chronoprep.mp4 import ALL
    from chronoprep.video import read_frames, write_video

    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    with tempfile.TemporaryDirectory() as folder:
        for codec in ("lossless", "h264"):
            path = Path(folder, f"{codec}.mp4")
            write_video(frames[0], frames[1], path, VideoSettings(codec=codec), ALL)
            read_frames(path)
    import av

    return f"written and read back by PyAV {av.__version__}"


def _hub() -> Ability:
    endpoint, obstacle = checkpoint.reach_hub()
    if obstacle is None:
        return Ability("hub", True, f"{endpoint} answers")
    return Ability(
        "hub", False, f"{endpoint}: {obstacle}",
        "What is cached or in a folder works all the same; HF_ENDPOINT names a mirror, "
        "HTTPS_PROXY a proxy.",
    )  # fmt: skip


def _places(folder: Path) -> Iterator[tuple[str, Path]]:
    from huggingface_hub import constants

    yield "room for datasets", folder
    yield "room for models", Path(constants.HF_HUB_CACHE)


def _room(what: str, place: Path) -> Ability:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.0f} GB at {place}"
    if free >= _LEAST_ROOM:
        return Ability(what, True, found)
    remedy = "Make room, or choose another place: --dataset for datasets, HF_HOME for models."
    return Ability(what, False, found, remedy)


def _extras() -> Iterator[Ability]:
    """What the package's extras bring, as its metadata names them."""
    packages: dict[str, list[str]] = {}
    for requirement in metadata.requires("chronoprep") or ():
        name, _, marker = requirement.partition(";")
        if "extra ==" in marker:
            extra = marker.split("extra ==")[1].strip(" '\")")
            package = name.split("[")[0].split(">")[0].split("=")[0].strip()
            packages.setdefault(extra, []).append(package)
    for extra, needs in sorted(packages.items()):
        if extra == "vllm":  # was tried
            continue
        missing = [package for package in needs if not _installed(package)]
        yield Ability(
            f"extra {extra}", not missing,
            f"without {', '.join(missing)}" if missing else ", ".join(needs),
            f"pip install 'chronoprep[{extra}]'" if missing else None,
        )  # fmt: skip


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
