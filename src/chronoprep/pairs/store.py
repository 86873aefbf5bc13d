"""Pairs in columns: a million of them take the room of their texts, not of a million objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

from chronoprep.data import ImagePair
from chronoprep.pairs.refs import parse

if TYPE_CHECKING:
    import polars


class PairRow(NamedTuple):
    """A pair as text; what a million of them are asked for does not need more."""

    key: str
    source: str
    target: str
    caption: str | None
    prompt: str | None

    def pair(self) -> ImagePair:
        return ImagePair(
            self.key, parse(self.source), parse(self.target), self.caption, self.prompt
        )


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
        return map(PairRow._make, self._frame.iter_rows(buffer_size=10_000))

    @overload
    def __getitem__(self, index: int) -> ImagePair: ...

    @overload
    def __getitem__(self, index: slice) -> Pairs: ...

    def __getitem__(self, index: int | slice) -> ImagePair | Pairs:
        if isinstance(index, slice):
            return Pairs(self._frame[index])
        return PairRow._make(self._frame.row(index)).pair()

    def where(self, condition: Callable[[ImagePair], bool]) -> Pairs:
        """The pairs that meet a condition."""
        import polars

        return Pairs(self._frame.filter(polars.Series(map(condition, self), dtype=polars.Boolean)))

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
