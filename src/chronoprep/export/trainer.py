"""What every trainer has in common: where an export lies, what a sample is, what a trainer reads.

Every export has the same folders, so that nobody has to ask which one is the target:

    OUTPUT/target/KEY.png     after the edit: what is learned
    OUTPUT/control/KEY.png    before the edit: what it is learned from

With splits they lie in `OUTPUT/SPLIT/`. A trainer adds the text in the form that it reads: a file
beside each target, or one `metadata.jsonl` in each of these places; and its configuration.
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chronoprep import digest

TARGET, CONTROL, TABLE = "target", "control", "metadata.jsonl"


class Sample(NamedTuple):
    """A pair as it is exported.

    Attributes:
        source, target: Paths of its images, from the place that it lies in.
        text: What is trained on.
    """

    key: str
    source: str
    target: str
    text: str


@dataclass(frozen=True)
class Place:
    """Where an export lies.

    Attributes:
        folder: An absolute path: a trainer is started elsewhere.
        splits: Their names, the one that is trained on first; none where there is but one.
    """

    folder: Path
    splits: tuple[str, ...] = ()

    def of(self, split: str) -> Path:
        """Where the samples of a split lie; that of no name holds all."""
        return self.folder / split

    @property
    def trained(self) -> str:
        """The split that is trained on; of no name where there is but one."""
        return self.splits[0] if self.splits else ""

    @property
    def train(self) -> Path:
        """Where the samples that are trained on lie."""
        return self.of(self.trained)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The other splits."""
        return self.splits[1:]


class Trainer(ABC):
    """What one trainer reads. Each says what differs from this: nothing but images.

    Attributes:
        name: As `--to` takes it.
        source: Where its formats were read, and of which day.
        home: Of its program, where its commands start.
        needs: What its user has to put into its files or commands, readable.
        held_out: What of it reads the splits that are held out, readable; None where nothing does.
        same_suffix: Whether it finds the control of a target by the whole name, suffix and all.
    """

    name: str
    source: str
    home: str | None = None
    needs: str | None = None
    held_out: str | None = None
    same_suffix: bool = False

    def caption(self, text: str) -> str | None:  # noqa: ARG002
        """What stands in the text file beside a target; None where there is none."""
        return None

    def row(self, sample: Sample) -> Mapping[str, object] | None:  # noqa: ARG002
        """A sample's row in the table; None where there is no table."""
        return None

    def configs(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002
        """Its files of settings: name → content. What a user changes in them stays."""
        return {}

    def head(self, place: Place) -> str:  # noqa: ARG002
        """What stands above all else in the export's README.md."""
        return ""

    @abstractmethod
    def start(self, place: Place) -> str:
        """The commands that start a training, for a shell."""


def file_name(key: str) -> str:
    """What the files of a pair are called, without a suffix: as its key, but where a reader would
    take a part of that for a variable (`datasets` does with `$HOME`)."""
    return key if "$" not in key else f"{key.replace('$', '_')}-{digest.of_text(key, 4)}"


def start_of(trainer: Trainer, place: Place) -> str:
    """The commands that start a training, with where to enter them."""
    where = f"# In the folder of {trainer.home}:\n" if trainer.home else ""
    return where + trainer.start(place)


def readme(trainer: Trainer, place: Place) -> str:
    """What an export's README.md says."""
    where = f"`{place.trained}/" if place.splits else "`"
    folders = [
        f"- {where}{TARGET}`: after the edit, what is learned",
        f"- {where}{CONTROL}`: before the edit, what it is learned from",
    ]
    if place.held_out:
        names = ", ".join(f"`{split}/`" for split in place.held_out)
        readers = trainer.held_out or f"nothing in {trainer.name}: it is for tests of your own"
        folders.append(f"- {names}: held out, no source of it is trained on; read by {readers}")
    texts = "in its `metadata.jsonl`" if _has_table(trainer) else "beside its target"
    needs = f"What is yours to say: {trainer.needs}.\n\n" if trainer.needs else ""
    return (
        f"{trainer.head(place)}# Image edits for {trainer.name}\n\n"
        + "\n".join(folders)
        + f"\n\nThe text of each pair stands {texts}. Settings are a start, not a recipe; what you "
        f"change in them stays.\n\n{needs}```sh\n{start_of(trainer, place)}\n```\n"
    )


def _has_table(trainer: Trainer) -> bool:
    return trainer.row(Sample("", "", "", "")) is not None


def whole(text: str) -> str:
    """A text as a file that is read whole gives it back."""
    return re.sub(r"\r\n?", "\n", text).strip()


def line(text: str) -> str:
    """A text in one line, for those who take every line for a text of its own."""
    return " ".join(text.split())


def quoted(path: Path) -> str:
    """A path for a shell."""
    return shlex.quote(str(path))


def literal(value: object) -> str:
    """A text or a path as TOML, YAML and Python alike read it: in double quotes, and in ASCII for
    any encoding. JSON would write an emoji in two halves, which to them are none."""
    signs = (
        sign if sign.isascii() and sign.isprintable() else f"\\U{ord(sign):08X}"
        for sign in str(value).replace("\\", r"\\").replace('"', r"\"")
    )
    return f'"{"".join(signs)}"'
