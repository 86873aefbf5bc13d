"""Images as users have them: every mode, every size, every kind of damage."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from bad_inputs import encoded, picture, write_bad_inputs
from chronoprep import pairs
from chronoprep.config import ImageSettings, PairSettings
from chronoprep.data import Pair
from chronoprep.errors import ConfigError, PairError
from chronoprep.images.inspection import inspect
from chronoprep.images.load import bounded, content_hash, load_image, load_pair
from chronoprep.images.sources import files_stamp

SETTINGS = ImageSettings()
_listening: list[list[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    for heard in _listening if event == "open" else ():
        heard.append(str(arguments[0]))


sys.addaudithook(_hear)  # for good: hooks can't be taken away


@contextmanager
def opened() -> Iterator[list[str]]:
    """The files that are opened meanwhile, each as often as it is."""
    _listening.append([])
    yield _listening[-1]
    _listening.pop()


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def corner(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((0, 0))


def pair_of(tmp_path: Path, source: tuple[int, int], target: tuple[int, int]) -> Pair:
    return Pair(
        "x",
        str(save(tmp_path / "a.png", picture(source, 1))),
        str(save(tmp_path / "b.png", picture(target, 2))),
    )


def palette(colour: tuple[int, int, int], transparency: int | bytes | None = None) -> Image.Image:
    image = Image.new("P", (8, 6), 0)
    image.putpalette([*colour, 0, 0, 255])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


MODES = {
    "rgb.png": (Image.new("RGB", (8, 6), (10, 20, 30)), (10, 20, 30), ()),
    "gray.png": (Image.new("L", (8, 6), 99), (99, 99, 99), ()),
    "bits.png": (Image.new("1", (8, 6), 1), (255, 255, 255), ()),
    "palette.png": (palette((10, 20, 30)), (10, 20, 30), ()),
    "palette-alpha.png": (palette((1, 2, 3), 0), (255,) * 3, ("transparent",)),
    "palette-bytes.png": (palette((1, 2, 3), b"\x00\xff"), (255,) * 3, ("transparent",)),
    "opaque.png": (Image.new("RGBA", (8, 6), (10, 20, 30, 255)), (10, 20, 30), ()),
    "clear.png": (Image.new("RGBA", (8, 6), (10, 20, 30, 0)), (255,) * 3, ("transparent",)),
    "half.png": (Image.new("RGBA", (8, 6), (0, 0, 0, 51)), (204,) * 3, ("transparent",)),
    "gray-alpha.png": (Image.new("LA", (8, 6), (0, 0)), (255,) * 3, ("transparent",)),
    "deep.png": (Image.new("I;16", (8, 6), 0x8040), (0x80,) * 3, ()),
    "deep.tif": (Image.new("I;16", (8, 6), 0xFFFF), (255,) * 3, ()),
    "int.tif": (Image.new("I", (8, 6), 0x4000), (0x40,) * 3, ()),
    "cmyk.tif": (Image.new("CMYK", (8, 6), (0, 0, 0, 0)), (255,) * 3, ()),
    "cmyk-black.tif": (Image.new("CMYK", (8, 6), (0, 0, 0, 255)), (0,) * 3, ()),
    "ycbcr.tif": (Image.new("YCbCr", (8, 6), (128, 128, 128)), (128,) * 3, ()),
    "lab.tif": (Image.new("LAB", (8, 6), (255, 128, 128)), (255,) * 3, ()),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_the_rgb_that_a_viewer_shows(tmp_path: Path, name: str) -> None:
    if name == "ycbcr.tif" and PIL.__version__.startswith("12."):
        pytest.skip("Pillow 12 can't read the YCbCr TIFF that it writes")
    image, colour, notes = MODES[name]
    loaded, said, *_ = load_image(save(tmp_path / name, image), SETTINGS)
    assert (loaded.mode, loaded.size) == ("RGB", (8, 6))
    assert np.abs(np.subtract(corner(loaded), colour)).max() <= 1
    assert [note.split(":")[0] for note in said] == list(notes)


def test_colour_key_transparency_of_an_rgb_png_shows_the_background(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9))
    loaded, notes, *_ = load_image(path, ImageSettings(background="#204060"))
    assert corner(loaded) == (0x20, 0x40, 0x60)
    assert notes == ("transparent: composited on #204060",)


def test_sixteen_bit_gray_keeps_its_range_instead_of_clipping(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    loaded = load_image(save(tmp_path / "a.png", Image.fromarray(ramp)), SETTINGS).image
    assert len(set(np.asarray(loaded)[..., 0].ravel().tolist())) == 256


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("black", (0, 0, 8, 8))
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # the inverse turn
    stored = upright if method is None else upright.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", stored, exif=exif, quality=95)
    loaded = load_image(path, SETTINGS).image
    assert loaded.size == (32, 16)
    assert corner(loaded)[0] < 40
    assert all(loaded.getpixel(xy)[0] > 215 for xy in ((31, 0), (0, 15), (31, 15)))


def test_damaged_exif_does_not_cost_a_good_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff"))
    loaded = load_image(tmp_path / "a.jpg", SETTINGS).image
    assert loaded.size == (64, 48)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_of_many_frames_is_taken_and_reported(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    loaded, notes, *_ = load_image(path, SETTINGS)
    assert np.abs(np.subtract(corner(loaded), (255, 0, 0))).max() <= 6
    assert len(notes) == 1
    assert "first of 3" in notes[0]


def test_cmyk_with_a_useless_profile_still_loads(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 6)), icc_profile=srgb)
    loaded, notes, *_ = load_image(path, SETTINGS)
    assert corner(loaded) == (255, 255, 255)
    assert "profile" in notes[0]


def test_profile_of_an_rgb_image_leaves_its_values_alone(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    path = save(tmp_path / "a.png", Image.new("RGB", (8, 6), (9, 8, 7)), icc_profile=profile)
    assert corner(load_image(path, SETTINGS)[0]) == (9, 8, 7)


def test_pixel_limit_is_ours_and_pillow_does_not_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", picture((100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow alone would refuse
    assert load_image(path, SETTINGS)[0].size == (100, 100)
    assert Image.MAX_IMAGE_PIXELS == 4000
    with pytest.raises(PairError, match="100×100 pixels are more than the limit of 9,999"):
        load_image(path, ImageSettings(max_pixels=9999))


def test_loading_in_threads_leaves_warning_filters_as_they_were(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", palette((1, 2, 3), b"\x00\xff"))
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: load_image(path, SETTINGS)[0].size, range(200)))
    assert set(sizes) == {(8, 6)}
    assert list(warnings.filters) == before
    assert limit == Image.MAX_IMAGE_PIXELS


def test_wrong_background_is_a_setting_not_a_pair(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="background"):
        load_image(save(tmp_path / "a.png", picture()), ImageSettings(background="wite"))


def test_every_bad_pair_gets_an_error_that_names_file_and_remedy(tmp_path: Path) -> None:
    expected = write_bad_inputs(tmp_path / "input", tmp_path / "output")
    found = pairs.discover(tmp_path, PairSettings())
    assert len(expected) >= 40
    assert {pair.key for pair in found.pairs} == expected.keys()
    for pair in found.pairs:
        with pytest.raises(PairError) as caught:
            load_pair(pair, SETTINGS)
        message = str(caught.value)
        assert expected[pair.key] in message
        assert str(pair.source) in message or str(pair.target) in message
        assert caught.value.hint
        assert "object at 0x" not in message


def test_random_damage_gives_an_image_or_a_pair_error(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "a.png"
    good = 0
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"):
        whole = encoded(picture((24, 16)), kind)
        for _ in range(60):
            data = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
            for _ in range(rng.randrange(4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(data)
            try:
                image = load_image(path, ImageSettings(max_pixels=1_000_000)).image
            except PairError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert image.mode == "RGB"
                good += 1
    assert good < 420


def test_missing_file_special_file_and_no_permission(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"gone\.png: no such file"):
        load_image(tmp_path / "gone.png", SETTINGS)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PairError, match="a special file"):
        load_image(tmp_path / "pipe.png", SETTINGS)
    with pytest.raises(PairError, match="can't read"):
        load_image(tmp_path / ("x" * 300 + ".png"), SETTINGS)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture())
    path.chmod(0)
    with pytest.raises(PairError, match="Permission denied"):
        load_image(path, SETTINGS)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch", "error"])
def test_equal_sizes_are_never_resampled(tmp_path: Path, fit: str) -> None:
    pair = pair_of(tmp_path, (40, 30), (40, 30))
    loaded = load_pair(pair, ImageSettings(fit=fit))
    assert loaded.notes == ()
    assert loaded.target.tobytes() == picture((40, 30), 2).tobytes()


def test_target_meets_the_frame_of_the_source(tmp_path: Path) -> None:
    # A red target with blue left and right margins, twice as wide as the source's shape.
    target = Image.new("RGB", (80, 40), "blue")
    target.paste("red", (20, 0, 60, 40))
    save(tmp_path / "a.png", picture((20, 20)))
    save(tmp_path / "b.png", target)
    pair = Pair("x", str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    looks = {}
    for fit in ("crop", "pad", "stretch"):
        loaded = load_pair(pair, ImageSettings(fit=fit, background="lime"))
        assert loaded.source.size == loaded.target.size == (20, 20)
        assert loaded.notes == (f"target 80×40 → 20×20 ({fit})",)
        looks[fit] = [loaded.target.getpixel(xy) for xy in ((1, 10), (10, 10), (10, 1))]
    red, blue, lime = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    assert looks == {
        "crop": [red, red, red],
        "pad": [blue, red, lime],
        "stretch": [blue, red, red],
    }
    with pytest.raises(PairError, match=r"is 20×20 but target .* is 80×40"):
        load_pair(pair, ImageSettings(fit="error"))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_shapes_still_fit(tmp_path: Path, fit: str) -> None:
    rng = random.Random(3)
    shapes = [((1, 1), (300, 2)), ((500, 1), (1, 500)), ((1, 400), (400, 1))]
    shapes += [
        ((rng.randint(1, 90), rng.randint(1, 90)), (rng.randint(1, 90), rng.randint(1, 90)))
        for _ in range(40)
    ]
    for source, target in shapes:
        loaded = load_pair(pair_of(tmp_path, source, target), ImageSettings(fit=fit))
        assert loaded.target.size == source


def test_bounded_is_exact_over_many_sizes() -> None:
    rng = random.Random(11)
    for _ in range(400):
        width, height = rng.randint(1, 400), rng.randint(1, 400)
        limits = ImageSettings(
            max_resolution=rng.randint(16, 120), max_long_edge=rng.randint(16, 300)
        )
        image = Image.new("RGB", (width, height))
        out = bounded(image, limits)
        short, long = sorted((width, height))
        new_short, new_long = sorted(out.size)
        scale = min(1, limits.max_resolution / short)
        if round(long * scale) <= limits.max_long_edge:
            assert new_short == min(short, limits.max_resolution)
        else:
            scale = limits.max_long_edge / long
            assert new_long == limits.max_long_edge
        assert abs(new_short - max(1, short * scale)) <= 0.5
        assert abs(new_long - long * scale) <= 0.5
        assert (out.width > out.height) <= (width >= height)
        assert (out is image) == (out.size == image.size)


def test_bounded_default_sizes() -> None:
    for size, expected in {
        (3000, 2000): (1620, 1080),
        (2000, 3000): (1080, 1620),
        (1080, 1080): (1080, 1080),
        (1920, 1080): (1920, 1080),
        (8000, 1000): (3240, 405),
        (20, 9000): (7, 3240),
        (1, 9000): (1, 3240),
    }.items():
        assert bounded(Image.new("L", size), SETTINGS).size == expected


def test_content_hash_sees_bytes_and_roles(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, (8, 8), (9, 9))
    digest = content_hash(pair)
    assert len(digest) == 32
    assert content_hash(Pair("other", pair.source, pair.target, "caption")) == digest
    assert content_hash(Pair("x", pair.target, pair.source)) != digest
    target = tmp_path / "b.png"
    target.write_bytes(target.read_bytes() + b"\0")
    assert content_hash(pair) != digest
    target.unlink()
    with pytest.raises(PairError, match=r"b\.png: no such file"):
        content_hash(pair)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "tif", "bmp", "gif"])
def test_a_look_at_a_pair_opens_each_file_once(tmp_path: Path, suffix: str) -> None:
    files = [str(save(tmp_path / f"{n}.{suffix}", picture((9, 9), n))) for n in (1, 2)]
    pair = Pair("x", *files)
    with opened() as heard:
        loaded = load_pair(pair, SETTINGS)
    assert [path for path in heard if path in files] == files
    assert (loaded.images, loaded.files) == (content_hash(pair), files_stamp(*files))
    with opened() as heard:
        seen = inspect(pair, SETTINGS)
    assert [path for path in heard if path in files] == files
    assert seen.digests == (load_image(Path(files[0]), SETTINGS).digest, seen.digests[1])


def test_a_file_that_changes_while_it_is_read_does_not_pass_for_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(tmp_path, (8, 8), (8, 8))
    before = files_stamp(pair.source, pair.target)
    read = Path.read_bytes

    def rewritten(path: Path) -> bytes:
        save(tmp_path / "b.png", picture((8, 9), 3))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", rewritten)
    loaded = load_pair(pair, SETTINGS)
    monkeypatch.undo()
    assert loaded.images == content_hash(pair)
    assert loaded.files == before != files_stamp(pair.source, pair.target)
