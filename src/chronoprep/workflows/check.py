"""Would the trainers read this? Sample by sample, the way they really do.

The table is read as pandas reads it, videos as imageio does, pickles as the small machine that
unpickling is: see `dataset.pandas_csv`, `playback` and `umt5.inspection`. Any folder will do, also
one that chronoprep has not made; of its own, the journal is held against the files as well.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from chronoprep import digest
from chronoprep.data import Completion, Finding, Flaw, Form
from chronoprep.dataset import Dataset
from chronoprep.dataset.pandas_csv import PandasTable, Row, kind_of
from chronoprep.engine import mapped
from chronoprep.errors import ConfigError
from chronoprep.files import TEMPORARY, file_names
from chronoprep.labels.guard import find_fault
from chronoprep.labels.guard.cleaning import leak
from chronoprep.umt5 import MAX_TOKENS, Tokens
from chronoprep.workflows.faults import finding
from chronoprep.workflows.progress import Reporter, Silent
from chronoprep.workflows.samples import Look, Sample, Seen

Trainer = Literal["auto", "full", "lora"]

NEEDS = {"full": ("key", "video", "prompt", "umt5"), "lora": ("video", "prompt")}
OPENING = "The user wants to"
WORDS = (40, 150)  # half of what the editor's prompts have at least, and half more than at most
LEAST_CLIP = 5  # frames: no pair has so many
ALIKE = 3.0  # grey levels between small pictures of one source that was encoded twice
_ANY_FORM = Form(markdown=True)
_GARBLED = re.compile("Ã[\u0080-\u00bf]|â€|Â[\u00a0-\u00bf]")  # UTF-8, read as Latin-1
_ALLOWED = "\t\n"  # of control characters


@dataclass
class Checks:
    """What to hold a dataset against.

    Attributes:
        trainer: `full` reads keys and embeddings, `lora` does without; auto: `full` where there
            are embeddings.
        world_size: Ranks that share the samples, if known.
        quick: Videos by what their containers say, not by their frames.
        tokenizer: Of UMT5, to count the tokens of prompts that chronoprep did not embed.
    """

    trainer: Trainer = "auto"
    world_size: int | None = None
    quick: bool = False
    tokenizer: Path | None = None


@dataclass
class CheckReport:
    """What was found.

    Attributes:
        samples: Rows that a trainer would get from the tables.
        trainer: The one that they were read for.
        strays: Files that no row names.
    """

    samples: int
    trainer: str
    findings: list[Finding]
    strays: list[Path]


def check_dataset(
    folder: Path | None,
    tables: Iterable[Path] = (),
    checks: Checks | None = None,
    *,
    reporter: Reporter | None = None,
) -> CheckReport:
    """Everything that is the matter with a dataset folder, or with tables of any name.

    Nothing is written.

    Args:
        folder: Whose metadata.csv is read where no tables are named.
        tables: Several are splits of one set: no source may be in two of them.

    Raises:
        ConfigError: There is no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder.", hint="Give a dataset folder, or --csv.")
    own = Dataset(folder) if folder is not None else None
    paths = [*tables] or ([own.csv] if own is not None else [])
    check = _Check(own, paths, checks or Checks(), reporter or Silent())
    return check.run()


