"""Clips are whole and as a player shows them: square pixels, the last frame, codecs that are known.

Clips that are cut off or damaged at random: `test_fuzz`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from chronoprep.config import ImageSettings
from chronoprep.data import Frame
from chronoprep.errors import PairError
from chronoprep.images.clips import keep_clip
from chronoprep.images.load import load_image
from conftest import Result
from test_clips import FFMPEG, pictures, turn, write_clip

SETTINGS = ImageSettings()


def with_shape(clip: Path, shape: str) -> Path:
    """The same clip with pixels that are no squares."""
    shaped = clip.with_name(f"shaped-{clip.name}")
    command = [*FFMPEG, "-i", clip, "-c", "copy", "-bsf:v",
               f"h264_metadata=sample_aspect_ratio={shape}", shaped]  # fmt: skip
    subprocess.run(command, check=True)
    return shaped


@pytest.mark.parametrize(
    ("shape", "size"), [("4/3", (85, 48)), ("8/9", (64, 54)), ("1/1", (64, 48)), ("2/1", (128, 48))]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_are_made_square(
    shape: str, size: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    plain = write_clip(tmp_path / f"a.{suffix}", "libx264", "yuv444p", qp="0")
    clip = with_shape(plain, shape)
    loaded = load_image(Frame(clip, "last"), SETTINGS)
    assert loaded.image.size == size
    if shape == "1/1":
        assert loaded.notes == ()
        return
    assert loaded.notes == (f"pixels made square: 64×48 → {size[0]}×{size[1]}",)
    untouched = load_image(Frame(plain, "last"), SETTINGS).image
    small = loaded.image.resize((8, 6), 4)  # means of the blocks
    error = np.abs(np.asarray(small, int) - np.asarray(untouched.resize((8, 6), 4)))
    assert error.mean() < 12
    with pytest.raises(PairError, match="pixels are no squares"):
        keep_clip(clip, tmp_path / "kept.mp4", SETTINGS, check=True)


def test_pixels_are_made_square_before_a_clip_is_turned(tmp_path: Path) -> None:
    clip = with_shape(write_clip(tmp_path / "a.mp4", "libx264", "yuv444p", qp="0"), "2/1")
    assert load_image(Frame(turn(clip, 90), "first"), SETTINGS).image.size == (48, 128)


def test_the_limit_is_of_square_pixels(tmp_path: Path) -> None:
    clip = with_shape(write_clip(tmp_path / "a.mp4", "libx264", "yuv444p", qp="0"), "2/1")
    with pytest.raises(PairError, match="128×48 pixels are more than the limit of 4,000"):
        load_image(Frame(clip, "first"), ImageSettings(max_pixels=4000))


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_a_clip_of_an_unknown_codec_fails_alone(tmp_path: Path, run: Callable[..., Result]) -> None:
    clips = tmp_path / "clips"
    write_clip(clips / "good.mp4", "libx264", "yuv420p")
    replaced(write_clip(clips / "a.mp4", "libx264", "yuv420p"), b"avc1", b"zzzz")
    replaced(
        write_clip(clips / "b.mkv", "libx264", "yuv420p"), b"V_MPEG4/ISO/AVC", b"V_UNKNOWN/CODEC"
    )
    result = run("pair2video", "clips", "-d", "data", "--json")
    assert result.code == 1
    assert [path.name for path in Path("data/videos").iterdir()] == ["good.mp4"]
    failures = result.json[1]["failures"]
    assert len(failures) == 2
    assert all("a codec that FFmpeg does not know" in str(failure) for failure in failures)


def test_an_index_that_promises_more_than_the_file_holds(tmp_path: Path) -> None:
    """The box of the frames says that it goes to the end of the file, wherever that is."""
    whole = write_clip(tmp_path / "whole.mp4", "libx264", "yuv420p", repeat=4, g="5")
    fast = tmp_path / "fast.mp4"
    subprocess.run(
        [*FFMPEG, "-i", whole, "-c", "copy", "-movflags", "+faststart", fast], check=True
    )
    data = bytearray(fast.read_bytes())
    at = data.index(b"mdat") - 4
    data[at : at + 4] = bytes(4)
    fast.write_bytes(data)
    assert load_image(Frame(fast, "last"), SETTINGS).notes == ()
    fast.write_bytes(data[: (at + len(data)) // 2])
    for use in (
        lambda: load_image(Frame(fast, "last"), SETTINGS),
        lambda: load_image(Frame(fast, "first"), SETTINGS),
        lambda: keep_clip(fast, tmp_path / "kept.mp4", SETTINGS, check=False),
    ):
        with pytest.raises(PairError, match=r"ends early: \d\d of 68 frames in its index"):
            use()


def test_the_last_frame_is_the_one_that_the_container_has(tmp_path: Path) -> None:
    """Where the last frames don't decode, one before them does not pass for the last."""
    clip = write_clip(tmp_path / "a.mkv", "mpeg4", "yuv420p", g="1")
    with av.open(str(clip)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    data = bytearray(clip.read_bytes())
    begin = len(data)
    for _ in sizes[-3:]:
        begin = data.rindex(b"\0\0\1\xb6", 0, begin)
    end = data.index(b"\x1c\x53\xbb\x6b", begin)  # what follows the frames
    data[begin:end] = bytes(end - begin)
    clip.write_bytes(data)
    with pytest.raises(PairError, match=r"last frame|damaged|can't read"):
        load_image(Frame(clip, "last"), SETTINGS)
    first = load_image(Frame(clip, "first"), SETTINGS).image
    assert np.abs(np.asarray(first, int) - pictures()[0]).mean() < 30


def test_wide_colours_of_a_clip_become_srgb(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(5), options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 14, 9
        context.color_range = 1
        for level in (100, 150):
            picture = np.full((32, 32, 3), (level, 100, 80), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(
                format="yuv444p", dst_colorspace=9, dst_color_range=1)))  # fmt: skip
        container.mux(stream.encode(None))
    loaded = load_image(Frame(clip, "first"), SETTINGS)
    assert (loaded.colours, loaded.notes) == ("BT.2020", ("BT.2020 → sRGB",))
    light = ((np.array([100, 100, 80]) / 255 + 0.055) / 1.055) ** 2.4
    linear = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083],
                       [-0.0182, -0.1006, 1.1187]]) @ light  # fmt: skip
    wanted = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(np.subtract(loaded.image.getpixel((9, 9)), wanted)).max() <= 3
