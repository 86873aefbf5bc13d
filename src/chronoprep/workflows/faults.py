"""What `check` can find, and `pairs` of images: every code, how bad it is, and what to do about it.

An error is what a trainer stops at, skips in silence or learns wrongly from; a warning is what it
puts up with.
"""

from __future__ import annotations

from typing import Literal

from chronoprep.data import Finding, Flaw

Severity = Literal["error", "warning", "note"]

_REBUILD = "`chronoprep check --fix` writes the table anew from what the dataset knows."
_RECORD = "`chronoprep check --fix` writes the pair's video anew."
_EMBED = "`chronoprep umt5` writes it anew."
_ALIGN = "The editor learns to move what should stay: `--align` moves it back and crops both."
_QUOTE = "Put the prompt into its own words; `chronoprep build-csv` puts such texts into quotes."
_ONE = "Keep one of them, or the editor sees it more often than others."

FAULTS: dict[str, tuple[Severity, str]] = {
    # The table.
    "table-missing": ("error", _REBUILD),
    "table-unreadable": ("error", "Check what lies there, and its permissions."),
    "table-empty": ("error", _REBUILD),
    "table-encoding": ("error", "Save it as CSV in UTF-8."),
    "table-broken": ("error", _REBUILD),
    "column-missing": ("error", _REBUILD),
    "column-twice": ("error", "Rename one of the columns: pandas reads the first under this name."),
    "columns-shifted": ("error", "Give every column a name, or remove the cells in excess."),
    "row-wide": ("error", "Put quotes around a text with commas."),
    "row-short": ("error", "Fill the row up, or remove it."),
    "row-twice": ("warning", _ONE),
    "key-twice": ("warning", "Give each row a key of its own."),
    "key-empty": ("warning", "Give the row a key: without, it is NaN to the trainer."),
    "keys-not-text": ("warning", "Let keys begin with a letter, as `chronoprep` does."),
    "row-gone": ("note", "On the next run its pair counts as rejected."),
    # Prompts.
    "prompt-empty": ("error", "Write a prompt, or remove the row."),
    "prompt-nan": ("error", _QUOTE),
    "prompt-number": ("error", _QUOTE),
    "prompt-bool": ("error", _QUOTE),
    "prompt-control": ("error", "Remove the character."),
    "prompt-garbled": ("warning", "UTF-8 was read as Latin-1 once: make the text anew."),
    "prompt-opening": ("warning", "Let it begin as the others do, which the editor was taught."),
    "prompt-length": ("warning", "Let it say what changes and what stays, in 80 to 100 words."),
    "prompt-tokens": ("warning", "Shorten the prompt: what is beyond is not seen."),
    "prompt-degenerate": ("error", "Label the pair again, or write the prompt yourself."),
    # Paths.
    "path-empty": ("error", "Name the file, or remove the row."),
    "path-absolute": ("warning", "Name it relative to the table, so that the folder can move."),
    "path-outside": ("warning", "Keep the file in the dataset's folder."),
    "path-backslash": ("error", "Write / between folders."),
    "path-case": ("error", "Spell the path as the disk does: others tell these apart."),
    "path-suffix": ("error", "The trainers read .mp4, .avi, .mov, .wmv, .mkv, .flv and .webm, and "
                    ".pkl; an image is a video of one frame."),
    "file-missing": ("error", _RECORD),
    "file-unreadable": ("error", "Check what lies there, and its permissions."),
    "file-empty": ("error", _RECORD),
    "lfs-pointer": ("error", "`git lfs pull` fetches the file."),
    # Videos.
    "video-unreadable": ("error", _RECORD),
    "video-truncated": ("error", _RECORD),
    "video-damaged": ("error", _RECORD),
    "no-pictures": ("error", _RECORD),
    "no-frames": ("error", _RECORD),
    "one-frame": ("error", _RECORD),
    "extra-frames": ("error", _RECORD),
    "frame-sizes": ("error", _RECORD),
    "hidden-frames": ("error", "Write it without an edit list."),
    "video-timing": ("error", "Encode it at a constant rate."),
    "codec-unknown": ("error", "Encode it as H.264."),
    "too-small": ("error", "Leave the pair out, or use larger images."),
    "rotation": ("warning", "Encode it as it is to be seen."),
    "pixel-shape": ("warning", "Encode it with square pixels."),
    "audio": ("warning", "Write it without sound."),
    "several-videos": ("warning", "Keep the one that is meant."),
    "same-frames": ("warning", "Leave the pair out: the editor learns to change nothing."),
    "plain-frame": ("warning", "Look at the pair's images: a frame of one colour shows nothing."),
    "video-shared": ("warning", "Name the row's own video, unless it has two prompts on purpose."),
    "other-images": ("error", "`chronoprep caption` labels the images that are there now."),
    "video-changed": ("error", _RECORD),
    # Source and target.
    "shifted": ("warning", _ALIGN),
    "zoomed": ("warning", _ALIGN),
    "turned": ("warning", _ALIGN),
    "border": ("warning", _ALIGN),
    "not-aligned": ("warning", "Look whether both are of one picture: else leave the pair out."),
    "exposure-drift": ("note", "If the light is no part of the edit, expose both alike."),
    # Embeddings.
    "embedding-missing": ("error", "`chronoprep umt5` writes it."),
    "pickle-unsafe": ("error", "Don't train on it: whoever made it runs code on your machine. "
                      "`chronoprep umt5` writes a file of your own."),
    "pickle-damaged": ("error", _EMBED),
    "embedding-torch-save": ("error", _EMBED),
    "embedding-huge": ("error", _EMBED),
    "embedding-type": ("error", _EMBED),
    "embedding-shape": ("error", _EMBED),
    "embedding-device": ("error", _EMBED),
    "embedding-grad": ("error", _EMBED),
    "embedding-not-finite": ("error", _EMBED),
    "embedding-zero": ("error", _EMBED),
    "embedding-zero-row": ("error", _EMBED),
    "embedding-padded": ("warning", "`chronoprep umt5` writes it without the padding."),
    "embedding-dtype": ("warning", "`chronoprep umt5` writes bfloat16."),
    "embedding-not-compact": ("warning", "`chronoprep umt5` writes no more than the numbers."),
    "embedding-shared": ("error", "Name the row's own; `chronoprep umt5` writes it."),
    "embedding-stale": ("error", _EMBED),
    "embedding-changed": ("error", _EMBED),
    # The dataset.
    "orphan": ("warning", "`chronoprep check --fix` puts it into a folder of its own."),
    "too-few": ("error", "The trainer divides by zero: use fewer ranks or more pairs."),
    "split-leak": ("error", "Keep all pairs of one source image in one split."),
}  # fmt: skip

# What `--fix` mends by writing the table, the video or the embedding anew.
TABLE = {
    "table-missing", "table-empty", "table-encoding", "table-broken", "column-missing",
    "column-twice", "columns-shifted", "row-wide", "row-short",
}  # fmt: skip
VIDEO = {code for code, (severity, remedy) in FAULTS.items() if remedy == _RECORD} | {
    "lfs-pointer", "hidden-frames", "video-timing", "codec-unknown",
}  # fmt: skip


def finding(flaw: Flaw, key: str | None = None) -> Finding:
    severity, remedy = FAULTS[flaw.code]
    return Finding(flaw.code, severity, key, flaw.message, remedy)
