"""Vision-language models: chats in, texts out.

A backend knows nothing of edits, chain-of-thought or files. Importing this room imports no torch.
"""

from chronoprep.vlm.protocols import VLM, BatchVLM, ScoringVLM
from chronoprep.vlm.registry import MODELS, Model, ModelSpec, preset, resolve

__all__ = ["MODELS", "VLM", "BatchVLM", "Model", "ModelSpec", "ScoringVLM", "preset", "resolve"]
