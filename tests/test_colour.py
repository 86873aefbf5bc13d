"""Colour: what a picture says of its numbers is read, and both pictures of a pair come to sRGB.

References are written here in numpy, apart from what is tested.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from chronoprep.config import ImageSettings, Settings, VideoSettings
from chronoprep.data import Pair
from chronoprep.images.decode import says_srgb
from chronoprep.images.inspection import inspect
from chronoprep.images.load import load_image, load_pair
from chronoprep.mp4 import Sample
from chronoprep.workflows.videos import write_one
from conftest import photo
from test_cli import Run
from trainer import read_video

SETTINGS, AS_THEY_ARE = ImageSettings(), ImageSettings(colour_management=False)
LEVELS = 3  # of 255: the bar

# Linear RGB to XYZ under D65, as published: sRGB and Adobe RGB (1998), Display P3, BT.2020.
XYZ = {
    "sRGB": [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
             [0.0193339, 0.1191920, 0.9503041]],
    "Adobe RGB": [[0.5767309, 0.1855540, 0.1881852], [0.2973769, 0.6273491, 0.0752741],
                  [0.0270343, 0.0706872, 0.9911085]],
    "Display P3": [[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869],
                   [0.0, 0.0451134, 1.0439444]],
    "BT.2020": [[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017],
                [0.0, 0.0280727, 1.0609851]],
    # Under D50, the white of profiles.
    "ProPhoto": [[0.7976749, 0.1351917, 0.0313534], [0.2880402, 0.7118741, 0.0000857],
                 [0.0, 0.0, 0.8252100]],
}  # fmt: skip
BRADFORD_D65_TO_D50 = np.array([
    [1.0478112, 0.0228866, -0.0501270],
    [0.0295424, 0.9904844, -0.0170491],
    [-0.0092345, 0.0150436, 0.7521316],
])  # fmt: skip


def to_d50(name: str) -> np.ndarray:
    matrix = np.array(XYZ[name])
    return matrix if name == "ProPhoto" else BRADFORD_D65_TO_D50 @ matrix


def srgb_curve(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_light(codes: np.ndarray) -> np.ndarray:
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def gamma(power: float) -> tuple[Callable[..., np.ndarray], bytes]:
    """A curve from light to codes, and the same as a profile writes it (`curv`, u8Fixed8)."""
    stored = round(power * 256)
    curve = struct.pack(">4sIIH", b"curv", 0, 1, stored)
    return (lambda light: np.clip(light, 0, 1) ** (256 / stored)), curve


def icc(kind: bytes, pcs: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr") -> bytes:
    """A profile of version 2 (ICC.1:2001-04)."""
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(79), b"cprt": b"text\0\0\0\0none\0",
            b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061), **tags}  # fmt: skip
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s12s4s28s3i", at + len(body), b"", 0x02400000, device, kind, pcs,
                       b"", b"acsp", b"", 63190, 65536, 54061)  # fmt: skip
    return head.ljust(128, b"\0") + table + body


def matrix_profile(name: str, curve: bytes) -> bytes:
    columns = np.round(to_d50(name).T * 65536).astype(int)
    xyz = [b"XYZ \0\0\0\0" + struct.pack(">3i", *column) for column in columns]
    return icc(b"RGB ", b"XYZ ", {
        b"rXYZ": xyz[0], b"gXYZ": xyz[1], b"bXYZ": xyz[2],
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    })  # fmt: skip


def lab_of(xyz: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50, as a table of a profile holds it in 16 bits (version 2)."""
    t = xyz / np.array([0.9642, 1.0, 0.8249])
    f = np.where(t > 216 / 24389, np.cbrt(np.maximum(t, 0)), (24389 / 27 * t + 16) / 116)
    lightness = 116 * f[..., 1] - 16
    a, b = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    stored = np.stack([lightness * 652.8, (a + 128) * 256, (b + 128) * 256], axis=-1)
    return np.clip(stored, 0, 65535).round().astype(">u2")


