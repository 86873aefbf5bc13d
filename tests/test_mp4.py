"""Videos that break on the disk right after they were written, and which of them a run finds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chronoprep import digest, video
from chronoprep.config import VideoSettings
from chronoprep.dataset import Dataset
from chronoprep.errors import PairError
from chronoprep.mp4 import Sample
from chronoprep.video import copy_video, write_video
from conftest import Result, photo, write_pairs

CODECS = ("lossless", "h264", "copy")


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def emptied(data: bytes, chance: random.Random) -> bytes:
    """A block that never reached the disk, or all of them."""
    if chance.random() < 0.3:
        return b""
    start = 512 * chance.randrange(len(data) // 512)
    return data[:start] + bytes(512) + data[start + 512 :]


def flipped_length(data: bytes, chance: random.Random) -> bytes:
    """A bit of a length: of a box, of a sample or of a unit."""
    index = data.rindex(b"stsz")
    places = [0, *(data.index(kind) - 4 for kind in (b"mdat", b"moov", b"trak", b"stsz"))]
    places += [index + 16, index + 20]
    places += [data.index(b"mdat") + 4] if b"avc1" in data else []
    at = chance.choice(places) + chance.randrange(4)
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flipped_pixels(data: bytes, _: random.Random) -> bytes:
    middle = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    return data[:middle] + bytes(b ^ 0x55 for b in data[middle : middle + 8]) + data[middle + 8 :]


KINDS = (cut, emptied, flipped_length)


def test_of_200_files_that_break_each_is_found_by_its_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, found = random.Random(0), 0
    images = photo(1, (48, 32)), photo(2, (48, 32))
    files = [tmp_path / f"{number}.jpg" for number in (0, 1)]
    for image, file in zip(images, files, strict=True):
        image.save(file, quality=90)
    contents = [file.read_bytes() for file in files]
    encode, mux, breaks = video._encode, video._mux, [cut]

    def broken(path: Path) -> None:
        path.write_bytes(breaks[0](path.read_bytes(), chance))

    def breaking_encode(frames: list[object], path: Path, *rest: object) -> None:
        encode(frames, path, *rest)  # type: ignore[arg-type]
        broken(path)

    def breaking_mux(files: list[bytes], size: tuple[int, int], path: Path) -> None:
        mux(files, size, path)
        broken(path)

    monkeypatch.setattr(video, "_encode", breaking_encode)
    monkeypatch.setattr(video, "_mux", breaking_mux)
    for number in range(200):
        breaks[0] = KINDS[number % 3]  # type: ignore[assignment]
        codec, path = CODECS[number // 3 % 3], tmp_path / f"{number}.mp4"
        settings = VideoSettings(codec=codec)  # type: ignore[arg-type]
        if codec == "copy":
            found += copy_video(contents, path, settings, Sample("none")) is not None
        else:
            with pytest.raises(PairError, match="not what was written"):
                write_video(*images, path, settings, Sample("none"))
            found += 1
        assert not path.exists()
    assert found == 200


@pytest.mark.parametrize("check", ["all", "sample", "none"])
def test_pixels_that_flip_are_found_where_the_sample_looks(
    check: str, tmp_path: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"p{number:02}" for number in range(24)]
    pairs = write_pairs(tmp_path / "pairs", names, (48, 32))
    for side in ("input", "output"):
        photo(5, (64, 32)).save(pairs / side / "p11.png")  # another shape
        photo(6, (48, 32)).save(pairs / side / "p12.webp", lossless=True)
        (pairs / side / "p12.png").unlink()  # and another kind of file
    encode = video._encode

    def breaking(frames: list[object], path: Path, *rest: object) -> None:
        encode(frames, path, *rest)  # type: ignore[arg-type]
        path.write_bytes(flipped_pixels(path.read_bytes(), random.Random(0)))

    monkeypatch.setattr(video, "_encode", breaking)
    run("pair2video", pairs, "-d", "data", "--check", check)
    journal = Dataset(Path("data")).journal
    written = {key for key in names if journal.state(key).video}
    every = {key for key in names if int(digest.of_text(key), 16) % 20 == 0}
    looked = {"p00", "p11", "p12", "p23"} | every
    if check == "sample":
        assert looked.isdisjoint(written)
        assert len(written) >= len(names) - len(looked) - 2  # who is first of a kind depends
    else:
        assert written == (set() if check == "all" else set(names))
