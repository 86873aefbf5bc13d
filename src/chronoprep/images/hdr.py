"""High dynamic range to sRGB.

Light of PQ and HLG (ITU-R BT.2100) is shown on a screen of 1000 cd/m², HLG's nominal one. Diffuse
white, 203 cd/m² (ITU-R BT.2408), is where sRGB ends: the roll-off of ITU-R BT.2390, 5.4.1, brings
1000 down to it and leaves what is darker than 92 cd/m² as it is. It is applied to the brightest of
a pixel's three channels, and the others follow, so that hues stay. Then BT.2020, or whatever the
primaries are, becomes sRGB, and what lies outside is clipped. One curve for all pictures: what is
equal in source and target stays equal.

A leaf: imports numpy at its top.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PEAK, WHITE = 1000.0, 203.0  # cd/m²
_OUTSIDE = 0.01  # of white
_STRIP = 1 << 19  # pixels at a time

# BT.2100, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def tone_mapped(pixels: np.ndarray, transfer: str, to_srgb: np.ndarray) -> tuple[np.ndarray, float]:
    """PQ or HLG as sRGB.

    Args:
        pixels: [height, width, 3], full range, of 8 or 16 bits.
        transfer: "PQ" or "HLG".
        to_srgb: The matrix [3, 3] from linear light to that of sRGB's primaries.

    Returns:
        uint8 of the same shape, and the share of pixels with colours that sRGB lacks.
    """
    decode = _decoded(transfer, pixels.dtype.itemsize)
    grid, factors = _roll_off()
    matrix = to_srgb.T.astype(np.float32)
    shown = np.empty(pixels.shape, np.uint8)
    outside, rows = 0, max(1, _STRIP // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        light = decode[pixels[top : top + rows]]
        if transfer == "HLG":
            light = _on_screen(light)
        brightest = light.max(axis=-1, keepdims=True)
        light *= np.interp(np.sqrt(brightest), grid, factors).astype(np.float32)
        light = light @ matrix
        outside += int(((light < -_OUTSIDE) | (light > 1 + _OUTSIDE)).any(axis=-1).sum())
        shown[top : top + rows] = _srgb(light)
    return shown, outside / (pixels.shape[0] * pixels.shape[1])


@lru_cache(maxsize=4)
def _decoded(transfer: str, size: int) -> np.ndarray:
    """For each code value of a byte or two: PQ's light in cd/m², or HLG's scene light from 0 to
    1."""
    codes = np.linspace(0, 1, 1 << (8 * size))
    if transfer == "PQ":
        return _pq_to_light(codes).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100, table 5
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
    return scene.astype(np.float32)


def _on_screen(scene: np.ndarray) -> np.ndarray:
    """HLG's scene light as light of a screen of 1000 cd/m²: a system gamma of 1.2, on luminance."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return scene * (PEAK * luminance[..., None] ** 0.2).astype(np.float32)


@lru_cache(maxsize=1)
def _roll_off() -> tuple[np.ndarray, np.ndarray]:
    """Square roots of light in cd/m², and what each is multiplied by to become a share of white."""
    grid = np.linspace(0, np.sqrt(10_000), 1 << 14)
    light = np.maximum(grid**2, 1e-4)
    peak, most = _light_to_pq(PEAK), _light_to_pq(WHITE) / _light_to_pq(PEAK)
    knee = 1.5 * most - 0.5
    level = np.minimum(_light_to_pq(light) / peak, 1)
    t = (level - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    rolled = np.where(level < knee, level, spline)
    # Beyond the peak the brightest channel stays at white.
    return grid, _pq_to_light(rolled * peak) / WHITE / light


def _pq_to_light(codes: np.ndarray) -> np.ndarray:
    power = np.power(codes, 1 / _M2)
    light: np.ndarray = 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
    return light


def _light_to_pq(light: np.ndarray | float) -> np.ndarray:
    power = np.power(np.asarray(light) / 10_000, _M1)
    codes: np.ndarray = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return codes


def _srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (curved * 255 + 0.5).astype(np.uint8)
