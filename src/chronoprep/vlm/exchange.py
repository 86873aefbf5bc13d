"""One exchange with a server: bounded in time and in size, and with no other host than its own.

What a request holds, pictures above all, goes where it was addressed to: a redirect is followed
within the same server only. An answer is read up to a size and no further, packed or not.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import httpx2
from anyio import fail_after

CONNECT_SECONDS = 5.0
MOST_BYTES = 1_000_000
_REDIRECTS = 3  # a slash at the end, and https


class Said(NamedTuple):
    """What came back.

    Attributes:
        status: Of HTTP.
        body: Unpacked.
        elsewhere: With a redirect to another server: its address.
        after: Seconds that the server wants to be left alone; 0 where it does not say.
    """

    status: int
    body: bytes
    elsewhere: str = ""
    after: float = 0.0


class NoAnswerError(Exception):
    """Nothing came back that can be read, in the time that there was.

    Attributes:
        there: Whether a server is there, for it said something.
    """

    def __init__(self, reason: str, *, there: bool = False) -> None:
        super().__init__(reason)
        self.there = there


async def exchange(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    seconds: float,
    json: dict[str, Any] | None = None,
    most: int = MOST_BYTES,
) -> Said:
    """Ask a server.

    Args:
        seconds: The whole exchange may take so long, from the first look-up to the last byte.
        most: Bytes of an answer.

    Raises:
        NoAnswerError: Saying why.
    """
    try:
        with fail_after(seconds):
            for _ in range(_REDIRECTS):
                async with client.stream(method, url, json=json) as answer:
                    place = answer.headers.get("location") if answer.is_redirect else None
                    if place is None:
                        body = await _body(answer, most)
                        return Said(answer.status_code, body, after=_after(answer))
                    there = answer.url.join(place)
                    if not _same_server(answer.url, there):
                        return Said(answer.status_code, b"", str(there))
                    url = str(there.copy_with(userinfo=answer.url.userinfo))
            raise NoAnswerError("it redirects in circles")
    except (TimeoutError, httpx2.TimeoutException) as error:
        if isinstance(error, httpx2.ConnectTimeout):
            raise NoAnswerError(f"no connection within {CONNECT_SECONDS:g} s") from None
        raise NoAnswerError(f"no whole answer within {seconds:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise NoAnswerError(str(error) or type(error).__name__) from None


async def _body(answer: httpx2.Response, most: int) -> bytes:
    data = bytearray()
    async for chunk in answer.aiter_raw():
        data += chunk
        if len(data) > most:
            break
    packed = answer.headers.get("content-encoding", "identity").strip().lower()
    if packed in ("gzip", "x-gzip", "deflate") and len(data) <= most:
        try:
            data = bytearray(zlib.decompressobj(47).decompress(bytes(data), most + 1))
        except zlib.error as error:
            raise NoAnswerError(f"its answer can't be unpacked: {error}", there=True) from None
    elif packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise NoAnswerError(f"its answer is packed as {packed}, unasked", there=True)
    if len(data) > most:
        raise NoAnswerError(f"its answer is larger than {most / 1e6:g} MB", there=True)
    return bytes(data)


def _same_server(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether an address is of the same server: its host and port, or its host by https."""
    if one.host != other.host:
        return False
    if one.scheme == other.scheme:
        return one.port == other.port
    return (one.scheme, other.scheme, one.port, other.port) == ("http", "https", None, None)


def _after(answer: httpx2.Response) -> float:
    try:
        seconds = float(answer.headers.get("retry-after", 0))
    except ValueError:  # a date
        return 0.0
    return seconds if 0 < seconds <= 60 else 0.0
