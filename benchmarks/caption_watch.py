"""What a row of the captioning benchmark measures, and how."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from roofline import Cost

PARTS = ("decode", "process", "vision", "prefill", "generate")
COUNTED = ("qwen3_vl", "qwen3_vl_moe")  # families whose work roofline.py knows


@dataclass
class Result:
    """What a row measured.

    Attributes:
        texts: Caption and CoT of each pair by key.
        seconds: From the first pair to the last label.
        cpu: The processor's seconds in that time, all threads together: other programs on the
            machine touch it less.
        engine_cpu: The same of the processes that the model runs in, where that is not this one.
        tokens: New tokens of both stages.
        encoded: Images that went through the vision encoder.
        split: Seconds by part.
        work: What a part needs: FLOPs of vision and prefill, bytes that generating reads.
        memory: Peak bytes: of the process on a CPU, of the allocator on a GPU.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu: float = 0.0
    engine_cpu: float = 0.0
    tokens: int = 0
    encoded: int = 0
    split: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    work: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS[2:], 0.0))
    memory: int = 0


class Watch:
    """Adds the time between `start` and `stop` to a result.

    Args:
        server: The process of the server that the model runs in, if one does.
    """

    def __init__(self, result: Result, server: int | None = None) -> None:
        self._result = result
        self._server = server
        self._began = (0.0, 0.0, 0.0)

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> None:
        seconds, cpu, engine_cpu = self._now()
        self._result.seconds += seconds - self._began[0]
        self._result.cpu += cpu - self._began[1]
        self._result.engine_cpu += engine_cpu - self._began[2]

    def _now(self) -> tuple[float, float, float]:
        import psutil

        others = psutil.Process().children(recursive=True)
        if self._server is not None:
            server = psutil.Process(self._server)
            others += [server, *server.children(recursive=True)]
        times = [process.cpu_times() for process in others]
        engine_cpu = sum(spent.user + spent.system for spent in times)
        return time.perf_counter(), time.process_time(), engine_cpu


@contextmanager
def watched(model: Any, result: Result) -> Iterator[None]:
    """Time the model's parts and count what its encoder sees, and what it all needs."""
    import torch

    cost = Cost(model.config, model.dtype.itemsize) if model.config.model_type in COUNTED else None
    began: dict[str, float] = {}
    split, work = result.split, result.work

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def before_vision(*_: Any) -> None:
        began["vision"] = now()

    def after_vision(_: Any, _args: Any, kwargs: Any, _output: Any) -> None:
        split["vision"] += now() - began["vision"]
        patches = kwargs["grid_thw"].prod(-1).tolist()
        result.encoded += len(patches)
        if cost:
            work["vision"] += cost.vision_flops(patches)

    def before_text(_: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] > 1:
            began["prefill"] = now() - split["vision"]

    def after_text(_: Any, _args: Any, kwargs: Any, output: Any) -> None:
        rows, new = kwargs["input_ids"].shape
        if new > 1:
            split["prefill"] += now() - split["vision"] - began["prefill"]
            if cost:
                past = int(output.past_key_values.get_seq_length()) - new
                work["prefill"] += cost.text_flops(rows, new, past)

    def generate(**inputs: Any) -> Any:
        began["generate"] = now() - split["vision"] - split["prefill"]
        output = untimed(**inputs)
        split["generate"] += now() - split["vision"] - split["prefill"] - began["generate"]
        tokens, asked = getattr(output, "sequences", output), inputs["input_ids"].shape[1]
        if cost:  # the first token comes out of the prefill
            lengths = range(asked + 1, tokens.shape[1])
            work["generate"] += sum(cost.step_bytes(len(tokens), length) for length in lengths)
        return output

    untimed, model.generate = model.generate, generate
    visual = getattr(model, "model", model).visual
    hooks = [
        visual.register_forward_pre_hook(before_vision),
        visual.register_forward_hook(after_vision, with_kwargs=True),
        model.register_forward_pre_hook(before_text, with_kwargs=True),
        model.register_forward_hook(after_text, with_kwargs=True),
    ]
    try:
        yield
    finally:
        model.generate = untimed
        for hook in hooks:
            hook.remove()
