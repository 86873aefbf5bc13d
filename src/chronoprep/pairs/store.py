"""Pairs in columns: a million of them take the room of their texts, not of a million objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from chronoprep.data import ImagePair
from chronoprep.pairs.refs import parse

if TYPE_CHECKING:
    import polars

R = TypeVar("R", bound=tuple[str | None, ...])

_PART = 10_000


class PairRow(NamedTuple):
    """A pair as text; what a million of them are asked for does not need more."""

    key: str
    source: str
    target: str
    caption: str | None = None
    prompt: str | None = None

    def pair(self) -> ImagePair:
        return ImagePair(
            self.key, parse(self.source), parse(self.target), self.caption, self.prompt
        )


class Columns(Generic[R]):
    """Named tuples of texts, in columns that grow: for the rows of a million pairs that wait.

    Args:
        kind: Their class; all its fields are text or None.
    """

    def __init__(self, kind: type[R]) -> None:
        self._kind: Any = kind
        self._parts: list[polars.DataFrame] = []
        self._last: list[R] = []

    def append(self, row: R) -> None:
        self._last.append(row)
        if len(self._last) == _PART:
            self._parts.append(self._frame(self._last))
            self._last = []

    def __len__(self) -> int:
        return sum(part.height for part in self._parts) + len(self._last)

    def __iter__(self) -> Iterator[R]:
        for part in self._parts:
            yield from map(self._kind._make, part.iter_rows(buffer_size=_PART))
        yield from self._last

    def ordered(self, by: Iterable[int]) -> Columns[R]:
        """The rows by a number of each, the largest first; equal ones keep their order."""
        import polars

        ordered = Columns(self._kind)
        rows = polars.concat([*self._parts, self._frame(self._last)])
        rows = rows.with_columns(polars.Series("_by", by, dtype=polars.Int64))
        ordered._parts = [rows.sort("_by", descending=True, maintain_order=True).drop("_by")]
        return ordered

    def _frame(self, rows: list[R]) -> polars.DataFrame:
        import polars

        schema = dict.fromkeys(self._kind._fields, polars.String)
        return polars.DataFrame(rows, schema=schema, orient="row")


class Pairs(Sequence[ImagePair]):
    """A sequence of pairs that makes each `ImagePair` when it is asked for.

    Args:
        frame: The columns key, source, target, caption and prompt, all text.
    """

    def __init__(self, frame: polars.DataFrame) -> None:
        self._frame = frame.select(PairRow._fields)

    def __len__(self) -> int:
        return self._frame.height

    def __iter__(self) -> Iterator[ImagePair]:
        return (row.pair() for row in self.rows())

    def rows(self) -> Iterator[PairRow]:
        """The pairs as text."""
        return map(PairRow._make, self._frame.iter_rows(buffer_size=_PART))

    @overload
    def __getitem__(self, index: int) -> ImagePair: ...

    @overload
    def __getitem__(self, index: slice) -> Pairs: ...

    def __getitem__(self, index: int | slice) -> ImagePair | Pairs:
        if isinstance(index, slice):
            return Pairs(self._frame[index])
        return PairRow._make(self._frame.row(index)).pair()

    def where(self, condition: Callable[[PairRow], bool]) -> Pairs:
        """The pairs that meet a condition."""
        import polars

        mask = polars.Series(map(condition, self.rows()), dtype=polars.Boolean)
        return Pairs(self._frame.filter(mask))

    def captioned(self) -> int:
        """How many pairs bring a caption or a prompt."""
        texts = self._frame.select("caption", "prompt")
        return (
            texts.height
            - texts.filter(texts["caption"].is_null() & texts["prompt"].is_null()).height
        )

    def keys(self) -> Iterable[str]:
        """The keys, without making pairs."""
        return self._frame["key"]
