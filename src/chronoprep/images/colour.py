"""Colours: what a picture says of its numbers, and these numbers as sRGB.

Profiles are converted by LittleCMS, relative colorimetric with black point compensation, as image
editors do by default. What says its colours by code points (ITU-T H.273: AVIF, HEIC, PNG's cICP,
video), by PNG's gAMA and cHRM or by Exif's Adobe RGB gets a profile made of that; high dynamic
range is tone-mapped by `hdr`. What says nothing is sRGB.

A leaf: imports Pillow and numpy at its top.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms
from PIL.ImageCms import Flags, Intent

from chronoprep.images import hdr
from chronoprep.images.boxes import picture_colours

Chromaticity = tuple[float, float]


class Primaries(NamedTuple):
    """The chromaticities (x, y) of a colour space's white, red, green and blue."""

    white: Chromaticity
    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity


_D65, _DCI_WHITE = (0.3127, 0.3290), (0.314, 0.351)
SRGB_PRIMARIES = Primaries(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_PRIMARIES = Primaries(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# Those of H.273 that are wider than sRGB's. The others, of old television, are within some levels
# of it, and players take them for it.
_WIDE = {
    9: ("BT.2020", Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),
    11: ("DCI-P3", Primaries(_DCI_WHITE, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
    12: ("Display P3", Primaries(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
# Transfers of H.273 that are plain powers. The others of SDR are shown by sRGB's curve, as browsers
# and players do.
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_HDR = {16: "PQ", 18: "HLG"}

# PNG's gAMA of sRGB is that of 2.2, and written so by all.
_PNG_SRGB_GAMMA, _NEAR = 0.45455, 0.002
_EXIF_IFD, _INTEROP_IFD, _EXIF_COLOUR, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1

_SIGNATURES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_FLAGS = Flags.BLACKPOINTCOMPENSATION
# Levels by which a profile may differ from sRGB and still be it: rounding.
_SAME = 1
# Linear light below black or above white from which on a colour counts as clipped: two levels.
_OUTSIDE = 0.01
_SAMPLE = 256  # clipping is counted on so many pixels a side, at most


class Space(NamedTuple):
    """What a picture says of its colours.

    Attributes:
        name: For people.
        profile: An ICC profile; None for sRGB and for HDR.
        transfer: "PQ" or "HLG" where it is HDR.
        primaries: Of HDR.
    """

    name: str = "sRGB"
    profile: bytes | None = None
    transfer: str | None = None
    primaries: Primaries = SRGB_PRIMARIES


SRGB = Space()


def space_of(image: Image.Image, data: bytes) -> Space:
    """What an image that Pillow has opened, of these bytes, says of its colours: of several, what
    its format's specification puts first."""
    codes = _png_codes(data) if image.format == "PNG" else None
    profile = image.info.get("icc_profile")
    if codes is None and profile and (codes := _profile_codes(profile)):
        codes = codes if codes[1] in _HDR else None
    if codes is None and profile:
        return Space(_name(profile), profile)
    if codes is None and image.format in ("AVIF", "HEIF"):
        codes = picture_colours(data)
    if codes is not None:
        return by_codes(*codes)
    if image.format == "PNG":
        return _png_space(image.info)
    return Space("Adobe RGB", rgb_profile(ADOBE_PRIMARIES, 563 / 256)) if _adobe(image) else SRGB


def by_codes(primaries: int, transfer: int) -> Space:
    """The colour space of two code points of H.273."""
    if transfer in _HDR:
        _, wide = _WIDE.get(primaries, _WIDE[9])
        wide = SRGB_PRIMARIES if primaries == 1 else wide
        return Space(f"HDR ({_HDR[transfer]})", None, _HDR[transfer], wide)
    name, corners = _WIDE.get(primaries, ("BT.709", SRGB_PRIMARIES))
    gamma = _GAMMAS.get(transfer)
    if corners == SRGB_PRIMARIES and gamma is None:
        return SRGB
    return Space(name if gamma is None else f"{name}, gamma {gamma}", rgb_profile(corners, gamma))


def tone_mapped(pixels: np.ndarray, space: Space, notes: list[str]) -> Image.Image:
    """The pixels of a space that is HDR as sRGB; appends to `notes` as `to_srgb`."""
    assert space.transfer is not None
    matrix = between(space.primaries, SRGB_PRIMARIES)
    shown, share = hdr.tone_mapped(pixels, space.transfer, matrix)
    notes.append(f"{space.name} tone-mapped to sRGB{_clipped(share)}")
    return Image.fromarray(shown)


def to_srgb(image: Image.Image, space: Space, notes: list[str]) -> Image.Image:
    """An image in RGB, L or CMYK as RGB in sRGB; one that is it already is given back as it is.

    Appends to `notes` what was done, and what share of the pixels has colours that sRGB lacks.
    """
    if space.transfer is not None:
        return tone_mapped(np.asarray(image.convert("RGB")), space, notes)
    if space.profile is None:
        return image.convert("RGB") if image.mode != "RGB" else image
    mode = _SIGNATURES.get(space.profile[16:20])
    if mode == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    try:
        if mode != image.mode:
            raise ValueError("of other channels than the picture")
        transforms = _transforms(space.profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("its unusable colour profile was left out")
        return image.convert("RGB") if image.mode != "RGB" else image
    if transforms is None:
        return image.convert("RGB") if image.mode != "RGB" else image
    share = _share_outside(image, transforms.to_wide)
    if image.mode == "RGB":
        ImageCms.applyTransform(image, transforms.to_srgb, inPlace=True)
    else:
        image = _applied(image, transforms.to_srgb)
    notes.append(f"{space.name} → sRGB{_clipped(share)}")
    return image


def is_srgb(space: Space) -> bool:
    """Whether numbers of a space are sRGB's: by what its profile does, not by what it is called.
    One that can't be used says nothing."""
    if space.transfer is not None or space.profile is None:
        return space.transfer is None
    mode = _SIGNATURES.get(space.profile[16:20])
    try:
        return mode is None or _transforms(space.profile, mode) is None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return True


class _Transforms(NamedTuple):
    """Into sRGB, and into a space that holds what sRGB does not."""

    to_srgb: Any
    to_wide: Any


@lru_cache(maxsize=32)
def _transforms(profile: bytes, mode: str) -> _Transforms | None:
    """The transforms of a profile; None where that into sRGB changes nothing."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    wide = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(_WIDE_PRIMARIES, _WIDE_GAMMA)))
    to_srgb, to_wide = (
        ImageCms.buildTransform(opened, to, mode, "RGB", Intent.RELATIVE_COLORIMETRIC, flags=_FLAGS)
        for to in (ImageCms.createProfile("sRGB"), wide)
    )
    if mode != "CMYK":
        probe = _probe(mode)
        shown = _applied(probe, to_srgb)
        error = np.asarray(shown, np.int16) - np.asarray(probe.convert("RGB"), np.int16)
        if np.abs(error).max() <= _SAME:
            return None
    return _Transforms(to_srgb, to_wide)


def _probe(mode: str) -> Image.Image:
    """Colours to try a profile on: all greys, and a grid of colours."""
    greys = np.arange(256, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(greys[None])
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    return Image.fromarray(np.concatenate([grid, np.repeat(greys, 3).reshape(-1, 3)])[None])


def _applied(image: Image.Image, transform: Any) -> Image.Image:
    done: Image.Image | None = ImageCms.applyTransform(image, transform)
    assert done is not None
    return done


# ProPhoto RGB's, which hold all colours of surfaces.
_WIDE_PRIMARIES = Primaries(
    (0.3457, 0.3585), (0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105)
)
_WIDE_GAMMA = 1.8


def _share_outside(image: Image.Image, to_wide: Any) -> float:
    """The share of pixels, of a sample, whose colours sRGB lacks."""
    small = image.resize(
        (min(image.width, _SAMPLE), min(image.height, _SAMPLE)), Image.Resampling.NEAREST
    )
    light = (np.arange(256) / 255) ** _WIDE_GAMMA
    shown = light[np.asarray(_applied(small, to_wide))] @ between(_WIDE_PRIMARIES, SRGB_PRIMARIES).T
    outside = (shown < -_OUTSIDE) | (shown > 1 + _OUTSIDE)
    return float(outside.any(axis=-1).mean())


def _clipped(share: float) -> str:
    """A remark on the share of pixels that had to be clipped."""
    return f", {share:.1%} of its pixels clipped" if share >= 0.0005 else ""


def between(one: Primaries, other: Primaries) -> np.ndarray:
    """The matrix [3, 3] from linear light in one space to linear light in another, white on
    white."""
    matrix: np.ndarray = np.linalg.inv(_to_d50(other)) @ _to_d50(one)
    return matrix


# The white of profiles, and Bradford's cones: ICC.1:2022, Annex E.
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([
    [0.8951, 0.2664, -0.1614],
    [-0.7502, 1.7135, 0.0367],
    [0.0389, -0.0685, 1.0296],
])  # fmt: skip


def _to_d50(primaries: Primaries) -> np.ndarray:
    """The matrix [3, 3] from linear light to XYZ under D50."""
    white, *corners = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    columns = np.stack(corners, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: np.ndarray = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    return adapted


@lru_cache(maxsize=32)
def rgb_profile(primaries: Primaries, gamma: float | None) -> bytes:
    """An ICC profile of primaries and a power, or sRGB's curve for None: ICC.1:2022, version 4."""
    curve = struct.pack(">4sIHHi", b"para", 0, 0, 0, _fixed(gamma or 1.0))
    if gamma is None:
        parts = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = struct.pack(">4sIHH5i", b"para", 0, 3, 0, *map(_fixed, parts))
    tags = {b"wtpt": _xyz(_D50)}
    for letter, column in zip("rgb", _to_d50(primaries).T, strict=True):
        tags[f"{letter}XYZ".encode()] = _xyz(column)
        tags[f"{letter}TRC".encode()] = curve
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0\0\0\0", 0x04400000, b"mntr", b"RGB ",
                       b"XYZ ")  # fmt: skip
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *map(_fixed, _D50))
    return head.ljust(128, b"\0") + table + body


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *map(_fixed, values))


def _name(profile: bytes) -> str:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return " ".join(name.split())[:60] or "a colour profile"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "a colour profile"


def _profile_codes(profile: bytes) -> tuple[int, int] | None:
    """The code points in a profile (its tag `cicp`: ICC.1:2022, 9.2.17)."""
    for at in range(132, 132 + 12 * min(int.from_bytes(profile[128:132], "big"), 100), 12):
        if profile[at : at + 4] == b"cicp":
            place = int.from_bytes(profile[at + 4 : at + 8], "big") + 8
            codes = profile[place : place + 2]
            return (codes[0], codes[1]) if len(codes) == 2 else None
    return None


def _png_codes(data: bytes) -> tuple[int, int] | None:
    """The code points of a PNG (its chunk `cICP`, which stands before the pixels)."""
    at = 8
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"IEND"):
        if kind == b"cICP" and at + 10 <= len(data):
            return data[at + 8], data[at + 9]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return None


def _png_space(info: dict[Any, Any]) -> Space:
    """By the chunks sRGB, gAMA and cHRM of a PNG."""
    power, points = info.get("gamma") or _PNG_SRGB_GAMMA, info.get("chromaticity")
    gamma = None if abs(power - _PNG_SRGB_GAMMA) <= _NEAR else 1 / power
    primaries = SRGB_PRIMARIES
    if points and np.abs(np.subtract(points, np.ravel(SRGB_PRIMARIES))).max() > _NEAR:
        primaries = Primaries(*(tuple(points[n : n + 2]) for n in (0, 2, 4, 6)))
    if "srgb" in info or (gamma is None and primaries == SRGB_PRIMARIES):
        return SRGB
    if not all(y > 0 for _, y in primaries) or not 0.1 <= power <= 10:
        return SRGB  # damaged
    try:
        return Space("its gAMA and cHRM", rgb_profile(primaries, gamma))
    except (np.linalg.LinAlgError, struct.error):
        return SRGB


def _adobe(image: Image.Image) -> bool:
    """Whether Exif says Adobe RGB, as cameras do in place of a profile (DCF 2.0, "R03")."""
    if "exif" not in image.info:
        return False
    try:
        exif = image.getexif()
        colour = exif.get_ifd(_EXIF_IFD).get(_EXIF_COLOUR)
        if colour not in (2, 0xFFFF):
            return False
        return colour == 2 or exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX) == "R03"
    except Exception:  # damaged metadata around a good image
        return False
