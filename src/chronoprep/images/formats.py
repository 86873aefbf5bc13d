"""The formats of pictures, and how their files are called: the one list of both.

Light: it imports no Pillow. That it is Pillow's own list, less what is named below, a test holds.
"""

from __future__ import annotations

from functools import cache

# By Pillow's names, what is met most often first. Left out are those that run another program or
# only tell where one is wanted (EPS, WMF, BUFR, GRIB, HDF5), films (FLI, MPEG), measurements (FITS,
# MCIDAS, SPIDER), a newspaper's wire (IPTC), thumbnails without a suffix, cursors and brushes, and
# icons and textures that wrap a picture of any size in a header that says another (ICO, ICNS, BLP,
# FTEX), and one that Pillow is about to drop (IM). "JPEG" opens MPO too.
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
    "PCX": ".pcx",
    "DCX": ".dcx",
    "SGI": ".sgi .rgb .rgba .bw",
    "SUN": ".ras",
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


# The last two are AVIF's too.
_HEIF_BRANDS = b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


def formats_of(data: bytes, name: str) -> tuple[str, ...]:
    """The formats that a file may have, by its first bytes and its name. Plug-ins are loaded where
    they are asked for, and left out where they are not installed."""
    formats = FORMATS
    if name.lower().endswith(_UNMARKED_SUFFIXES):
        formats += tuple(_UNMARKED)
    plugin = plugin_of(data)
    return (*formats, plugin) if plugin and has(plugin) else formats


def plugin_of(data: bytes) -> str | None:
    """The format that takes a plug-in, where a file has one by its first bytes."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return "JXL" if data.startswith(_JXL_STARTS) else None


@cache
def has(plugin: str) -> bool:
    """Whether a plug-in is installed; it is loaded."""
    try:
        if plugin == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401
    except ImportError:
        return False
    return True
