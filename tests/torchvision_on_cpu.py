"""Lets the registry's torchvision, a CUDA build, be imported beside a CPU build of torch.

For the virtual environments of `make test-vllm` and `make test-train` alone, where a .pth file
imports it at the start of every process. torchvision's import declares how two of its C++ operators
behave, which its library, built for another torch, did not bring; declared here, the import goes
through. Nothing calls them.
"""

from __future__ import annotations

import sys
from typing import Any


class _BeforeTorchvision:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if name != "torchvision._meta_registrations":
            return
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        import torch

        if not hasattr(torch.ops.torchvision, "nms"):
            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                self.library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            sys.modules[__name__].__dict__["kept"] = self  # the declarations die with the library


sys.meta_path.insert(0, _BeforeTorchvision())  # type: ignore[arg-type]
