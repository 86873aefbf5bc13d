"""Which models and backends there are, and the model that settings choose.

What is heavy is imported when a model loads.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoprep import checkpoint, memory
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import VLMSettings
from chronoprep.errors import BackendError, ConfigError
from chronoprep.vlm.choice import Choice, choose, spread

if TYPE_CHECKING:
    from chronoprep.vlm.endpoint import ServedModel
    from chronoprep.vlm.protocols import VLM


_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A known model.

    Attributes:
        name: Short name for --model.
        id: Its id on the hub.
        family: `model_type` of its config.
        parameters: In billions, all experts counted.
        preset: The prompt templates that suit it: those that it was trained for, if any.
        packaged: Whether it comes with this package, in a folder of its name.
    """

    name: str
    id: str
    family: str
    parameters: float
    preset: str = "default"
    packaged: bool = False

    @property
    def folder(self) -> Path | None:
        """Where it lies if it comes with this package."""
        return _HERE / self.name if self.packaged else None

    @property
    def memory(self) -> int:
        """Bytes needed in bfloat16: the weights and a fifth more for activations and cache."""
        return int(self.parameters * 1e9 * 2 * 1.2)


MODELS = {
    name: ModelSpec(name, **fields)
    for name, fields in json.loads((_HERE / "models.json").read_text(encoding="utf-8")).items()
}
# Pairs that a backend wants at the same time, each asked about in a thread of its own; 1 for one
# that takes batches from one thread.
_IN_FLIGHT = {"transformers": 1, "vllm": 256, "openai": 32}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BY_ID = {spec.id.lower(): spec for spec in MODELS.values()}


def known_models() -> list[dict[str, Any]]:
    """The registry, what each model needs in bfloat16, and what this machine has.

    `runs on` is "GPU", "CPU" (slowly) or "" where neither holds the model.
    """
    import psutil

    gpu, ram = sum(memory.of_gpus()), psutil.virtual_memory().available
    return [
        {
            "name": spec.name,
            "id": spec.id,
            "family": spec.family,
            "parameters_b": spec.parameters,
            "memory_gb": round(spec.memory / 1e9, 1),
            "runs_on": "GPU" if spec.memory <= gpu else "CPU" if spec.memory <= ram else "",
            "cached": spec.folder is not None or checkpoint.is_cached(spec.id),
        }
        for spec in MODELS.values()
    ]


def preset(settings: VLMSettings) -> str:
    """The prompt templates that suit the model that settings name, wherever it is."""
    spec = _spec(settings.model)
    return spec.preset if spec else "default"


# Arguments of vLLM that make it quicker or fit, and no other text.
_SPEED = {
    *("block_size", "cpu_offload_gb", "data_parallel_size", "disable_log_stats", "enforce_eager"),
    *("enable_chunked_prefill", "enable_prefix_caching", "gpu_memory_utilization", "load_format"),
    *("limit_mm_per_prompt", "max_model_len", "max_num_batched_tokens", "max_num_seqs"),
    *("mm_processor_cache_gb", "pipeline_parallel_size", "skip_mm_profiling", "swap_space"),
    *("async_scheduling", "renderer_num_workers", "tensor_parallel_size"),
}


@dataclass(frozen=True)
class Model:
    """The model that settings choose: found, not loaded. It can be pickled.

    Attributes:
        settings: That chose it.
        checkpoint: Where it is; of a server's model, what a label says of it.
        backend: The name of the one that runs it.
        how: In words, what it is run by, and why by no faster one.
    """

    settings: VLMSettings
    checkpoint: Checkpoint
    backend: str
    how: str = ""

    @property
    def name(self) -> str:
        """The hub id, the folder's own name, or what a server calls it."""
        return self.checkpoint.name

    @property
    def loading(self) -> str:
        """What a user is told before it is loaded."""
        return f"Loading {self.name} {self.how} …"

    @property
    def preset(self) -> str:
        """The prompt templates that suit it."""
        return preset(self.settings)

    @property
    def dtype(self) -> str:
        """As it was saved unless another is asked for; "auto" where its config does not say."""
        # An engine's own "auto" may be another: vLLM's makes float32 bfloat16.
        asked = self.settings.dtype
        return asked if asked != "auto" else _saved_dtype(self.checkpoint.config) or "auto"

    @property
    def in_flight(self) -> int:
        """Pairs to have in flight, each in a thread of its own; 1 where batches are wanted."""
        usual = _IN_FLIGHT[self.backend]
        if self.settings.concurrency is not None and usual > 1:
            return self.settings.concurrency
        if self.backend != "vllm":
            return usual
        return usual * spread(self.memory_needed, self.settings.vllm).data

    @property
    def text_settings(self) -> dict[str, object]:
        """The settings that an answer's text depends on, beside the checkpoint and the chat.

        The backend does not: the same model gives the same text on each. Nor does
        `max_new_tokens`: greedy text that ended by itself has nothing to do with the limit.
        """
        thinking = self.settings.model_dump(
            include={"thinking_tokens", "reasoning_effort"}, exclude_none=True
        )
        if self.backend == "openai":
            return thinking  # the rest is the server's own affair
        options = self.settings.vllm if self.backend == "vllm" else {}
        chosen = {name: value for name, value in options.items() if name not in _SPEED}
        return {"dtype": self.settings.dtype} | thinking | chosen

    @property
    def memory_needed(self) -> int | None:
        """Bytes that it takes; None where that is a server's affair, or shows when it is here."""
        return None if self.backend == "openai" else _memory_needed(self.settings, self.checkpoint)

    def check_fits(self) -> None:
        """Whether it fits this machine's memory.

        Raises:
            ConfigError: Saying what it needs and the ways out.
        """
        if (needed := self.memory_needed) is not None:
            memory.check(needed, self.settings.device, self.name)

    def load(self) -> VLM:
        """Load it; downloads it first if need be.

        Raises:
            BackendError: When the download or the loading fails, or a server does not answer.
            ConfigError: When a server has no such model.
        """
        if self.backend == "openai":
            from chronoprep.vlm.openai_backend import OpenAIVLM

            served = _ask_server(self.settings)
            if _of_server(self.settings, served) != self.checkpoint:
                raise BackendError("The server changed its model meanwhile.", hint="Run it again.")
            return OpenAIVLM(self.settings, served)
        folder = checkpoint.ensure(self.checkpoint)
        if self.backend == "vllm":
            from chronoprep.vlm.vllm_backend import VLLMVLM

            gpus = spread(self.memory_needed, self.settings.vllm)
            return VLLMVLM(self.settings, folder, self.dtype, gpus, self.in_flight)
        from chronoprep.vlm.transformers_backend import TransformersVLM

        return TransformersVLM(self.settings, folder, self.dtype)


