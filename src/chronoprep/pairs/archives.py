"""Trees of files whose names come at once: a zip archive, a folder of an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from chronoprep.data import Member
from chronoprep.errors import PairError
from chronoprep.images.archives import members, read_member
from chronoprep.images.refs import of_member, parse
from chronoprep.images.remote import objects, read
from chronoprep.pairs.folders import Listing, sorted_out

_MOST_BYTES = 1 << 20  # of a text beside an image
_LONGEST = 4096  # characters of a folder's path


class Listed:
    """A tree of files whose names are all known; where it holds one folder with folders in it and
    nothing else, that folder.

    Args:
        names: Of its files, with `/` between folders.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._top = ""
        self._names: dict[str, dict[str, str]] = {"": {}}
        for name in names:
            folder, _, last = name.rpartition("/")
            if len(folder) > _LONGEST:
                self._names[""][name] = "special"
            elif last:
                self._add(f"{folder}/" if folder else "")[last] = "file"
        here = self.listing()
        if len(here.folders) == 1 and not here.images and not here.others:
            inner = f"{here.folders[0]}/"
            if self.listing(inner).folders:
                self._top = inner

    def _add(self, folder: str) -> dict[str, str]:
        """The entries of a folder, which is entered into those above it."""
        parents, fresh = list[tuple[str, str]](), folder
        while fresh not in self._names:
            self._names[fresh] = {}
            above, _, last = fresh[:-1].rpartition("/")
            parents.append((f"{above}/" if above else "", last))
            fresh = parents[-1][0]
        for above, last in parents:
            self._names[above][last] = "folder"
        return self._names[folder]

    def listing(self, folder: str = "") -> Listing:
        here = sorted_out(iter(self._names[self._top + folder].items()))
        if folder or not self._top:
            return here
        above = sorted_out(iter(self._names[""].items()))
        return here._replace(
            system=here.system + above.system, skipped=[*here.skipped, *above.skipped]
        )

    def walk(self, start: str = "") -> Iterator[tuple[str, Listing]]:
        pending = [start]
        while pending:
            folder = pending.pop()
            here = self.listing(folder)
            yield folder, here
            pending += [f"{folder}{name}/" for name in reversed(here.folders)]


class Archive(Listed):
    """A zip archive.

    Raises:
        ConfigError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(members(path))

    def read(self, path: str) -> bytes:
        try:
            return read_member(Member(self._path, self._top + path), _MOST_BYTES)
        except PairError as error:
            raise OSError(error.message.rstrip(".")) from None

    def ref(self, path: str) -> str:
        return of_member(str(self._path), self._top + path)

    def below(self, ref: str) -> str:
        member = parse(ref)
        assert isinstance(member, Member)
        return member.name[len(self._top) :]

    def shown(self, path: str) -> str:
        return f"{self._path}/{self._top}{path}"


class Bucket(Listed):
    """A folder of an object store, or of what else has addresses.

    Raises:
        ConfigError: It can't be listed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        super().__init__(objects(self._address))

    def read(self, path: str) -> bytes:
        try:
            return read(self.ref(path), _MOST_BYTES)
        except PairError as error:
            raise OSError(error.message.rstrip(".")) from None

    def ref(self, path: str) -> str:
        return f"{self._address}/{self._top}{path}"

    def below(self, ref: str) -> str:
        return ref.removeprefix(self.ref(""))

    def shown(self, path: str) -> str:
        return self.ref(path)
