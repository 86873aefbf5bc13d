"""Where humans decide: what is to be seen of a pair, and what becomes of a decision.

It knows no HTTP. Several threads may ask at once; what is written or read on takes turns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from chronoprep.config import Settings
from chronoprep.dataset import (
    NO_TEXT,
    Dataset,
    Entry,
    Event,
    Failure,
    Label,
    Review,
    Roles,
    State,
    Text,
    Undo,
)
from chronoprep.dataset.events import Fault, Severity, Words
from chronoprep.digest import of_text
from chronoprep.errors import ChronoprepError, PairError
from chronoprep.gallery import card_of
from chronoprep.gallery.cards import Judged
from chronoprep.images.load import of_both
from chronoprep.images.refs import parse, told_apart
from chronoprep.images.sources import content_digest, files_stamp
from chronoprep.labels.scoring import ENOUGH, calibrated
from chronoprep.review.columns import Columns, Query

_FALSE_ALARMS = 0.1  # share of right labels that a calibrated threshold may flag, if not set
_REMEMBERED = 20_000  # changes that a page may have missed
_CAME = {"brought": "the label came with the data", "fixed": "the label was set for all pairs"}
_SURE = 1.96  # deviations of an interval that holds with 95 %


class Decision(BaseModel):
    """What a reviewer decided.

    Attributes:
        revision: What they saw, by `State.revision`.
        seen: How many events they saw, for telling what came since.
        caption, caption_cot: With `edit`, the texts as they are to be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["accept", "reject", "edit", "swap", "undo", "relabel"]
    revision: str
    seen: int = Field(0, ge=0)
    caption: Words | None = Field(None, max_length=20_000)
    caption_cot: Words | None = Field(None, max_length=100_000)
    error: Fault | None = None
    severity: Severity | None = None
    reason: str | None = Field(None, max_length=2_000)


class Hooks(NamedTuple):
    """What is done by the rooms above.

    Attributes:
        verdicts: What verify says of all labels, and its threshold.
        relabel: Asks the configured model; None where none is.
        build_csv: Writes metadata.csv, and says what came of it.
        tokens: How many UMT5 makes of a prompt; None where its tokenizer is not there.
    """

    verdicts: Callable[[], tuple[Mapping[str, Judged], float]]
    relabel: Callable[[Entry, State], list[Event]] | None
    build_csv: Callable[[], list[str]]
    tokens: Callable[[str], int] | None


