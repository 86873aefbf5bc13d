"""Damaged pictures and clips: an image or a `PairError`, and no cut clip passes for a whole one.

Each damage follows from its seed: `random.Random(seed)`. More of them: `pytest -m slow`.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from bad_inputs import encoded
from chronoprep.config import ImageSettings
from chronoprep.data import Frame
from chronoprep.errors import PairError
from chronoprep.images.clips import keep_clip
from chronoprep.images.load import load_image
from conftest import photo
from test_clips import FFMPEG, write_clip
from test_colour import PROFILED, chunk

SETTINGS = ImageSettings(max_pixels=1_000_000)
pillow_heif.register_heif_opener()


KINDS = (
    "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "DDS", "DIB", "PCX",
    "SGI", "TGA", "HEIF",
)  # fmt: skip


def changed(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, mostly where a file says what it is."""
    spoiled = bytearray(data)
    for _ in range(rng.randrange(1, 7)):
        near = rng.choice([min(len(spoiled), 300), len(spoiled)])
        at = rng.randrange(near)
        spoiled[at if rng.random() < 0.8 else -1 - at] = rng.randrange(256)
    return bytes(spoiled)


def whole_pictures() -> dict[str, bytes]:
    """A picture in each format that can be written here, some with profiles."""
    image, small = photo(1, (40, 30)), photo(2, (24, 16))
    files = {kind: encoded(small if kind == "TGA" else image, kind) for kind in KINDS}
    for name in ("Adobe RGB", "table", "grey"):
        picture, profile, _ = PROFILED[name]
        for kind in ("PNG", "JPEG"):
            files[f"{kind} {name}"] = encoded(picture.resize((30, 20)), kind, icc_profile=profile)
    picture, profile, _ = PROFILED["CMYK"]
    files["TIFF CMYK"] = encoded(picture.resize((30, 20)), "TIFF", icc_profile=profile)
    files["TIFF deflate"] = encoded(image, "TIFF", compression="tiff_adobe_deflate")
    files["PNG HDR"] = files["PNG"][:33] + chunk(b"cICP", bytes([9, 16, 0, 1])) + files["PNG"][33:]
    files["PNG palette"] = encoded(image.convert("P"), "PNG", transparency=3)
    files["PNG deep"] = encoded(
        Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)), "PNG"
    )
    files["PSD"] = psd(small)
    import pillow_jxl  # noqa: F401

    files["JXL"] = encoded(image, "JXL")
    files["JXL container"] = encoded(image, "JXL", use_container=True)
    return files


def psd(image: Image.Image) -> bytes:
    """A Photoshop document that is its merged picture alone."""
    planes = b"".join(band.tobytes() for band in image.split())
    size = image.height.to_bytes(4, "big") + image.width.to_bytes(4, "big")
    return b"8BPS\0\1" + bytes(6) + b"\0\3" + size + b"\0\x08\0\3" + bytes(12) + b"\0\0" + planes


SUFFIXES = {"TGA": "tga", "JPEG2000": "jp2"}


def test_all_pictures_are_good_before_they_are_damaged(tmp_path: Path) -> None:
    for name, data in whole_pictures().items():
        path = tmp_path / f"a.{SUFFIXES.get(name, 'png')}"
        path.write_bytes(data)
        assert load_image(path, SETTINGS).image.mode == "RGB", name


def fuzz_pictures(folder: Path, seeds: range) -> None:
    files = whole_pictures()
    names = sorted(files)
    whole = {}
    for name in names:
        path = folder / f"a.{SUFFIXES.get(name, 'png')}"
        path.write_bytes(files[name])
        whole[name] = load_image(path, SETTINGS).image.tobytes()
    good = 0
    for seed in seeds:
        rng = random.Random(seed)
        name = rng.choice(names)
        path = folder / f"a.{SUFFIXES.get(name, 'png')}"
        cut, data = rng.random() < 0.4, files[name]
        path.write_bytes(data[: rng.randrange(len(data))] if cut else changed(data, rng))
        try:
            image = load_image(path, SETTINGS).image
        except PairError as error:
            assert str(path) in str(error), seed  # noqa: PT017
            assert error.hint, seed  # noqa: PT017
        else:
            assert image.mode == "RGB", seed
            assert image.width * image.height <= SETTINGS.max_pixels, seed
            # Of a file that is cut, only what no pixel lies in may be missing.
            assert not cut or image.tobytes() == whole[name], seed
            good += 1
    assert good < len(seeds)


