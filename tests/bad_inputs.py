"""Broken pairs of every kind that real folders hold: for tests of whatever reads images."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from pathlib import Path

from PIL import Image


def picture(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """A small RGB image that does not compress to nothing."""
    width, height = size
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * width * height))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, data: bytes) -> bytes:
    """An 8-bit RGB PNG with a correct header and whatever data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _bmp_with_compression(number: int) -> bytes:
    data = bytearray(encoded(picture(), "BMP"))
    data[30:34] = struct.pack("<I", number)
    return bytes(data)


def _broken_header_checksum() -> bytes:
    data = bytearray(encoded(picture(), "PNG"))
    data[29] ^= 0xFF
    return bytes(data)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.png", encoded(picture(), "PNG"))
    return buffer.getvalue()


def bad_files() -> dict[str, tuple[bytes, str]]:
    """File name → (its bytes, a fragment of the error message)."""
    image = picture()
    png_bytes, jpeg, webp = (encoded(image, kind) for kind in ("PNG", "JPEG", "WEBP"))
    gif, tiff, bmp = (encoded(image, kind) for kind in ("GIF", "TIFF", "BMP"))
    avif = encoded(image, "AVIF")
    floats = encoded(Image.new("F", (8, 8), 0.5), "TIFF")
    wide = encoded(Image.new("I", (8, 8), 1_000_000), "TIFF")
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    page = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
    svg = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'
    damaged, unknown, header = "the image is damaged", "not an image", "header is damaged"
    return {
        "empty.png": (b"", "the file is empty"),
        "text.jpg": (b"This is only text.\n", "a text file"),
        "json.png": (json.dumps({"error": "expired"}).encode(), "a text file"),
        "html.jpg": (page, "a web page"),
        "svg.png": (svg, "an SVG drawing"),
        "lfs.png": (lfs, "a Git LFS pointer"),
        "zip.png": (_zip(), "a ZIP archive"),
        "pdf.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "a PDF"),
        "psd.tif": (b"8BPS\0\1" + bytes(40), header),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", unknown),
        "mp4.jpg": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
        "heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
        "zeros.png": (bytes(5000), "nothing but zero bytes"),
        "noise.png": (random.Random(1).randbytes(5000), unknown),
        "bomb.png": (png(60_000, 60_000, zlib.compress(b"")), "more than the limit"),
        "bomb-gif.png": (b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + gif[10:], "the limit"),
        "no-width.png": (png(0, 8, zlib.compress(b"")), header),
        "no-zlib.png": (png(64, 48, b"not deflate data at all"), damaged),
        "short-data.png": (png(64, 48, zlib.compress(bytes(100))), damaged),
        "checksum.png": (_broken_header_checksum(), header),
        "png-header.png": (png_bytes[:8], header),
        "png-ihdr.png": (png_bytes[:33], header),
        "png-half.png": (png_bytes[: len(png_bytes) // 2], damaged),
        "jpeg-header.jpg": (jpeg[:3], header),
        "jpeg-tables.jpg": (jpeg[:100], damaged),
        "jpeg-half.jpg": (jpeg[: len(jpeg) // 2], damaged),
        "webp-header.webp": (webp[:12], header),
        "webp-half.webp": (webp[: len(webp) // 2], ""),
        "gif-header.png": (gif[:6], header),
        "gif-half.png": (gif[: len(gif) // 2], damaged),
        "tiff-header.tif": (tiff[:8], header),
        "tiff-half.tif": (tiff[: len(tiff) // 2], ""),
        "tiff-deflate-half.tif": (
            encoded(image, "TIFF", compression="tiff_adobe_deflate")[:2000],
            "",
        ),
        "bmp-header.bmp": (bmp[:20], ""),
        "bmp-half.bmp": (bmp[: len(bmp) // 2], damaged),
        "bmp-compression.bmp": (_bmp_with_compression(77), "BMP compression"),
        "avif-header.avif": (avif[:40], header),
        "avif-half.avif": (avif[: len(avif) // 2], ""),
        "float.tif": (floats, "floating-point"),
        "wide.tif": (wide, "32-bit pixels"),
    }


def write_bad_inputs(source_dir: Path, target_dir: Path) -> dict[str, str]:
    """Write more than 30 pairs, each broken in another way, into two folders.

    The source is broken in one half of them and the target in the other half; the partner is a
    good image.

    Returns:
        Key → a fragment of the message that the pair's error must hold.
    """
    source_dir.mkdir(parents=True, exist_ok=True)
    target_dir.mkdir(parents=True, exist_ok=True)
    good = encoded(picture(seed=7), "PNG")
    expected = {}
    for number, (name, (data, fragment)) in enumerate(bad_files().items()):
        bad_dir, good_dir = (source_dir, target_dir)[:: 1 if number % 2 else -1]
        (bad_dir / name).write_bytes(data)
        (good_dir / name).with_suffix(".png").write_bytes(good)
        expected[Path(name).stem] = fragment or name
    for key in ("folder", "dangling"):
        (target_dir / f"{key}.png").write_bytes(good)
    (source_dir / "folder.png").mkdir()
    (source_dir / "dangling.png").symlink_to(source_dir / "nowhere.png")
    return {**expected, "folder": "a folder, not an image", "dangling": "does not exist"}
