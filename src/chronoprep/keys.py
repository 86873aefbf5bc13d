"""Keys: names that every file system keeps and that pandas reads back unchanged.

Knows nothing of pairs or folders: each function depends on its text alone.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection

from chronoprep import digest
from chronoprep.errors import ConfigError

# 255 bytes is the limit of a file name; the rest is for suffixes and the names of temporary files.
_MAX_BYTES = 200
_PREFIX = "pair-"

# What `pandas.read_csv` takes for a missing value by default.
PANDAS_NA = frozenset(
    (
        *("#N/A", "#N/A N/A", "#NA", "N/A", "NA", "n/a", "<NA>", "NULL", "null", "None"),
        *("NaN", "-NaN", "nan", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
_PANDAS_BOOL = frozenset({"true", "false"})
# Wider than pandas' own number grammar on purpose: calling a text a number costs a prefix, the
# opposite mistake costs a sample.
_NUMBER = re.compile(
    r"[+-]*\s*(?:\d[\d_]*\.?\d*|\.\d+|0[xob][\da-f]+|inf|infinity|nan)"
    r"\s*(?:e\s*[+-]?\s*\d*)?\s*j?",
    re.IGNORECASE,
)

_SURROGATE = re.compile("[\ud800-\udfff]")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]|\.{2,}')
_WINDOWS_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)
# Control characters, lone surrogates (bytes of a file name that aren't UTF-8) and line separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def pandas_reads_as_text(text: str) -> bool:
    """Whether `pandas.read_csv` with its defaults reads `text` back as this exact string.

    The answer holds for any column, also one in which every other value is a number. Errs on the
    side of False.
    """
    stripped = text.strip()
    if not stripped or "\0" in text:
        return False
    if stripped in PANDAS_NA or stripped.casefold() in _PANDAS_BOOL:
        return False
    if _NUMBER.fullmatch(stripped):
        return False
    return is_unicode(text)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: not where a name has bytes that are none, or JSON writes one
    half of a UTF-16 pair."""
    return _SURROGATE.search(text) is None


def safe_key(name: str) -> str:
    """Turn any name into a key: a file name without a suffix, safe on every file system.

    The result has no separators, no `..`, no control characters, no leading dot, nothing that
    Windows refuses, at most 200 bytes of UTF-8 (longer names end in a digest of the
    whole), is NFC, and pandas reads it back as text. Deterministic, and a safe key is its own key.
    Two names can share a key: the caller checks.
    """
    key = unicodedata.normalize("NFC", name)
    if not (key.isascii() and key.isprintable()):
        key = "".join("_" if unicodedata.category(char) in _UNPRINTABLE else char for char in key)
    key = _FORBIDDEN.sub("_", key.strip()).lstrip(". \t").rstrip(". \t").strip()
    if not key:
        key = _PREFIX + _digest(name)
    elif not pandas_reads_as_text(key) or _WINDOWS_DEVICE.fullmatch(key):
        key = _PREFIX + key
    encoded = key.encode()
    if len(encoded) > _MAX_BYTES:
        end = f"-{_digest(name)}"
        key = encoded[: _MAX_BYTES - len(end)].decode(errors="ignore") + end
    return key


def chosen(keys: Collection[str], names: str) -> set[str]:
    """The keys that a list of names means: with commas between them, `*` for anything, as for a
    comma that is part of a key.

    Raises:
        ConfigError: A name means none of them.
    """
    found, known = set[str](), set(keys)
    for name in filter(None, map(str.strip, names.split(","))):
        pattern = re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
        meant = {name} & known if "*" not in name else set(filter(pattern.fullmatch, keys))
        if not meant:
            near = difflib.get_close_matches(name[:100], keys, n=1, cutoff=0.5)
            raise ConfigError(
                f"--keys {name}: no pair is called so.",
                hint=f"Did you mean {near[0]}?" if near else "`chronoprep pairs` lists the pairs.",
            )
        found |= meant
    return found


def _digest(name: str) -> str:
    return digest.of_text(unicodedata.normalize("NFC", name), 8)
