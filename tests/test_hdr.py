"""High dynamic range: files of PQ and HLG, against a conversion that is written here anew."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from chronoprep.config import ImageSettings
from chronoprep.data import Frame, ImageRef, Pair
from chronoprep.errors import PairError
from chronoprep.images.clips import keep_clip
from chronoprep.images.load import load_image, load_pair
from test_colour import chunk, codes_of, icc, with_chunks

SETTINGS = ImageSettings()
CODES = {"PQ": 16, "HLG": 18}
# BT.2020 to sRGB in linear light (ITU-R BT.2087).
TO_SRGB = np.array([
    [1.6605, -0.5876, -0.0728],
    [-0.1246, 1.1329, -0.0083],
    [-0.0182, -0.1006, 1.1187],
])  # fmt: skip


def pq(light: np.ndarray) -> np.ndarray:
    """cd/m² to PQ (SMPTE ST 2084)."""
    y = (np.maximum(light, 0) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def pq_light(codes: np.ndarray) -> np.ndarray:
    e = codes ** (1 / 78.84375)
    return 10000 * (np.maximum(e - 0.8359375, 0) / (18.8515625 - 18.6875 * e)) ** (
        1 / 0.1593017578125
    )


def hlg(light: np.ndarray) -> np.ndarray:
    """cd/m² on a screen of 1000 to HLG (ARIB STD-B67, BT.2100)."""
    on_screen = light / 1000
    luminance = on_screen @ [0.2627, 0.6780, 0.0593]
    scene = on_screen * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
    low = np.sqrt(3 * np.maximum(scene, 0))
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, low, high)


def shown(light: np.ndarray) -> np.ndarray:
    """What sRGB is to show of light in cd/m² of BT.2020's primaries."""
    top = float(pq(np.array(1000.0)))
    white = float(pq(np.array(203.0))) / top
    knee = 1.5 * white - 0.5
    most = light.max(axis=-1, keepdims=True)
    level = np.minimum(pq(most) / top, 1)
    t = (level - knee) / (1 - knee)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * white
    )
    rolled = pq_light(np.where(level < knee, level, curve) * top)
    linear = np.clip(light * rolled / np.maximum(most, 1e-6) / 203 @ TO_SRGB.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def scene() -> np.ndarray:
    """Light in cd/m², [96, 128, 3]: from 0.5 to 800 from left to right, in soft colours."""
    ramp = np.geomspace(0.5, 800, 128)[None, :, None]
    tint = np.stack([np.linspace(1, 0.6, 96), np.linspace(0.7, 1, 96), np.full(96, 0.8)], axis=-1)
    return ramp * tint[:, None]


LIGHT = scene()


def numbers(kind: str, depth: type = np.uint16) -> np.ndarray:
    codes = {"PQ": pq, "HLG": hlg}[kind](LIGHT)
    return (codes * np.iinfo(depth).max).round().astype(depth)


def png(path: Path, kind: str) -> Path:
    import cv2

    cv2.imwrite(str(path), numbers(kind)[..., ::-1])
    return with_chunks(path, chunk(b"cICP", bytes([9, CODES[kind], 0, 1])))


def flat_png(path: Path, kind: str) -> Path:
    Image.fromarray(numbers(kind, np.uint8)).save(path)
    return with_chunks(path, chunk(b"cICP", bytes([9, CODES[kind], 0, 1])))


def profiled_png(path: Path, kind: str) -> Path:
    """The code points in a profile, as JPEG XL's decoder gives them."""
    cicp = b"cicp\0\0\0\0" + bytes([9, CODES[kind], 0, 1])
    profile = icc(b"RGB ", b"XYZ ", {b"cicp": cicp})
    Image.fromarray(numbers(kind, np.uint8)).save(path, icc_profile=profile)
    return path


def avif(path: Path, kind: str) -> Path:
    return encode(path, kind, "libsvtav1", frames=1, options={"crf": "4"})


def flat_avif(path: Path, kind: str) -> Path:
    Image.fromarray(numbers(kind, np.uint8)).save(path, quality=100, subsampling="4:4:4")
    return codes_of(path, 9, CODES[kind])


def heic(path: Path, kind: str) -> Path:
    pixels = numbers(kind)
    pillow_heif.encode(
        "RGB;16", (128, 96), pixels.tobytes(), path, quality=-1, chroma=444, color_primaries=9,
        transfer_characteristics=CODES[kind], matrix_coefficients=9,
    )  # fmt: skip
    return path


def clip(path: Path, kind: str) -> Path:
    return encode(path, kind, "libx265", frames=3, options={"x265-params": "qp=4:log-level=0"})


def encode(path: Path, kind: str, codec: str, *, frames: int, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, CODES[kind], 9
        context.color_range = 1
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(numbers(kind), format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# PyAV 17's FFmpeg rounds otherwise.
OF_CLIPS = 4 if av.__version__.startswith("17.") else 3
# Writer, suffix, and the tolerance in levels: PQ's codes of 8 bits are up to 4 % of light apart.
FILES = [(png, "png", 2), (flat_png, "png", 6), (profiled_png, "png", 6), (avif, "avif", 4),
    (flat_avif, "avif", 13),
         (heic, "heic", 3), (clip, "mp4", OF_CLIPS), (clip, "mkv", OF_CLIPS)]  # fmt: skip


@pytest.mark.parametrize("kind", ["PQ", "HLG"])
@pytest.mark.parametrize(("write", "suffix", "tolerance"), FILES)
def test_hdr_is_tone_mapped_as_stated(
    kind: str, write: object, suffix: str, tolerance: int, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.{suffix}", kind)  # type: ignore[operator]
    ref: ImageRef = Frame(path, "last") if write is clip else path
    loaded = load_image(ref, SETTINGS)
    error = np.abs(np.asarray(loaded.image, float) - shown(LIGHT))
    assert np.quantile(error, 0.99) <= tolerance
    assert error.mean() <= tolerance / 3
    assert loaded.colours == f"HDR ({kind})"
    assert loaded.notes[0].startswith(f"HDR ({kind}) tone-mapped to sRGB")
    raw = load_image(ref, ImageSettings(colour_management=False))
    assert np.abs(np.asarray(raw.image, float) - numbers(kind) / 257).mean() <= 3
    assert raw.notes == (f"HDR ({kind}): its numbers taken as sRGB",)


def test_a_pair_of_hdr_and_sdr_is_one_picture(tmp_path: Path) -> None:
    plain = Image.fromarray(shown(LIGHT).round().astype(np.uint8))
    plain.save(tmp_path / "b.png")
    hdr = png(tmp_path / "a.png", "PQ")
    loaded = load_pair(Pair("x", str(hdr), str(tmp_path / "b.png")), SETTINGS)
    assert np.abs(np.asarray(loaded.source, int) - np.asarray(loaded.target)).max() <= 3
    assert loaded.notes[-1] == "colour spaces differ: HDR (PQ) and sRGB"


def test_what_is_brighter_than_the_screen_is_white_and_greys_stay_grey(tmp_path: Path) -> None:
    import cv2

    light = np.geomspace(0.1, 10_000, 200)[None, :, None].repeat(3, axis=2)
    cv2.imwrite(str(tmp_path / "a.png"), (pq(light) * 65535).round().astype(np.uint16))
    path = with_chunks(tmp_path / "a.png", chunk(b"cICP", bytes([9, 16, 0, 1])))
    row = np.asarray(load_image(path, SETTINGS).image, int)[0]
    assert np.ptp(row, axis=1).max() <= 1
    assert (np.diff(row[:, 1]) >= 0).all()
    assert (row[light[0, :, 0] >= 1000] == 255).all()


def test_an_hdr_clip_is_not_kept_as_it_is(tmp_path: Path) -> None:
    made = clip(tmp_path / "a.mp4", "HLG")
    with pytest.raises(PairError, match=r"HDR \(HLG\) and would be read as sRGB"):
        keep_clip(made, tmp_path / "kept.mp4", SETTINGS, check=True)
    keep_clip(made, tmp_path / "kept.mp4", ImageSettings(colour_management=False), check=True)
