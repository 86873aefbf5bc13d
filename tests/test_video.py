"""The 2-frame videos, read as the trainer reads them."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from chronoprep import video
from chronoprep.config import Codec, Settings, VideoSettings
from chronoprep.data import Pair
from chronoprep.dataset import Video
from chronoprep.errors import BackendError, PairError
from chronoprep.mp4 import Sample
from chronoprep.video import copy_video, read_frames, write_video
from chronoprep.workflows import videos, write_videos
from conftest import EXAMPLES, Result, photo, write_pairs
from trainer import read_video

LOSSLESS, H264 = VideoSettings(), VideoSettings(codec="h264")
PLAYERS = VideoSettings(codec="h264", chroma="420")
COPY = VideoSettings(codec="copy")
NONE = Sample("none")


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(path: Path, *, codec: Codec = "lossless", size: tuple[int, int] = (32, 24)) -> bytes:
    settings = VideoSettings(codec=codec)
    write_video(noise(size), noise(size, 1), path, settings)
    return path.read_bytes()


def jpegs(folder: Path, *images: Image.Image, **options: object) -> list[Path]:
    """Files `0.jpg`, `1.jpg`, … of the images."""
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path, **({"quality": 90} | options))
    return paths


def contents(files: list[Path]) -> list[bytes]:
    return [file.read_bytes() for file in files]


def psnr(wanted: np.ndarray, got: np.ndarray) -> float:
    error = np.mean((wanted.astype(float) - got) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("size", [(1023, 683), (97, 61), (1, 1), (16, 4000), (2, 3)])
def test_the_trainer_sees_exactly_the_pixels_of_source_then_target(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    images = noise(size, 0), noise(size, 1)
    write_video(*images, tmp_path / "pair.mp4", LOSSLESS)
    frames = read_video(tmp_path / "pair.mp4")
    assert len(frames) == 2
    for image, frame in zip(images, frames, strict=True):
        assert np.array_equal(np.asarray(image), frame)


@pytest.mark.parametrize("size", [None, (97, 61)])
def test_h264_keeps_size_and_colours(tmp_path: Path, size: tuple[int, int] | None) -> None:
    images = [Image.open(EXAMPLES / side / "cat_party_hat.jpg") for side in ("input", "output")]
    images = [image.convert("RGB").resize(size or image.size) for image in images]
    source, target = images
    write_video(source, target, tmp_path / "pair.mp4", H264)
    frames = read_video(tmp_path / "pair.mp4")
    assert len(frames) == 2
    for image, frame in zip(images, frames, strict=True):
        assert frame.shape == (image.height, image.width, 3)
        assert psnr(np.asarray(image), frame) > 46
        shift = (frame.astype(float) - np.asarray(image)).mean(axis=(0, 1))
        assert np.abs(shift).max() < 0.2, "no colour cast"


def test_h264_is_smaller(tmp_path: Path) -> None:
    images = photo(1, (320, 240)), photo(2, (320, 240))
    for codec in ("lossless", "h264"):
        write_video(*images, tmp_path / f"{codec}.mp4", VideoSettings(codec=codec))
    lossless, h264 = (tmp_path / f"{codec}.mp4" for codec in ("lossless", "h264"))
    assert h264.stat().st_size < lossless.stat().st_size


@pytest.mark.parametrize("settings", [LOSSLESS, H264, PLAYERS, COPY])
def test_the_same_pair_gives_the_same_bytes(tmp_path: Path, settings: VideoSettings) -> None:
    images = photo(1), photo(2)
    files = jpegs(tmp_path, *images)
    for name in ("a", "b"):
        if settings.codec == "copy":
            assert copy_video(contents(files), tmp_path / f"{name}.mp4", settings) is None
        else:
            write_video(*images, tmp_path / f"{name}.mp4", settings)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("settings", [LOSSLESS, H264, PLAYERS, COPY])
@pytest.mark.parametrize("same", [False, True])
def test_a_video_goes_under_any_name_and_leaves_nothing_beside_it(
    tmp_path: Path, settings: VideoSettings, same: bool
) -> None:
    path = tmp_path / "new folder" / "päär [1].mp4"
    path.parent.mkdir()
    images = photo(1), photo(1 if same else 2)
    files = jpegs(tmp_path, *images)
    for _ in range(2):
        if settings.codec == "copy":
            assert copy_video(contents(files), path, settings) is None
        else:
            write_video(*images, path, settings)
        assert len(read_video(path)) == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _other_pixels(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(255 - byte for byte in data[middle : middle + 8])
    later = path.stat().st_mtime_ns + 10**9  # some file systems keep no finer time
    path.write_bytes(data)
    os.utime(path, ns=(later, later))


SPOILERS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut by a byte": _cut,
    "another pair's": lambda path: shutil.copy(path.with_name("b.mp4"), path),
    "of the same size": _other_pixels,
}


@pytest.mark.parametrize("kind", SPOILERS)
def test_a_video_that_is_not_what_was_written_is_written_anew(
    kind: str, tmp_path: Path, run: Callable[..., Result]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b", "c"])
    command = ("pair2video", pairs, "-d", "data", "--json")
    path, folder = Path("data/videos/a.mp4"), Path("data/videos")
    folder.mkdir(parents=True)
    path.write_bytes(b"of some other program")
    assert run(*command).json[1]["done"] == 3
    right = {file.name: file.read_bytes() for file in folder.iterdir()}
    untouched = [(folder / name).stat().st_mtime_ns for name in ("b.mp4", "c.mp4")]
    SPOILERS[kind](path)
    summary = run(*command).json[1]
    assert (summary["done"], summary["skipped"]) == (1, 2)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == right
    assert [(folder / name).stat().st_mtime_ns for name in ("b.mp4", "c.mp4")] == untouched
    assert run(*command).json[1]["skipped"] == 3


def test_a_video_follows_its_images_and_its_settings(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    command = ("pair2video", pairs, "-d", "data", "--json")
    assert run(*command).json[1]["done"] == 2
    photo(77).save(pairs / "output/a.png")
    summary = run(*command).json[1]
    assert (summary["done"], summary["skipped"]) == (1, 1)
    assert np.array_equal(read_video(Path("data/videos/a.mp4"))[1], np.asarray(photo(77)))
    for name in ("a", "b"):  # the same bytes, at another time
        (pairs / f"output/{name}.png").write_bytes((pairs / f"output/{name}.png").read_bytes())
    assert run(*command).json[1]["skipped"] == 2
    for options in (("--codec", "h264"), ("--codec", "h264", "--crf", 9), ("--max-pixels", 1000)):
        assert run(*command, *options).json[1]["done"] == 2, options
        assert run(*command, *options).json[1]["skipped"] == 2, options


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
        write_video(source, target, tmp_path / "pair.mp4", LOSSLESS)
    assert not list(tmp_path.iterdir())


def test_a_video_that_decodes_badly_is_refused_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pair.mp4"
    old, encoder = write(path), video._encoder
    # A floor above what such a quality gives.
    monkeypatch.setattr(
        video, "_encoder", lambda _: encoder(VideoSettings(codec="h264", crf=40))._replace(floor=60)
    )
    with pytest.raises(PairError, match=r"pair\.mp4: .*differs"):
        write(path, codec="h264")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["pair.mp4"]


def test_without_the_check_the_structure_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, path = (noise((32, 24)), noise((32, 24), 1)), tmp_path / "pair.mp4"
    write_video(*images, path, LOSSLESS, NONE)
    assert all(map(np.array_equal, read_video(path), images))
    encode = video._encode
    monkeypatch.setattr(video, "_encode", lambda images, *rest: encode(images[:1], *rest))
    with pytest.raises(PairError, match="has 1 frames"):
        write_video(*images, tmp_path / "other.mp4", LOSSLESS, NONE)
    monkeypatch.setattr(video, "_encode", lambda images, *rest: encode(images[::-1], *rest))
    with pytest.raises(PairError, match="differs too much"):
        write_video(*images, tmp_path / "other.mp4", LOSSLESS)
    files = spoiled("damaged", tmp_path)
    assert copy_video(contents(files), tmp_path / "copied.mp4", COPY) == "damaged"
    assert not (tmp_path / "copied.mp4").exists()
    assert copy_video(contents(files), tmp_path / "copied.mp4", COPY, NONE) is None


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


def test_players_get_420_and_the_right_tags(tmp_path: Path) -> None:
    images = photo(1, (320, 240)), photo(2, (320, 240))
    for settings, pixel_format in ((H264, "yuv444p"), (PLAYERS, "yuv420p")):
        write_video(*images, tmp_path / "pair.mp4", settings)
        with av.open(str(tmp_path / "pair.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert context.pix_fmt == pixel_format
            assert (context.color_range, context.colorspace) == (1, 5), "tv range, BT.601"
        for image, frame in zip(images, read_video(tmp_path / "pair.mp4"), strict=True):
            assert psnr(np.asarray(image), frame) > 40


def test_420_of_odd_sides_is_refused_with_a_remedy(tmp_path: Path) -> None:
    images = photo(1, (33, 20)), photo(2, (33, 20))
    with pytest.raises(PairError, match="33×20: 4:2:0 needs even sides") as caught:
        write_video(*images, tmp_path / "pair.mp4", PLAYERS)
    assert "--chroma 444" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())
    scaled = PLAYERS.model_copy(update={"max_pixels": 400})
    assert write_video(*images, tmp_path / "pair.mp4", scaled)
    assert read_video(tmp_path / "pair.mp4")[0].shape == (14, 24, 3)


def test_crf_trades_size_for_quality_down_to_noise(tmp_path: Path) -> None:
    images, sizes = (noise((96, 64)), noise((96, 64), 1)), []
    for crf in (0, 6, 18, 35, 51):
        settings = VideoSettings(codec="h264", crf=crf)
        write_video(*images, tmp_path / "pair.mp4", settings)
        sizes.append((tmp_path / "pair.mp4").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("settings", [LOSSLESS, H264, COPY])
def test_max_pixels_scales_both_frames(tmp_path: Path, settings: VideoSettings) -> None:
    settings = settings.model_copy(update={"max_pixels": 1000})
    images = photo(1, (96, 72)), photo(2, (96, 72))
    if settings.codec == "copy":
        files = jpegs(tmp_path, *images)
        assert copy_video(contents(files), tmp_path / "p.mp4", settings) == "too large"
    notes = write_video(*images, tmp_path / "p.mp4", settings)
    assert notes == ("frames 96×72 → 36×27 (max_pixels)",)
    assert [frame.shape for frame in read_video(tmp_path / "p.mp4")] == [(27, 36, 3)] * 2


COPYABLE = {
    "420": ((320, 240), {"subsampling": 2}),
    "422": ((320, 240), {"subsampling": 1}),
    "444": ((319, 239), {"subsampling": 0}),
    "progressive": ((320, 240), {"progressive": True}),
    "restarts": ((320, 240), {"restart_marker_blocks": 3}),
    "profile and comment": ((320, 240), {"icc_profile": bytes(70_000), "comment": b"hello"}),
    "upright by EXIF": ((320, 240), {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1"
                                           b"\0\1\0\0\0\0\0\0"}),
    "one pixel": ((1, 1), {"subsampling": 0}),
}  # fmt: skip


@pytest.mark.parametrize("kind", COPYABLE)
def test_jpegs_are_copied_byte_for_byte(tmp_path: Path, kind: str) -> None:
    size, options = COPYABLE[kind]
    files = jpegs(tmp_path, photo(1, size), photo(2, size), **options)
    assert copy_video(contents(files), tmp_path / "pair.mp4", COPY) is None
    with av.open(str(tmp_path / "pair.mp4")) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    assert packets == contents(files)
    frames = read_video(tmp_path / "pair.mp4")
    assert len(frames) == 2
    for file, frame in zip(files, frames, strict=True):
        assert psnr(np.asarray(Image.open(file)), frame) > 38


def test_grey_jpegs_are_copied(tmp_path: Path) -> None:
    source, target = photo(1, (320, 240)).convert("L"), photo(2, (320, 240))
    files = jpegs(tmp_path, source, target)
    assert copy_video(contents(files), tmp_path / "pair.mp4", COPY) is None
    frames = read_video(tmp_path / "pair.mp4")
    assert psnr(np.asarray(Image.open(files[0]).convert("RGB")), frames[0]) > 45
    assert psnr(np.asarray(Image.open(files[1])), frames[1]) > 38


def spoiled(kind: str, folder: Path) -> list[Path]:
    """A pair of JPEG files whose target can't be copied."""
    files = jpegs(folder, photo(1), photo(2), **({"keep_rgb": True} if kind == "rgb" else {}))
    target, data = files[1], files[1].read_bytes()
    if kind == "png":
        photo(2).save(target, "PNG")
    elif kind == "cmyk":
        photo(2).convert("CMYK").save(target, "JPEG")
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        photo(2).save(target, exif=exif)
    elif kind == "size":
        photo(2, (64, 48)).save(target)
    elif kind == "odd":
        jpegs(folder, photo(1, (95, 72)), photo(2, (95, 72)), subsampling=2)
    elif kind == "components named RGB":  # to Pillow, another colour space
        target.write_bytes(_renamed(data[:2] + data[20:]))
    elif kind == "cut":
        target.write_bytes(data[: len(data) // 2])
    elif kind == "without end":
        target.write_bytes(data[:-2])
    elif kind == "damaged":
        start = data.index(b"\xff\xda") + 14
        target.write_bytes(data[:start] + b"\xff\xd0" * 40 + data[start + 80 :])
    return files


def _renamed(jpeg: bytes) -> bytes:
    data = bytearray(jpeg)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for number, letter in enumerate(b"RGB"):
        data[frame + 10 + 3 * number] = data[scan + 5 + 2 * number] = letter
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("png", "not JPEG"), ("cmyk", "unusual colours"), ("rgb", "unusual colours"),
     ("components named RGB", "unusual colours"), ("rotated", "EXIF orientation"),
     ("size", "different sizes"), ("odd", "odd sides"), ("cut", "cut off"),
     ("without end", "cut off"), ("damaged", "damaged")],
)  # fmt: skip
def test_what_readers_differ_on_is_not_copied(tmp_path: Path, kind: str, reason: str) -> None:
    files, path = spoiled(kind, tmp_path), tmp_path / "videos" / "pair.mp4"
    path.parent.mkdir()
    old = write(path)
    assert reason in str(copy_video(contents(files), path, COPY))
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == ["pair.mp4"]


