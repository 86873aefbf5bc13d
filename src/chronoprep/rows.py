"""Rows in columns: a million pairs or tasks take the room of their texts, not of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    import polars

R = TypeVar("R", bound=tuple[str | None, ...])

_PART = 10_000


class Rows(Sequence[R]):
    """A sequence of named tuples that makes each one when it is asked for.

    Args:
        kind: Their class; all its fields are text or None.
        frame: Columns that hold its fields, perhaps among others; by default there are no rows.
    """

    def __init__(self, kind: type[R], frame: polars.DataFrame | None = None) -> None:
        self._kind: Any = kind
        self._parts: list[polars.DataFrame] = []
        self._last: list[R] = []
        if frame is not None:
            self._parts.append(frame.select(list(self._schema())))

    def append(self, row: R) -> None:
        self._last.append(row)
        if len(self._last) == _PART:
            self._parts.append(self._frame(self._last))
            self._last = []

    def extend(self, rows: Iterable[R]) -> None:
        for row in rows:
            self.append(row)

    @property
    def frame(self) -> polars.DataFrame:
        """All rows, a column of text a field."""
        import polars

        if self._last or len(self._parts) != 1:
            self._parts = [polars.concat([*self._parts, self._frame(self._last)])]
            self._last = []
        return self._parts[0]

    def __len__(self) -> int:
        return sum(part.height for part in self._parts) + len(self._last)

    def __iter__(self) -> Iterator[R]:
        for part in self._parts:
            yield from map(self._kind._make, part.iter_rows(buffer_size=_PART))
        yield from self._last

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> Rows[R]: ...

    def __getitem__(self, index: int | slice) -> R | Rows[R]:
        if isinstance(index, slice):
            return Rows(self._kind, self.frame[index])
        row: R = self._kind._make(self.frame.row(index))
        return row

    def where(self, condition: Callable[[R], bool]) -> Rows[R]:
        """The rows that meet a condition."""
        import polars

        mask = polars.Series(map(condition, self), dtype=polars.Boolean)
        return Rows(self._kind, self.frame.filter(mask))

    def ordered(self, by: Iterable[int]) -> Rows[R]:
        """The rows by a number of each, the largest first; equal ones keep their order."""
        import polars

        numbered = self.frame.with_columns(polars.Series("_by", by, dtype=polars.Int64))
        return Rows(self._kind, numbered.sort("_by", descending=True, maintain_order=True))

    def _frame(self, rows: list[R]) -> polars.DataFrame:
        import polars

        return polars.DataFrame(rows, schema=self._schema(), orient="row")

    def _schema(self) -> dict[str, Any]:
        import polars

        return dict.fromkeys(self._kind._fields, polars.String)
