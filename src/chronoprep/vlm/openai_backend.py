"""The OpenAI-compatible backend: any server that answers /v1/chat/completions.

All requests run in one event loop, so that `close` ends them at once, whatever they wait for. Until
a first pair is answered they go one at a time: what a server refuses of every request, it refuses
once, and what ails it shows before many have asked.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from anyio import CancelScope
from anyio.from_thread import start_blocking_portal

from chronoprep.config import VLMSettings
from chronoprep.data import GREEDY, Chat, Completion, Picture, Sampling, Served
from chronoprep.errors import BackendError, PairError, ToolError, cause
from chronoprep.vlm import endpoint as server
from chronoprep.vlm.answers import Reply, named_in, read, words_of
from chronoprep.vlm.endpoint import KEPT, PROBE_SECONDS, ServedModel, quoted
from chronoprep.vlm.exchange import MOST_BYTES, NoAnswerError, Said, exchange
from chronoprep.vlm.likelihood import likelihood
from chronoprep.vlm.messages import kept, messages

RETRIES = 5  # with back-off 15 s: a server that restarts is waited for, a dead one is not
BACK_OFF = 0.5  # seconds, doubled each time
PNG_PIXELS = 512 * 512
IMAGE_BYTES = 4 << 20  # servers bound their requests
TOKEN_BYTES = 500  # that an answer takes for each of its tokens, with their probabilities
# What these servers take beyond the protocol. Without it the checkpoint's own generation_config
# would apply, and change even greedy text.
_PLAIN = {"repetition_penalty": 1.0, "top_k": -1}
_PLAIN_SERVERS = ("vllm", "sglang")
# The words for the longest answer: the usual one, and what some hosted models want in its place.
_LIMITS = ("max_tokens", "max_completion_tokens")
# What a request can do without, from the least to the dearest.
_DISPENSABLE = (
    *(
        "logprobs",
        "response_format",
        "chat_template_kwargs",
        "seed",
        "top_k",
        "repetition_penalty",
        "top_p",
    ),
    *("reasoning_effort", "temperature", *_LIMITS),
)
_UNSUPPORTED = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|permit|allow|forbidden|extra|deprecated|invalid"
    r"|not a valid|(must|should) be|cannot|can't|available|no such|accept|not implemented"
    r"|only the default",
    re.IGNORECASE,
)
# Here the number is at fault, and not the parameter.
_TOO_MUCH = re.compile(r"context|too (large|long|many)|exceed|at most|maximum", re.IGNORECASE)
_OTHER = "Another model may answer; or leave the pair out."
_PAIRS_FAULT = (400, 413, 422)
_TRY_AGAIN = (408, 409, 425, 429)


class _Trouble(NamedTuple):
    """Why there was no answer this time.

    Attributes:
        problem: For people.
        said: What came instead, if anything.
    """

    problem: str
    said: Said | None


class OpenAIVLM:
    """A model behind an OpenAI-compatible endpoint; many threads may ask at the same time.

    Args:
        settings: Their endpoint is its address; an answer's longest length and a request's
            deadline are there, too.
        model: What to ask for.
    """

    def __init__(self, settings: VLMSettings, model: ServedModel) -> None:
        self._given = settings.endpoint or ""
        self.endpoint = server.shown(self._given)
        self._url = server.url(self._given, "chat/completions")
        self._settings = settings
        self._model = model
        self._part = kept(_part)
        self._client = server.client(self._given)
        self._refused: set[str] = set()  # parameters that the server does not take
        self._answers = False  # whether a pair was answered
        self._first = asyncio.Lock()
        self._hopeless: set[str] = set()  # what was asked again in vain since the last answer
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
                raise BackendError(f"{self.endpoint}: closed.", hint=KEPT)
            futures = [self._loop.start_task_soon(self._answer, request) for request in requests]
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise BackendError(f"{self.endpoint}: closed.", hint=KEPT) from None

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
            await self._client.aclose()

    def _request(self, chat: Chat, sampling: Sampling) -> dict[str, Any]:
        settings = self._settings
        request: dict[str, Any] = {
            "model": self._model.id,
            "messages": messages(chat, self._part),
            "temperature": sampling.temperature,
            "logprobs": True,
        }
        if sampling.temperature:
            request |= {"top_p": sampling.top_p, "seed": sampling.seed}
        if sampling.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": json.loads(sampling.schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self._model.server in _PLAIN_SERVERS:
            request |= _PLAIN
        if settings.reasoning_effort is not None:
            request["reasoning_effort"] = settings.reasoning_effort
        if settings.thinking_tokens == 0:
            request["chat_template_kwargs"] = {"enable_thinking": False}
        return request | dict.fromkeys(_LIMITS, settings.token_limit)

    async def _answer(self, request: dict[str, Any]) -> Completion | PairError:
        if not self._answers:
            async with self._first:
                if not self._answers:
                    return await self._insist(request)
        return await self._insist(request)

    async def _insist(self, request: dict[str, Any]) -> Completion | PairError:
        """Ask, and again with back-off and what the server says of it."""
        for attempt in range(RETRIES + 1):
            answer = await self._ask(request)
            if not isinstance(answer, _Trouble):
                if isinstance(answer, Completion):
                    self._answers = True
                    self._hopeless.clear()
                return answer
            problem, said = answer
            if cause(problem) in self._hopeless:
                return ToolError(f"the server fails on it: {problem}", hint=server.remedy(problem))
            if attempt < RETRIES and said is not None:
                await asyncio.sleep(said.after or BACK_OFF * 2**attempt)
            elif attempt < RETRIES:
                await asyncio.sleep(BACK_OFF * attempt)  # time has passed already
        if said is not None and 400 <= said.status < 500:
            raise server.refused(self._given, said)
        # The pair's fault or the server's? A server that answers a plain question is well.
        if await self._is_well():
            self._hopeless.add(cause(problem))
            return ToolError(f"the server fails on it: {problem}", hint=server.remedy(problem))
        raise BackendError(
            f"{self.endpoint}: the server fails: {problem}", hint=server.remedy(problem) or KEPT
        )

    async def _is_well(self) -> bool:
        hello = [{"role": "user", "content": "Hello"}]
        request = {"model": self._model.id, "messages": hello, **dict.fromkeys(_LIMITS, 16)}
        seconds = min(PROBE_SECONDS, self._settings.request_timeout)
        for _ in range(2):
            if isinstance(await self._ask(request, seconds), Completion):
                return True
        return False

    async def _ask(
        self, request: dict[str, Any], seconds: float | None = None
    ) -> Completion | PairError | _Trouble:
        """One answer, without what the server does not take."""
        while True:
            sent = self._taken(request)
            try:
                said = await exchange(
                    self._client,
                    "POST",
                    self._url,
                    json=sent,
                    seconds=seconds or self._settings.request_timeout,
                    most=max(MOST_BYTES, TOKEN_BYTES * self._settings.token_limit),
                )
            except NoAnswerError as error:
                return _Trouble(quoted(error), None)
            reply = read(said.body) if said.status < 300 else Reply(error=words_of(said.body))
            status = said.status if said.status >= 300 else reply.status if reply.error else 200
            if status == 200 and (reply.text is not None or reply.refusal or reply.filtered):
                return self._completion(reply, next((sent[n] for n in _limits(sent)), 0))
            if said.elsewhere:
                raise server.refused(self._given, said)
            words = server.words(said.status, reply.error)
            if status == 200:
                start = said.body[:200].decode("utf-8", "replace")
                words = f"its answer is no chat completion: {quoted(start) or 'it is empty'}"
            elif self._drops(sent, said.body, reply.error):
                continue
            if status in _PAIRS_FAULT:
                return ToolError(f"the server refuses it: {words}", hint=server.remedy(words))
            if 300 <= status < 500 and status not in _TRY_AGAIN:
                raise server.refused(self._given, said._replace(status=status))
            return _Trouble(words, said._replace(status=status))

    def _taken(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request less what the server has refused, with one word for the limit."""
        sent = {name: value for name, value in request.items() if name not in self._refused}
        for spare in _limits(sent)[1:]:
            del sent[spare]
        return sent

    def _drops(self, sent: dict[str, Any], body: bytes, words: str) -> bool:
        """Whether an error is about a parameter that all requests can do without from now on."""
        named = named_in(body)
        if _TOO_MUCH.search(words) or not _UNSUPPORTED.search(words):
            return False
        for name in _DISPENSABLE:
            said = name in named or re.search(rf"(?<!\w){name}(?!\w)", words)
            if said and name in sent:
                self._refused.add(name)
                return True
        return False

    def _completion(self, reply: Reply, limit: int) -> Completion | PairError:
        text = reply.text or ""
        if reply.filtered:
            return PairError("the server's content filter refuses it", hint=_OTHER)
        if reply.refusal and not text:
            return PairError(quoted(reply.refusal), hint=_OTHER)
        tokens = reply.tokens if reply.tokens is not None else limit if reply.truncated else 0
        if reply.finish in ("length", "max_tokens") and 0 < tokens < limit and not reply.thought:
            prompt = f" and a prompt of {reply.prompt_tokens}" if reply.prompt_tokens else ""
            full = f"the server broke off after {tokens} of {limit} new tokens{prompt}: "
            full += "its context is full, or its own limit is lower"
            return ToolError(full, hint=server.remedy(full))
        served = Served(reply.model, reply.prompt_tokens, tuple(sorted(self._refused)))
        sure = likelihood(reply.steps, text)
        return Completion(text, tokens, reply.truncated, sure, served)


def _limits(request: dict[str, Any]) -> list[str]:
    return [name for name in _LIMITS if name in request]


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
