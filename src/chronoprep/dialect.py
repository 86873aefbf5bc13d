"""How a table of text was saved: in UTF-8 with commas, or in a spreadsheet's own way."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

from chronoprep.errors import ConfigError

CSV = "Save it as CSV in UTF-8, with commas between cells and quotes around text with commas."
UTF8 = "utf-8-sig"  # whether there is a byte order mark or not

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD = 1 << 16  # bytes in which the header lies
_SEPARATORS = ",;\t|"
_QUOTED = re.compile('"[^"]*"')
_FIRST_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # by which Excel is told

# What stands outside of ASCII in a text of Western Europe. In another encoding, read as Windows',
# such letters come in rows, capitals within words, and signs between letters.
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿŒœŠšŽžŸ")
_SIGNS = frozenset("€£¥¢§©®™°±×÷µ¶¹²³¼½¾ªº‰\xa0\xad")
_QUOTES = "«»“”„‘’‚‹›…–—¿¡·•´\xa0"
_WITHIN_WORDS = frozenset("’‘´·–—…\xad")


class Dialect(NamedTuple):
    """How a table was saved.

    Attributes:
        separator: Between cells.
        skip: Lines before the header.
    """

    encoding: str
    separator: str
    skip: int = 0

    @property
    def odd(self) -> str | None:
        """What is unusual of it, readable."""
        said = [] if self.encoding == UTF8 else [self.encoding]
        said += [] if self.separator == "," else [f"{self.separator!r} between cells"]
        return ", ".join(said) or None


def dialect_of(file: BinaryIO, path: Path) -> Dialect:
    """How a CSV was saved. Reads all of it.

    Raises:
        ConfigError: No encoding makes sense of it.
    """
    encoding = encoding_of(file)
    if encoding is None:
        raise ConfigError(f"{path}: neither UTF-8 nor UTF-16, nor clearly Windows-1252.", hint=CSV)
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    head = decoder.decode(file.read(_HEAD))
    file.seek(0)
    if told := _FIRST_LINE.match(head):
        return Dialect(encoding, told[1], 1)
    line = _QUOTED.sub("", head.lstrip("\r\n").splitlines()[0] if head.strip() else "")
    return Dialect(encoding, max(_SEPARATORS, key=line.count))


def encoding_of(file: BinaryIO) -> str | None:
    """The encoding of a text, as far as its bytes tell; None where they don't."""
    file.seek(0)
    head = file.read(_HEAD)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if (unmarked := _utf16_of(head)) is not None:
        return unmarked
    decoder = codecs.getincrementaldecoder(UTF8)()
    file.seek(0)
    try:
        while part := file.read(_HEAD):
            decoder.decode(part)
        decoder.decode(b"", final=True)
        return UTF8
    except UnicodeDecodeError:
        file.seek(0)
        return "cp1252" if _is_western(file) else None


def text_of(data: bytes, path: Path) -> tuple[str, Dialect]:
    """A CSV's text from its header on, and how it was saved.

    Raises:
        ConfigError: No encoding makes sense of it.
    """
    dialect = dialect_of(io.BytesIO(data), path)
    try:
        text = data.decode(dialect.encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: can't read it as {dialect.encoding}: {error}.", hint=CSV
        ) from None
    for _ in range(dialect.skip):
        text = text.partition("\n")[2]
    return text, dialect


def _utf16_of(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of ASCII is zero."""
    even, odd = head[:2000:2], head[1:2000:2]
    if len(odd) > 4 and odd.count(0) > len(odd) // 2 and not even.count(0):
        return "utf-16-le"
    if len(odd) > 4 and even.count(0) > len(even) // 2 and not odd.count(0):
        return "utf-16-be"
    return None


def _is_western(file: BinaryIO) -> bool:
    """Whether a text reads as one of Western Europe in Windows' encoding, and as nothing else."""
    for line in file:
        if line.isascii():
            continue
        try:
            text = line.decode("cp1252")
        except UnicodeDecodeError:
            return False
        if not all(_plausible(text, match) for match in _NOT_ASCII.finditer(text)):
            return False
    return True


def _plausible(text: str, match: re.Match[str]) -> bool:
    """Whether characters outside of ASCII may stand where they do."""
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    within = before.isalpha() and after.isalpha()
    core = match[0].strip(_QUOTES)
    if not core:
        return not within or _WITHIN_WORDS.issuperset(match[0])
    if _LETTERS.issuperset(core):
        if len(core) == 2 and not before.isalpha() and not after.isalpha():
            return False  # a word of nothing else
        capital = core[0].isupper() and core == match[0].rstrip(_QUOTES)
        return len(core) <= 2 and not (capital and before.islower())
    return len(core) == 1 and core in _SIGNS and not within
