"""Images at web addresses: each is fetched once and kept.

A leaf: imports the HTTP client at its top.
"""

from __future__ import annotations

import os
import uuid
from functools import lru_cache
from pathlib import Path

import httpx2
from anyio import fail_after
from anyio.from_thread import start_blocking_portal

from chronoprep import digest
from chronoprep.data import Remote
from chronoprep.errors import BackendError, PairError
from chronoprep.files import cache
from chronoprep.images.decode import is_image
from chronoprep.images.reading import reason
from chronoprep.images.sniffing import sniff

_TIMEOUT = 30.0  # seconds to connect, and without a byte
_DEADLINE = 600.0  # seconds of one download
_MOST = 1 << 28  # bytes of one download


def downloaded(ref: Remote) -> Path:
    """The file of a web address.

    Raises:
        PairError: It can't be fetched, or is no image.
        BackendError: It can't be kept.
    """
    name = digest.of_text(ref.url, 16)
    path = cache() / "urls" / name[:2] / name
    if os.path.isfile(path):  # noqa: PTH113 - False where Path's may raise
        return path
    data = _fetched(ref.url)
    temporary = path.with_name(f".{name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BackendError(
            f"{path}: can't keep a download: {error.strerror or error}.",
            hint="Free some space, or set XDG_CACHE_HOME to a folder that can be written.",
        ) from None
    return path


def _fetched(url: str) -> bytes:
    """The image at a web address. What is cut off or no image is refused, since what is kept is
    never asked for again."""
    try:
        # A loop in a thread of its own: the caller may run one.
        with start_blocking_portal() as portal:
            data = portal.call(_fetch, url)
    except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        late = isinstance(error, TimeoutError) and f"not done after {_DEADLINE:.0f} seconds"
        raise PairError(
            f"{url}: can't download it: {late or reason(error)}.",
            hint="Check the address, and run it again to try again.",
        ) from None
    if not is_image(data, url):
        what, hint = sniff(data)
        raise PairError(f"{url}: {what}.", hint=hint)
    return data


async def _fetch(url: str) -> bytes:
    with fail_after(_DEADLINE):
        async with (
            httpx2.AsyncClient(
                verify=_tls(),
                timeout=_TIMEOUT,
                follow_redirects=True,
                headers={"User-Agent": "chronoprep", "Accept-Encoding": "identity"},
            ) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            data = bytearray()
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > _MOST:
                    raise PairError(
                        f"{url}: larger than {_MOST >> 20} MiB.", hint="Remove the pair."
                    )
            return bytes(data)


# Loading the machine's certificates takes longer than many a download.
_tls = lru_cache(maxsize=1)(httpx2.create_ssl_context)