def test_damaged_pictures(tmp_path: Path) -> None:
    fuzz_pictures(tmp_path, range(400))


@pytest.mark.slow
def test_many_damaged_pictures(tmp_path: Path) -> None:
    fuzz_pictures(tmp_path, range(1000, 13_000))


CLIPS = {
    "mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "mov": "mpeg4",
    "ts": "libx264", "mpg": "mpeg1video",
}  # fmt: skip


def whole_clips(folder: Path) -> dict[str, bytes]:
    """A clip in each container; of mp4 also with the index in front, and in fragments."""
    clips = {
        suffix: write_clip(folder / f"whole.{suffix}", codec, "yuv420p", rate=25)
        for suffix, codec in CLIPS.items()
    }
    for name, flags in (("fast.mp4", "+faststart"), ("parts.mp4", "+frag_keyframe+empty_moov")):
        clips[name] = folder / name
        command = [*FFMPEG, "-i", clips["mp4"], "-c", "copy", "-movflags", flags, clips[name]]
        subprocess.run(command, check=True)
    return {name: path.read_bytes() for name, path in clips.items()}


PROMISING = ("mp4", "fast.mp4", "parts.mp4", "mov", "mkv", "webm", "avi")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_clip_that_is_cut_off_is_no_clip(share: float, tmp_path: Path) -> None:
    clips = whole_clips(tmp_path)
    for name in PROMISING:
        path, data = tmp_path / f"cut.{name}", clips[name]
        path.write_bytes(data)
        assert load_image(Frame(path, "last"), SETTINGS).notes == ()
        path.write_bytes(data[: int(share * len(data))])
        for use in uses(path, tmp_path):
            with pytest.raises(PairError, match=r"ends early: [\d,]+ of [\d,]+ bytes"):
                use()


def test_a_stream_that_is_cut_off_within_a_packet_is_no_clip(tmp_path: Path) -> None:
    clips = whole_clips(tmp_path)
    for name in ("ts", "mpg"):
        path, data = tmp_path / f"cut.{name}", clips[name]
        for size in (len(data) // 3 | 1, len(data) - 1):
            path.write_bytes(data[:size])
            for use in uses(path, tmp_path):
                with pytest.raises(PairError, match=r"ends early: [\d,]+ of [\d,]+ bytes"):
                    use()


def uses(path: Path, folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: load_image(Frame(path, "first"), SETTINGS),
        lambda: load_image(Frame(path, "last"), SETTINGS),
        lambda: load_image(Frame(path, 0.3), SETTINGS),
        lambda: keep_clip(path, folder / "kept.mp4", SETTINGS, check=True),
    ]


def fuzz_clips(folder: Path, seeds: range) -> None:
    files = whole_clips(folder)
    names = sorted(files)
    refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        name = rng.choice(names)
        path = folder / f"a.{name}"
        path.write_bytes(changed(files[name], rng))
        refused += sum(not works(use) for use in uses(path, folder))
    assert refused


def works(use: Callable[[], object]) -> bool:
    try:
        use()
    except PairError as error:
        assert error.hint  # noqa: PT017
        return False
    return True


def test_damaged_clips(tmp_path: Path) -> None:
    fuzz_clips(tmp_path, range(60))


@pytest.mark.slow
def test_many_damaged_clips(tmp_path: Path) -> None:
    fuzz_clips(tmp_path, range(1000, 6000))