class Refused(Exception):  # noqa: N818 - it is no fault
    """A decision that can't be: on what has changed since (`stale`), or on what is not there."""

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class Desk:
    """The pairs of a dataset, for humans to look at.

    Args:
        reviewer: Their name, for the journal.
    """

    def __init__(
        self, dataset: Dataset, settings: Settings, reviewer: str | None, hooks: Hooks
    ) -> None:
        self.dataset, self.settings, self.reviewer, self.hooks = dataset, settings, reviewer, hooks
        self.entries = dataset.index.entries(settings.pairs.limit)
        self.columns = Columns(self.entries.frame["key"].to_list())
        self.version = 0
        self.decided = 0
        self._news: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self._lock = threading.RLock()
        self._relabelling: set[str] = set()
        self._failed: dict[str, str] = {}
        self._asking = ThreadPoolExecutor(settings.vlm.concurrency or 4, "relabel")
        dataset.journal.fresh = set()
        self._roles = dataset.journal.roles()
        for key in self.columns.keys:
            self.columns.take_state(key, dataset.journal.state(key, files=False))
        self.rescore()

    def rescore(self) -> None:
        """Hold all labels against each other anew."""
        verdicts, threshold = self.hooks.verdicts()
        with self._lock:
            self.verdicts, self.threshold = verdicts, threshold
            self.columns.take_verdicts(verdicts)
            self.version += 1

    def entry(self, key: str) -> Entry:
        """A pair, its images in the roles that humans gave them.

        Raises:
            KeyError: The dataset has none of this key.
        """
        entry = self.entries[self.columns.row[key]]
        roles = self._roles.get(key)
        if roles is not None and roles.exchanges(entry.source, entry.target):
            return entry._replace(source=entry.target, target=entry.source, images=None)
        return entry

    def overview(self, above: float | None = None) -> dict[str, Any]:
        """What a page shows of the dataset as a whole."""
        columns = self.columns
        return {
            "dataset": self.dataset.folder.name,
            "reviewer": self.reviewer,
            "pairs": len(columns.keys),
            "counts": columns.counts(above),
            "histogram": columns.histogram(),
            "threshold": self.threshold,
            "calibration": self.calibration(self.threshold if above is None else above),
            "decided": self.decided,
            "relabel": self.hooks.relabel is not None,
            "version": self.version,
            "outdated": columns.outdated(),
            **columns.named(),
        }

    def calibration(self, above: float) -> dict[str, Any]:
        """How often right labels lie above a threshold, by those that humans accepted."""
        accepted = self.columns.accepted()
        count, alarms = len(accepted), sum(score > above for score, _ in accepted)
        found: dict[str, Any] = {
            "accepted": count, "enough": ENOUGH, "above": above, "left": self.columns.left(above),
        }  # fmt: skip
        wanted = self.settings.verify.false_alarms or _FALSE_ALARMS
        threshold = calibrated(accepted, wanted)
        if threshold is not None:
            found |= {
                "rate": alarms / count,
                "between": _interval(alarms, count),
                "wanted": wanted,
                "threshold": threshold.all,
                "left_there": self.columns.left(threshold.all),
            }
        return found

    def page(self, query: Query, offset: int, limit: int, around: str | None) -> dict[str, Any]:
        """A page of the rows of a query.

        Args:
            around: A key that is to be on the page, in place of `offset`.
        """
        rows = self.columns.find(query)
        place = None
        if around is not None and around in self.columns.row:
            place = self.columns.place(around, query, rows)
            offset = max(0, place - limit // 2)
        page = [self.columns.row_of(int(row)) for row in rows[offset : offset + limit]]
        return {"total": len(rows), "offset": offset, "place": place, "rows": page}

    def pair(self, key: str) -> dict[str, Any]:
        """What a page shows of a pair.

        Raises:
            KeyError: As `entry`.
        """
        entry = self.entry(key)
        state = self.dataset.journal.state(key)
        judged = self.verdicts.get(key) if self.columns.is_scored(key) else None
        files = files_stamp(entry.source, entry.target)
        card = card_of(entry, state, judged)
        label = state.label
        model = Text(label.caption, label.caption_cot) if label is not None else NO_TEXT
        return asdict(card) | {
            "suspect": card.suspect and state.verdict is None,
            "provenance": card.provenance and card.provenance._asdict(),
            "model": model._asdict(),
            "revision": state.revision,
            "seen": len(state.events),
            "history": _history(state.events),
            "turned": state.roles is not None and state.roles.exchanges(*self._found(key)),
            "stale": _is_stale(entry, files, state),
            "relabelling": key in self._relabelling,
            "relabel_failed": self._failed.get(key),
            "stamp": of_text(f"{entry.source}{entry.target}{files}", 6),
            "origin": entry.origin,
        }

    def decide(self, key: str, decision: Decision) -> dict[str, Any]:
        """Write a decision down: on disk when this returns the pair as it is then.

        Raises:
            KeyError: As `entry`.
            Refused: It was on something else than what stands, or can't be.
            ChronoprepError: It can't be written, or an image can't be read.
        """
        entry = self.entry(key)
        journal = self.dataset.journal
        with self._lock:
            state = journal.state(key)
            if state.revision == decision.revision:
                events = list(self._events(entry, state, decision))
                fresh = self.dataset.append(
                    events, lambda: journal.state(key).revision == decision.revision
                )
            else:
                fresh = False
            self._read_on()
            if not fresh:
                raise Refused("this pair has changed since you saw it", stale=True)
            self.decided += decision.action != "relabel"
        if decision.action == "relabel":
            self._relabel(key)
        return self.pair(key)

    def since(self, key: str, seen: int) -> list[dict[str, str]]:
        """What happened to a pair since so many events."""
        return _history(self.dataset.journal.state(key).events[seen:])

    def news(self, version: int) -> dict[str, Any]:
        """Which pairs have changed since a version of the overview, by anybody."""
        with self._lock:
            self.dataset.journal.refresh()
            self._read_on()
            missed = bool(self._news) and self._news[0][0] > version + 1
            keys = {key for at, key in self._news if at > version}
            return {"version": self.version, "keys": sorted(keys)[:200], "all": missed}

    def build_csv(self) -> list[str]:
        """Bring metadata.csv up to date."""
        notes = self.hooks.build_csv()
        self.news(self.version)  # what was edited there by hand is known now
        return notes

    def tokens(self, text: str) -> int | None:
        """How many tokens a prompt has; None where nobody can tell."""
        return self.hooks.tokens(text) if self.hooks.tokens is not None else None

    def close(self) -> None:
        self._asking.shutdown(wait=False, cancel_futures=True)

    def _events(self, entry: Entry, state: State, decision: Decision) -> Iterator[Event]:
        about: dict[str, Any] = {"key": entry.key, "reviewer": self.reviewer}
        action = decision.action
        if action == "undo":
            if state.review is None:
                raise Refused("there is no decision on this pair to take back")
            yield Undo(**about)
        elif action == "swap":
            yield _swapped(entry, about)
        elif action == "relabel":
            if self.hooks.relabel is None:
                raise Refused("no model is configured: start with --model or --endpoint")
            # A human's verdict would outrank the new label; a caption of theirs is expanded.
            if state.review is not None and not _to_be_expanded(state):
                before = state
                while before.review is not None:
                    undo = Undo(**about)
                    yield undo
                    before = State([*before.events, undo])
        else:
            text = state.text
            if text == NO_TEXT and state.label is not None:
                text = Text(state.label.caption, state.label.caption_cot)
            if text == NO_TEXT and action == "accept":
                raise Refused("there is no label to accept: write one, or ask for one")
            about |= {"images": state.images, "reason": decision.reason or None}
            if action == "reject":
                about |= {"error": decision.error, "severity": decision.severity}
            if action == "edit":
                new = {"caption": decision.caption, "caption_cot": decision.caption_cot}
                about |= {name: (words or "").strip() or None for name, words in new.items()}
                if about["caption"] is None and about["caption_cot"] is None:
                    raise Refused("the new text says nothing: reject the pair instead")
            yield Review(verdict=action, **about)

    def _read_on(self) -> None:
        """Take over what the journal has read since."""
        journal = self.dataset.journal
        fresh, journal.fresh = journal.fresh or set(), set()
        for key in fresh.intersection(self.columns.row):
            if key in journal.turned:
                roles = journal.state(key, files=False).roles
                if roles is not None:
                    self._roles[key] = roles
            self.columns.take_state(key, journal.state(key, files=False))
            self._tell(key)

    def _tell(self, key: str) -> None:
        """Have pages ask for a pair again."""
        self.version += 1
        self._news.append((self.version, key))

    def _found(self, key: str) -> tuple[str, str]:
        entry = self.entries[self.columns.row[key]]
        return entry.source, entry.target

    def _relabel(self, key: str) -> None:
        relabel = self.hooks.relabel
        if relabel is None or key in self._relabelling:
            return
        self._relabelling.add(key)
        self._failed.pop(key, None)

        def ask() -> None:
            try:
                events = relabel(self.entry(key), self.dataset.journal.state(key))
                with self._lock:
                    self.dataset.append(events)
                failed = next((e.error for e in events if isinstance(e, Failure)), None)
            except ChronoprepError as error:
                failed = error.reason if isinstance(error, PairError) else error.message
            with self._lock:
                self._relabelling.discard(key)
                if failed is not None:
                    self._failed[key] = failed
                self._read_on()
                self._tell(key)

        self._asking.submit(ask)


def _is_stale(entry: Entry, files: str | None, state: State) -> bool:
    """Whether the text is of other images than those that lie there now.

    Args:
        files: How they look now.
    """
    if state.images is None or state.images_of(files) == state.images:
        return False
    try:
        images = [content_digest(parse(ref)) for ref in (entry.source, entry.target)]
    except ChronoprepError:
        return False
    return of_both(images[0], images[1]) != state.images


def _to_be_expanded(state: State) -> bool:
    return state.verdict == "edit" and state.text.caption is not None and state.text.cot is None


def _swapped(entry: Entry, about: dict[str, Any]) -> Roles:
    """Source and target of a pair exchanged."""
    before, after = (content_digest(parse(ref)) for ref in (entry.source, entry.target))
    source, target = told_apart(entry.target, entry.source)
    images, instead = of_both(after, before), of_both(before, after)
    return Roles(source=source, target=target, images=images, instead=instead, **about)


def _interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's, of a share: between which two it lies with 95 %."""
    share, square = hits / count, _SURE**2
    middle = share + square / (2 * count)
    half = _SURE * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5
    whole = 1 + square / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def _history(events: Sequence[Event]) -> list[dict[str, str]]:
    """Events as a reviewer reads them."""
    lines = []
    for event in events:
        who, what = "", ""
        if isinstance(event, Review | Undo | Roles):
            who = event.reviewer or "somebody"
        if isinstance(event, Review):
            done = {"accept": "accepted it", "reject": "rejected it", "edit": "changed the text"}
            why = filter(None, (event.severity, event.error, event.reason))
            what = ": ".join(filter(None, (done[event.verdict], ", ".join(why))))
        elif isinstance(event, Undo):
            what = "took the last decision back"
        elif isinstance(event, Roles):
            what = "exchanged source and target"
        elif isinstance(event, Label):
            who, what = event.model or "", "wrote the label"
            if event.model is None:
                what = _CAME.get(event.origin, "the label was written")
        elif isinstance(event, Failure):
            who, what = event.stage, f"failed: {event.error}"
        if what:
            lines.append({"time": event.time or "", "who": who, "what": what})
    return lines