def test_a_pair_that_can_not_be_copied_is_encoded_and_counted(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    pairs = tmp_path / "pairs"
    for side, seed in (("input", 0), ("output", 1)):
        (pairs / side).mkdir(parents=True)
        for number, suffix in enumerate(("jpg", "jpg", "png")):
            photo(2 * number + seed).save(pairs / side / f"p{number}.{suffix}")
    first = run("pair2video", pairs, "-d", "data", "--codec", "copy")
    assert first.code == 0
    assert "videos: not copied but encoded lossless: 1 (1 not JPEG)" in first.stdout
    assert np.array_equal(read_video(Path("data/videos/p2.mp4"))[0], np.asarray(photo(4)))
    again = run("pair2video", pairs, "-d", "data", "--codec", "copy", "--json").json
    assert [again[1][name] for name in ("done", "skipped")] == [0, 3]
    other = run("pair2video", pairs, "-d", "data", "--json").json
    assert other[1]["done"] == 3
    one = run("pair2video", "--input-image", pairs / "input/p2.png", "--output-image",
              pairs / "output/p2.png", "--output-file", "x.mp4", "--codec", "copy")  # fmt: skip
    assert "not copied but encoded lossless: not JPEG" in one.stderr


def test_options_of_another_codec_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    result = run("pair2video", "pairs", "-d", "data", "--chroma", "420")
    assert result.code == 2
    assert "chroma" in result.stderr
    assert "h264" in result.stderr


def test_a_disk_that_will_not_hold_the_videos_stops_the_run_before_it_is_full(
    tmp_path: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", [f"p{number:02}" for number in range(20)])
    monkeypatch.setattr(videos.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
    for command in (["pair2video"], ["prepare", "--prompt", "Do it."]):
        result = run(command[0], pairs, "-d", command[0], *command[1:])
        assert result.code == 1
        assert result.stderr.count("still to be written need about 0.0 GB") == 2, "warned, stopped"
        assert "--codec copy" in result.stderr
        assert len(list(Path(command[0], "videos").glob("*.mp4"))) >= 16
        assert not list(Path(command[0], "videos").glob(".*"))
    few = write_pairs(tmp_path / "few", ["a", "b"])
    result = run("pair2video", few, "-d", "few-data")
    assert result.code == 0, "two videos fit, and are no ground to stop"


@pytest.mark.parametrize("free", [5_000, 10**9], ids=["foreseen", "full"])
def test_a_run_that_stops_waits_for_the_videos_that_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    pairs = write_pairs(tmp_path / "pairs", [f"p{number:02}" for number in range(24)])
    monkeypatch.setattr("chronoprep.engine.local.cores", lambda: 1)  # work ahead grows with them
    begun: list[str] = []
    ended: list[str] = []
    write_one = videos.write_one

    def slow(pair: Pair, *rest: Any) -> Video:
        begun.append(pair.key)
        time.sleep(0.1)
        if pair.key == "p18" and free > 5_000:
            ended.append(pair.key)
            raise BackendError("No space left on device: still to be written")
        written = write_one(pair, *rest)
        ended.append(pair.key)
        return written

    monkeypatch.setattr(videos, "write_one", slow)
    monkeypatch.setattr(videos.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(BackendError, match="still to be written"):
        write_videos(tmp_path / "data", Settings(), pairs=pairs)
    assert 16 <= len(begun) < 24
    assert sorted(begun) == sorted(ended), "another run may take the folder now"


@pytest.mark.slow
def test_8k_is_exact_and_so_is_its_copy(tmp_path: Path) -> None:
    """An image of 7680×4320 is a screen of the largest kind."""
    slope = Image.linear_gradient("L").resize((7680, 4320)).convert("RGB")
    images = slope, slope.transpose(Image.Transpose.ROTATE_180)
    write_video(*images, tmp_path / "pair.mp4", LOSSLESS)
    for image, frame in zip(images, read_frames(tmp_path / "pair.mp4"), strict=True):
        assert np.array_equal(np.asarray(image), frame)
    assert copy_video(contents(jpegs(tmp_path, *images)), tmp_path / "c.mp4", COPY) is None
    assert [frame.shape for frame in read_frames(tmp_path / "c.mp4")] == [(4320, 7680, 3)] * 2


def test_a_video_of_the_same_images_outlives_settings_that_fail(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["x"], (65, 49))
    run("build-csv", pairs, "-d", "data", "--prompt", "Add a hat")
    failed = run("pair2video", pairs, "-d", "data", "--codec", "h264", "--chroma", "420")
    assert failed.code == 1
    assert "1 video(s) are in other settings" in failed.stdout
    assert len(read_video(Path("data/videos/x.mp4"))) == 2
    (pairs / "output/x.png").write_bytes(b"\x89PNG")
    assert run("pair2video", pairs, "-d", "data").code == 1
    assert not Path("data/videos/x.mp4").exists()
