"""The vLLM backend: the offline engine, in this process's care.

Many threads ask, one thread feeds the engine and steps it: requests join the running batch as they
come, and a pair's second stage comes right after its first, while the engine's caches still hold
its images and their prefix.
"""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronoprep import memory
from chronoprep.data import GREEDY, Chat, Completion, Picture, Sampling
from chronoprep.errors import BackendError, PairError, ToolError
from chronoprep.vlm.likelihood import likelihood
from chronoprep.vlm.messages import kept, messages
from chronoprep.vlm.registry import Model
from chronoprep.vlm.thoughts import broken_off, without_thoughts

# Read when vLLM is imported: its news would go to stdout, where --json goes; and it phones home.
for _name, _value in {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)

import vllm  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402

_AT_ONCE = 16  # requests to prepare between two looks at what the engine has finished
_CLOSED = "vLLM was closed."
_REFUSED = (
    "[vlm.vllm] in chronoprep.toml takes max_model_len; --max-resolution makes images fewer tokens."
)
_KEPT = "What was labelled so far is kept; run it again to go on."


@dataclass(frozen=True)
class _Question:
    """A chat on its way through the engine, and where its answer goes."""

    messages: list[dict[str, Any]]
    params: vllm.SamplingParams
    answer: Future[Completion | PairError] = field(default_factory=Future)


class VLLMVLM:
    """A checkpoint in a local folder, run by vLLM; many threads may ask at the same time.

    Args:
        found: The model, whose settings bind; its options of vLLM win over those made here.
        folder: Its files, in Hugging Face form.

    Raises:
        BackendError: When the engine does not start.
    """

    def __init__(self, found: Model, folder: Path) -> None:
        self._limit = found.settings.token_limit
        self._thinking = bool(found.settings.thinking_tokens)
        arguments: dict[str, Any] = {
            "dtype": found.dtype,
            "tensor_parallel_size": _gpus(found.memory_needed or 0),
            # The other half is being prepared or waits: a place that falls free is taken at once.
            "max_num_seqs": max(found.in_flight // 2, 1),
            "max_model_len": -1,  # what fits: a checkpoint's own 256k tokens may ask for too much
            "limit_mm_per_prompt": {"image": 2, "video": 0},
        }
        try:
            self.llm = vllm.LLM(str(folder), **(arguments | found.settings.vllm))
        except Exception as error:  # whatever a broken file or too little memory makes it raise
            raise BackendError(
                f"{folder}: vLLM does not start: {_reason(error)}",
                hint="[vlm.vllm] in chronoprep.toml takes its options, gpu_memory_utilization for "
                "one; --backend transformers may run what vLLM can't.",
            ) from error
        self._part = kept(_part)
        self._lock = threading.Lock()
        self._closed = False
        self._inbox: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._engine = threading.Thread(target=self._run, name="chronoprep-vllm", daemon=True)
        self._engine.start()

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling = GREEDY
    ) -> list[Completion | PairError]:
        """Answer chats, all at the same time; a chat that vLLM refuses is its own error.

        Raises:
            BackendError: When the engine fails; also once closed.
        """
        held = None
        if sampling.schema is not None:
            held = vllm.sampling_params.StructuredOutputsParams(json=sampling.schema)
        questions = [
            _Question(
                messages(chat, self._part),
                vllm.SamplingParams(
                    max_tokens=self._limit,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=sampling.seed,
                    logprobs=0,  # of the token that is picked, and of no others
                    **({} if held is None else {"structured_outputs": held}),
                ),
            )
            for chat in chats
        ]
        with self._lock:
            if self._closed:
                raise BackendError(_CLOSED, hint=_KEPT)
            for question in questions:
                self._inbox.put(question)
        return [question.answer.result() for question in questions]

    def close(self) -> None:
        """End what is under way and give the memory back; a second time does nothing."""
        with self._lock:
            if not self._closed:
                self._inbox.put(None)
            self._closed = True
        self._engine.join()

    def _run(self) -> None:
        """Feed and step the engine until it is closed or fails."""
        under_way: dict[str, _Question] = {}
        problem = BackendError(_CLOSED, hint=_KEPT)
        try:
            while True:
                for _ in range(max(min(self._inbox.qsize(), _AT_ONCE), not under_way)):
                    question = self._inbox.get()
                    if question is None:
                        return
                    under_way[""] = question  # where it is told if the engine dies over it
                    self._begin(question, under_way)
                    del under_way[""]
                for output in self.llm.llm_engine.step() if under_way else ():
                    if output.finished:
                        completion = _completion(output.outputs[0], self._thinking)
                        under_way.pop(_number(output.request_id)).answer.set_result(completion)
        except Exception as error:  # vLLM's own and torch's
            problem = BackendError(
                f"vLLM failed: {_reason(error)}",
                hint="Lower --concurrency or --max-resolution; what was labelled so far is kept.",
            )
        finally:
            with self._lock:
                self._closed = True
            with suppress(Exception):  # of an engine that is dead
                self.llm.llm_engine.engine_core.shutdown()
            del self.llm
            gc.collect()
            waiting = [self._inbox.get() for _ in range(self._inbox.qsize())]
            for question in (*under_way.values(), *waiting):
                if question is not None:
                    question.answer.set_exception(problem)

    def _begin(self, question: _Question, under_way: dict[str, _Question]) -> None:
        """Hand a question to the engine, prompt and images prepared."""
        try:
            (number,) = self.llm.enqueue_chat(
                [question.messages],
                question.params,
                use_tqdm=False,
                # Told either way: what a template makes of silence differs between models.
                chat_template_kwargs={"enable_thinking": self._thinking},
            )
        except (VLLMClientError, ValueError, TypeError, LookupError) as error:
            # Too long, an aspect ratio that the processor refuses, …
            question.answer.set_result(
                ToolError(f"vLLM refuses it: {_reason(error)}", hint=_REFUSED)
            )
        else:
            under_way[_number(number)] = question


def _gpus(needed: int) -> int:
    """How many GPUs a model is spread over: no more than it takes, and a power of two."""
    sizes, count = memory.of_gpus(), 1
    while 2 * count <= len(sizes) and sum(sizes[:count]) < needed:
        count *= 2
    return count


def _part(picture: Picture) -> dict[str, Any]:
    image = picture.pixels
    # The name under which vLLM caches it; without one it hashes the pixels itself, in the engine's
    # thread and for each stage again.
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(picture.jpeg or image.tobytes())
    return {"type": "image_pil", "image_pil": image, "uuid": digest.hexdigest()}


def _completion(output: vllm.CompletionOutput, thinking: bool) -> Completion:
    truncated = broken_off(output.finish_reason)
    # Cut before it ended, a thought that the template began looks like an answer.
    text, tokens = without_thoughts(output.text, begun=thinking and truncated), output.token_ids
    chosen = [step.get(token) for token, step in zip(tokens, output.logprobs or (), strict=False)]
    steps = [(one.decoded_token or "", float(one.logprob)) for one in chosen if one is not None]
    return Completion(text, len(tokens), truncated, likelihood(steps, text))


def _number(request: str) -> str:
    """What both forms of a request's name share: vLLM adds random letters to its own."""
    return request.partition("-")[0]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