def lut_profile(
    kind: bytes, device: bytes, points: int, light_of: Callable[..., np.ndarray]
) -> bytes:
    """A profile that is a table into Lab (`mft2`), such as a scanner's or a printer's."""
    channels = 4 if kind == b"CMYK" else 3
    axes = np.meshgrid(*[np.linspace(0, 1, points)] * channels, indexing="ij")
    table = lab_of(light_of(np.stack(axes, axis=-1))).tobytes()
    straight = struct.pack(">HH", 0, 65535)
    head = struct.pack(">4sIBBBx9iHH", b"mft2", 0, channels, 3, points,
                       65536, 0, 0, 0, 65536, 0, 0, 0, 65536, 2, 2)  # fmt: skip
    tag = head + straight * channels + table + straight * 3
    return icc(kind, b"Lab ", {b"A2B0": tag, b"A2B1": tag}, device)


SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + struct.pack(
    ">5i", *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
PICTURE = np.asarray(photo(3, (120, 90))) * 0.5 + 50  # no colour that another space lacks


def encode_in(name: str, curve: Callable[..., np.ndarray], picture: np.ndarray) -> np.ndarray:
    """A picture in sRGB as numbers of another space."""
    light = srgb_light(picture / 255) @ (np.linalg.inv(to_d50(name)) @ to_d50("sRGB")).T
    return (curve(light) * 255).round().astype(np.uint8)


def grey_of(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)


def _rgb_lut(codes: np.ndarray) -> np.ndarray:
    return codes**1.9 @ to_d50("Adobe RGB").T


def _cmyk_lut(codes: np.ndarray) -> np.ndarray:
    """An ideal printer: inks take light away."""
    return ((1 - codes[..., :3]) * (1 - codes[..., 3:])) ** 2.2 @ to_d50("sRGB").T


def profiled() -> dict[str, tuple[Image.Image, bytes, np.ndarray]]:
    """Name → a picture with numbers of its profile, the profile, and the picture in sRGB."""
    two, two_curve = gamma(2.2)
    wide, wide_curve = gamma(1.8)
    grey_curve = struct.pack(">4sIIH", b"curv", 0, 1, round(1.6 * 256))
    grey = grey_of(PICTURE)
    grey_numbers = srgb_light(grey[..., 0] / 255) ** (256 / round(1.6 * 256))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    straight = PICTURE.round().astype(np.uint8)
    lut = (np.clip(srgb_light(PICTURE / 255) @ (
        np.linalg.inv(to_d50("Adobe RGB")) @ to_d50("sRGB")).T, 0, 1) ** (1 / 1.9))  # fmt: skip
    inks = 1 - srgb_light(PICTURE / 255) ** (1 / 2.2)
    black = inks.min(axis=-1, keepdims=True) * 0.5
    cmyk = np.concatenate([1 - (1 - inks) / (1 - black), black], axis=-1)
    byte = lambda codes: (codes * 255).round().astype(np.uint8)  # noqa: E731
    p3 = matrix_profile("Display P3", SRGB_CURVE)
    return {
        "sRGB": (Image.fromarray(straight), srgb, straight),
        "Adobe RGB": (Image.fromarray(encode_in("Adobe RGB", two, PICTURE)),
                      matrix_profile("Adobe RGB", two_curve), PICTURE),
        "Display P3": (Image.fromarray(encode_in("Display P3", srgb_curve, PICTURE)), p3, PICTURE),
        "old Mac": (Image.fromarray(encode_in("sRGB", wide, PICTURE)),
                    matrix_profile("sRGB", wide_curve), PICTURE),
        "ProPhoto": (Image.fromarray(encode_in("ProPhoto", wide, PICTURE)),
                     matrix_profile("ProPhoto", wide_curve), PICTURE),
        "grey": (Image.fromarray(byte(grey_numbers)), icc(b"GRAY", b"XYZ ", {b"kTRC": grey_curve}),
                 grey),
        "table": (Image.fromarray(byte(lut)), lut_profile(b"RGB ", b"scnr", 17, _rgb_lut), PICTURE),
        "CMYK": (Image.fromarray(byte(cmyk), "CMYK"),
                 lut_profile(b"CMYK", b"prtr", 9, _cmyk_lut), PICTURE),
    }  # fmt: skip


PROFILED = profiled()
CONTAINERS = ("png", "tif", "jpg", "webp", "avif", "heic")
TAGGED = [
    (name, suffix)
    for name in PROFILED
    for suffix in CONTAINERS
    # What their writers take.
    if suffix in {"CMYK": ("tif", "jpg"), "grey": ("png", "tif", "jpg")}.get(name, CONTAINERS)
]
LOSSY = ("jpg", "avif")


def save(path: Path, image: Image.Image, profile: bytes | None = None) -> Path:
    options: dict[str, object] = {"icc_profile": profile} if profile else {}
    if path.suffix in (".jpg", ".avif"):
        options |= {"quality": 100, "subsampling": "4:4:4"}
    elif path.suffix == ".webp":
        options |= {"lossless": True}
    elif path.suffix == ".heic":
        pillow_heif.register_heif_opener()
        options |= {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    image.save(path, **options)
    return path


def apart(one: Image.Image, other: Image.Image | np.ndarray, *, lossy: bool = False) -> int:
    """The largest difference in levels but for one value in a thousand; of lossy files, between the
    means of squares of 10×10, but for one in twenty."""
    error = np.asarray(one, float) - np.asarray(other, float)
    if lossy:
        error = error.reshape(9, 10, 12, 10, 3).mean(axis=(1, 3))
    return int(np.quantile(np.abs(error), 0.95 if lossy else 0.999).round())


@pytest.mark.parametrize(("name", "suffix"), TAGGED)
def test_a_pair_of_one_picture_in_two_colour_spaces_is_one_picture(
    name: str, suffix: str, tmp_path: Path
) -> None:
    image, profile, shown = PROFILED[name]
    tagged = save(tmp_path / f"a.{suffix}", image, profile)
    plain = save(tmp_path / "b.png", Image.fromarray(shown.round().astype(np.uint8)))
    loaded = load_pair(Pair("x", str(tagged), str(plain)), SETTINGS)
    lossy = suffix in LOSSY
    assert apart(loaded.source, loaded.target, lossy=lossy) <= LEVELS
    said = [note for note in loaded.notes if "sRGB" in note]
    if name == "sRGB":
        assert not said
    else:
        assert "→ sRGB" in said[0]
        assert "clipped" not in said[0]
        assert "colour spaces differ" in said[1]
    raw = load_image(tagged, AS_THEY_ARE)
    if name not in ("CMYK", "sRGB"):
        assert apart(raw.image, image.convert("RGB"), lossy=lossy) <= 2
        assert "taken as sRGB" in raw.notes[0]
        assert apart(raw.image, shown) > 8


def test_enough_pairs_are_tried() -> None:
    assert len(TAGGED) >= 40
    assert len(PROFILED) >= 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_profile_that_is_srgb_leaves_each_bit(suffix: str, tmp_path: Path) -> None:
    image, profile, _ = PROFILED["sRGB"]
    other = matrix_profile("sRGB", SRGB_CURVE)  # called "test", and made otherwise
    plain = load_image(save(tmp_path / f"a.{suffix}", image), SETTINGS)
    for number, said in enumerate((profile, other)):
        tagged = load_image(save(tmp_path / f"{number}.{suffix}", image, said), SETTINGS)
        assert tagged.image.tobytes() == plain.image.tobytes()
        assert (tagged.notes, tagged.colours) == ((), "sRGB")


@pytest.mark.parametrize("profile", [b"no profile", bytes(200), b"cut"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_broken_profile_is_a_note(profile: bytes, suffix: str, tmp_path: Path) -> None:
    if profile == b"cut":
        profile = PROFILED["Adobe RGB"][1][:200]
    path = save(tmp_path / f"a.{suffix}", PROFILED["sRGB"][0], profile)
    loaded = load_image(path, SETTINGS)
    assert apart(loaded.image, PROFILED["sRGB"][0], lossy=suffix == "jpg") <= 1
    assert loaded.notes == ("its unusable colour profile was left out",)


def test_a_profile_of_other_channels_is_a_note_and_one_of_rgb_serves_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    path = save(tmp_path / "a.png", grey, PROFILED["CMYK"][1])
    assert "unusable" in load_image(path, SETTINGS).notes[0]
    path = save(tmp_path / "b.png", grey, PROFILED["old Mac"][1])
    shown = srgb_curve((np.asarray(grey) / 255) ** (461 / 256)) * 255
    loaded = load_image(path, SETTINGS)
    assert np.abs(np.asarray(loaded.image, float) - shown[..., None]).max() <= 1
    assert loaded.colours == "test"


def test_transparent_deep_and_palette_pictures_are_converted_too(tmp_path: Path) -> None:
    image, profile, shown = PROFILED["Adobe RGB"]
    see_through = image.copy()
    see_through.putalpha(Image.new("L", image.size, 255))
    see_through.paste((0, 0, 0, 0), (0, 0, 20, 20))
    loaded = load_image(save(tmp_path / "a.png", see_through, profile), SETTINGS).image
    assert loaded.getpixel((3, 3)) == (255, 255, 255)
    assert np.abs(np.asarray(loaded, float)[30:] - shown[30:]).max() <= LEVELS
    flat = Image.new("P", (8, 8), 0)
    flat.putpalette([*image.getpixel((60, 60)), 0, 0, 0])
    loaded = load_image(save(tmp_path / "b.png", flat, profile), SETTINGS).image
    assert np.abs(np.subtract(loaded.getpixel((0, 0)), shown[60, 60])).max() <= LEVELS
    grey, profile, shown = PROFILED["grey"]
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    loaded = load_image(save(tmp_path / "c.png", deep, profile), SETTINGS).image
    assert apart(loaded, shown) <= LEVELS


def test_colours_that_srgb_lacks_are_counted(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), (128, 128, 128))
    image.paste((0, 255, 0), (0, 0, 40, 10))
    loaded = load_image(save(tmp_path / "a.png", image, PROFILED["Display P3"][1]), SETTINGS)
    assert loaded.notes == ("test → sRGB, 25.0% of its pixels clipped",)
    assert loaded.image.getpixel((5, 5)) == (0, 255, 0)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content)))  # fmt: skip


