"""Which labels are stale: from the journal, the settings and the looks of the images' files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from chronoprep.config import ImageSettings, Settings
from chronoprep.data import Pair, Standing
from chronoprep.dataset.journal import Labels
from chronoprep.engine import mapped
from chronoprep.errors import PairError
from chronoprep.labels import guard
from chronoprep.labels.prompts import Prompts
from chronoprep.rows import Rows
from chronoprep.vlm import Model

Captions = Literal["model", "brought", "existing"]
"""Where stage 1 comes from: the model for every pair; the data where it brings a caption, else the
model; or only captions that exist, in the data or the journal."""


def digest(*parts: object) -> str:
    """A short stable digest of JSON values."""
    return _digest_of(json.dumps(parts, sort_keys=True, ensure_ascii=False))


_READ_TOGETHER = 1000


def _digest_of(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def view_settings(images: ImageSettings) -> dict[str, Any]:
    """The settings that change what the model sees."""
    return images.model_dump(include={"max_resolution", "max_long_edge", "background", "fit"})


@dataclass(frozen=True)
class Recipe:
    """Everything but the images that decides a label's text."""

    model: Model
    prompts: Prompts
    settings: Settings

    @property
    def generation(self) -> dict[str, object]:
        return {
            "backend": self.model.backend,
            "do_sample": False,
            "max_new_tokens": self.settings.vlm.max_new_tokens,
            "max_resolution": self.settings.images.max_resolution,
            **self.model.text_settings,
        }

    @cached_property
    def _stages(self) -> tuple[str, str]:
        """Digests of what is the same for all pairs, of stage 1 and of stage 2."""
        common = (
            view_settings(self.settings.images),
            self.model.name,
            self.model.checkpoint.revision,
            self.model.text_settings,
        )
        # Of a template, its text counts and not what its file is called.
        versions = (t.version.rpartition("@")[2] for t in (self.prompts.caption, self.prompts.cot))
        caption, cot = (digest(*common, version) for version in versions)
        return caption, cot

    def caption_id(self, images: str) -> str:
        return _digest_of(images + self._stages[0])

    def cot_id(self, images: str, caption: str) -> str:
        return _digest_of(images + self._stages[1] + caption)


class Seen(NamedTuple):
    """A pair's images as they are now.

    Attributes:
        images: The digest of their bytes; empty where they were not read.
        files: How their files look; None where that can't be told.
    """

    images: str
    files: str | None


class Task(NamedTuple):
    """A pair that needs the model; with a caption, stage 2 alone. As text, for `Rows`."""

    key: str
    source: str
    target: str
    caption: str | None
    images: str
    files: str | None

    @property
    def pair(self) -> Pair:
        return Pair(self.key, self.source, self.target)

    @property
    def seen(self) -> Seen:
        return Seen(self.images, self.files)


def normal_caption(text: str | None) -> str | None:
    """A caption in its stored spelling; None where there is none."""
    if text is None or not guard.clean(text):
        return None
    return "no change" if guard.is_no_change(text) else guard.clean(text)


def next_task(
    row: Pair,
    before: Standing | None,
    seen: Seen,
    recipe: Recipe,
    *,
    with_cot: bool,
    captions: Captions,
) -> Task | None:
    """What is left to do for a pair, or None when its label is up to date.

    Raises:
        PairError: With `captions="existing"`, when there is no caption, or one of other images, or
            one that the guard refuses.
    """
    images = seen.images
    if before is not None and before.edited_by_human:
        # A human's words are never overwritten; a missing CoT may still be added to them.
        if before.status == "ok" and before.caption and not before.caption_cot and with_cot:
            if before.images not in (None, images):
                raise PairError(
                    "the images changed after a human wrote the caption",
                    hint="Correct the record in labels.jsonl, or remove its lines.",
                )
            return Task(*row[:3], before.caption, *seen)
        return None

    # Texts that were kept while the guard was off.
    refused = (before.faults or {}) if before is not None and recipe.settings.labels.guard else {}
    given = normal_caption(row.caption) if captions != "model" else None
    if captions == "existing" and before is not None and before.images == images:
        # One that the model wrote since is what the user goes on from.
        given = None if before.caption and before.caption_id else given
    if given is None and captions == "existing":
        if before is None or before.caption is None:
            raise PairError(
                "there is no caption to start from",
                hint="Run `chronoprep caption` first, or bring a caption column.",
            )
        if before.images not in (None, images):
            raise PairError(
                "the images changed after the caption was written",
                hint="Run `chronoprep caption` again.",
            )
        if "caption" in refused:
            raise PairError(
                f"the caption is not to be used: {refused['caption']}",
                hint="Run `chronoprep caption` again, or pass --no-guard.",
            )
        given = before.caption

    if before is None or before.caption is None or not images:
        return Task(*row[:3], given, *seen)
    if given is not None:
        current = before.caption == given and before.images == images
    else:
        current = before.caption_id == recipe.caption_id(images) and "caption" not in refused
    if not current:
        return Task(*row[:3], given, *seen)
    if before.status in ("no_change", "rejected"):
        return None
    cot_current = before.cot_id == recipe.cot_id(images, before.caption) and "cot" not in refused
    if before.status == "ok" and (not with_cot or cot_current):
        return None
    return Task(*row[:3], before.caption, *seen)


def look(row: Pair) -> Seen:
    """Read a pair's images. Its files' stamp is of the text, which may spell a time as it likes.

    Raises:
        PairError: One is missing or unreadable.
    """
    from chronoprep.images.load import content_hash
    from chronoprep.images.sources import files_stamp

    files = files_stamp(row.source, row.target)
    return Seen(content_hash(row), files)


def looked_up(
    pairs: Rows[Pair], journal: Labels, *, read_new: bool
) -> Iterator[tuple[Pair, Standing | None, Seen | PairError]]:
    """Each pair, what decides of its record, and how its images look now.

    The bytes of images are read only where the files look other than the record says; with
    `read_new` also where no record says anything of them.
    """
    from chronoprep.images.sources import files_stamp

    # From the first pair on whose images have to be read: they are read side by side.
    waiting: list[tuple[Pair, Standing | None, Seen | None]] = []

    def settle() -> Iterator[tuple[Pair, Standing | None, Seen | PairError]]:
        unknown = [row for row, _, seen in waiting if seen is None]
        fresh = mapped(look, unknown, key=lambda row: row.key)
        for row, before, seen in waiting:
            if seen is None:
                outcome = next(fresh)
                seen = outcome.value
                if seen is None:
                    assert isinstance(outcome.error, PairError)
                    yield row, before, outcome.error
                    continue
            yield row, before, seen
        waiting.clear()

    for row in pairs:
        before = journal.standing(row.key)
        files = files_stamp(row.source, row.target)
        images = "" if before is None else before.images or ""
        same = files == before.files if before is not None and images else not read_new
        seen = None
        if same and files is not None:
            seen = Seen(images, files)
            if not waiting:
                yield row, before, seen
                continue
        waiting.append((row, before, seen))
        if len(waiting) == _READ_TOGETHER:
            yield from settle()
    if waiting:
        yield from settle()
