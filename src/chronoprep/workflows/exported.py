"""The record of an export: which pairs are in it, what their files were made of, which settings
were written. It lies in the export, as `.chronoprep-export.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chronoprep import digest
from chronoprep.dataset import Entry, same_images
from chronoprep.errors import ConfigError
from chronoprep.export import CONTROL, TABLE, TARGET, Place, file_name
from chronoprep.files import replacing, unwritable

RECORD = ".chronoprep-export.jsonl"
_SUFFIXES = {CONTROL: (".png", ".jpg"), TARGET: (".png", ".jpg", ".txt")}


class Origin(NamedTuple):
    """The source image of a pair, as its split depends on it.

    Attributes:
        content: The digest of its bytes.
        thumbnail: As `images.likeness` makes it, in base64.
    """

    content: str
    thumbnail: str


class Written(NamedTuple):
    """A pair of an export.

    Attributes:
        source, target: The names of its images; empty where a run was ended while it wrote them.
        sizes: Their bytes.
        images, files: Of what they were made, as in a label.
        look: How the images were brought to one frame.
        origin: Its source, where there are splits.
    """

    key: str
    split: str
    source: str = ""
    target: str = ""
    sizes: tuple[int, int] = (0, 0)
    images: str = ""
    files: str | None = None
    look: str = ""
    origin: Origin | None = None


@dataclass
class Exported:
    """What an export holds.

    Attributes:
        place: Where it lies.
        trainer: For whom it is.
        dataset: Of which it is made.
        written: Its pairs, by key.
        settings: The digests of the files of settings that were written, by name.
    """

    place: Place
    trainer: str
    dataset: Path
    written: dict[str, Written] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    _saved: str = ""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: The folder holds another export, or something that is none.
        """
        folder = self.place.folder
        try:
            self._saved = (folder / RECORD).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
                raise ConfigError(
                    f"{folder}: something lies there that is no export.",
                    hint="Give --output a new or an empty folder.",
                ) from None
            return
        except OSError as error:
            raise ConfigError(
                f"{folder}: can't read the export's record: {error.strerror}.",
                hint="Check its permissions, or give --output a new folder.",
            ) from None
        try:
            head, *rows = map(json.loads, _whole_lines(self._saved))
            trainer, dataset = head["trainer"], Path(head["dataset"])
            self.settings = dict(head["settings"])
            read = [_read(row) for row in rows]
        except (ValueError, KeyError, TypeError, IndexError):
            raise ConfigError(
                f"{folder / RECORD}: damaged.", hint="Give --output a new folder."
            ) from None
        self.written = {written.key: written for written in read}
        other = dataset != Path(os.path.abspath(self.dataset)) and dataset.exists()  # noqa: PTH100
        if trainer != self.trainer or other:
            raise ConfigError(
                f"{folder}: holds an export of {dataset} for {trainer}.",
                hint="Give --output a folder of its own for each.",
            )

    def holds(self, entry: Entry, images: str | None, split: str, look: str) -> bool:
        """Whether a pair's images are there as they should be."""
        written = self.written.get(entry.key)
        if written is None or (written.split, written.look) != (split, look):
            return False
        if written.files is None or written.files != entry.files:
            if images is None or images != written.images:
                return False
        elif not same_images(images, written.images):
            return False
        folder = self.place.of(split)
        try:
            source = os.stat(f"{folder}/{CONTROL}/{written.source}")  # noqa: PTH116 - quicker
            target = os.stat(f"{folder}/{TARGET}/{written.target}")  # noqa: PTH116
        except OSError:
            return False
        return (source.st_size, target.st_size) == written.sizes

    def drop(self, keys: Iterable[str]) -> int:
        """Take pairs out of the export.

        Returns:
            How many there were.
        """
        gone = [self.written.pop(key) for key in keys if key in self.written]
        for written in gone:
            for name, suffixes in _SUFFIXES.items():
                for suffix in suffixes:
                    file = f"{file_name(written.key)}{suffix}"
                    path = self.place.of(written.split) / name / file
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as error:
                        raise unwritable(path, error) from None
        return len(gone)

    def leave_splits(self) -> None:
        """Take away the splits that there are no more: a reader would still find their tables."""
        left = {written.split for written in self.written.values()}
        left.difference_update(self.place.splits or ("",))
        self.drop([key for key, written in self.written.items() if written.split in left])
        for split in left:
            place = self.place.of(split)
            (place / TABLE).unlink(missing_ok=True)
            for folder in (place / CONTROL, place / TARGET, *((place,) if split else ())):
                with suppress(OSError):  # a trainer's cache may lie there
                    folder.rmdir()

    @contextmanager
    def adding(self, coming: Iterable[Written]) -> Iterator[Callable[[Written], None]]:
        """Write pairs down as they are done.

        Args:
            coming: Those that will come, without their files: what a run that is killed leaves of
                them is known.
        """
        self.written |= {written.key: written for written in coming}
        self.save()
        path = self.place.folder / RECORD
        with path.open("a", encoding="utf-8") as file:

            def add(written: Written) -> None:
                try:
                    file.write(json.dumps(written) + "\n")
                    file.flush()
                except OSError as error:
                    raise unwritable(path, error) from None
                self.written[written.key] = written

            yield add

    def keep_settings(self, files: Mapping[str, str]) -> list[str]:
        """Write files of settings, but those that somebody has changed since; earlier ones go.

        Returns:
            Which were left as they are, readable.
        """
        notes = []
        for name in set(self.settings).difference(files):
            path, known = self.place.folder / name, self.settings.pop(name)
            with suppress(OSError, UnicodeDecodeError):
                if digest.of_text(path.read_text(encoding="utf-8")) == known:
                    path.unlink()
        for name, content in files.items():
            path = self.place.folder / name
            try:
                there = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                there = None
            if there is not None and digest.of_text(there) != self.settings.get(name, ""):
                if there != content:
                    notes.append(f"{name}: left as it was changed (remove it for a new one)")
                    continue
            elif there != content:
                with replacing(path) as temporary:
                    temporary.write_text(content, encoding="utf-8")
            self.settings[name] = digest.of_text(content)
        return notes

    def save(self) -> None:
        """Write the record, if it says something else than the file."""
        head = {
            "trainer": self.trainer,
            "dataset": os.path.abspath(self.dataset),  # noqa: PTH100
            "settings": self.settings,
        }
        lines = [head, *(self.written[key] for key in sorted(self.written))]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        if text != self._saved:
            with replacing(self.place.folder / RECORD) as temporary:
                temporary.write_text(text, encoding="utf-8")
            self._saved = text


def _read(row: list[Any]) -> Written:
    """
    Raises:
        ValueError: No run wrote this: files are deleted by these names, and it names other folders.
    """
    written = Written(*row)
    for name in (written.key, written.split):
        if os.path.basename(name) != name or name == "..":  # noqa: PTH119 - quicker
            raise ValueError(name)
    origin = None if written.origin is None else Origin(*written.origin)
    return written._replace(sizes=(row[4][0], row[4][1]), origin=origin)


def _whole_lines(text: str) -> list[str]:
    """The lines of a record; the last one may have been cut short."""
    return text[: text.rfind("\n") + 1].splitlines()
