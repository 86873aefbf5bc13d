"""Text embeddings of the editor's own encoder: UMT5, encoder only.

The numbers are those of the reference (one prompt at a time, padded to 512): the same text
cleaning, tokens and eager attention, padded only to a multiple of 16 within a batch of similar
lengths, which changes no bit in float32 and, as far as measured, none in bfloat16. The room does
not know datasets, CSV files or keys.
"""

from chronoprep.umt5.encoder import Encoder, batches
from chronoprep.umt5.pickles import OVERHEAD, can_share, content, save, share
from chronoprep.umt5.text import MAX_TOKENS, clean
from chronoprep.umt5.weights import find_encoder, identity

__all__ = [
    "MAX_TOKENS",
    "OVERHEAD",
    "Encoder",
    "batches",
    "can_share",
    "clean",
    "content",
    "find_encoder",
    "identity",
    "save",
    "share",
]
