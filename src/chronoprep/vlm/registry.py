"""Which models and backends there are, as tables; the heavy import happens on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep import checkpoint, memory
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import VLMSettings
from chronoprep.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from chronoprep.vlm import VLM
    from chronoprep.vlm.endpoint import Served


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A known model.

    Attributes:
        name: Short name for --model.
        id: Its id on the hub.
        family: `model_type` of its config.
        parameters: In billions, all experts counted.
        preset: The prompt templates that suit it: those that it was trained for, if any.
        folder: Where it lies if it comes with this package.
    """

    name: str
    id: str
    family: str
    parameters: float
    preset: str = "default"
    folder: Path | None = None

    @property
    def memory(self) -> int:
        """Bytes needed in bfloat16: the weights and a fifth more for activations and cache."""
        return int(self.parameters * 1e9 * 2 * 1.2)


_HERE = Path(__file__).parent

MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", 2.1),
        ModelSpec("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", 4.4),
        ModelSpec("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8.8),
        ModelSpec("qwen3-vl-32b", "Qwen/Qwen3-VL-32B-Instruct", "qwen3_vl", 33.4),
        ModelSpec("qwen3-vl-30b", "Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3_vl_moe", 31.1),
        ModelSpec("qwen3-vl-235b", "Qwen/Qwen3-VL-235B-A22B-Instruct", "qwen3_vl_moe", 235.7),
        ModelSpec("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3.8),
        ModelSpec("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 8.3),
        ModelSpec("qwen2.5-vl-32b", "Qwen/Qwen2.5-VL-32B-Instruct", "qwen2_5_vl", 33.5),
        ModelSpec("qwen2.5-vl-72b", "Qwen/Qwen2.5-VL-72B-Instruct", "qwen2_5_vl", 73.4),
        ModelSpec("qwen3-omni-30b", "Qwen/Qwen3-Omni-30B-A3B-Instruct", "qwen3_omni_moe", 31.7),
        # A micro model that knows synthetic scenes only: see its README.md.
        ModelSpec("shapes", "shapes", "qwen3_vl", 0.0022, "compact", _HERE / "shapes"),
    )
}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BY_ID = {spec.id.lower(): spec for spec in MODELS.values()}


def _transformers(settings: VLMSettings, found: Checkpoint) -> VLM:
    from chronoprep.vlm.transformers_backend import TransformersVLM

    return TransformersVLM(
        checkpoint.ensure(found),
        dtype=settings.dtype,
        device=settings.device,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        compile=settings.compile,
    )


def _vllm(settings: VLMSettings, found: Checkpoint) -> VLM:
    if settings.device != "auto":
        raise ConfigError(
            f"The vllm backend does not take --device {settings.device}.",
            hint="vLLM's build decides; CUDA_VISIBLE_DEVICES chooses the GPUs that it sees.",
        )
    from chronoprep.vlm.vllm_backend import VLLMVLM

    saved = _saved_dtype(found.config) or "auto"  # its own "auto" makes float32 bfloat16
    return VLLMVLM(
        checkpoint.ensure(found),
        dtype=saved if settings.dtype == "auto" else settings.dtype,
        max_new_tokens=settings.max_new_tokens,
        # The other half is being prepared or waits: a place that falls free is taken at once.
        at_once=max(concurrency(settings) // 2, 1),
        gpus=_gpus(_needed_bytes(settings, found) or 0),
        options=settings.vllm,
    )


def _gpus(needed: int) -> int:
    """How many GPUs a model is spread over: no more than it takes, and a power of two."""
    sizes, count = memory.of_gpus(), 1
    while 2 * count <= len(sizes) and sum(sizes[:count]) < needed:
        count *= 2
    return count


def _openai(settings: VLMSettings, found: Checkpoint) -> VLM:
    from chronoprep.vlm.openai_backend import OpenAIVLM

    model = _served(settings)
    if _checkpoint(settings, model) != found:
        raise BackendError("The server changed its model meanwhile.", hint="Run it again.")
    return OpenAIVLM(
        settings.endpoint or "",
        model,
        max_new_tokens=settings.max_new_tokens,
        timeout=settings.request_timeout,
    )


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to run a model.

    Attributes:
        load: Makes it ready.
        needs: The package that it runs on, if that is an extra of the same name.
        in_flight: Pairs that it wants at the same time, each asked about in a thread of its own;
            1 for a backend that takes batches from one thread.
        remote: Whether a server holds the model: then nothing is looked for or checked here.
    """

    load: Callable[[VLMSettings, Checkpoint], VLM]
    needs: str | None = None
    in_flight: int = 1
    remote: bool = False


BACKENDS = {
    "transformers": Backend(_transformers),
    "vllm": Backend(_vllm, needs="vllm", in_flight=256),
    "openai": Backend(_openai, needs="openai", in_flight=32, remote=True),
}


def backend_of(settings: VLMSettings) -> str:
    """The name of the backend that the settings choose."""
    automatic = "openai" if settings.endpoint else "transformers"
    return automatic if settings.backend == "auto" else settings.backend


def _backend(settings: VLMSettings) -> Backend:
    return BACKENDS[backend_of(settings)]


# Arguments of vLLM that make it quicker or fit, and no other text.
_SPEED = {
    *("block_size", "cpu_offload_gb", "data_parallel_size", "disable_log_stats", "enforce_eager"),
    *("enable_chunked_prefill", "enable_prefix_caching", "gpu_memory_utilization", "load_format"),
    *("limit_mm_per_prompt", "max_model_len", "max_num_batched_tokens", "max_num_seqs"),
    *("mm_processor_cache_gb", "pipeline_parallel_size", "skip_mm_profiling", "swap_space"),
    "tensor_parallel_size",
}


def deciding(settings: VLMSettings) -> dict[str, object]:
    """What of the settings decides an answer, beside the checkpoint.

    The backend does not: the same model gives the same text on each. Nor does `max_new_tokens`:
    greedy text that ended by itself has nothing to do with the limit.
    """
    name = backend_of(settings)
    if name == "openai":
        return {}  # the server's own affair
    options = settings.vllm if name == "vllm" else {}
    return {"dtype": settings.dtype} | {k: v for k, v in options.items() if k not in _SPEED}


def concurrency(settings: VLMSettings) -> int:
    """Pairs to have in flight, each in a thread of its own; 1 where batches are wanted instead."""
    backend = _backend(settings)
    return 1 if backend.in_flight == 1 else settings.concurrency or backend.in_flight


def find(settings: VLMSettings) -> Checkpoint:
    """Where the model is, before anything heavy is imported.

    Raises:
        ConfigError: Within two seconds, when it is incomplete, no vision-language model, or
            neither cached nor to be had; when the backend's package is not installed or does not
            compile; when a server is to choose the model and has several.
        BackendError: When a server has to say what it serves, and does not answer.
    """
    backend = _backend(settings)
    if settings.endpoint and not backend.remote:
        raise ConfigError(
            f"--backend {settings.backend} asks no server, and --endpoint names one.",
            hint="Leave one of them out; `--endpoint ''` undoes what the settings name.",
        )
    if settings.compile and backend is not BACKENDS["transformers"]:
        raise ConfigError(
            "--compile is for the transformers backend.",
            hint="Leave it out: vLLM and servers see to that themselves.",
        )
    if backend.needs and importlib.util.find_spec(backend.needs) is None:
        raise ConfigError(
            f"The {backend.needs} backend needs a package that is not installed.",
            hint=f"pip install 'chronoprep[{backend.needs}]'",
        )
    if backend.remote:
        return _find_served(settings)
    spec = _spec(settings.model)
    name = str(spec.folder or spec.id) if spec else settings.model
    found = checkpoint.find(name, revision=settings.revision, check=_check)
    if found.folder is None and found.config:
        _check_vision(name, found.config)  # before gigabytes are downloaded
    return found


def check_fits(settings: VLMSettings, found: Checkpoint) -> None:
    """Whether the model fits this machine's memory.

    Raises:
        ConfigError: Saying what it needs and the ways out.
    """
    if _backend(settings).remote:
        return
    needed = _needed_bytes(settings, found)
    if needed is not None:  # else that shows when it is here
        memory.check(needed, settings.device, settings.model)


def _needed_bytes(settings: VLMSettings, found: Checkpoint) -> int | None:
    """Memory that the model takes; None where the hub does not say how large it is."""
    spec = _spec(settings.model)
    asked = _BYTES.get(settings.dtype)
    if found.bytes is not None:
        saved = _BYTES.get(_saved_dtype(found.config) or "")
        ratio = asked / saved if asked and saved else 1
        return int(found.bytes * ratio * 1.2)
    return spec.memory * (asked or 2) // 2 if spec is not None else None


def preset(settings: VLMSettings) -> str:
    """The prompt templates that suit the model."""
    spec = _spec(settings.model)
    return spec.preset if spec else "default"


def load(settings: VLMSettings, found: Checkpoint) -> VLM:
    """Load a model; downloads it first if need be.

    Raises:
        BackendError: When the download or the loading fails, or a server does not answer.
        ConfigError: When a server has no such model.
    """
    return _backend(settings).load(settings, found)


def _find_served(settings: VLMSettings) -> Checkpoint:
    """What a label says of a server's model. A server does not tell which weights it holds."""
    from chronoprep.vlm.endpoint import Served, base_url

    if settings.endpoint is None:
        raise ConfigError(
            "The openai backend needs the address of a server.",
            hint="For example: --endpoint http://localhost:8000/v1",
        )
    base_url(settings.endpoint)
    named = Served(settings.model)
    if _is_named(settings) and "/" in settings.model:
        # Whether the server has it shows when it is needed: a run with nothing to do needs none.
        return _checkpoint(settings, named)
    try:
        return _checkpoint(settings, _served(settings))  # the name may be the end of a path
    except BackendError:
        if _is_named(settings):
            return _checkpoint(settings, named)  # as above
        raise


def _checkpoint(settings: VLMSettings, model: Served) -> Checkpoint:
    spec = _spec(settings.model) if _is_named(settings) else None
    return Checkpoint(spec.id if spec else model.name, None, model.revision, {})


def _served(settings: VLMSettings) -> Served:
    """The server's model that is meant."""
    from chronoprep.vlm.endpoint import choose, served

    endpoint, spec = settings.endpoint or "", _spec(settings.model)
    names = [settings.model, *([spec.id] if spec else [])] if _is_named(settings) else []
    return choose(served(endpoint), endpoint, names)


def _is_named(settings: VLMSettings) -> bool:
    return "model" in settings.model_fields_set


def _spec(name: str) -> ModelSpec | None:
    return MODELS.get(name.lower()) or _BY_ID.get(name.lower())


def _check(folder: Path) -> dict[str, object]:
    config = checkpoint.read_config(folder)
    _check_vision(str(folder), config)
    checkpoint.check_weights(folder)
    checkpoint.require(folder, "tokenizer.json", "vocab.json", "tokenizer.model")
    checkpoint.require(folder, "preprocessor_config.json", "processor_config.json")
    return config


def _check_vision(name: str, config: dict[str, Any]) -> None:
    if "vision_config" not in config and "thinker_config" not in config:
        raise ConfigError(
            f"{name}: {config.get('model_type', 'this')!r} is no vision-language model: its "
            "config.json has no vision part.",
            hint="`chronoprep models` lists models that work.",
        )


def _saved_dtype(config: dict[str, Any]) -> str | None:
    """How the checkpoint's numbers are stored; None where its config does not say."""
    thinker = config.get("thinker_config") or {}
    for place in (config, config.get("text_config") or {}, thinker, thinker.get("text_config", {})):
        name = str(place.get("dtype") or place.get("torch_dtype")).removeprefix("torch.")
        if name in _BYTES:
            return name
    return None


@dataclass(frozen=True)
class Model:
    settings: VLMSettings
    checkpoint: Checkpoint
    preset: str
    backend: str
    deciding: dict[str, object]
    in_flight: int

    def check_fits(self) -> None:
        check_fits(self.settings, self.checkpoint)

    def load(self) -> VLM:
        return load(self.settings, self.checkpoint)


def resolve(settings: VLMSettings) -> Model:
    return Model(
        settings,
        find(settings),
        preset(settings),
        backend_of(settings),
        deciding(settings),
        concurrency(settings),
    )
