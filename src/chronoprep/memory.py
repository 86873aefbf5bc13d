"""What memory this machine has, on its GPUs and beside them: known before torch is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from chronoprep.errors import ConfigError

# What a GPU's driver leaves in /dev: NVIDIA, AMD, Windows' subsystem for Linux.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# A driver that no program keeps awake wakes its GPUs first, one after the other.
_DRIVER_SECONDS = 60


def check(needed: int, device: str, what: str) -> None:
    """Whether a model of `needed` bytes fits this machine.

    Raises:
        ConfigError: Saying what it needs, what is there and the ways out.
    """
    import psutil

    ram = psutil.virtual_memory().available
    gpus = [] if device in ("cpu", "mps") else of_gpus()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or device in ("cpu", "mps")
    if not gpus and not hidden and any(Path(driver).exists() for driver in GPU_DEVICES):
        return  # a GPU without nvidia-smi: whether it is large enough shows when the model loads
    there, have = sum(gpus) + ram, f"{ram / 1e9:.0f} GB of free memory"
    if device.startswith("cuda"):
        # The whole model goes to one GPU; only "auto" spreads it.
        number = int(device[5:]) if device[5:].isdigit() else 0
        there = gpus[number] if number < len(gpus) else 0
        have = f"{there / 1e9:.0f} GB on {device}" if there else f"no GPU {number}"
    elif gpus:
        have = f"{sum(gpus) / 1e9:.0f} GB of GPU memory and {have}"
    elif device == "auto":
        have = f"no GPU and {have}"
    if needed > there:
        size = f"{needed / 1e9:.0f} GB" if needed >= 1e9 else f"{max(needed >> 20, 1)} MB"
        raise ConfigError(
            f"{what} needs about {size}; this machine has {have}.",
            hint="Ways out: a smaller model (`chronoprep models`), --dtype bfloat16, --device "
            "auto, a machine with more memory, or a fixed prompt without any model: --prompt TEXT.",
        )


def of_gpus() -> list[int]:
    """Bytes of each NVIDIA GPU that torch would see, without importing it; empty for none.

    `CUDA_VISIBLE_DEVICES` is respected, by number and by UUID.
    """
    rows = _nvidia("uuid,memory.total")
    # A GPU that shares the machine's memory says "[N/A]".
    sizes = {row[0]: int(row[1]) << 20 for row in rows if len(row) == 2 and row[1].isdigit()}
    sizes |= {str(number): size for number, size in enumerate(list(sizes.values()))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [size for name, size in sizes.items() if name.isdigit()]
    return [sizes[name] for name in visible.replace(" ", "").split(",") if name in sizes]


def least_capability() -> float | None:
    """The lowest compute capability of the NVIDIA GPUs here; None where the driver does not say."""
    said = [row[0] for row in _nvidia("compute_cap")]
    known = [float(text) for text in said if text.replace(".", "", 1).isdigit()]
    return min(known, default=None)


def _nvidia(fields: str) -> list[list[str]]:
    """What NVIDIA's driver says of each GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(
            query, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.replace(" ", "").split(",") for line in result.stdout.splitlines()]
