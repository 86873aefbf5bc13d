"""The OpenAI-compatible backend: any server that answers /v1/chat/completions.

The client library retries, with back-off and Retry-After. All requests run in one event loop, so
that `close` ends them at once, whatever they wait for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai
from anyio.from_thread import start_blocking_portal

from chronoprep.data import FILE, GREEDY, Chat, Completion, Sampling
from chronoprep.errors import BackendError, PairError
from chronoprep.vlm.endpoint import (
    KEPT,
    PROBE_SECONDS,
    Served,
    cause_of,
    client,
    quoted,
    refused,
    said,
    shown,
)
from chronoprep.vlm.messages import OfImages, messages
from chronoprep.vlm.thoughts import broken_off, without_thoughts

if TYPE_CHECKING:
    from PIL.Image import Image

RETRIES = 5  # with back-off 12–16 s: a server that restarts is waited for, a dead one is not
PNG_PIXELS = 512 * 512
IMAGE_BYTES = 4 << 20  # servers bound their requests
# What these servers take beyond the protocol. Without it the checkpoint's own generation_config
# would apply, and change even greedy text.
_PLAIN = {"repetition_penalty": 1.0, "top_k": -1}
_PLAIN_SERVERS = ("vllm", "sglang")
# Who keeps a picture under the name that it came with, for requests that then only name it.
_RECALLING_SERVERS = ("vllm",)
# What some hosted models want in the place of max_tokens.
_OTHER_LIMIT = "max_completion_tokens"
_PAIRS_FAULT = (400, 413, 422)


class _Picture:
    """An image on its way to a server.

    Attributes:
        url: A data URL.
        name: Of its content.
        sent: Whether the server has answered a request that brought it.
    """

    def __init__(self, image: Image) -> None:
        self.url = data_url(image)
        self.name = hashlib.blake2b(self.url.encode(), digest_size=16).hexdigest()
        self.sent = False


@dataclass(frozen=True, slots=True)
class _Question:
    """A chat on its way to a server.

    Attributes:
        request: All of it.
        pictures: Those that the request brings.
        short: The request with names for pictures, where the server may recall them.
    """

    request: dict[str, Any]
    pictures: list[_Picture]
    short: dict[str, Any] | None


class OpenAIVLM:
    """A model behind an OpenAI-compatible endpoint; many threads may ask at the same time.

    Args:
        endpoint: Its address, such as `http://localhost:8000/v1`.
        model: What to ask for.
        max_new_tokens: Longest answer, in tokens.
        timeout: Seconds that one request may take.
    """

    def __init__(
        self, endpoint: str, model: Served, *, max_new_tokens: int, timeout: float
    ) -> None:
        self.endpoint = shown(endpoint)
        self.max_new_tokens = max_new_tokens
        self._model = model
        self._pictures = OfImages(_Picture)
        # Whether it recalls pictures by name; None as long as that is not known.
        self._recalls: bool | None = None if model.server in _RECALLING_SERVERS else False
        self._limit = "max_tokens"  # until the server asks for the other word
        self._client = client(openai.AsyncOpenAI, endpoint, timeout, RETRIES)
        self._lock = threading.Lock()
        self._under_way: set[Future[Completion | PairError]] = set()
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
        questions = [self._question(chat, sampling) for chat in chats]
        with self._lock:
            if self._closed:
                raise BackendError(f"{self.endpoint}: closed.")
            futures = [self._loop.start_task_soon(self._answer, question) for question in questions]
            self._under_way.update(futures)
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise BackendError(f"{self.endpoint}: closed.") from None
        finally:
            with self._lock:
                self._under_way.difference_update(futures)

    def close(self) -> None:
        """End what is under way; a second time does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        self._loop.call(self._client.close)
        self._thread.__exit__(None, None, None)

    def _question(self, chat: Chat, sampling: Sampling) -> _Question:
        drawn = {"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {}
        common = {
            "model": self._model.id,
            "temperature": sampling.temperature,
            "extra_body": _PLAIN if self._model.server in _PLAIN_SERVERS else None,
            **drawn,
        }
        pictures: list[_Picture] = []
        recalls = self._recalls is not False

        def whole(image: Image) -> dict[str, Any]:
            pictures.append(self._pictures(image))
            return _part({"url": pictures[-1].url}, pictures[-1].name if recalls else None)

        def named(image: Image) -> dict[str, Any]:
            return _part(None, self._pictures(image).name)

        request = common | {"messages": messages(chat, whole)}
        if not (recalls and pictures and all(picture.sent for picture in pictures)):
            return _Question(request, pictures, None)
        return _Question(request, pictures, common | {"messages": messages(chat, named)})

    async def _answer(self, question: _Question) -> Completion | PairError:
        try:
            if question.short is not None:
                answer = await self._recalled(question.short)
                if answer is not None:
                    return answer
            for attempt in range(RETRIES + 1):
                await asyncio.sleep(0.5 * attempt)
                answer = await self._ask(self._client, question.request)
                if answer is not None:
                    for picture in question.pictures:
                        picture.sent = True
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

    async def _recalled(self, request: dict[str, Any]) -> Completion | PairError | None:
        """The answer to a request that names its pictures; None where the server lacks them."""
        try:
            answer = await self._ask(self._client, request)
        except openai.APIStatusError:
            if self._recalls is None:  # never yet: it knows nothing of names
                self._recalls = False
            return None
        if answer is not None:
            self._recalls = True
        return answer

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


def _part(url: dict[str, str] | None, name: str | None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url} | ({"uuid": name} if name else {})


def data_url(image: Image) -> str:
    """An image as a data URL of at most `IMAGE_BYTES`: exact as its own JPEG file or, up to
    `PNG_PIXELS`, as PNG; else as a new JPEG.

    A PNG of a photo takes 20 times as long to write, 6 times as long to read, and 5 times the room.
    """
    file = getattr(image, FILE, None)
    if file is not None and len(file) <= IMAGE_BYTES:
        return f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"
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
