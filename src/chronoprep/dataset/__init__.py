"""A dataset folder: its lock, its index of pairs, its journal of events, its table."""

from chronoprep.dataset.events import (
    NO_TEXT,
    Artefact,
    Embedding,
    Event,
    Failure,
    Label,
    Review,
    Roles,
    Score,
    State,
    Text,
    Undo,
    Video,
    renamed,
    same_images,
    text_digest,
)
from chronoprep.dataset.folder import Dataset, Files
from chronoprep.dataset.index import Entry, Index
from chronoprep.dataset.journal import Journal
from chronoprep.dataset.table import cell_of, prompt_in, read_table, rewrite_table, write_table

__all__ = [
    "NO_TEXT",
    "Artefact",
    "Dataset",
    "Embedding",
    "Entry",
    "Event",
    "Failure",
    "Files",
    "Index",
    "Journal",
    "Label",
    "Review",
    "Roles",
    "Score",
    "State",
    "Text",
    "Undo",
    "Video",
    "cell_of",
    "prompt_in",
    "read_table",
    "renamed",
    "rewrite_table",
    "same_images",
    "text_digest",
    "write_table",
]
