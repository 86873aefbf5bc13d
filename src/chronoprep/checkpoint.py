"""Where a model's files are, and whether they are complete.

Everything here happens before torch is imported or more than a config.json is downloaded, so that a
run which can't work says so at once. It does not know what the model is for.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from chronoprep.errors import BackendError, ConfigError

T = TypeVar("T")

WAYS_OUT = (
    "Ways out: `hf download {name}` on a machine with a network and copy the cache, give --model a "
    "folder, choose a smaller model (`chronoprep models`), or label without a model: --prompt TEXT."
)
CONNECT_SECONDS = 1.5  # ten times what it takes where there is a network
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
# Other frameworks' files, which are never read; and PyTorch's own where safetensors lie beside it.
FOREIGN = ("*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")
# Small files that a model is loaded from; others beside them are logs and notes.
CONFIGS = (
    *("*config.json", "*index.json", "*tokenizer*.json", "*token*map.json", "added_tokens.json"),
    *("chat_template*", "vocab.*", "merges.txt", "*.model", "*.jinja"),
)
# Weights under these names are read without being asked for; others beside them are the same in
# another form or number format, such as consolidated.safetensors.
STANDARD = re.compile(r"((pytorch|diffusion_pytorch)_)?model(-\d+-of-\d+)?\.(safetensors|bin)")
MARKERS = ("config.json", "model_index.json")  # one of them is in every model's top folder
PICKLED = ("*.bin", "*.pth", "*.pt")


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found.

    Attributes:
        name: The hub id, or the folder's own name: no path of this machine.
        folder: Where it lies; None while it still has to be downloaded, or where a server has it.
        revision: The commit on the hub, a digest of the folder's content, or "served", with a
            digest of its path on the server if it has one.
        config: Its config.json; empty where the hub's could not be had.
        bytes: Size of its weights, if known.
        files: What to download of it; none when it is here.
    """

    name: str
    folder: Path | None
    revision: str
    config: dict[str, object]
    bytes: int | None = None
    files: tuple[str, ...] = ()


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
    if folder.is_file() or folder.suffix.lower() == ".gguf":
        raise ConfigError(
            f"{name}: one file, and not a model folder.",
            hint="Serve a .gguf file by llama.cpp or Ollama and name the server by --endpoint; of "
            "other weights, give --model the folder that holds config.json beside them.",
        )
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1:
        raise ConfigError(
            f"{name}: no such model folder.",
            hint="Give --model a folder with a config.json, a hub id such as Qwen/Qwen3-VL-4B-"
            "Instruct, or a short name from `chronoprep models`.",
        )
    cached = _cached(name, revision)
    state = "not cached"
    if cached is not None:
        try:
            config = check(cached)
        except ConfigError as error:
            # A download that was broken off, which the hub completes; or no use at all.
            state = f"in the cache, but of no use there ({error.message})"
        else:
            return Checkpoint(name, cached, cached.name, config, weights_bytes(cached))
    return _on_hub(name, revision, patterns, state)


def ensure(checkpoint: Checkpoint) -> Path:
    """The checkpoint's folder, downloaded if need be.

    Raises:
        BackendError: When the download fails.
    """
    if checkpoint.folder is not None:
        return checkpoint.folder
    from huggingface_hub import snapshot_download

    hint = "Run it again to go on where it stopped."
    try:
        folder = Path(
            snapshot_download(
                checkpoint.name,
                revision=checkpoint.revision,
                allow_patterns=[glob.escape(file) for file in checkpoint.files] or None,
            )
        )
    except Exception as error:  # the library raises its own, the HTTP client's and OSError
        raise BackendError(f"{checkpoint.name}: the download failed: {error}", hint=hint) from None
    # When the hub goes away, the library settles for the part of a snapshot that is here.
    missing = [file for file in checkpoint.files if not (folder / file).is_file()]
    if missing:
        raise BackendError(
            f"{checkpoint.name}: the download failed: {missing[0]} did not come.", hint=hint
        )
    return folder


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
        raise ConfigError(f"{path}: can't be read: {error}", hint="Download it again.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: not a JSON object.", hint="Download it again.")
    return config


def check_weights(folder: Path) -> list[Path]:
    """The files of a folder's weights, which are all there and whole.

    Raises:
        ConfigError: Naming the first file that is missing or cut short.
    """
    for kind in ("model.safetensors", "pytorch_model.bin"):
        if (folder / kind).is_file():
            shards = [kind]
            break
        index = folder / f"{kind}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError):
                raise ConfigError(
                    f"{index}: not a weight index.", hint="Download it again."
                ) from None
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
    return [folder / shard for shard in shards]


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


def weights_bytes(folder: Path) -> int | None:
    """Size of a folder's weights, each counted in one form; None where there are none."""
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in _files(folder)}
    return _weigh(_needed(sizes, None))


