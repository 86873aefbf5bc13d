"""What a file is that is no picture, by its first bytes."""

from __future__ import annotations

import codecs

from chronoprep.images.formats import has, plugin_of
from chronoprep.images.reading import AGAIN, RESAVE

_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image", "Run `git lfs pull`."),
    (b"%PDF", "a PDF, not an image", RESAVE),
    (b"PK\x03\x04", "a ZIP archive, not an image", "Unpack it first, or remove the pair."),
    (b"<svg", "an SVG drawing, not a pixel image", "Render it to PNG first."),
    (b"<!doctype html", "a web page, not an image", "The download failed: fetch it again."),
    (b"<html", "a web page, not an image", "The download failed: fetch it again."),
)
_IMAGE_STARTS = (
    b"\x89PNG",
    b"\xff\xd8",
    b"GIF8",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"8BPS",
    b"qoif",
    b"DDS ",
)
_PLUGINS = {"HEIF": "a HEIC image", "JXL": "a JPEG XL image"}
_EXTRA = 'pip install "chronoprep[formats]"'


def sniff(data: bytes) -> tuple[str, str]:
    """What a file is that Pillow does not know, and what to do about it."""
    head = data[:512]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what, hint in _SIGNATURES:
        if start.startswith(signature.lower()):
            return what, hint
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "an SVG drawing, not a pixel image", "Render it to PNG first."
    if (plugin := plugin_of(head)) is not None:
        if has(plugin):
            return f"{_PLUGINS[plugin]} whose header is damaged or cut off", AGAIN
        return f"{_PLUGINS[plugin]}, which takes a plug-in that is not installed", _EXTRA
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        return "a video, not an image", "Extract the frame first, or remove the pair."
    if not head.strip(b"\0"):
        return "nothing but zero bytes, not an image", AGAIN
    if head.startswith(_IMAGE_STARTS):
        return "an image whose header is damaged or cut off", AGAIN
    # The cut at the end of `head` may split a character: an incremental decoder waits for the rest.
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = "\0"
    if all(char.isprintable() or char.isspace() for char in text):
        return "a text file, not an image", AGAIN
    return "not an image, or its header is damaged", AGAIN