def with_chunks(path: Path, *chunks: bytes) -> Path:
    """A PNG with chunks put in behind its header."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


P3_POINTS = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
POINTS = b"".join(struct.pack(">I", round(value * 100_000)) for value in P3_POINTS)


def test_png_tells_its_colours_by_chunks(tmp_path: Path) -> None:
    srgb, p3 = PROFILED["sRGB"][0], PROFILED["Display P3"][0]
    old, _, shown = PROFILED["old Mac"]
    wide_power = chunk(b"gAMA", struct.pack(">I", round(100_000 / (461 / 256))))
    usual = chunk(b"gAMA", struct.pack(">I", 45_455))
    for name, image, chunks, named in (
        ("gamma", old, (wide_power,), "its gAMA and cHRM"),
        ("primaries", p3, (usual, chunk(b"cHRM", POINTS)), "its gAMA and cHRM"),
        ("cicp", p3, (chunk(b"cICP", bytes([12, 13, 0, 1])),), "Display P3"),
        # The first to count of several.
        ("both", p3, (chunk(b"cICP", bytes([12, 13, 0, 1])), wide_power), "Display P3"),
        ("usual", srgb, (usual,), "sRGB"),
        ("srgb", srgb, (chunk(b"sRGB", b"\0"), wide_power), "sRGB"),
        ("senseless", srgb, (chunk(b"cHRM", bytes(32)),), "sRGB"),
    ):
        path = with_chunks(save(tmp_path / f"{name}.png", image), *chunks)
        loaded = load_image(path, SETTINGS)
        assert loaded.colours == named, name
        assert apart(loaded.image, shown) <= LEVELS, name
        if named == "sRGB":
            assert loaded.image.tobytes() == srgb.tobytes()


@pytest.mark.parametrize(("colour", "index"), [(2, None), (0xFFFF, "R03")])
def test_a_camera_that_says_adobe_rgb_in_exif_alone_is_believed(
    colour: int, index: str | None, tmp_path: Path
) -> None:
    image, _, shown = PROFILED["Adobe RGB"]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = colour
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    path = tmp_path / "a.jpg"
    image.save(path, quality=100, subsampling="4:4:4", exif=exif)
    loaded = load_image(path, SETTINGS)
    assert loaded.colours == "Adobe RGB"
    assert apart(loaded.image, shown, lossy=True) <= LEVELS


def codes_of(path: Path, primaries: int, transfer: int) -> Path:
    """Write other code points into an AVIF."""
    data = path.read_bytes()
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :])
    return path


def save_heic(path: Path, image: Image.Image, primaries: int, transfer: int) -> Path:
    pillow_heif.register_heif_opener()
    image.save(path, quality=-1, chroma=444, matrix_coefficients=0, color_primaries=primaries,
               transfer_characteristics=transfer)  # fmt: skip
    return path


def test_avif_and_heic_tell_their_colours_by_code_points(tmp_path: Path) -> None:
    image, _, shown = PROFILED["Display P3"]
    avif = codes_of(save(tmp_path / "a.avif", image), 12, 13)
    for path in (avif, save_heic(tmp_path / "a.heic", image, 12, 13)):
        loaded = load_image(path, SETTINGS)
        assert loaded.colours == "Display P3"
        assert apart(loaded.image, shown, lossy=True) <= LEVELS
    assert load_image(save(tmp_path / "b.avif", image), SETTINGS).notes == ()


def test_a_look_at_pairs_tells_of_other_colours(tmp_path: Path, run: Run) -> None:
    image, profile, _ = PROFILED["Adobe RGB"]
    for folder, said in (("input", profile), ("output", None)):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        save(tmp_path / "pairs" / folder / "a.png", image, said)
    seen = inspect(Pair("a", str(tmp_path / "pairs/input/a.png"),
                        str(tmp_path / "pairs/output/a.png")), SETTINGS)  # fmt: skip
    assert seen.colours == ("test", "sRGB")
    assert not seen.identical
    findings = run("pairs", "pairs", "--json").json["findings"]
    assert [f["message"] for f in findings if f["code"] == "other-colours"] == [
        "colour spaces test → sRGB"
    ]


def test_videos_and_digests_follow_the_setting(tmp_path: Path, run: Run) -> None:
    image, profile, shown = PROFILED["Adobe RGB"]
    for folder in ("input", "output"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        save(tmp_path / "pairs" / folder / "a.png", image, profile)
    command = ("pair2video", "pairs", "-d", "data", "--json")
    for flags, wanted in (((), shown), (("--no-colour-management",), np.asarray(image))):
        assert run(*command, *flags).json[1]["done"] == 1
        assert run(*command, *flags).json[1]["skipped"] == 1
        for frame in read_video(Path("data/videos/a.mp4")):
            assert np.abs(frame - np.asarray(wanted, float)).max() <= LEVELS


def test_a_profile_is_found_behind_what_looks_like_pixels(tmp_path: Path) -> None:
    image, profile, _ = PROFILED["Adobe RGB"]
    data = save(tmp_path / "a.jpg", image, profile).read_bytes()
    thumbnail = b"\xff\xeb\0\x08\xff\xda\xff\xd9\0\0"
    for more in (b"", thumbnail, b"\xff" + thumbnail, b"\xff\xff" + thumbnail):
        assert not says_srgb(data[:2] + more + data[2:], "a.jpg")
    image.save(tmp_path / "plain.jpg")
    data = (tmp_path / "plain.jpg").read_bytes()
    assert says_srgb(data[:2] + thumbnail + data[2:], "plain.jpg")


def test_only_srgb_jpegs_are_copied(tmp_path: Path) -> None:
    for name, copied in (("sRGB", True), ("Adobe RGB", False)):
        image, profile, _ = PROFILED[name]
        folder = tmp_path / name
        folder.mkdir()
        pair = Pair("a", *(str(save(folder / f"{n}.jpg", image, profile)) for n in (1, 2)))
        settings = Settings(video=VideoSettings(codec="copy"))
        reason = write_one(pair, folder / "a.mp4", settings, Sample("all")).not_copied
        assert reason == (None if copied else "other colours than sRGB")
        raw = settings.model_copy(update={"images": AS_THEY_ARE})
        assert write_one(pair, folder / "b.mp4", raw, Sample("all")).not_copied is None
