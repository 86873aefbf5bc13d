"""Shards of a dataset, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from chronoprep.config import Settings
from chronoprep.dataset import Dataset
from chronoprep.dataset.events import State
from chronoprep.dataset.shards import FOLDER, Note, Shard, take_over
from chronoprep.errors import BackendError, ConfigError
from chronoprep.labels.recipe import decided_by
from chronoprep.workflows.progress import Reporter, Silent, Summary
from chronoprep.workflows.stage import Run, working_copy
from chronoprep.workflows.table import build_table

_AGAIN = "Run it again with --shard {}, then merge; or take what is there with --partial."


def merge_shards(
    folder: Path,
    settings: Settings,
    *,
    shards: Sequence[Path] = (),
    partial: bool = False,
    reporter: Reporter | None = None,
) -> list[Summary]:
    """Put the shards of a dataset together, as if there had been none.

    The dataset takes over what the shards know and have made, each file as a further name of the
    shard's. What it took over before is not taken again, so it may be done as often as wanted.

    Args:
        shards: Their folders; by default all below the dataset.
        partial: Take what is there, though shards are missing or have not come to their end.

    Raises:
        ConfigError: There are no shards, or the folders are none.
        BackendError: A shard is missing, unfinished, of other pairs, made in another way, doubled
            or at work, or the dataset can't be written.
    """
    with working_copy(folder) as (place, _):
        return _merged(place, settings, shards, reporter or Silent(), partial=partial)


def _merged(
    folder: Path,
    settings: Settings,
    shards: Sequence[Path],
    reporter: Reporter,
    *,
    partial: bool,
) -> list[Summary]:
    found = _found(folder, shards)
    _require_whole(folder, found, partial=partial)
    summary = Summary("pairs")
    dataset = Dataset(folder)
    with ExitStack() as locks:
        locks.enter_context(dataset.locked())
        summary.notes += dataset.take_over_edits()
        parts = {shard: Dataset(place) for shard, place in found.items()}
        for shard, part in parts.items():
            locks.enter_context(part.locked())
            part.take_over_edits()
            keys = part.index.keys()
            strange = [key for key in keys if not shard.holds(key)]
            if strange:
                raise BackendError(
                    f"{part.folder}: {len(strange)} of its pairs belong to other shards, such as "
                    f"{strange[0]!r}.",
                    hint="The folder is no longer called as it was made: give it back its name.",
                )
        if not partial:
            _require_one_way(folder, parts)
        reporter.start("shards", len(parts))
        for part in parts.values():
            summary.done += take_over(part, dataset, part.index.entries())
            summary.findings += part.journal.damage()
            reporter.advance("ok")
        dataset.index.take([part.index.entries() for part in parts.values()], whole=not partial)
        dataset.index.turn(dataset.journal.roles())
        dataset.index.save()
        summary.skipped = len(dataset.index.keys()) - summary.done
        run = Run(dataset, settings, reporter, False, False, dataset.index.entries())
        summary.notes.append(f"put together from {len(parts)} of {next(iter(parts)).count} shards")
        done = [summary.finish()]
        if any(part.csv.is_file() for part in parts.values()):
            done.append(build_table(run))
        return done


def _require_one_way(folder: Path, parts: Mapping[Shard, Dataset]) -> None:
    """Refuse labels and embeddings that no single run could have made.

    A dataset may hold labels of several runs, and its shards then share their ways. Where two
    shards have none in common, one was run with other settings.

    Raises:
        BackendError: Naming the setting, its values and the shards.
    """
    ways: dict[str, dict[Shard, set[str]]] = defaultdict(lambda: defaultdict(set))
    for shard, part in parts.items():
        keys = part.index.keys()
        for key in keys:
            for what, way in _ways(part.journal.state(key)):
                ways[what][shard].add(way)
    for what, by_shard in ways.items():
        if set.intersection(*by_shard.values()):
            continue
        groups: dict[str, list[str]] = defaultdict(list)
        for shard, found in by_shard.items():
            groups[" and ".join(sorted(found))].append(str(shard))
        sides = "; ".join(f"{way} in {', '.join(same)}" for way, same in groups.items())
        raise BackendError(
            f"{folder}: the shards were not made in the same way: {what} is {sides}.",
            hint="Run all of them with the same settings, then merge; or take them as they are "
            "with --partial.",
        )


def _ways(state: State) -> Iterator[tuple[str, str]]:
    """What decided a pair's label and embedding: the name of each thing, and which one it was."""
    if state.label is not None:
        yield from decided_by(state.label)
    if state.embedding is not None:
        yield "encoder", state.embedding.encoder


def _found(folder: Path, shards: Sequence[Path]) -> dict[Shard, Path]:
    """The folders by shard, in the shards' order.

    Raises:
        ConfigError: There are none, or one is called otherwise.
        BackendError: Two are of one shard.
    """
    places = list(shards)
    if not places and (folder / FOLDER).is_dir():
        places = [place for place in (folder / FOLDER).iterdir() if Shard.at(place)]
    if not places:
        raise ConfigError(
            f"{folder}: no shards in {folder / FOLDER}.",
            hint="`--shard 0/4` to `--shard 3/4` of a command make four; "
            "or name their folders behind DATASET.",
        )
    found: dict[Shard, Path] = {}
    for place in places:
        shard = Shard.at(place)
        if shard is None or not place.is_dir():
            raise ConfigError(
                f"{place}: not the folder of a shard.",
                hint="They are called as 00002-of-00004 is.",
            )
        if shard in found:
            raise BackendError(
                f"Shard {shard} is there twice: {found[shard]} and {place}.",
                hint="Name one of them.",
            )
        found[shard] = place
    return dict(sorted(found.items()))


def _require_whole(folder: Path, found: dict[Shard, Path], *, partial: bool) -> None:
    """Refuse what would make another dataset than a run without shards.

    Raises:
        BackendError: Naming the shards.
    """
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise BackendError(
            f"{folder}: shards of several splits: of {' and of '.join(map(str, counts))}. "
            "Their pairs are the same ones.",
            hint="Name those of one split behind DATASET, or move the others away.",
        )
    notes = {shard: Note.read(place) for shard, place in found.items()}
    if not partial:
        missing = [Shard(counts[0], number) for number in range(counts[0])]
        missing = [shard for shard in missing if shard not in found]
        unfinished = [shard for shard, note in notes.items() if not note.finished]
        for what, shards in (("are missing", missing), ("have not come to their end", unfinished)):
            if shards:
                raise BackendError(
                    f"{folder}: {len(shards)} of {counts[0]} shards {what}: "
                    f"{', '.join(map(str, shards))}.",
                    hint=_AGAIN.format(shards[0]),
                )
    pairs: dict[str | None, list[Shard]] = {}
    for shard, note in notes.items():
        pairs.setdefault(note.keys, []).append(shard)
    if len(pairs) > 1 and not partial:
        sides = "; ".join(
            f"{notes[same[0]].pairs} in {', '.join(map(str, same))}" for same in pairs.values()
        )
        raise BackendError(
            f"{folder}: the shards are not of the same pairs. There were {sides}.",
            hint="PAIRS changed between their runs: run them again with PAIRS, then merge.",
        )