class _Check:
    """A check under way."""

    def __init__(
        self, own: Dataset | None, tables: list[Path], checks: Checks, reporter: Reporter
    ) -> None:
        self.checks, self.reporter, self.own = checks, reporter, own
        self.tables = [PandasTable(path) for path in tables]
        self.findings: list[Finding] = []
        self.strays: list[Path] = []
        self.rows_of = Counter[Path]()
        embedded = False
        for path in tables:
            for row in PandasTable(path).rows():
                self.rows_of[path] += 1
                embedded = embedded or bool(row.cells.get("umt5"))
        auto = "full" if embedded else "lora"
        self.trainer: str = auto if checks.trainer == "auto" else checks.trainer
        self.count = 0
        self.rows: dict[str, str] = {}  # digests of rows, and where each stands first
        self.keys: dict[str, tuple[str, str]] = {}  # where each stands first, and that row's digest
        self.users: dict[int, int] = {}  # hashes of files that rows name, and of their prompts
        self.named: set[str] = set()
        self.prompts = self.opening = self.long = 0
        self.odd: list[tuple[str, str, bool, int]] = []  # key, where, opens so, words
        self.frames = Counter[int]()
        self.other_frames: list[tuple[str, str, int]] = []  # key, where, frames
        self.sources: dict[bytes, list[tuple[str, str, bytes]]] = defaultdict(list)
        self.tokens = Tokens(checks.tokenizer) if checks.tokenizer is not None else None

    def run(self) -> CheckReport:
        for table in self.tables:
            folder = table.path.parent
            own = self.own if self.own is not None and folder == self.own.folder else None
            look = Look(own, self.checks.quick)
            self.reporter.start("samples", self.rows_of[table.path])
            samples = self._samples(table, folder)
            for outcome, sample in _with_tasks(look, samples):
                self.reporter.advance("failed" if outcome.flaws else "ok")
                self._take(sample, outcome)
            self._of_table(table)
        self._of_prompts()
        self._of_frames()
        self._of_dataset()
        return CheckReport(self.count, self.trainer, self.findings, self.strays)

    def _say(self, code: str, message: str, key: str | None = None) -> None:
        self.findings.append(finding(Flaw(code, message), key))

    # A table, row by row.

    def _samples(self, table: PandasTable, folder: Path) -> Iterator[Sample]:
        for row in table.rows():
            self.count += 1
            where = f"{table.path.name}:{row.line}"
            cells = row.cells
            key = cells.get("key") or Path(cells.get("video", "")).stem or where
            self._of_row(row, key, where)
            if "prompt" in cells:
                self._of_prompt(cells["prompt"], key, where)
            split = cells.get("split", str(table.path) if len(self.tables) > 1 else "")
            umt5 = cells.get("umt5") if self.trainer == "full" else None
            if "video" in cells:
                yield Sample(
                    key, where, str(folder), split, cells.get("prompt", ""), cells["video"], umt5
                )

    def _of_row(self, row: Row, key: str, where: str) -> None:
        cells = row.cells
        mark = digest.of_values(cells.get("video"), cells.get("prompt"), cells.get("split"))
        if mark in self.rows:
            what = f"{where}: the same video and prompt stand in {self.rows[mark]}, too."
            self._say("row-twice", what, key)
        before, other = self.keys.get(key.casefold(), (where, mark))
        if other != mark and "key" in cells:
            self._say("key-twice", f"{where}: the key stands in {before}, too.", key)
        if "key" in cells and kind_of(cells["key"]) == "missing":
            self._say("key-empty", f"{where}: the key {cells['key']!r} is NaN to the trainer.", key)
        for column, code in (("video", "video-shared"), ("umt5", "embedding-shared")):
            if not cells.get(column) or (column == "umt5" and self.trainer != "full"):
                continue
            prompt = hash(cells.get("prompt", ""))
            if self.users.setdefault(hash((column, cells[column])), prompt) != prompt:
                what = f"{where}: a row of another prompt names {cells[column]}, too."
                self._say(code, what, key)
        self.rows.setdefault(mark, where)
        self.keys.setdefault(key.casefold(), (where, mark))

    def _of_prompt(self, prompt: str, key: str, where: str) -> None:
        if not prompt.strip():
            self._say("prompt-empty", f"{where}: the prompt is empty: NaN to the trainer.", key)
            return
        if kind_of(prompt) == "missing":
            self._say("prompt-nan", f"{where}: the prompt {prompt!r} is NaN to the trainer.", key)
            return
        odd = {c for c in prompt if unicodedata.category(c) in ("Cc", "Cs") and c not in _ALLOWED}
        if odd or "\ufffe" in prompt:  # which stands for NUL
            names = ", ".join(sorted(f"U+{ord(c):04X}" for c in odd)) or "U+0000"
            self._say("prompt-control", f"{where}: the prompt holds {names}.", key)
        if kind_of(prompt) == "text" and (fault := _degenerate(prompt)):
            self._say("prompt-degenerate", f"{where}: the prompt is degenerate: {fault}.", key)
        if _GARBLED.search(prompt):
            self._say("prompt-garbled", f"{where}: the prompt was decoded wrongly once.", key)
        opens = prompt.strip('" ').casefold().startswith(OPENING.casefold())
        words = len(prompt.split())
        long = WORDS[0] <= words <= WORDS[1]
        self.prompts += 1
        self.opening += opens
        self.long += long
        if not (opens and long):
            self.odd.append((key, where, opens, words))
        if self.tokens is not None:
            (count,) = self.tokens.count([prompt])
            if count > MAX_TOKENS:
                self._say("prompt-tokens", f"{where}: {count} tokens, {MAX_TOKENS} are read.", key)

    def _take(self, sample: Sample, seen: Seen) -> None:
        self.findings += [finding(flaw, sample.key) for flaw in seen.flaws]
        self.named.update(seen.files)
        if seen.frames is not None:
            self.frames[seen.frames] += 1
            if seen.frames != 2:
                self.other_frames.append((sample.key, sample.where, seen.frames))
        if seen.first is not None and sample.split:
            self.sources[_outline(seen.first)].append((sample.split, sample.key, seen.first))

    # A table, a dataset as a whole.

    def _of_table(self, table: PandasTable) -> None:
        self.findings += [finding(flaw) for flaw in table.flaws]
        for name in NEEDS[self.trainer] if table.names else ():
            if name not in table.names:
                columns = ", ".join(map(repr, table.names))
                what = (
                    f"{table.path}: no column {name!r}, which the trainer reads; it has {columns}."
                )
                self._say("column-missing", what)
        kind = table.column_kind("prompt")
        if kind in ("number", "bool"):
            for row in PandasTable(table.path).rows():
                prompt = row.cells["prompt"]
                if kind_of(prompt) == kind:
                    what = (
                        f"{table.path.name}:{row.line}: the trainer reads {prompt!r} as a {kind}."
                    )
                    self._say(f"prompt-{kind}", what, row.cells.get("key") or None)
        if table.column_kind("key") in ("number", "bool"):
            kind = table.column_kind("key")
            self._say("keys-not-text", f"{table.path}: all keys are read as a {kind}: 0001 as 1.")

    def _of_prompts(self) -> None:
        """Prompts that are unlike most others: a set of short instructions, or of one fixed prompt,
        is none of ours to judge."""
        opening, long = (count > self.prompts / 2 for count in (self.opening, self.long))
        for key, where, opens, words in self.odd:
            if opening and not opens:
                what = f"{where}: the prompt does not begin with {OPENING!r}, as most do."
                self._say("prompt-opening", what, key)
            if long and not WORDS[0] <= words <= WORDS[1]:
                self._say("prompt-length", f"{where}: the prompt has {words} words.", key)

    def _of_frames(self) -> None:
        clips = sum(count for number, count in self.frames.items() if number >= LEAST_CLIP)
        of_clips = self.trainer == "full" and clips > self.frames.total() / 2
        for key, where, number in self.other_frames:
            if not (of_clips and number >= LEAST_CLIP):
                code = {0: "no-frames", 1: "one-frame"}.get(number, "extra-frames")
                what = f"{where}: its video has {number} frame{'s' * (number != 1)} and not 2."
                self._say(code, what, key)

    def _of_dataset(self) -> None:
        if self.checks.world_size is not None and 0 < self.count < self.checks.world_size:
            what = f"{self.count} samples for {self.checks.world_size} ranks."
            self._say("too-few", what)
        self._leaks()
        if self.own is not None and self.tables[0].path == self.own.csv:
            self.strays += _strays(self.own, self.named)
            for path in self.strays:
                self._say("orphan", f"{path}: no row names this file.")
            for entry in self.own.index.entries():
                if entry.listed and self.keys and entry.key.casefold() not in self.keys:
                    what = f"{self.own.csv}: the row that {entry.key} had is gone."
                    self._say("row-gone", what, entry.key)
            self.findings += self.own.journal.damage()

    def _leaks(self) -> None:
        for alike in self.sources.values():
            told: set[str] = set()
            for number, (split, key, small) in enumerate(alike):
                for other, first, picture in alike[:number]:
                    if other != split and key not in told and _distance(small, picture) < ALIKE:
                        told.add(key)
                        what = f"{split}: its source image is that of {first} in {other}."
                        self._say("split-leak", what, key)


