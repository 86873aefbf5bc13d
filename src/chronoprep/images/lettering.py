"""Lettering in pictures, read by RapidOCR where it is installed (`chronoprep[ocr]`).

Its models come with it: they are named by their files, so that nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from chronoprep.errors import BackendError

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]

_MARGIN = 0.05  # of the sides, around what is read
_LEAST_SIDE = 320  # pixels, to which a smaller part is enlarged
_LOCK = Lock()


def installed() -> bool:
    """Whether lettering can be read."""
    return bool(find_spec("rapidocr") and find_spec("onnxruntime"))


def read(picture: Array, boxes: Iterable[Box]) -> list[str]:
    """The lines of lettering in the part of a picture that holds all boxes; in all of it where
    there are none.

    Args:
        picture: In RGB, [height, width, 3] bytes.
        boxes: Left, top, right, bottom as shares of the sides.
    """
    import cv2

    boxes = list(boxes) or [(0.0, 0.0, 1.0, 1.0)]
    height, width = picture.shape[:2]
    left, top = (max(0.0, min(box[at] for box in boxes) - _MARGIN) for at in (0, 1))
    right, bottom = (min(1.0, max(box[at] for box in boxes) + _MARGIN) for at in (2, 3))
    part = picture[
        int(top * height) : int(np.ceil(bottom * height)),
        int(left * width) : int(np.ceil(right * width)),
    ]
    scale = _LEAST_SIDE / min(part.shape[:2])
    if scale > 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    with _LOCK:
        return _reader()(np.ascontiguousarray(part[..., ::-1]))


@cache
def _reader() -> Callable[[Array], list[str]]:
    again = "pip install --force-reinstall 'chronoprep[ocr]', or uninstall rapidocr."
    try:
        import rapidocr
    except Exception as error:  # whatever a build for another system raises
        raise BackendError(f"rapidocr can't be loaded: {error}", hint=again) from error

    folder = Path(rapidocr.__file__).parent / "models"
    models = {part: sorted(folder.glob(f"*{part.lower()}*.onnx")) for part in ("Det", "Rec", "Cls")}
    missing = [part for part, files in models.items() if not files]
    if missing:
        raise BackendError(
            f"{folder}: models of rapidocr are missing: {', '.join(missing)}.", hint=again
        )
    engine = rapidocr.RapidOCR(
        params={
            **{f"{part}.model_path": str(files[0]) for part, files in models.items()},
            "Global.log_level": "error",
            "Global.use_cls": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def lines(picture: Array) -> list[str]:
        return list(engine(picture).txts or ())

    return lines
