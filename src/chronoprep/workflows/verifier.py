"""The worker that holds a label against what changed between its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from chronoprep.config import Settings
from chronoprep.data import Pair
from chronoprep.dataset import Score, Text, text_digest
from chronoprep.images.room import room
from chronoprep.labels import rules
from chronoprep.labels.claims.quoted import quoted
from chronoprep.labels.vocabulary import Spot

UNREAD = "unread"  # weighs nothing: lettering is quoted that could not be read
_ASTRAY = 8.0  # ΔE along the edges, from which on a target may lie off: most lie well


class VerifyTask(NamedTuple):
    """A label that is to be judged."""

    key: str
    source: str
    target: str
    caption: str | None
    cot: str | None


@dataclass(frozen=True)
class Verifier:
    """Judges a label by its images.

    Attributes:
        by: What its judgements are signed with.
    """

    settings: Settings
    by: str

    @room()
    def __call__(self, task: VerifyTask) -> Score:
        import numpy as np

        from chronoprep.images import alignment
        from chronoprep.images.difference import measure
        from chronoprep.images.lettering import installed, read
        from chronoprep.images.load import load_pair

        loaded = load_pair(Pair(*task[:3]), self.settings.images)
        source, target = np.asarray(loaded.source), np.asarray(loaded.target)
        seen = measure(source, target)
        flaws = alignment.flaws_in_notes(loaded.notes)
        if seen.border > _ASTRAY:  # of others, measuring finds nothing
            lies = alignment.measure(source, target)
            flaws += alignment.flaws_of(lies, loaded.source.size, alignment.GROSS)
        lettering, unread = None, False
        if any(quoted(task.caption or task.cot or "")) and not seen.identical:
            unread = not installed()
            if not unread:
                boxes = [region.box for region in seen.regions]
                lettering = (read(source, boxes), read(target, boxes))
        judged = rules.judge(task.caption, task.cot, seen, lettering)
        weights = {doubt.rule: round(doubt.weight, 4) for doubt in judged.doubts}
        weights |= {UNREAD: 0.0} if unread else {}
        return Score(
            key=task.key,
            of=text_digest(Text(task.caption, task.cot)),
            by=self.by,
            images=loaded.images,
            files=loaded.files,
            scores=weights,
            reasons=tuple(doubt.reason for doubt in judged.doubts),
            edit=judged.edit,
            places=judged.places,
            spots=tuple(Spot(*(round(value, 4) for value in spot)) for spot in judged.spots),
            flaws=tuple(flaws),
        )
