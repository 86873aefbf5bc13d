"""The formats of pictures, and how their files are called: the one list of both.

Light: it imports nothing. That it is Pillow's own list, less what is named below, a test holds.
"""

from __future__ import annotations

# By Pillow's names, what is met most often first. Left out are those that run another program or
# only tell where one is wanted (EPS, PDF, WMF, BUFR, GRIB, HDF5), films (FLI, MPEG), measurements
# (FITS, MCIDAS, SPIDER), a newspaper's wire (IPTC), cursors, brushes, and thumbnails without a
# suffix. "JPEG" opens MPO too.
_SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "BMP": ".bmp",
    "AVIF": ".avif .avifs",
    "GIF": ".gif",
    "JPEG2000": ".jp2 .j2k .jpf .jpx .jpc .j2c",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "PSD": ".psd",
    "QOI": ".qoi",
    "DDS": ".dds",
    "DIB": ".dib",
    "ICO": ".ico",
    "ICNS": ".icns",
    "PCX": ".pcx",
    "DCX": ".dcx",
    "SGI": ".sgi .rgb .rgba .bw",
    "SUN": ".ras",
    "BLP": ".blp",
    "FTEX": ".ftc .ftu",
    "IM": ".im",
    "MSP": ".msp",
    "PCD": ".pcd",
    "PIXAR": ".pxr",
    "XBM": ".xbm",
    "XPM": ".xpm",
}
# A TGA file has no mark of its own: only its name tells it from any other bytes.
_UNMARKED = {"TGA": ".tga .icb .vda .vst"}
# What plug-ins read that are not always there.
_PLUGINS = {"HEIF": ".heic .heif .hif .heics .heifs", "JXL": ".jxl"}

FORMATS = tuple(_SUFFIXES)
"""The formats that are told by their first bytes, whatever the file is called."""

SUFFIXES = frozenset(
    suffix
    for names in (_SUFFIXES, _UNMARKED, _PLUGINS)
    for suffix in " ".join(names.values()).split()
)
"""How pictures are called, in lower case, with the dot."""

_UNMARKED_SUFFIXES = tuple(" ".join(_UNMARKED.values()).split())


def formats_of(name: str) -> tuple[str, ...]:
    """The formats that a file of a name may have."""
    if name.lower().endswith(_UNMARKED_SUFFIXES):
        return (*FORMATS, *_UNMARKED)
    return FORMATS
