"""Which split a pair belongs to: by the content of its source, so that all edits of one image, and
of images that look like it, stay on one side, on every machine and however many pairs come."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chronoprep import digest
from chronoprep.errors import ConfigError
from chronoprep.workflows.exported import Origin

_SHARE = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*([0-9.]+)\s*")
_HINT = "Write names and shares that add up to 1: --split train=0.95,val=0.05"


@dataclass(frozen=True)
class Splits:
    """Names and shares, as they were given; none where there is but one split."""

    shares: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, text: str | None) -> Splits:
        """Of a setting.

        Raises:
            ConfigError: It names no shares, a name twice, or they don't add up to 1.
        """
        if text is None:
            return cls()
        matches = [_SHARE.fullmatch(part) for part in text.split(",")]
        try:
            shares = tuple((match[1], float(match[2])) for match in matches if match is not None)
        except ValueError:
            shares = ()
        names = {name.casefold() for name, _ in shares}
        if not len(names) == len(shares) == len(matches):
            raise ConfigError(f"--split {text}: no shares of splits.", hint=_HINT)
        if abs(sum(share for _, share in shares) - 1) > 1e-6 or min(s for _, s in shares) <= 0:
            raise ConfigError(f"--split {text}: the shares don't add up to 1.", hint=_HINT)
        return cls(shares)

    @property
    def names(self) -> tuple[str, ...]:
        """The one that is trained on first: that called `train`, or the first one named."""
        return tuple(sorted((name for name, _ in self.shares), key=lambda name: name != "train"))

    def chosen(self, origins: Mapping[str, Origin]) -> dict[str, str]:
        """The split of each pair, by key."""
        from chronoprep.images.likeness import alike, stacked

        if not origins:
            return {}
        # Each source once: its edits are not alike but the same.
        thumbnails = {origin.content: origin.thumbnail for origin in origins.values()}
        pictures = [content for content, thumbnail in thumbnails.items() if thumbnail]
        data = b"".join(base64.b64decode(thumbnails[content]) for content in pictures)
        couples = [(int(one), int(other)) for one, other in alike(stacked(data))] if data else []
        family = dict(zip(pictures, families(pictures, couples), strict=True))
        return {
            key: self.split_of(family.get(origin.content, origin.content))
            for key, origin in origins.items()
        }

    def split_of(self, source: str) -> str:
        """The split of a source image, by the digest of its bytes."""
        # As uniform as the digest, and the same wherever it is counted.
        at = int(digest.of_text(f"split:{source}", 8), 16) / 2**64
        for name, share in self.shares:
            if at < share:
                return name
            at -= share
        return self.shares[-1][0] if self.shares else ""


def families(sources: Sequence[str], alike: Iterable[tuple[int, int]]) -> list[str]:
    """A name for each source: the same for those that look alike, directly or by others.

    Args:
        sources: Digests of source images.
        alike: Places in it of two images that look alike.
    """
    parent = list(range(len(sources)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for one, other in alike:
        parent[root(one)] = root(other)
    names: dict[int, str] = {}
    for at, source in enumerate(sources):
        names[root(at)] = min(names.get(root(at), source), source)
    return [names[root(at)] for at in range(len(sources))]
