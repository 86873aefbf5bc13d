"""The vLLM backend: its asynchronous engine, in this process's care.

Many threads ask. Each renders its own prompt and preprocesses its own pictures, on one of several
renderers, and hands them to an event loop that does nothing but pass requests and answers on; the
engine steps in processes of its own, one or more a GPU. A pair's second stage comes right after its
first, while the caches still hold its images and their prefix.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import hashlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from itertools import count
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from chronoprep.config import VLMSettings
from chronoprep.data import GREEDY, Chat, Completion, Picture, Sampling
from chronoprep.errors import BackendError, PairError, ToolError
from chronoprep.vlm.choice import Spread
from chronoprep.vlm.likelihood import likelihood
from chronoprep.vlm.messages import kept, messages
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
from vllm.renderers import ChatParams  # noqa: E402
from vllm.renderers.registry import renderer_from_config  # noqa: E402
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.utils.mistral import is_mistral_tokenizer  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402

# Renderers at once: a GPU answers some ten pairs a second, and a picture takes one a tenth of one.
_RENDERERS = 8
# Gigabytes in which a renderer keeps what it made of pictures until their second stage.
_KEPT_GB = 2
_CLOSE_SECONDS = 10.0
# Seconds that vLLM has to see by itself that its engine ended while it started.
_NOTICE_SECONDS = 10.0
_BLINK = 0.2
_CLOSED = "vLLM was closed."
_REFUSED = (
    "[vlm.vllm] in chronoprep.toml takes max_model_len; --max-resolution makes images fewer tokens."
)
_KEPT = "What was labelled so far is kept; run it again to go on."


def _started(options: Any) -> Any:
    """vLLM's engine, once it runs. It starts in a thread of its own: a signal, or an engine that
    ends meanwhile, would be waited out by vLLM for ten minutes, or be swallowed.

    Raises:
        Exception: Whatever vLLM has; or the engine's process has ended.
    """
    begun: Future[Any] = Future()

    def start() -> None:
        try:
            usage = UsageContext.LLM_CLASS
            begun.set_result(AsyncLLM.from_engine_args(options, usage_context=usage))
        except BaseException as error:
            begun.set_exception(error)

    before = set(active_children())
    threading.Thread(target=start, name="chronoprep-vllm-start", daemon=True).start()
    children: set[BaseProcess] = set()
    ended = None
    try:
        while not wait([begun], timeout=_BLINK).done:
            children |= set(active_children()) - before
            if all(child.is_alive() for child in children):
                continue
            ended = ended or time.monotonic()
            if time.monotonic() - ended > _NOTICE_SECONDS:
                codes = {child.name: child.exitcode for child in children}
                raise RuntimeError(f"its process ended while it started: {codes}")
        return begun.result()
    except BaseException:
        for child in set(active_children()) - before:
            child.kill()
        raise


class VLLMVLM:
    """A checkpoint in a local folder, run by vLLM; many threads may ask at the same time.

    Args:
        settings: Their options of vLLM win over those made here.
        folder: Its files, in Hugging Face form.
        dtype: Of its weights, by torch's name; "auto" for the engine's own choice.
        gpus: How it lies on them.
        in_flight: Chats that are asked about at the same time.

    Attributes:
        engine: vLLM's own.

    Raises:
        BackendError: When the engine does not start.
    """

    def __init__(
        self, settings: VLMSettings, folder: Path, dtype: str, gpus: Spread, in_flight: int
    ) -> None:
        self._limit = settings.token_limit
        self._thinking = bool(settings.thinking_tokens)
        # Without GPUs the engine computes on the same cores, and one renderer is enough.
        renderers = min(_RENDERERS, os.cpu_count() or 1) if gpus.here else 1
        arguments: dict[str, Any] = {
            "dtype": dtype,
            "tensor_parallel_size": gpus.tensor,
            "data_parallel_size": gpus.data,
            # The other half is being prepared or waits: a place that falls free is taken at once.
            "max_num_seqs": max(in_flight // gpus.data // 2, 1),
            "max_model_len": -1,  # what fits: a checkpoint's own 256k tokens may ask for too much
            "limit_mm_per_prompt": {"image": 2, "video": 0},
            "disable_log_stats": True,
        }
        if renderers > 1:
            # As for a server with so many front ends: pictures are kept by whoever made them.
            arguments |= {"_api_process_count": renderers, "mm_processor_cache_gb": _KEPT_GB}
        try:
            options = vllm.AsyncEngineArgs(str(folder), **(arguments | settings.vllm))
            self.engine = _started(options)
            more = [_renderer(self.engine.vllm_config, i) for i in range(1, renderers)]
        except Exception as error:  # whatever a broken file or too little memory makes it raise
            raise BackendError(
                f"{folder}: vLLM does not start: {_reason(error)}",
                hint="[vlm.vllm] in chronoprep.toml takes its options, gpu_memory_utilization for "
                "one; --backend transformers may run what vLLM can't.",
            ) from error
        # A renderer is not safe in threads; each asks for it by its lock.
        self._renderers = [(threading.Lock(), each) for each in (self.engine.renderer, *more)]
        self._chat = ChatParams(
            chat_template_kwargs={
                "add_generation_prompt": True,
                "continue_final_message": False,
                "tools": None,
                "tokenize": is_mistral_tokenizer(self.engine.renderer.tokenizer),
                # Told either way: what a template makes of silence differs between models.
                "enable_thinking": self._thinking,
            }
        )
        self._part = kept(_part)
        self._numbers = count()
        self._lock = threading.Lock()
        self._problem: BackendError | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="chronoprep-vllm", daemon=True
        )
        self._thread.start()

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling = GREEDY
    ) -> list[Completion | PairError]:
        """Answer chats, all at the same time; a chat that vLLM refuses is its own error.

        Raises:
            BackendError: When the engine fails; also once closed.
        """
        held = {}
        if sampling.schema is not None:
            held = {"structured_outputs": StructuredOutputsParams(json=sampling.schema)}
        params = vllm.SamplingParams(
            max_tokens=self._limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            logprobs=0,  # of the token that is picked, and of no others
            output_kind=RequestOutputKind.FINAL_ONLY,
            **held,
        )
        asked = [self._ask(chat, params) for chat in chats]
        return [self._answer(question) for question in asked]

    def _ask(self, chat: Chat, params: vllm.SamplingParams) -> Future[Any] | PairError:
        """Render a chat and send it off: its answer to come, or why it can't be asked."""
        said = messages(chat, self._part)
        # Whoever saw a pair's pictures in stage 1 still has them in stage 2.
        pictures = [part["uuid"] for turn in said for part in turn["content"] if "uuid" in part]
        lock, renderer = self._renderers[hash(tuple(pictures)) % len(self._renderers)]
        with lock:  # also while it is sent off: the engine must see pictures in the same order
            if self._problem is not None:
                raise self._problem
            tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
            try:
                _, (prompt,) = renderer.render_chat([said], self._chat, tokens)
            except (VLLMClientError, ValueError, TypeError, LookupError) as error:
                return _refused(error)
            return asyncio.run_coroutine_threadsafe(self._finished(prompt, params), self._loop)

    async def _finished(self, prompt: Any, params: vllm.SamplingParams) -> Any:
        """What the engine makes of a prompt."""
        answers = self.engine.generate(prompt, params, str(next(self._numbers)))
        return [answer async for answer in answers][-1].outputs[0]

    def _answer(self, question: Future[Any] | PairError) -> Completion | PairError:
        if isinstance(question, PairError):
            return question
        try:
            return _completion(question.result(), self._thinking)
        except (VLLMClientError, ValueError) as error:  # too long, …
            return _refused(error)
        except CancelledError:
            raise self._problem or BackendError(_CLOSED, hint=_KEPT) from None
        except Exception as error:  # vLLM's own and torch's
            problem = BackendError(
                f"vLLM failed: {_reason(error)}",
                hint="Lower --concurrency or --max-resolution; what was labelled so far is kept.",
            )
            self._problem = self._problem or problem
            raise problem from error

    def close(self) -> None:
        """End what is under way and give the memory back; a second time does nothing."""
        with self._lock:
            if self._loop.is_closed():
                return
            self._problem = self._problem or BackendError(_CLOSED, hint=_KEPT)
            for lock, _ in self._renderers:  # those who ask now are through; others see the problem
                with lock:
                    pass
            with suppress(Exception):  # of an engine that is dead
                asyncio.run_coroutine_threadsafe(_cancel(), self._loop).result(_CLOSE_SECONDS)
            with suppress(Exception):
                self.engine.shutdown(timeout=0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._renderers = [(lock, None) for lock, _ in self._renderers]
            del self.engine
        gc.collect()


def _renderer(config: Any, rank: int) -> Any:
    """A further renderer, as another front end of a server has it."""
    config, parallel = copy.copy(config), copy.copy(config.parallel_config)
    parallel._api_process_rank = rank
    config.parallel_config = parallel
    return renderer_from_config(config)


async def _cancel() -> None:
    """End all that the loop has under way."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_CLOSE_SECONDS / 2) if tasks else None


def _refused(error: Exception) -> ToolError:
    """The error of a chat that is too long, has an aspect ratio that the processor refuses, …"""
    return ToolError(f"vLLM refuses it: {_reason(error)}", hint=_REFUSED)


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


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
