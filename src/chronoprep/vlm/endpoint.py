"""An OpenAI-compatible server: its address, its key, its models, and what it says when it fails.

The key comes from OPENAI_API_KEY alone. Neither it nor an address's password is in any message.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import openai

from chronoprep.errors import BackendError, ConfigError

CONNECT_SECONDS = 5.0
PROBE_SECONDS = 10.0
KEPT = "What was labelled so far is kept; run it again to go on."

Client = TypeVar("Client", openai.OpenAI, openai.AsyncOpenAI)


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
    """An address for a message, less the password that it may hold."""
    return re.sub(r"^(\w+://)?.*@", r"\1", endpoint)


def base_url(endpoint: str) -> str:
    """The address that paths are joined to; `/v1` if none is given.

    Raises:
        ConfigError: When it is no http(s) address.
    """
    try:
        parts = urlsplit(endpoint)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half a bracket, a port that is no number
        whole = False
    if not whole:
        raise ConfigError(
            f"--endpoint {shown(endpoint)!r} is no http(s) address.",
            hint="For example: --endpoint http://localhost:8000/v1",
        )
    return endpoint.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def client(kind: type[Client], endpoint: str, timeout: float, retries: int) -> Client:
    """The client library's own.

    Raises:
        ConfigError: For an address, a key or a proxy that can't be used.
    """
    url, key = base_url(endpoint), _key() or "none"  # local servers want none
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "OPENAI_API_KEY holds a character that is none of a key's.",
            hint="Keys are plain ASCII: copy it again, without quotes, dots or line breaks.",
        )
    seconds = openai.Timeout(timeout, connect=CONNECT_SECONDS)
    try:
        return kind(base_url=url, api_key=key, timeout=seconds, max_retries=retries)
    except Exception as error:  # the HTTP library's own, of no common kind
        raise ConfigError(
            f"{shown(endpoint)}: no connection can be set up: {quoted(error)}",
            hint="Look at the address and at the environment's proxies: ALL_PROXY, HTTP_PROXY, "
            "HTTPS_PROXY. NO_PROXY names hosts that need none; a SOCKS proxy needs "
            "`pip install socksio`.",
        ) from None


def list_models(endpoint: str) -> list[ServedModel] | None:
    """The models of a server; None when it keeps no list.

    Raises:
        ConfigError: For an address, a key or a proxy that can't be used.
        BackendError: When it does not answer, or refuses the key.
    """
    with client(openai.OpenAI, endpoint, PROBE_SECONDS, 1) as asked:
        try:
            models = asked.models.list().data
            return [ServedModel(model.id, str(model.owned_by).lower()) for model in models]
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise refused(endpoint, error) from None
            return None
        except openai.APIConnectionError as error:
            raise BackendError(
                f"{shown(endpoint)}: the server does not answer ({cause_of(error)}).",
                hint="Is it running, and is this its address?",
            ) from None
        except (AttributeError, TypeError, ValueError):  # an answer of another form
            return None


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


def refused(endpoint: str, error: openai.APIStatusError) -> BackendError:
    hints = {
        401: "Its key belongs in the environment variable OPENAI_API_KEY.",
        403: "Its key belongs in the environment variable OPENAI_API_KEY.",
        404: "Is the address whole, as in http://localhost:8000/v1, and --model what it serves?",
        429: f"Lower --concurrency, or wait for the quota. {KEPT}",
    }
    return BackendError(
        f"{shown(endpoint)}: the server refuses: {said(error)}",
        hint=hints.get(error.status_code, KEPT),
    )


def said(error: openai.APIStatusError) -> str:
    """Status and the server's own words."""
    body = error.body
    words = body.get("message") if isinstance(body, dict) else body
    return f"HTTP {error.status_code}: {quoted(words or error.response.reason_phrase)}"


def cause_of(error: openai.APIConnectionError) -> str:
    """Why there was no answer."""
    cause = error.__cause__
    return quoted(cause or error) or type(cause).__name__


def quoted(words: object) -> str:
    """Another's words in one short line, which any file takes and the key, if echoed, is not in."""
    text = str(words).encode("utf-8", "replace").decode()
    if len(_key()) > 5:  # not a local server's "x"
        text = text.replace(_key(), "***")
    return " ".join(text.split())[:300]
