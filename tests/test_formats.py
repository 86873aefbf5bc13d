"""The formats of pictures: all that Pillow reads, by their bytes, whatever they are called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from bad_inputs import encoded
from chronoprep.config import ImageSettings, PairSettings
from chronoprep.errors import PairError
from chronoprep.images import formats
from chronoprep.images.boxes import jxl_size
from chronoprep.images.formats import FORMATS, SUFFIXES, formats_of
from chronoprep.images.load import load_image
from chronoprep.pairs import discover
from conftest import photo

SETTINGS = ImageSettings()

# What Pillow opens and is no picture for us, and why.
LEFT_OUT = {
    "EPS", "WMF",  # by another program
    "BUFR", "GRIB", "HDF5",  # not by Pillow at all
    "FLI", "MPEG",  # films
    "FITS", "MCIDAS", "SPIDER",  # measurements
    "ICO", "ICNS", "BLP", "FTEX",  # wrap a picture of another size than they say
    "IPTC", "CUR", "GBR", "IM", "IMT", "XVTHUMB",
    "FPX", "MIC",  # take a library that is not ours
}  # fmt: skip


def test_every_suffix_that_pillow_reads_is_a_pictures() -> None:
    Image.init()
    ours = set(formats_of(b"", "x.tga")) | {"HEIF", "JXL"}
    assert ours <= {*Image.OPEN, "HEIF", "JXL"}
    assert set(Image.OPEN) - ours <= LEFT_OUT
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in ours}
    assert known <= SUFFIXES
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".fits", ".txt", ".svg"} & SUFFIXES


def test_what_has_no_mark_is_told_by_its_name_alone() -> None:
    assert "TGA" in formats_of(b"", "folder/X.TGA")
    assert formats_of(b"", "folder/x.png") == FORMATS
    assert not {"TGA", "EPS"} & set(FORMATS)


WRITABLE = {
    ".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "MPO", ".apng": "PNG", ".tif": "TIFF", ".dib": "DIB",
    ".j2k": "JPEG2000", ".jp2": "JPEG2000", ".jpx": "JPEG2000", ".pgm": "PPM", ".pnm": "PPM",
    ".tga": "TGA", ".pcx": "PCX", ".sgi": "SGI", ".dds": "DDS", ".avifs": "AVIF",
    ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL",
}  # fmt: skip


def written(path: Path, kind: str, image: Image.Image) -> None:
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    path.write_bytes(encoded(image, kind))


@pytest.mark.parametrize("suffix", WRITABLE)
def test_pictures_are_found_and_read_by_every_suffix_in_any_case(
    suffix: str, tmp_path: Path
) -> None:
    image = photo(4, (160, 120))
    for folder, name in (("input", f"a{suffix}"), ("output", f"a{suffix.upper()}")):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / name, WRITABLE[suffix], image)
    found = discover(tmp_path, PairSettings())
    assert len(found.pairs) == 1
    for ref in (found.pairs[0].source, found.pairs[0].target):
        loaded = load_image(Path(ref), SETTINGS).image
        assert loaded.size == (160, 120)
        assert np.abs(np.asarray(loaded, int) - np.asarray(image)).mean() < 8


@pytest.mark.parametrize("kind", ["HEIF", "JXL", "JPEG2000", "AVIF", "DDS"])
def test_the_bytes_tell_the_format_whatever_the_suffix_says(kind: str, tmp_path: Path) -> None:
    image = photo(4, (40, 30))
    written(tmp_path / "a.png", kind, image)
    assert load_image(tmp_path / "a.png", SETTINGS).image.size == (40, 30)


@pytest.mark.parametrize(
    ("kind", "module", "what"),
    [("HEIF", "pillow_heif", "a HEIC image"), ("JXL", "pillow_jxl", "a JPEG XL image")],
)
def test_without_its_plug_in_a_picture_says_what_to_install(
    kind: str, module: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a.png", kind, photo(1))
    formats.has.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PairError, match=f"{what}, which takes a plug-in") as caught:
        load_image(tmp_path / "a.png", SETTINGS)
    assert caught.value.hint == 'pip install "chronoprep[formats]"'
    monkeypatch.undo()
    formats.has.cache_clear()
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(PairError, match=r"header is damaged or cut off|the image is damaged"):
        load_image(tmp_path / "a.png", SETTINGS)


@pytest.mark.parametrize("size", [(8, 8), (40, 30), (1000, 7), (256, 256), (1, 1), (700, 500)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    import pillow_jxl  # noqa: F401

    image = Image.new("RGB", size, "red")
    for container in (False, True):
        assert jxl_size(encoded(image, "JXL", use_container=container)) == size
    assert jxl_size(b"\xff\x0a") == (1, 1)
    assert jxl_size(b"") == (0, 0)


def test_a_jpeg_xl_beyond_the_limit_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pillow_jxl

    written(tmp_path / "a.jxl", "JXL", Image.new("RGB", (400, 300)))
    monkeypatch.setattr(pillow_jxl.JpegXLImagePlugin, "Decoder", None)
    with pytest.raises(PairError, match="400×300 pixels are more than the limit"):
        load_image(tmp_path / "a.jxl", ImageSettings(max_pixels=100_000))


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
def test_pictures_of_plug_ins_are_turned_once(kind: str, tmp_path: Path) -> None:
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    stored = Image.new("RGB", (32, 16), "white")
    stored.paste("black", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as jpeg:
        options = {"lossless_jpeg": True} if kind == "JXL" else {"quality": 95}
        jpeg.save(tmp_path / "a.bin", kind, **options)
    wanted = load_image(tmp_path / "a.jpg", SETTINGS).image
    loaded = load_image(tmp_path / "a.bin", SETTINGS).image
    assert loaded.size == wanted.size == (16, 32)
    assert np.abs(np.asarray(loaded, int) - np.asarray(wanted)).mean() < 8


def test_of_several_pictures_in_a_heic_the_main_one_is_taken(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    heif = pillow_heif.HeifFile()
    for image in images:
        heif.add_from_pillow(image)
    heif.save(tmp_path / "a.heic", primary_index=1)
    loaded = load_image(tmp_path / "a.heic", SETTINGS)
    assert np.abs(np.subtract(loaded.image.getpixel((9, 9)), (0, 255, 0))).max() <= 6
    assert loaded.notes == ("several pictures: the main one of 3",)