def resolve(settings: VLMSettings) -> Model:
    """Find the model that settings choose, before anything heavy is imported.

    Raises:
        ConfigError: Within two seconds where there is no network, when it is incomplete, no
            vision-language model, or neither cached nor to be had; when the backend's package is
            not installed; when a server is to choose the model and has several.
        BackendError: When a server has to say what it serves, and does not answer.
    """
    asked = settings.backend
    if settings.endpoint and asked not in ("auto", "openai"):
        raise ConfigError(
            f"--backend {asked} asks no server, and --endpoint names one.",
            hint="Leave one of them out; `--endpoint ''` undoes what the settings name.",
        )
    if settings.endpoint or asked == "openai":
        return Model(settings, _find_on_server(settings), "openai", f"on {settings.endpoint}")
    if asked == "vllm" and settings.device != "auto":
        raise ConfigError(
            f"The vllm backend does not take --device {settings.device}.",
            hint="vLLM's build decides; CUDA_VISIBLE_DEVICES chooses the GPUs that it sees.",
        )
    if asked != "auto" and importlib.util.find_spec(asked) is None:
        raise ConfigError(
            f"The {asked} backend needs a package that is not installed.",
            hint=f"pip install 'chronoprep[{asked}]'",
        )
    spec = _spec(settings.model)
    name = str(spec.folder or spec.id) if spec else settings.model
    found = checkpoint.find(name, revision=settings.revision, check=_check)
    if found.folder is None and found.config:
        _check_vision(name, found.config)  # before gigabytes are downloaded
    choice = Choice(asked, f"by {'vLLM' if asked == 'vllm' else asked}")
    if asked == "auto" and spec is not None and spec.packaged:
        choice = Choice("transformers", "by transformers; it is small enough for any CPU")
    elif asked == "auto":
        choice = choose(found.config, _memory_needed(settings, found), settings.device)
    return Model(settings, found, *choice)


def _memory_needed(settings: VLMSettings, found: Checkpoint) -> int | None:
    asked = _BYTES.get(settings.dtype)
    if found.bytes is not None:
        saved = _BYTES.get(_saved_dtype(found.config) or "")
        return int(found.bytes * (asked / saved if asked and saved else 1) * 1.2)
    spec = _spec(settings.model)
    return spec.memory * (asked or 2) // 2 if spec is not None else None


def _spec(name: str) -> ModelSpec | None:
    return MODELS.get(name.lower()) or _BY_ID.get(name.lower())


def _find_on_server(settings: VLMSettings) -> Checkpoint:
    """What a label says of a server's model. A server does not tell which weights it holds."""
    from chronoprep.vlm.endpoint import ServedModel, base_url

    if settings.endpoint is None:
        raise ConfigError(
            "The openai backend needs the address of a server.",
            hint="For example: --endpoint http://localhost:8000/v1",
        )
    base_url(settings.endpoint)
    model = ServedModel(settings.model)
    # Whether a server has what is named shows when it is needed: a run with nothing to do needs
    # none. But a name without a folder may be the end of a path, which the server knows.
    named = bool(_names(settings))
    if not (named and "/" in model.id):
        try:
            model = _ask_server(settings)
        except BackendError:
            if not named:
                raise
    return _of_server(settings, model)


def _of_server(settings: VLMSettings, model: ServedModel) -> Checkpoint:
    known = _names(settings)[1:]
    return Checkpoint(known[0] if known else model.name, None, model.revision, {})


def _ask_server(settings: VLMSettings) -> ServedModel:
    """The server's model that is meant."""
    from chronoprep.vlm.endpoint import choose, list_models

    endpoint = settings.endpoint or ""
    return choose(list_models(endpoint), endpoint, _names(settings))


def _names(settings: VLMSettings) -> list[str]:
    """What a server may call the model that is meant: as it is named, and a known one's id; none
    where the server is to choose."""
    if "model" not in settings.model_fields_set:
        return []
    spec = _spec(settings.model)
    return [settings.model, *([spec.id] if spec else [])]


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
