"""The 2-frame videos, read as the trainer reads them."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from chronoprep import video
from chronoprep.errors import BackendError, PairError
from chronoprep.video import Codec, read_frames, read_stamp, write_video
from conftest import EXAMPLES, photo
from trainer import read_video


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(path: Path, *, codec: Codec = "lossless", size: tuple[int, int] = (32, 24)) -> bytes:
    write_video(noise(size), noise(size, 1), path, codec=codec, stamp="chronoprep:1")
    return path.read_bytes()


@pytest.mark.parametrize("size", [(96, 64), (97, 61), (1, 1), (16, 4000), (2, 3)])
def test_the_trainer_sees_exactly_the_pixels_of_source_then_target(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    images = noise(size, 0), noise(size, 1)
    write_video(*images, tmp_path / "pair.mp4", codec="lossless", stamp="s")
    frames = read_video(tmp_path / "pair.mp4")
    assert len(frames) == 2
    for image, frame in zip(images, frames, strict=True):
        assert np.array_equal(np.asarray(image), frame)


@pytest.mark.parametrize("size", [None, (97, 61)])
def test_h264_keeps_size_and_colours(tmp_path: Path, size: tuple[int, int] | None) -> None:
    images = [Image.open(EXAMPLES / side / "cat_party_hat.jpg") for side in ("input", "output")]
    images = [image.convert("RGB").resize(size or image.size) for image in images]
    source, target = images
    write_video(source, target, tmp_path / "pair.mp4", codec="h264", stamp="s")
    frames = read_video(tmp_path / "pair.mp4")
    assert len(frames) == 2
    for image, frame in zip(images, frames, strict=True):
        error = frame.astype(float) - np.asarray(image)
        assert error.shape == (image.height, image.width, 3)
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 40
        assert np.abs(error.mean(axis=(0, 1))).max() < 0.5, "no colour cast"


def test_h264_is_smaller(tmp_path: Path) -> None:
    images = photo(1, (320, 240)), photo(2, (320, 240))
    for codec in ("lossless", "h264"):
        write_video(*images, tmp_path / f"{codec}.mp4", codec=codec, stamp="s")
    lossless, h264 = (tmp_path / f"{codec}.mp4" for codec in ("lossless", "h264"))
    assert h264.stat().st_size < lossless.stat().st_size


@pytest.mark.parametrize("codec", ["lossless", "h264"])
def test_the_same_pair_gives_the_same_bytes(tmp_path: Path, codec: Codec) -> None:
    images = photo(1), photo(2)
    for name in ("a", "b"):
        write_video(*images, tmp_path / f"{name}.mp4", codec=codec, stamp="s")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("codec", ["lossless", "h264"])
def test_the_stamp_comes_back(tmp_path: Path, codec: Codec) -> None:
    path = tmp_path / "new folder" / "päär [1].mp4"
    write_video(photo(1), photo(2), path, codec=codec, stamp="chronoprep:ünique")
    assert read_stamp(path) == "chronoprep:ünique"
    write_video(photo(1), photo(2), path, codec=codec, stamp="chronoprep:2")
    assert read_stamp(path) == "chronoprep:2"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_torn_file_has_no_stamp(tmp_path: Path) -> None:
    whole, torn = write(tmp_path / "whole.mp4"), tmp_path / "torn.mp4"
    for length in (*range(0, 1200, 3), *range(1200, len(whole), 9), len(whole) - 1):
        torn.write_bytes(whole[:length])
        assert read_stamp(torn) is None, length
    torn.write_bytes(bytes(len(whole)))
    assert read_stamp(torn) is None


def test_what_is_not_a_stamped_2_frame_video_has_no_stamp(tmp_path: Path) -> None:
    assert read_stamp(tmp_path / "absent.mp4") is None
    assert read_stamp(tmp_path) is None
    (tmp_path / "text.mp4").write_text("not a video at all, but longer than a header")
    assert read_stamp(tmp_path / "text.mp4") is None
    for frames, comment in ((2, None), (1, "chronoprep:1"), (3, "chronoprep:1")):
        path = tmp_path / f"{frames}.mp4"
        with av.open(str(path), "w") as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream("libx264rgb", rate=1)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
            for _ in range(frames):
                image = av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), "rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
        assert read_stamp(path) is None, (frames, comment)


def test_reading_a_stamp_takes_less_than_a_millisecond(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    write(path, size=(640, 480))
    start = time.perf_counter()
    for _ in range(50):
        read_stamp(path)
    assert time.perf_counter() - start < 0.05


def test_read_frames_gives_both(tmp_path: Path) -> None:
    write(tmp_path / "pair.mp4")
    source, target = read_frames(tmp_path / "pair.mp4")
    assert np.array_equal(source, np.asarray(noise((32, 24))))
    assert np.array_equal(target, np.asarray(noise((32, 24), 1)))


@pytest.mark.parametrize("sizes", [((32, 24), (32, 25)), ((16385, 2), (16385, 2))])
def test_what_x264_can_not_take_is_the_pairs_fault(
    tmp_path: Path, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    source, target = (Image.new("RGB", size) for size in sizes)
    with pytest.raises(PairError, match=r"pair\.mp4.*\d"):
        write_video(source, target, tmp_path / "pair.mp4", codec="lossless", stamp="s")
    assert not list(tmp_path.iterdir())


def test_a_video_that_decodes_badly_is_refused_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pair.mp4"
    old = write(path)
    monkeypatch.setattr(video, "MIN_PSNR", 70.0)  # more than h264 can give
    with pytest.raises(PairError, match=r"pair\.mp4: .*differs"):
        write(path, codec="h264")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["pair.mp4"]


def test_a_full_disk_stops_the_run_and_leaves_the_old_video(tmp_path: Path) -> None:
    path = tmp_path / "pair.mp4"
    old = write(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(BackendError, match=r"pair\.mp4: can't write") as caught:
            write(path, size=(320, 240))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["pair.mp4"]


def test_a_folder_that_can_not_be_made_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "videos").write_text("a file where the folder should be")
    with pytest.raises(BackendError, match=r"pair\.mp4: can't write"):
        write(tmp_path / "videos" / "pair.mp4")
