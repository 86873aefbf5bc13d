"""Where a model's files are, whether they are complete, and whether they fit this machine.

Everything here happens before torch is imported or a byte is downloaded, so that a run which can't
work says so at once. It does not know what the model is for.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chronoprep.errors import BackendError, ConfigError

T = TypeVar("T")

WAYS_OUT = (
    "Ways out: `hf download {name}` on a machine with a network and copy the cache, give --model a "
    "folder, choose a smaller model (`chronoprep models`), or label without a model: --prompt TEXT."
)
HUB_SECONDS = 1.5  # a reachable hub answers in a tenth of this; the library's own retries take 23 s
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
# Files of a repository that a model in safetensors form never reads.
NOT_NEEDED = ["*.bin", "*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*"]


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found.

    Attributes:
        name: The hub id, or the folder's own name: no path of this machine.
        folder: Where it lies; None while it still has to be downloaded.
        revision: The commit on the hub, or a digest of the folder's content.
        config: Its config.json; empty while it still has to be downloaded.
        bytes: Size of its weights, if known.
        patterns: The files to download; None for all but other formats' weights.
    """

    name: str
    folder: Path | None
    revision: str
    config: dict[str, object]
    bytes: int | None = None
    patterns: tuple[str, ...] | None = None


def find(
    name: str,
    *,
    revision: str | None = None,
    check: Callable[[Path], dict[str, object]],
    patterns: tuple[str, ...] | None = None,
) -> Checkpoint:
    """Find a checkpoint by folder or hub id.

    Args:
        check: Looks whether a folder is complete and returns its config; raises ConfigError.
        patterns: Restrict a download to these files.

    Raises:
        ConfigError: Within two seconds, when the folder is missing or incomplete, or the id is
            neither cached nor to be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        config = check(folder)
        return Checkpoint(
            folder.resolve().name, folder, content_revision(folder), config, weights_bytes(folder)
        )
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1:
        raise ConfigError(
            f"{name}: no such model folder.",
            hint="Give --model a folder with a config.json, a hub id such as Qwen/Qwen3-VL-4B-"
            "Instruct, or a short name from `chronoprep models`.",
        )
    cached = _cached(name, revision)
    if cached is not None:
        try:
            config = check(cached)
        except ConfigError:
            pass  # a download that was broken off: the hub completes it
        else:
            return Checkpoint(name, cached, cached.name, config, weights_bytes(cached))
    commit = _ask_hub(name, revision)
    return Checkpoint(name, None, commit, {}, patterns=patterns)


def ensure(checkpoint: Checkpoint) -> Path:
    """The checkpoint's folder, downloaded if need be.

    Raises:
        BackendError: When the download fails.
    """
    if checkpoint.folder is not None:
        return checkpoint.folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                checkpoint.name,
                revision=checkpoint.revision,
                allow_patterns=list(checkpoint.patterns) if checkpoint.patterns else None,
                ignore_patterns=None if checkpoint.patterns else NOT_NEEDED,
            )
        )
    except Exception as error:  # the library raises its own, the HTTP client's and OSError
        raise BackendError(
            f"{checkpoint.name}: the download failed: {error}",
            hint="Run it again to go on where it stopped.",
        ) from None


def read_config(folder: Path) -> dict[str, object]:
    """config.json of a folder.

    Raises:
        ConfigError: When it is missing or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: not a model folder: config.json is missing.",
            hint="Point at the folder that holds config.json and the weights.",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: not a JSON object.")
    return config


def check_weights(folder: Path) -> None:
    """Whether a folder's weights are all there and whole.

    Raises:
        ConfigError: Naming the first file that is missing or cut short.
    """
    for kind in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{kind}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError):
                raise ConfigError(f"{index}: not a weight index; download it again.") from None
            break
        if (folder / kind).is_file():
            shards = [kind]
            break
    else:
        raise ConfigError(
            f"{folder}: no weights: neither model.safetensors nor its index is there.",
            hint="Was the download complete?",
        )
    for shard in shards:
        path = folder / shard
        if not path.is_file():
            raise ConfigError(f"{path}: missing; the index names it.", hint="Download it again.")
        if path.suffix == ".safetensors":
            _check_safetensors(path)
        elif path.stat().st_size == 0:
            raise ConfigError(f"{path}: the file is empty.", hint="Download it again.")


def require(folder: Path, *alternatives: str) -> None:
    """One of the files has to be in the folder.

    Raises:
        ConfigError: Naming them.
    """
    if not any((folder / name).is_file() for name in alternatives):
        raise ConfigError(
            f"{folder}: {' or '.join(alternatives)} is missing.",
            hint="Copy it from the model's repository.",
        )


