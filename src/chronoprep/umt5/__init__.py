"""Text embeddings of the editor's own encoder: UMT5, encoder only.

The numbers are those of the reference (one prompt at a time, padded to 512): the same text
cleaning, tokens and eager attention, padded only to a multiple of 16 within a batch of similar
lengths. In bfloat16, what runs by default, every bit is the reference's on processors that
calculate in it; on one that does not, bits differed, with errors no larger than the reference's
own. In float32 sums may come in another order, for differences of a few millionths. The room does
not know datasets, CSV files or keys.
"""

from chronoprep.umt5.embedder import Embedder, EmbedTask, Written
from chronoprep.umt5.encoder import Encoder, batches
from chronoprep.umt5.pickles import save, share
from chronoprep.umt5.text import MAX_TOKENS, Tokens, clean
from chronoprep.umt5.weights import find_encoder, identity

__all__ = [
    "MAX_TOKENS",
    "EmbedTask",
    "Embedder",
    "Encoder",
    "Tokens",
    "Written",
    "batches",
    "clean",
    "find_encoder",
    "identity",
    "save",
    "share",
]
