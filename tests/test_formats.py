"""The formats of pictures: all that Pillow reads, by their bytes, whatever they are called."""

from __future__ import annotations

from PIL import Image

from chronoprep.images.formats import FORMATS, SUFFIXES, formats_of

# What Pillow opens and is no picture for us, and why.
LEFT_OUT = {
    "EPS", "WMF",  # by another program
    "BUFR", "GRIB", "HDF5",  # not by Pillow at all
    "FLI", "MPEG",  # films
    "FITS", "MCIDAS", "SPIDER",  # measurements
    "ICO", "ICNS", "BLP", "FTEX",  # wrap a picture of another size than they say
    "IPTC", "CUR", "GBR", "IMT", "XVTHUMB",
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