def _with_tasks(look: Look, samples: Iterator[Sample]) -> Iterator[tuple[Seen, Sample]]:
    """What was seen of each sample, beside it."""

    def both(sample: Sample) -> tuple[Seen, Sample]:
        return look(sample), sample

    for outcome in mapped(both, samples, key=lambda sample: sample.key):
        assert outcome.value is not None, "a look raises no PairError"
        yield outcome.value


def _strays(own: Dataset, named: set[str]) -> Iterator[Path]:
    """Files of a dataset that neither a row names nor the dataset knows."""
    known = set(own.index.keys())
    for folder, suffix in (("videos", ".mp4"), ("umt5", ".pkl")):
        for name in sorted(file_names(own.folder / folder)):
            path = own.folder / folder / name
            ours = name.endswith(suffix) and name.removesuffix(suffix) in known
            hidden = name.startswith(".") or name.endswith(TEMPORARY)
            if not ours and not hidden and os.path.normpath(path) not in named and path.is_file():
                yield path


@lru_cache(maxsize=10_000)
def _degenerate(prompt: str) -> str | None:
    fault = find_fault(Completion(prompt, 0, False), _ANY_FORM)
    if fault is not None:
        return str(fault)
    token = leak(f". {prompt} .")  # at the edges of an answer, it would be none
    return f"special token {token}" if token else None


def _outline(small: bytes) -> bytes:
    """Which pixels of a small picture are brighter than their left neighbours."""
    import numpy as np

    grey = np.frombuffer(small, np.uint8).reshape(16, 16, 3).sum(axis=2, dtype=np.int32)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def _distance(one: bytes, other: bytes) -> float:
    import numpy as np

    first, second = (np.frombuffer(part, np.uint8).astype(np.int16) for part in (one, other))
    return float(np.abs(first - second).mean())
