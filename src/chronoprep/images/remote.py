"""Object stores and whatever else fsspec knows: what lies there, its bytes, and how it looks.

Keys and endpoints are the store's own business: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`~/.aws/…`, `GOOGLE_APPLICATION_CREDENTIALS`, …
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from chronoprep import digest
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.files import cache, make_folder, replacing
from chronoprep.images.reading import MOST_BYTES, reason

# A path folds the two slashes into one; one letter would be a drive's.
_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+):[/\\]{1,2}(?P<path>[^/\\].*)", re.DOTALL)
_OTHERS = {"http", "https", "file", "hf"}  # which have ways of their own

_looks: dict[str, str] = {}  # of what was listed, by address


def address_of(where: Path) -> str | None:
    """The address that a path was meant as, such as `s3://bucket/folder`; None for a file's."""
    found = _ADDRESS.fullmatch(str(where))
    if found is None or found["protocol"] in _OTHERS:
        return None
    return f"{found['protocol']}://{found['path']}"


def objects(address: str, *, missing_ok: bool = False) -> dict[str, str]:
    """All that lies below an address: paths below it, with `/` between folders, each with how it
    looks. That is remembered: `look` asks no more for it.

    Args:
        missing_ok: Whether there may be nothing, as in a store that was never written to.

    Raises:
        ConfigError: It can't be listed.
    """
    system, top = _system(address)
    try:
        system.invalidate_cache()
        found = system.find(top, detail=True)
    except Exception as error:  # each store's own, and the network's
        if missing_ok and isinstance(error, FileNotFoundError):
            return {}
        raise ConfigError(
            f"{address}: can't list it: {reason(error)}.",
            hint="Check its name, the endpoint and your keys.",
        ) from None
    base = top.rstrip("/") + "/"
    names = {name.removeprefix(base): _look(about) for name, about in found.items() if name != top}
    _looks.update((f"{address.rstrip('/')}/{name}", look) for name, look in names.items())
    return names


def look(address: str) -> str | None:
    """How an object looks from outside: its size, and what changes with its content. None where
    it is not there, or is at an address that does not tell."""
    if address not in _looks:
        try:
            system, path = _system(address)
            return _look(system.info(path))
        except Exception:
            return None
    return _looks[address]


def read(address: str, most: int = MOST_BYTES) -> bytes:
    """The bytes of an object.

    Raises:
        PairError: It is missing, empty, larger than `most` bytes, or can't be read.
        ConfigError: Nothing is installed for such addresses.
    """
    system, path = _system(address)
    try:
        data: bytes = system.cat_file(path, end=most + 1)
    except Exception as error:  # each store's own, and the network's
        missing = isinstance(error, FileNotFoundError)
        what = "no such object" if missing else f"can't read it: {reason(error)}"
        raise PairError(
            f"{address}: {what}.",
            hint="Check the address and your keys, and run it again to try again.",
        ) from None
    if not data:
        raise PairError(f"{address}: it is empty (0 bytes).", hint="Upload it again.")
    if len(data) > most:
        raise PairError(
            f"{address}: more than {most / 1e9:.1f} GB are too many for a picture.",
            hint="Shrink it, or remove the pair.",
        )
    return data


def kept(address: str) -> Path:
    """A copy of an object on this machine, under its name; fetched again when it looks other.

    Raises:
        ConfigError: It is missing, empty or can't be read.
        BackendError: It can't be kept.
    """
    seen = look(address)
    mark = digest.of_values(address, seen)
    path = cache() / "objects" / mark / address.rpartition("/")[2]
    if seen is None or not path.exists():
        try:
            data = read(address)
        except PairError as error:
            raise ConfigError(error.message, hint=error.hint) from None
        make_folder(path.parent)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    return path


_TOGETHER = 64  # objects that are fetched or put at a time


def fetch(addresses: Sequence[str]) -> Iterator[bytes]:
    """The bytes of objects of one store, in their order; some are fetched ahead.

    Raises:
        BackendError: One can't be read.
    """
    for at in range(0, len(addresses), _TOGETHER):
        part = addresses[at : at + _TOGETHER]
        system, _ = _system(part[0])
        try:
            found = system.cat([_system(address)[1] for address in part])
        except Exception as error:
            raise _broken(part[0], "read", error) from None
        if isinstance(found, bytes):
            found = {_system(part[0])[1]: found}
        yield from (found[_system(address)[1]] for address in part)


def put(contents: Mapping[str, bytes | Path]) -> None:
    """Put objects into one store, by address: bytes, or what is in a file.

    Raises:
        BackendError: One can't be put.
    """
    addresses = list(contents)
    for at in range(0, len(addresses), _TOGETHER):
        part = addresses[at : at + _TOGETHER]
        system, _ = _system(part[0])
        data = {}
        for address in part:
            content = contents[address]
            data[_system(address)[1]] = (
                content if isinstance(content, bytes) else content.read_bytes()
            )
        try:
            system.pipe(data)
        except Exception as error:
            raise _broken(part[0], "write", error) from None


def _broken(address: str, what: str, error: Exception) -> BackendError:
    return BackendError(
        f"{address}: can't {what} it: {reason(error)}.",
        hint="Check the store, the endpoint and your keys; what was done is kept on this machine. "
        "Run it again to go on.",
    )


def _look(about: dict[str, Any]) -> str:
    marks = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created")
    mark = next((str(about[name]) for name in marks if about.get(name)), "")
    return f"{about.get('size')}-{mark.strip(chr(34)).replace('|', '_')}"


def _system(address: str) -> tuple[Any, str]:
    protocol, _, path = address.partition("://")
    return _of_protocol(protocol), path


@lru_cache
def _of_protocol(protocol: str) -> Any:
    """What reads such addresses.

    Raises:
        ConfigError: It is not installed, or nobody knows them.
    """
    remote = "pip install 'chronoprep[remote]'"
    try:
        import fsspec
    except ImportError:
        raise ConfigError(
            f"{protocol}:// needs a package that is not installed.", hint=remote
        ) from None
    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        hint = remote if protocol in ("s3", "s3a") else "https://filesystem-spec.readthedocs.io"
        raise ConfigError(f"{protocol}://: {reason(error)}.", hint=f"See {hint}.") from None
