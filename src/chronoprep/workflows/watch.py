"""What the answers of a run say of who gives them, beyond the text of each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chronoprep.data import Finding, Served
from chronoprep.labels.labeller import Labelled
from chronoprep.labels.recipe import Recipe

# Prompt tokens that a word of English takes at least, and two images: no model has fewer.
_A_WORD = 1.2
_TWO_IMAGES = 100
_SMALLER = "mini|nano|tiny|lite|small|flash|turbo"  # another model of the same family
_ALIKE = 5  # pairs with one answer, and none with another


class Watch:
    """Looks at answers as they come, and tells once of each thing that a user should know.

    Args:
        recipe: What was asked, and of whom.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._told: set[str] = set()
        self._captions: set[str] = set()
        self._images: set[str] = set()

    def see(self, done: Labelled) -> Iterator[Finding]:
        """What an answer tells that was not told before."""
        answer = done.answer
        for stage, said in answer.served.items():
            for finding in self._of_server(stage, said):
                if finding.code not in self._told:
                    self._told.add(finding.code)
                    yield finding
        if done.given is None and answer.caption is not None and len(self._captions) < 2:
            self._captions.add(answer.caption)
            self._images.add(done.images)
            if len(self._captions) == 1 and len(self._images) == _ALIKE:
                yield Finding(
                    "one-answer", "warning", None,
                    f"The first {_ALIKE} pairs, of different images, have one caption: "
                    f"{answer.caption[:100]!r}.",
                    "Does the model see the images? Look at some of the labels.",
                )  # fmt: skip

    def _of_server(self, stage: str, said: Served) -> Iterator[Finding]:
        model = self._recipe.model
        asked = {model.name, model.settings.model}
        if said.model and not any(_same(said.model, name) for name in asked):
            yield Finding(
                "other-model", "warning", None,
                f"{model.name} was asked, and {said.model} has answered.",
                "Name by --model what the server serves, or have it serve what is named.",
            )  # fmt: skip
        prompts = self._recipe.prompts
        turns = (prompts.caption if stage == "caption" else prompts.cot).turns
        least = int(_A_WORD * sum(len(text.split()) for _, text in turns)) + _TWO_IMAGES
        if said.prompt_tokens and said.prompt_tokens < least:
            yield Finding(
                "images-unread", "warning", None,
                f"The server counts {said.prompt_tokens} tokens of the prompt, too few for its "
                "text and two images: it may not have read the images.",
                "Serve a vision-language model that takes two images a request; look at some of "
                "the labels.",
            )  # fmt: skip
        if said.without:
            yield Finding(
                "without", "note", None,
                f"The server does not take {', '.join(said.without)}: requests go without.",
                "Without a temperature of 0, labels may differ from run to run.",
            )  # fmt: skip


def _same(one: str, other: str) -> bool:
    """Whether two names may be one model's: a dated, quantised or tagged one, one with a folder."""
    names = (name.lower().rstrip("/").rsplit("/", 1)[-1] for name in (one, other))
    first, second = (re.sub(r"[^a-z0-9]", "", name.removesuffix(".gguf")) for name in names)
    if first not in second and second not in first:
        return False
    more = second.replace(first, "", 1) if first in second else first.replace(second, "", 1)
    return not re.search(_SMALLER, more)
