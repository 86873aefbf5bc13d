"""An OpenAI-compatible server: its address, its key, its models, and what it says when it fails.

The key comes from OPENAI_API_KEY alone. Neither it nor an address's password is in any message.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
from anyio.from_thread import start_blocking_portal

from chronoprep.errors import BackendError, ConfigError
from chronoprep.vlm.answers import json_of, words_of
from chronoprep.vlm.exchange import CONNECT_SECONDS, NoAnswerError, Said, exchange

PROBE_SECONDS = 10.0
KEPT = "What was labelled so far is kept; run it again to go on."
# What people copy from a server's handbook: where one of its functions is.
_FUNCTION = re.compile(
    r"/(chat/completions|completions|chat|responses|models|embeddings|messages)/?\Z|/api/generate/?\Z"
)
# Ollama's own functions, beside which lie those of the protocol.
_OLLAMA = re.compile(r"/api/(chat|generate|tags)/?\Z")
# What may be behind a server's words, in their order: the remedy for all pairs.
_REMEDIES = (
    (
        r"at most (1|one) image|limit.mm.per.prompt"
        r"|(one|single|multiple|many) images?\b.{0,80}(only|support|allow|prompt|request)",
        "A pair is two images in one request: let the server take two (vLLM: "
        "--limit-mm-per-prompt '{\"image\": 2}'), or choose another model.",
    ),
    (
        r"mmproj|not (a )?(multimodal|vision)|no vision|image_?(url|input)? .{0,40}not support"
        r"|not support.{0,40}(image|vision|multimodal)|(text|string).only",
        "The model that is served does not see images: serve a vision-language model (llama.cpp: "
        "with its --mmproj).",
    ),
    (
        r"context|too (long|large|many tokens)|maximum.{0,20}(length|tokens)|num_ctx|n_ctx",
        "Give the server more context (vLLM: --max-model-len, llama.cpp: -c, Ollama: num_ctx), or "
        "lower --max-resolution or --max-new-tokens.",
    ),
    (r"chat.?template", "Serve an instruction-tuned model, or give the server its chat template."),
    (r"model.{0,40}not.{0,10}(load|found|exist)", "Is --model what the server has loaded?"),
)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server offers.

    Attributes:
        id: What a request calls it.
        server: Who serves it ("vllm", "sglang", …), as far as it says so.
    """

    id: str
    server: str = ""

    @property
    def name(self) -> str:
        """The id, less the server's own folders."""
        return self.id.rstrip("/").rsplit("/", 1)[-1] if self.id[:1] in "/.~" else self.id

    @property
    def revision(self) -> str:
        """What tells it from others of its name: a digest of the folders. Weights don't show."""
        if self.name == self.id:
            return "served"
        whole = self.id.rstrip("/").encode("utf-8", "replace")
        return f"served-{hashlib.blake2b(whole, digest_size=6).hexdigest()}"


def shown(endpoint: str) -> str:
    """An address for a message, less the password and the keys that it may hold."""
    return re.sub(r"^(\w+://)?.*@", r"\1", endpoint.strip()).partition("?")[0]


def base_url(endpoint: str) -> str:
    """The address that paths are joined to; `/v1` if none is given.

    Any usual spelling does: without `http://`, with a slash or a function at its end, with a query.

    Raises:
        ConfigError: When it is no http(s) address.
    """
    given = endpoint.strip().strip("'\"")
    if given.count(":") > 1 and _is_ip(given):
        given = f"[{given}]"  # of IPv6, without a port
    if "://" not in given:
        given = f"{_scheme(given)}://{given.removeprefix('//')}"
    try:
        parts = urlsplit(given)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx2.URL(given)
    except (ValueError, httpx2.InvalidURL):  # half a bracket, a port that is no number
        whole = None
    if not whole or re.search(r"\s", given):
        raise ConfigError(
            f"--endpoint {shown(endpoint)!r} is no http(s) address.",
            hint="For example: --endpoint http://localhost:8000/v1",
        )
    # What a server listens on is no address to call; here it is this machine.
    host = re.sub(r"(^|@)0\.0\.0\.0(?=:|$)", r"\g<1>127.0.0.1", parts.netloc)
    host = host.replace("[::]", "[::1]")
    path = _FUNCTION.sub("", _OLLAMA.sub("", parts.path)).rstrip("/")
    return urlunsplit((parts.scheme, host, path or "/v1", "", ""))


def url(endpoint: str, function: str) -> str:
    """The address of one of its functions, with the query that the endpoint brought (Azure's)."""
    query = urlsplit(endpoint.strip().strip("'\"")).query
    return f"{base_url(endpoint)}/{function}{'?' if query else ''}{query}"


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _scheme(address: str) -> str:
    """How to call a server whose address does not say it: a name of the net without a port is one
    that wants https."""
    host, colon, _ = address.partition("/")[0].rpartition("@")[2].partition(":")
    local = colon or "." not in host or _is_ip(host) or host.endswith((".local", ".lan"))
    return "http" if local else "https"


