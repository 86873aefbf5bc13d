"""What decides a label's text, and so which labels are stale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from chronoprep import digest
from chronoprep.config import ImageSettings, Settings
from chronoprep.data import Pair
from chronoprep.dataset import Label, State, same_images
from chronoprep.errors import PairError
from chronoprep.labels import guard
from chronoprep.labels.prompts import Prompts
from chronoprep.vlm import Model

Captions = Literal["model", "brought", "existing"]
"""Where stage 1 comes from: the model for every pair; the data where it brings a caption, else the
model; or only captions that exist, in the data or the journal."""


def view_settings(images: ImageSettings) -> dict[str, Any]:
    """The settings that change what the model sees."""
    names = {"max_resolution", "max_long_edge", "background", "fit", "colour_management"}
    # Off, it is as if it were not there: what was made before there was such a setting stays.
    return images.model_dump(include=names | {"align"} if images.align else names)


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
        checkpoint = self.model.checkpoint
        common = (
            view_settings(self.settings.images),
            checkpoint.name,
            checkpoint.revision,
            self.model.text_settings,
        )
        # Of a template, its text counts and not what its file is called.
        versions = (t.version.rpartition("@")[2] for t in (self.prompts.caption, self.prompts.cot))
        caption, cot = (digest.of_values(*common, version) for version in versions)
        return caption, cot

    def caption_id(self, images: str) -> str:
        return digest.of_text(images + self._stages[0])

    def cot_id(self, images: str, caption: str) -> str:
        return digest.of_text(images + self._stages[1] + caption)

    def made(self, label: Label, images: str, *, stage: Literal["caption", "cot"]) -> bool:
        """Whether a label's text of a stage is what this recipe gives for these images."""
        if self.settings.labels.guard and stage in (label.faults or {}):
            return False  # it was kept while the guard was off
        if stage == "caption":
            return label.caption is not None and label.caption_id == self.caption_id(images)
        return label.cot_id is not None and label.cot_id == self.cot_id(images, label.caption or "")


def decided_by(label: Label) -> Iterator[tuple[str, str]]:
    """What is on record of the recipe that gave a label: the name of each thing, and which one it
    was; without what no text depends on."""
    names = ("model", "revision", "caption_prompt", "cot_model", "cot_revision", "cot_prompt")
    found = {name: getattr(label, name) for name in names} | (label.generation or {})
    for name, value in found.items():
        if value is not None and name not in ("backend", "max_new_tokens"):
            yield name, str(value)


class LabelTask(NamedTuple):
    """A pair that needs the model; with a caption, stage 2 alone."""

    key: str
    source: str
    target: str
    caption: str | None = None

    @property
    def pair(self) -> Pair:
        return Pair(self.key, self.source, self.target)


def normal_caption(text: str | None) -> str | None:
    """A caption in its stored spelling; None where there is none."""
    return guard.spelled(text or "") or None


def plan(
    pair: Pair,
    state: State,
    images: str | None,
    recipe: Recipe,
    *,
    with_cot: bool,
    captions: Captions,
) -> LabelTask | Label | None:
    """What is left to do for a pair.

    Args:
        images: The digest of the pair's images; None where nothing was ever made of them, so that
            it does not matter.

    Returns:
        A task for the model; or an earlier label that is right again, to be taken without it; or
        None when the label that stands is up to date.

    Raises:
        PairError: With `captions="existing"`, when there is no caption, or one of other images, or
            one that the guard refuses.
    """
    reviewed = state.reviewed(images)
    if reviewed is not None:
        # A human's words are never written over; a missing CoT may be added to them.
        verdict, text = reviewed
        open_ended = text.caption not in (None, "no change") and text.cot is None
        if verdict == "reject" or not open_ended or not with_cot:
            if same_images(state.images, images):
                return None
            # Images that are back, and with them the label that the human saw.
            back = (label for label in state.labels if same_images(label.images, images))
            return next(back, None)
        return LabelTask(*pair[:3], text.caption)
    given = normal_caption(pair.caption) if captions != "model" else None
    if captions == "existing":
        given = _existing(state, images, given, recipe)
    if images is None:
        return LabelTask(*pair[:3], given)

    started: Label | None = None
    for label in state.labels:
        if label.images != images or label.caption is None:
            continue
        if given is not None and label.caption != given:
            continue
        if given is None and not recipe.made(label, images, stage="caption"):
            continue
        finished = not with_cot or label.caption == "no change"
        if finished or recipe.made(label, images, stage="cot"):
            return None if label is state.label else label
        started = started or label
    return LabelTask(*pair[:3], started.caption if started is not None else given)


def _existing(state: State, images: str | None, given: str | None, recipe: Recipe) -> str:
    """The caption that stage 2 starts from."""
    label = state.label
    caption = label.caption if label is not None else None
    if given is not None and (label is None or label.caption_id is None or label.images != images):
        return given  # one that the model wrote since is what the user goes on from
    if label is None or caption is None:
        raise PairError(
            "there is no caption to start from",
            hint="Run `chronoprep caption` first, or bring a caption column.",
        )
    if not same_images(label.images, images):
        raise PairError(
            "the images changed after the caption was written",
            hint="Run `chronoprep caption` again.",
        )
    if recipe.settings.labels.guard and (fault := (label.faults or {}).get("caption")):
        raise PairError(
            f"the caption is not to be used: {fault}",
            hint="Run `chronoprep caption` again, or pass --no-guard.",
        )
    return caption
