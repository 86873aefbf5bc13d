"""The OpenAI-compatible backend: any server that answers /v1/chat/completions.

The client library retries, with back-off and Retry-After. All requests run in one event loop, so
that `close` ends them at once, whatever they wait for.
"""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

import openai
from anyio import CancelScope
from anyio.from_thread import start_blocking_portal

from chronoprep.config import VLMSettings
from chronoprep.data import GREEDY, Chat, Completion, Picture, Sampling
from chronoprep.errors import BackendError, PairError
from chronoprep.vlm.endpoint import (
    KEPT,
    PROBE_SECONDS,
    ServedModel,
    cause_of,
    client,
    quoted,
    refused,
    said,
    shown,
)
from chronoprep.vlm.messages import kept, messages
from chronoprep.vlm.thoughts import broken_off, without_thoughts

RETRIES = 5  # with back-off 12–16 s: a server that restarts is waited for, a dead one is not
PNG_PIXELS = 512 * 512
IMAGE_BYTES = 4 << 20  # servers bound their requests
# What these servers take beyond the protocol. Without it the checkpoint's own generation_config
# would apply, and change even greedy text.
_PLAIN = {"repetition_penalty": 1.0, "top_k": -1}
_PLAIN_SERVERS = ("vllm", "sglang")
# What some hosted models want in the place of max_tokens.
_OTHER_LIMIT = "max_completion_tokens"
_PAIRS_FAULT = (400, 413, 422)


class OpenAIVLM:
    """A model behind an OpenAI-compatible endpoint; many threads may ask at the same time.

    Args:
        settings: Their endpoint is its address; an answer's longest length and a request's
            deadline are there, too.
        model: What to ask for.
    """

    def __init__(self, settings: VLMSettings, model: ServedModel) -> None:
        endpoint = settings.endpoint or ""
        self.endpoint = shown(endpoint)
        self.max_new_tokens = settings.max_new_tokens
        self._model = model
        self._part = kept(_part)
        self._limit = "max_tokens"  # until the server asks for the other word
        self._client = client(openai.AsyncOpenAI, endpoint, settings.request_timeout, RETRIES)
        self._lock = threading.Lock()
        self._closed = False
        self._thread = start_blocking_portal("asyncio")
        self._loop = self._thread.__enter__()

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling = GREEDY
    ) -> list[Completion | PairError]:
        """Answer chats, all at the same time; a chat that the server refuses is its own error.

        Raises:
            BackendError: When the server can't be reached, has no such model, refuses the key, or
                answers nothing of use after retries; also once closed.
        """
        requests = [self._request(chat, sampling) for chat in chats]
        with self._lock:
            if self._closed:
                raise BackendError(f"{self.endpoint}: closed.")
            futures = [self._loop.start_task_soon(self._answer, request) for request in requests]
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise BackendError(f"{self.endpoint}: closed.") from None

    def close(self) -> None:
        """End what is under way; a second time does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call(self._end)
                self._thread.__exit__(None, None, None)

    async def _end(self) -> None:
        await self._loop.stop(cancel_remaining=True)
        with CancelScope(shield=True):
            await self._client.close()

    def _request(self, chat: Chat, sampling: Sampling) -> dict[str, Any]:
        drawn = {"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {}
        return {
            "model": self._model.id,
            "messages": messages(chat, self._part),
            "temperature": sampling.temperature,
            "extra_body": _PLAIN if self._model.server in _PLAIN_SERVERS else None,
            **drawn,
        }

    async def _answer(self, request: dict[str, Any]) -> Completion | PairError:
        try:
            for attempt in range(RETRIES + 1):
                await asyncio.sleep(0.5 * attempt)
                answer = await self._ask(self._client, request)
                if answer is not None:
                    return answer
            problem = "its answers are no chat completions"
        except openai.APIStatusError as error:
            if error.status_code in _PAIRS_FAULT:
                return PairError(f"the server refuses it: {said(error)}")
            if error.status_code < 500:
                raise refused(self.endpoint, error) from None
            problem = said(error)
        except openai.APITimeoutError:
            problem = "no answer in time (see --request-timeout)"
        except openai.APIConnectionError as error:
            problem = f"the connection broke ({cause_of(error)})"
        # The pair's fault or the server's? A server that answers a plain question is well.
        if await self._is_well():
            return PairError(f"the server fails on it: {problem}")
        raise BackendError(f"{self.endpoint}: the server fails: {problem}", hint=KEPT)

    async def _is_well(self) -> bool:
        client = self._client.with_options(max_retries=1, timeout=PROBE_SECONDS)
        hello = [{"role": "user", "content": "Hello"}]
        request = {"model": self._model.id, "messages": hello}
        try:
            return await self._ask(client, request, 1) is not None
        except openai.OpenAIError:
            return False

    async def _ask(
        self, client: openai.AsyncOpenAI, request: dict[str, Any], most: int | None = None
    ) -> Completion | PairError | None:
        """One answer; None where it has not the protocol's form, which the library lets pass."""
        limit = self._limit
        try:
            bounded = request | {limit: most or self.max_new_tokens}
            reply: Any = await client.chat.completions.create(**bounded)
            choice = reply.choices[0]
            content, refusal = choice.message.content, getattr(choice.message, "refusal", None)
        except (
            AttributeError,
            TypeError,
            LookupError,
            ValueError,
            openai.APIResponseValidationError,
        ):
            return None
        except openai.BadRequestError as error:
            # "Unsupported parameter: …"; vLLM names both words where the number is too large.
            words = said(error)
            if limit == _OTHER_LIMIT or not ("nsupported" in words and _OTHER_LIMIT in words):
                raise
            self._limit = _OTHER_LIMIT
            return await self._ask(client, request, most)
        if not isinstance(content, str | None):
            return None
        if choice.finish_reason == "content_filter":
            return PairError("the server's content filter refuses it")
        if refusal:
            return PairError(f"the model refuses it: {quoted(refusal)}")
        truncated = broken_off(getattr(choice, "finish_reason", None))
        tokens = getattr(reply.usage, "completion_tokens", None)
        if not isinstance(tokens, int):
            tokens = self.max_new_tokens if truncated else 0
        return Completion(without_thoughts(content or ""), tokens, truncated)


def _part(picture: Picture) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(picture)}}


def data_url(picture: Picture) -> str:
    """A picture as a data URL of at most `IMAGE_BYTES`: exact as its own JPEG file or, up to
    `PNG_PIXELS`, as PNG; else as a new JPEG.

    A PNG of a photo takes 20 times as long to write, 6 times as long to read, and 5 times the room.
    """
    image = picture.pixels
    if picture.jpeg is not None and len(picture.jpeg) <= IMAGE_BYTES:
        return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
    buffer = io.BytesIO()
    if image.width * image.height <= PNG_PIXELS:
        kind = "png"
        image.save(buffer, "PNG", compress_level=1)
    else:
        kind = "jpeg"
        for quality in (95, 85, 75, 50):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, subsampling=0)
            if buffer.tell() <= IMAGE_BYTES:
                break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getbuffer()).decode()}"