def content_revision(folder: Path) -> str:
    """A digest of what a folder, or one file, holds: a retrained model is another revision.

    Small files count in whole. Of weights, the size, the first and last megabyte and 64 samples
    between them count: quick for 60 GB, and training changes every tensor.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in _files(folder):
        counts = any(fnmatch.fnmatch(path.name, pattern) for pattern in CONFIGS)
        if path.suffix not in WEIGHTS and not counts:
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


def is_cached(name: str) -> bool:
    """Whether a hub id's weights lie in the local cache, all of them."""
    folder = _cached(name, None)
    if folder is None:
        return False
    try:
        check_weights(folder)
    except ConfigError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    places = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return (path for path in places if path.is_file())


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return  # the header fits the file's length
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path}: not a whole safetensors file ({error}).",
            hint="Download it again: it may be cut short, or a Git LFS pointer.",
        ) from None


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in MARKERS:
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _on_hub(
    name: str, revision: str | None, patterns: tuple[str, ...] | None, state: str
) -> Checkpoint:
    """What the hub says of a model, or a ConfigError: within two seconds if there is no way to it.

    Args:
        state: Why the local cache does not do, for the message.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{name} is {state}, and HF_HUB_OFFLINE forbids a download.",
            hint=WAYS_OUT.format(name=name),
        )

    seconds = constants.HF_HUB_ETAG_TIMEOUT
    try:
        if seconds == constants.DEFAULT_ETAG_TIMEOUT:  # else the user knows their network
            _within(CONNECT_SECONDS, lambda: _connect(constants.ENDPOINT))
        info = _within(
            seconds,
            lambda: HfApi().model_info(
                name, revision=revision, timeout=seconds, files_metadata=True
            ),
        )
        commit = info.sha or revision or "main"
        sizes = _needed({file.rfilename: file.size or 0 for file in info.siblings or ()}, patterns)
        config: dict[str, object] = {}
        marker = next((file for file in MARKERS if file in sizes), None)
        if marker is not None:
            # Asked for by the revision's name, it leaves that name in the cache for the next run;
            # and it shows whether a gated model's files may be read, as its page always may.
            path = _within(
                seconds + constants.HF_HUB_DOWNLOAD_TIMEOUT,
                lambda: Path(hf_hub_download(name, marker, revision=revision)),
            )
            commit = path.parent.name
            config = read_config(path.parent) if marker == "config.json" else {}
    except ConfigError:
        raise
    except Exception as error:  # the library's own and the HTTP client's
        why, hint = _refusal(error, revision)
        raise ConfigError(f"{name} is {state}, and {why}.", hint=hint.format(name=name)) from None
    return Checkpoint(name, None, commit, config, _weigh(sizes), tuple(sizes))


def _refusal(error: Exception, revision: str | None) -> tuple[str, str]:
    """Why the hub did not answer, and what helps."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        hint = "Accept it on the model's page, then `hf auth login`."
        return "its licence has to be accepted on the hub first", hint
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "Give a branch, tag or commit that the model's page lists."
        return f"the hub has no revision {revision!r} of it", hint
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "Check the spelling; `hf auth login` opens private models."
        return "the hub has no such model, or a private one", hint
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub refuses it: HTTP {error.response.status_code}", WAYS_OUT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES,
                                                      errno.EROFS):  # fmt: skip
        why = f"the cache {constants.HF_HUB_CACHE} can't be written: {error.strerror}"
        return why, "Free some space or change its permissions, or set HF_HOME to another folder."
    # No route, no name, too slow, a proxy.
    why = f"the hub at {constants.ENDPOINT} can't be reached ({type(error).__name__})"
    return why, f"On a slow network, set HF_HUB_ETAG_TIMEOUT to seconds. {WAYS_OUT}"


def _needed(sizes: dict[str, int], patterns: tuple[str, ...] | None) -> dict[str, int]:
    """The files of a repository to download: no weights twice."""

    def matches(file: str, globs: Iterable[str]) -> bool:
        return any(fnmatch.fnmatch(file, pattern) for pattern in globs)

    needed = {f: n for f, n in sizes.items() if patterns is None or matches(f, patterns)}
    safe = any(file.endswith(".safetensors") for file in needed)
    skip = (*FOREIGN, *PICKLED) if safe else FOREIGN
    paths = [PurePosixPath(file) for file in needed if not matches(file, skip)]
    settled = {path.parent for path in paths if STANDARD.fullmatch(path.name)}
    return {
        str(path): needed[str(path)]
        for path in paths
        if path.suffix not in WEIGHTS or path.parent not in settled or STANDARD.fullmatch(path.name)
    }


def _weigh(sizes: dict[str, int]) -> int | None:
    """The bytes of weights among files; None where there are none."""
    return sum(n for file, n in sizes.items() if PurePosixPath(file).suffix in WEIGHTS) or None


def reach_hub() -> tuple[str, str | None]:
    """The hub's address, and why it can't be reached; None if it can. Takes 1.5 s at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return constants.ENDPOINT, "HF_HUB_OFFLINE is set"
    try:
        _within(CONNECT_SECONDS, lambda: _connect(constants.ENDPOINT))
    except TimeoutError:
        return constants.ENDPOINT, f"no answer within {CONNECT_SECONDS} s"
    except OSError as error:
        return constants.ENDPOINT, error.strerror or str(error)
    return constants.ENDPOINT, None


def _connect(endpoint: str) -> None:
    """Reach the hub without asking for anything; behind a proxy, that is the proxy's affair.

    Raises:
        OSError: There is no way to it.
    """
    url = urlsplit(endpoint)
    if not {"all", url.scheme} & getproxies().keys():
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname, port), CONNECT_SECONDS).close()


def _within(seconds: float, function: Callable[[], T]) -> T:
    """A call with a deadline that holds for name look-ups and a library's retries, too.

    Raises:
        TimeoutError: When the deadline has passed; the call is left to itself.
    """
    answer: Future[T] = Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return answer.result(timeout=seconds)