def client(endpoint: str) -> httpx2.AsyncClient:
    """A client that sends the key.

    Raises:
        ConfigError: For an address, a key or a proxy that can't be used.
    """
    host, key = urlsplit(base_url(endpoint)).hostname or "", _key()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "OPENAI_API_KEY holds a character that is none of a key's.",
            hint="Keys are plain ASCII: copy it again, without quotes, dots or line breaks.",
        )
    headers = {"User-Agent": "chronoprep", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    if key and host.endswith(".azure.com"):
        headers["api-key"] = key
    try:
        return httpx2.AsyncClient(
            headers=headers,
            verify=_tls(),
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )
    except Exception as error:  # the HTTP library's own, of no common kind
        raise ConfigError(
            f"{shown(endpoint)}: no connection can be set up: {quoted(error)}",
            hint="Look at the address and at the environment's proxies: ALL_PROXY, HTTP_PROXY, "
            "HTTPS_PROXY. NO_PROXY names hosts that need none; a SOCKS proxy needs "
            "`pip install socksio`.",
        ) from None


# Loading the machine's certificates takes longer than many a request.
_tls = lru_cache(maxsize=1)(httpx2.create_ssl_context)


def list_models(endpoint: str) -> list[ServedModel] | None:
    """The models of a server; None when it keeps no list that can be read.

    Raises:
        ConfigError: For an address, a key or a proxy that can't be used.
        BackendError: When it does not answer, or refuses the key.
    """
    address = url(endpoint, "models")

    async def ask() -> Said:
        async with client(endpoint) as asked:
            try:
                return await exchange(asked, "GET", address, seconds=PROBE_SECONDS)
            except NoAnswerError as error:
                if error.there:
                    return Said(200, b"")
                raise

    try:
        with start_blocking_portal() as portal:  # the caller may run a loop
            said = portal.call(ask)
    except NoAnswerError as error:
        raise BackendError(
            f"{shown(endpoint)}: the server does not answer ({quoted(error)}).",
            hint="Is it running, and is this its address?",
        ) from None
    if said.status in (401, 403) or said.elsewhere:
        raise refused(endpoint, said)
    return _listed(json_of(said.body)) if said.status < 400 else None


def _listed(value: Any) -> list[ServedModel] | None:
    """The models of a list, in the forms that it has."""
    for key in ("data", "models"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            value = value[key]
    if not isinstance(value, list):
        return None
    found = []
    for model in value:
        fields = {"id": model} if isinstance(model, str) else model
        names = [fields.get(k) for k in ("id", "name", "model")] if isinstance(fields, dict) else []
        name = next((name for name in names if isinstance(name, str) and name), None)
        if name is not None:
            found.append(ServedModel(name, str(fields.get("owned_by")).lower()))
    return found if found or not value else None


def choose(offered: list[ServedModel] | None, endpoint: str, names: Sequence[str]) -> ServedModel:
    """The model to ask: the one that bears one of the names; without any, the only one there is.

    Raises:
        ConfigError: When there is none or several, listing what the server offers.
    """
    if offered is None:
        if names:
            return ServedModel(names[0])
        raise ConfigError(
            f"{shown(endpoint)}: the server does not list its models.", hint="Name one by --model."
        )
    bearers = [] if names else offered
    for name in names:
        bearers = bearers or [model for model in offered if model.id == name]
        bearers = bearers or [model for model in offered if model.name == name]
    if len({model.id for model in bearers}) == 1:
        return bearers[0]
    listed = ", ".join(model.id for model in (bearers or offered)[:10]) or "none"
    if names:
        what = f"{'serves several models called' if bearers else 'does not serve'} {names[0]}"
    else:
        what = "serves several models"
    raise ConfigError(f"{shown(endpoint)}: the server {what}.", hint=f"--model takes: {listed}")


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()


def refused(endpoint: str, reply: Said) -> BackendError:
    """The error of a server that will not answer anyone."""
    if reply.elsewhere:
        return BackendError(
            f"{shown(endpoint)}: the server sends on to {shown(reply.elsewhere)}.",
            hint="Images go to no other server than the one that is named: give --endpoint that "
            "address, if it is the right one.",
        )
    hints = {
        401: "Its key belongs in the environment variable OPENAI_API_KEY.",
        402: f"Does the account have credit? {KEPT}",
        403: "Its key belongs in the environment variable OPENAI_API_KEY.",
        404: "Is the address whole, as in http://localhost:8000/v1, and --model what it serves?",
        405: "Is the address whole, as in http://localhost:8000/v1?",
        429: f"Lower --concurrency, or wait for the quota. {KEPT}",
    }
    return BackendError(
        f"{shown(endpoint)}: the server refuses: {words(reply.status, words_of(reply.body))}",
        hint=hints.get(reply.status, KEPT),
    )


def words(status: int, said: str) -> str:
    """Status and the server's own words."""
    return f"HTTP {status}: {quoted(said) or 'it does not say why'}"


def remedy(said: str) -> str | None:
    """What helps against what a server has said, where that is known."""
    for pattern, hint in _REMEDIES:
        if re.search(pattern, said, re.IGNORECASE):
            return hint
    return None


def quoted(words: object) -> str:
    """Another's words in one short line, which any file takes and the key, if echoed, is not in."""
    text = str(words).encode("utf-8", "replace").decode()
    if len(_key()) > 5:  # not a local server's "x"
        text = text.replace(_key(), "***")
    return " ".join(text.split())[:300]