def weights_bytes(folder: Path) -> int:
    """Size of a folder's weights; safetensors alone where both formats lie there."""
    sizes = {path: path.stat().st_size for path in _files(folder) if path.suffix in WEIGHTS}
    safe = [size for path, size in sizes.items() if path.suffix == ".safetensors"]
    return sum(safe or sizes.values())


def content_revision(folder: Path) -> str:
    """A digest of what a folder holds, wherever it lies: a retrained model is another revision.

    Small files count in whole. Of weights, the size, the first and last megabyte and 64 samples
    between them count: quick for 60 GB, and training changes every tensor.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in _files(folder):
        if path.suffix not in (*WEIGHTS, ".json", ".jinja", ".txt", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}:{size}\n".encode())
        with path.open("rb") as file:
            if size <= 4 << 20 or path.suffix not in WEIGHTS:
                digest.update(file.read())
                continue
            digest.update(file.read(1 << 20))
            for i in range(1, 65):
                file.seek(size * i // 66)
                digest.update(file.read(4096))
            file.seek(-(1 << 20), os.SEEK_END)
            digest.update(file.read())
    return f"folder-{digest.hexdigest()}"


def check_memory(needed: int, device: str, what: str) -> None:
    """Whether a model of `needed` bytes fits this machine.

    Raises:
        ConfigError: Saying what it needs, what is there and the ways out.
    """
    import psutil

    ram = psutil.virtual_memory().available
    gpus = [] if device in ("cpu", "mps") else gpu_memory()
    there = sum(gpus) if device.startswith("cuda") else sum(gpus) + ram
    if device.startswith("cuda:") and device[5:].isdigit() and int(device[5:]) < len(gpus):
        there = gpus[int(device[5:])]
    if needed > there:
        kinds = f"{sum(gpus) / 1e9:.0f} GB of GPU memory and " if gpus else "no GPU and "
        raise ConfigError(
            f"{what} needs about {needed / 1e9:.0f} GB; this machine has {kinds}"
            f"{ram / 1e9:.0f} GB of free memory.",
            hint="Ways out: a smaller model (`chronoprep models`), --dtype bfloat16, a machine "
            "with more memory, or a fixed prompt without any model: --prompt TEXT.",
        )


def gpu_memory() -> list[int]:
    """Bytes of memory of each NVIDIA GPU, without importing torch; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) << 20 for line in result.stdout.split() if line.strip().isdigit()]


def is_cached(name: str) -> bool:
    """Whether any snapshot of a hub id lies in the local cache."""
    return _cached(name, None) is not None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _check_safetensors(path: Path) -> None:
    """The header says where the last tensor ends: a file cut short gives itself away."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError
            header = json.loads(file.read(length))
        ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
    except (ValueError, struct.error, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path}: not a safetensors file (a Git LFS pointer, or cut short?).",
            hint="Download it again.",
        ) from None
    if 8 + length + max(ends, default=0) != size:
        raise ConfigError(
            f"{path}: cut short: {size} bytes of {8 + length + max(ends, default=0)}.",
            hint="Download it again.",
        )


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "model_index.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _ask_hub(name: str, revision: str | None) -> str:
    """The commit of a revision on the hub, or a ConfigError within two seconds."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    hint = WAYS_OUT.format(name=name)
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{name} is not cached, and HF_HUB_OFFLINE forbids a download.", hint=hint
        )
    try:
        commit = _within(
            HUB_SECONDS,
            lambda: HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS).sha,
        )
    except GatedRepoError:
        raise ConfigError(
            f"{name}: its licence has to be accepted on the hub first.",
            hint="Accept it on the model's page, then `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        raise ConfigError(f"{name}: the hub refuses it: {error}", hint=hint) from None
    except Exception as error:  # the HTTP client's own: no route, no name, too slow, a proxy
        raise ConfigError(
            f"{name} is not cached, and the hub at {constants.ENDPOINT} can't be reached "
            f"({type(error).__name__}).",
            hint=hint,
        ) from None
    return commit or revision or "main"


def _within(seconds: float, function: Callable[[], T]) -> T:
    """A call with a deadline that holds for name look-ups and a library's retries, too.

    Raises:
        TimeoutError: When the deadline has passed; the call is left to itself.
    """
    answers: queue.Queue[T | BaseException] = queue.Queue()

    def call() -> None:
        try:
            answers.put(function())
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, BaseException):
        raise answer
    return answer
