"""The shape of every stage: plan tasks, run a worker, record what came of them as events.

A plan holds the index against the states of its keys and gives tasks. A worker does them and knows
neither journal nor terminal. A record turns an outcome into events, which the driver here writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TypeVar

from chronoprep import engine
from chronoprep import pairs as pairing
from chronoprep.config import Settings
from chronoprep.data import Finding, Outcome, Pair
from chronoprep.dataset import Artefact, Dataset, Entry, Event, Failure, Files, State, renamed
from chronoprep.dataset.mirror import Mirror
from chronoprep.dataset.shards import Shard, make_place, noted, take_over
from chronoprep.engine import Keyed, Needs, Worker, batched, mapped
from chronoprep.errors import ChronoprepError, ConfigError, PairError, ToolError
from chronoprep.images.remote import address_of, objects
from chronoprep.images.sources import files_stamp
from chronoprep.keys import chosen
from chronoprep.pairs import Discovery
from chronoprep.pairs.hub import is_address
from chronoprep.rows import Rows
from chronoprep.workflows.pairing import findings_of
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.streak import Streak

K = TypeVar("K", bound=Keyed)
U = TypeVar("U")
A = TypeVar("A", bound=Artefact)

# Events are written down together for so many seconds: what a crash can cost.
_SECONDS = 0.5
_READ_TOGETHER = 64  # what waits for its turn is work for the garbage collector


@dataclass
class Run:
    """A dataset at work.

    Attributes:
        entries: The pairs that the run is about.
        dry_run: Whether it only says what it would do.
        files_seen: Whether how the pairs' files look is as of now.
        summary: Of the pairs.
        digests_read: The digests of images that the run had to read, by key.
        mirror: The dataset's place in an object store, if it has one.
    """

    dataset: Dataset
    settings: Settings
    reporter: Reporter
    dry_run: bool
    files_seen: bool
    entries: Rows[Entry] = field(default_factory=lambda: Rows(Entry))
    summary: Summary = field(default_factory=lambda: Summary("pairs"))
    digests_read: dict[str, str] = field(default_factory=dict)
    mirror: Mirror | None = None

    def stage(
        self,
        what: str,
        tasks: Collection[K],
        worker: Worker[K, U] | Callable[[K], U],
        record: Callable[[Outcome[U]], Iterable[Event]],
        *,
        summary: Summary | None = None,
        of_tool: Callable[[Outcome[U]], bool] | None = None,
        needs: Needs = "cpu",
    ) -> Summary:
        """Run a stage over its tasks, and write down what comes of them.

        Args:
            record: The events of an outcome; a `Failure` counts as one.
            summary: What the plan has counted already.
            of_tool: Whether an outcome's failure may be the model's, the server's or the encoder's,
                and not the pair's; by default where its error says so.
            needs: What the worker wants of a machine, where the stage runs on several.

        Raises:
            BackendError: The worker can't go on; or the same cause makes one pair after the other
                fail, which are not blamed for it then.
            Stopped: The run was asked to stop, and what was under way is written down.
        """
        summary = summary or Summary(what)
        if self.dry_run:
            summary.todo = len(tasks)
            return summary.finish()
        if not len(tasks):
            return summary.finish()
        self.reporter.start(what, len(tasks))
        waiting: list[Event] = []
        streak = Streak(what)
        written = time.monotonic()
        try:
            asked, stored = self.settings.run, self.mirror is not None
            for outcomes in engine.run_as_asked(worker, tasks, asked, needs, only_here=stored):
                for outcome in outcomes:
                    events = list(record(outcome))
                    own = not (of_tool or _of_tool)(outcome)
                    waiting += streak.taken(outcome.key, events, own=own)
                    self.reporter.advance(summary.count(events))
                    streak.check()
                if time.monotonic() - written > _SECONDS:
                    self.dataset.append(waiting)
                    waiting, written = [], time.monotonic()
                    if self.mirror is not None:
                        self.mirror.push_if_due()
        finally:
            self.dataset.append(waiting + streak.held)
        engine.check_stopped()
        return summary.finish()

    def still_stale(self, files: Files, touched: list[tuple[A, K]]) -> Iterator[K]:
        """The tasks of files that are not what was written after all.

        Args:
            touched: Files of another time of change than on record, as in a copied dataset, each
                with the task that would write it anew.
        """
        if touched:
            self.reporter.start("files to compare", len(touched))
        same: list[Event] = []
        events = [event for event, _ in touched]
        for (_, task), outcome in zip(
            touched, mapped(files.described_anew, events, key=lambda event: event.key), strict=True
        ):
            self.reporter.advance("ok")
            if outcome.value is None:
                yield task
            else:
                same.append(outcome.value)
        if not self.dry_run:
            self.dataset.append(same)

    def with_images(
        self, entries: Iterable[Entry] | None = None, *, files: bool = True
    ) -> Iterator[tuple[Entry, State, str | PairError | None]]:
        """Each pair, its state, and the digest of its images as they are now.

        Args:
            files: Whether the states are of videos and embeddings, too.

        The bytes of images are read only where something was made of them before and their files
        look other than then; what is read is remembered in the index. None where nothing was ever
        made of a pair's images.
        """
        journal, before = self.dataset.journal, len(self.digests_read)
        for part in batched(self.entries if entries is None else entries, _READ_TOGETHER):
            states, known, reads = list[State](), list[str | None](), list[bool]()
            for entry in part:
                state = journal.state(entry.key, files=files)
                images = entry.images or state.images_of(entry.files)
                if images is None and entry.key in journal:
                    state = journal.state(entry.key)
                    images = self.digests_read.get(entry.key) or state.images_of(entry.files)
                states.append(state)
                known.append(images)
                reads.append(images is None and (entry.files is None or state.knows_images))
            # Those that have to be read are read side by side.
            fresh = mapped(_digest_of_images, compress(part, reads), key=lambda entry: entry.key)
            for entry, state, images, read in zip(part, states, known, reads, strict=True):
                outcome = next(fresh) if read else None
                if outcome is not None and outcome.value is not None:
                    self.digests_read[entry.key] = outcome.value
                    images = outcome.value
                error = outcome.error if outcome is not None else None
                yield entry, state, error if isinstance(error, PairError) else images
        if len(self.digests_read) > before and not self.dry_run:
            self.dataset.index.learn(self.digests_read)
            self.dataset.index.save()


def _of_tool(outcome: Outcome[U]) -> bool:
    return isinstance(outcome.error, ToolError)


def _digest_of_images(entry: Entry) -> str:
    from chronoprep.images.load import content_hash

    return content_hash(entry.pair)


@contextmanager
def opened(
    folder: Path,
    settings: Settings,
    *,
    pairs: Path | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
    look: bool = True,
    foreign: bool = False,
) -> Iterator[Run]:
    """A dataset, locked, with what a human edited taken over and its pairs brought up to date; or
    the shard of it that the settings name.

    Args:
        pairs: Where to look for pairs; without, those that the dataset knows.
        dry_run: Write nothing, not even the lock.
        look: Whether images will be asked for, so that they have to be where the index says.
        foreign: Whether the folder may be others', with a table and no index.

    Raises:
        ConfigError: As `discover`; or the dataset knows no pairs, or their place is gone.
        BackendError: Another run holds the dataset, or it can't be written.
    """
    shard = Shard.of(settings.run.shard) if settings.run.shard else None
    with working_copy(shard.place(folder) if shard else folder) as (place, mirror):
        whole = Dataset(folder if mirror is None else place)
        run = Run(Dataset(place), settings, reporter or Silent(), dry_run, look, mirror=mirror)
        with _opened(run, whole, shard, pairs, foreign=foreign):
            yield run


@contextmanager
def working_copy(folder: Path) -> Iterator[tuple[Path, Mirror | None]]:
    """The folder; of one in an object store, its copy on this machine, from which all is put there
    in the end.

    Raises:
        ConfigError: The store can't be reached.
        BackendError: It can't be read or written, or another run on this machine has the copy.
    """
    address = address_of(folder)
    if address is None:
        yield folder, None
        return
    mirror = Mirror(address)
    with mirror.held():
        mirror.pull()
        try:
            yield mirror.folder, mirror
        except BaseException:
            with suppress(ChronoprepError):  # what ended the run is what has to be said
                mirror.push()
            raise
        mirror.push()


@contextmanager
def _opened(
    run: Run, whole: Dataset, shard: Shard | None, pairs: Path | None, *, foreign: bool
) -> Iterator[None]:
    """The body of `opened`.

    Args:
        whole: What the run's dataset is a shard of, if it is one.
    """
    settings, folder, dry_run = run.settings, run.dataset.folder, run.dry_run
    found = pairing.discover(pairs, settings.pairs) if pairs is not None else None
    known = run.dataset.index.exists or (shard is not None and whole.index.exists)
    if found is None and not foreign and not known:
        raise ConfigError(
            f"{folder}: this dataset knows no pairs yet.",
            hint=f"Name them once: a folder or a table, before --dataset {whole.folder}.",
        )
    keys: list[str] | None = None
    if shard is not None and (found is not None or not run.dataset.index.exists):
        keys = found.pairs.frame["key"].to_list() if found is not None else whole.index.keys()
    if shard is not None and found is not None:
        found = _only(shard, found)
    if shard is not None and not dry_run:
        make_place(folder, whole.folder)
    if found is not None:
        run.summary.done = len(found.pairs)
        run.reporter.say(
            f"{len(found.pairs)} pairs in {pairs} ({found.layout})"
            + (f": those of shard {shard}" if shard else "")
        )
        run.reporter.say(str(found.tally))
        run.summary.findings += [f for f in findings_of(found) if f.severity != "error"]
        for outcome in found.bad:
            run.summary.fail(outcome.key, outcome.error.reason if outcome.error else "")
    with _locked(run), noted(folder, keys) if shard and not dry_run else nullcontext():
        if shard is not None and not dry_run and not run.dataset.index.exists:
            mine = whole.index.entries().where(lambda entry: shard.holds(entry.key))
            take_over(whole, run.dataset, mine)
            run.dataset.index.take([mine], whole=False)
            run.dataset.index.save()
        if not dry_run:
            run.summary.notes += run.dataset.take_over_edits()
        if found is not None:
            _update(run, found, pairs or folder)
        else:
            run.dataset.index.turn(run.dataset.journal.roles())
            if run.files_seen:
                _require_images(run)
                # Those of which nothing is known will be opened, whatever they look like.
                run.dataset.index.look_again(run.dataset.journal)
            run.entries = run.dataset.index.entries(settings.pairs.limit)
            run.summary.done = len(run.entries)
        if (names := settings.run.keys) is not None:
            here = chosen(run.entries.frame["key"].to_list(), names)
            run.entries = run.entries.where(lambda entry: entry.key in here)
            run.summary.notes.append(f"the run is about {len(here)} of them, by --keys")
        run.summary.finish()
        yield
        run.summary.findings += run.dataset.journal.damage()


def _only(shard: Shard, found: Discovery) -> Discovery:
    """What was found of the pairs of a shard."""
    return replace(
        found,
        pairs=found.pairs.where(lambda pair: shard.holds(pair.key)),
        bad=tuple(outcome for outcome in found.bad if shard.holds(outcome.key)),
    )


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    if run.dry_run:
        yield
        return
    with run.dataset.locked():
        yield


def _update(run: Run, found: Discovery, where: Path) -> None:
    """Take what was found into the index, and say what that changes."""
    index, journal = run.dataset.index, run.dataset.journal

    def digest_of(pair: Pair) -> str | None:
        from chronoprep.images.load import content_hash

        try:
            return content_hash(pair)
        except PairError:
            return None

    limited = run.settings.pairs.limit is not None
    changes = index.update(
        found.pairs,
        _place(where),
        keep=None if limited else {outcome.key for outcome in found.bad},
        roles=journal.roles(),
        images_of=lambda key: journal.state(key).images,
        digest_of=digest_of,
    )
    for outcome in changes.clashing:
        run.summary.fail(outcome.key, outcome.error.reason if outcome.error else "")
    run.summary.done -= len(changes.clashing)
    for old in sorted(changes.moved):
        run.summary.findings.append(
            Finding("moved", "note", None, f"the pairs of {old} have moved to {where}")
        )
    lost = sorted(changes.gone.difference(old for old, _ in changes.renamed))
    if lost:
        names = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        run.summary.findings.append(
            Finding(
                "gone", "warning", None,
                f"{len(lost)} pair(s) are not in {where} any more, and leave the dataset: {names}",
                "What is known of them stays in labels.jsonl, and counts again when they are back.",
            )
        )  # fmt: skip
    for old, new in changes.renamed:
        run.summary.findings.append(
            Finding("renamed", "note", new, f"{old} is now called {new}; its label goes with it")
        )
    run.entries = index.entries(run.summary.done)
    if run.dry_run:
        return
    for old, new in changes.renamed:
        if new not in journal:
            run.dataset.append(list(renamed(journal.events(old), new)))
    index.save()


def _place(where: Path) -> str:
    """The name of a place of pairs, wherever a run starts."""
    if is_address(where):
        return str(where)
    return address_of(where) or os.path.abspath(where)  # noqa: PTH100


def _require_images(run: Run) -> None:
    """Refuse at once where a place of pairs is gone, and all of its images with it.

    Raises:
        ConfigError: Naming the place.
    """
    entries = run.dataset.index.entries()
    for origin in entries.frame["origin"].unique().sort():
        if is_address(Path(origin)) or os.path.lexists(origin):
            continue
        if address_of(Path(origin)):
            objects(origin)  # one request a thousand, where each look would be one
            continue
        here = (entry for entry in entries if entry.origin == origin)
        if not any(files_stamp(entry.source, entry.target) for entry in here):
            raise ConfigError(
                f"{origin}: the pairs of {run.dataset.folder} are not there any more.",
                hint="Name the place that they have moved to, before --dataset.",
            )


def failure(outcome: Outcome[U], stage: str) -> Failure:
    """The event of an outcome that is an error."""
    reason = outcome.error.reason if outcome.error is not None else ""
    return Failure.model_validate({"key": outcome.key, "stage": stage, "error": reason})
