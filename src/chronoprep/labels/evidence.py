"""What is seen to have changed, asked about what a label claims.

Every claim is held against it: the kind of edit, the place, the colours; and every change against
the claims. What can't be seen in a difference (pose, meaning, what a thing is) raises no doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronoprep.images.colours import nearest
from chronoprep.labels.claims import Claim, Place

if TYPE_CHECKING:
    from chronoprep.images.difference import Difference, Look, Region

_LOCAL = ("add", "remove", "replace", "move", "resize")
_LEAST = 0.16  # share of a region that has a colour which is said of it


@dataclass(frozen=True, slots=True)
class Doubt:
    """What speaks against a label.

    Attributes:
        rule: Its name.
        weight: From 0 to 1: how sure it is.
        reason: In words.
    """

    rule: str
    weight: float
    reason: str


class Evidence:
    """What is seen, asked about claims."""

    def __init__(self, seen: Difference) -> None:
        self.seen = seen
        self.regions = seen.regions
        top = self.regions[0].weight if self.regions else 0.0
        self.main = [r for r in self.regions if r.weight >= 0.15 * top]
        before, after = seen.whole.before, seen.whole.after
        self.light = after.lab[0] - before.lab[0]
        self.warmth = after.lab[2] - before.lab[2]
        self.paler = after.chroma / max(before.chroma, 1.0)
        # Everything is another, and its forms are where they were: light, colours, a style.
        self.everywhere = seen.changed > 0.6 or (seen.rest > 6 and seen.view is None)
        self.local = not self.everywhere and seen.changed < 0.5 and seen.view is None
        self.nothing = (
            not self.regions
            and seen.view is None
            and seen.rest < 5
            and abs(self.light) < 3.5
            and seen.softer is None
        )

    def no_change(self) -> Iterator[Doubt]:
        """Against a label that says that nothing changed."""
        if self.seen.identical or self.nothing:
            return
        if self.regions:
            region = self.regions[0]
            size = min(1.0, 0.6 + region.weight / 0.1)
            yield Doubt("no change", size, f"says no change; {_seen(region)}")
        elif self.seen.view is not None:
            yield Doubt("no change", 1.0, f"says no change; the picture is {self.seen.view}")
        else:
            yield Doubt(
                "no change", min(1.0, 0.4 + self.seen.rest / 8),
                f"says no change; all of the picture differs by {self.seen.rest:.0f} ΔE",
            )  # fmt: skip

    def of_claims(self, claims: Sequence[Claim]) -> Iterator[Doubt]:
        """Against a label that speaks of edits."""
        if self.seen.identical:
            yield Doubt("identical", 1.0, "speaks of an edit; the pictures are identical")
            return
        if self.nothing and not any(claim.kind == "light" for claim in claims):
            yield Doubt("identical", 0.95, "speaks of an edit; nothing is seen to have changed")
            return
        if not claims:
            yield Doubt("not understood", 0.3, "speaks of no edit that is understood")
            return
        hidden = self.seen.changed > 0.4 and any(c.kind == "background" for c in claims)
        for claim in claims:
            if hidden and claim.scope == "part":
                continue  # nobody sees where one ends and the other begins
            yield from self._kind(claim)
            yield from self._place(claim)
            yield from self._colours(claim)
        yield from self._unclaimed(claims)

    # What kind of edit -------------------------------------------------------------------------

    def _kind(self, claim: Claim) -> Iterator[Doubt]:
        seen = self.seen
        local = not self.everywhere and seen.changed < 0.5
        if seen.view is not None and claim.kind in (*_LOCAL, "recolour", "blur", "light"):
            yield Doubt("kind", 0.75, f"says {claim.kind}; the whole picture is {seen.view}")
            return
        if claim.kind in ("add", "remove"):
            yield from self._appears(claim)
        elif claim.kind == "resize":
            yield from self._resized(claim)
        elif claim.kind == "light":
            yield from self._lit(claim)
        elif claim.kind == "blur":
            yield from self._blurred(claim)
        elif claim.kind == "style":
            yield from self._styled(claim)
        elif claim.kind == "view":
            if seen.view is None and seen.changed < 0.15:
                yield Doubt("kind", 0.9, f"speaks of another view; {self._how_much()}")
        elif claim.kind == "background":
            if local and seen.changed < 0.1 and seen.plain < 0.1:
                yield Doubt("kind", 0.9, f"speaks of the background; {self._how_much()}")
        elif claim.kind == "sharpen":
            if seen.sharper is None and seen.softer is not None:
                yield Doubt("swapped", 0.8, "says sharper; the picture has less detail")
            elif seen.sharper is None and local:
                yield Doubt("kind", 0.7, f"says sharper; {self._how_much()}")
        elif claim.kind in ("move", "replace", "recolour"):
            yield from self._of_a_thing(claim)

    def _of_a_thing(self, claim: Claim) -> Iterator[Doubt]:
        main = self._there(claim)
        if not main:
            return
        if claim.kind == "move":
            came = max((r.appears for r in self.main), key=abs)
            if len(self.regions) == 1 and self.everywhere is False and abs(came) > 0.45:
                what = "something is there that was not" if came > 0 else "something is gone"
                yield Doubt("kind", 0.6, f"says move; only {what}, {_where(main[0])}")
            elif self.everywhere and self.seen.whole.kept > 0.85:
                yield Doubt("kind", 0.6, "says move; all of the picture changed, forms are kept")
        if claim.kind == "recolour" and claim.after and len(main) == 1:
            region = main[0]
            if region.kept < 0.55 and region.appears < -0.45:
                yield Doubt("kind", 0.6, f"says recolour; something is gone, {_where(region)}")

    def _appears(self, claim: Claim) -> Iterator[Doubt]:
        """Whether something is there that was not, or the other way round."""
        if self.everywhere and self.seen.whole.kept > 0.8 and self.seen.changed > 0.4:
            yield Doubt(
                "kind", 0.75, f"says {claim.kind}; all of the picture changed, its forms are kept"
            )
            return
        regions = self._there(claim) or self.main
        if not regions:
            yield Doubt("kind", 0.8, f"says {claim.kind}; {self._how_much()}")
            return
        sign = 1 if claim.kind == "add" else -1
        best = max(regions, key=lambda r: sign * r.appears)
        against = -sign * best.appears
        if against > 0.1:
            what = "something is gone" if sign > 0 else "something is there that was not"
            weight = min(1.0, 0.35 + (against - 0.1) / 0.4)
            yield Doubt("swapped", weight, f"says {claim.kind}; {what}, {_where(best)}")
        elif best.kept > 0.75 and sign * best.appears < 0.2:
            yield Doubt("kind", 0.75, f"says {claim.kind}; the forms are as before, {_where(best)}")

    def _resized(self, claim: Claim) -> Iterator[Doubt]:
        if self.everywhere:
            yield Doubt("kind", 0.6, f"says {claim.kind}; all of the picture changed")
        regions = self._there(claim)
        sign = ("larger" in claim.senses) - ("smaller" in claim.senses)
        if not regions or not sign:
            return
        against = max(-sign * r.appears for r in regions[:1])
        if against > 0.25:
            wrong = "smaller" if sign > 0 else "larger"
            yield Doubt(
                "swapped",
                min(0.9, 0.3 + against),
                f"says the opposite: it is {wrong}, {_where(regions[0])}",
            )

    def _lit(self, claim: Claim) -> Iterator[Doubt]:
        places = self._there(claim) if claim.places else []
        light = [r.after.lab[0] - r.before.lab[0] for r in places or self.main] + [self.light]
        warmth = [r.after.lab[2] - r.before.lab[2] for r in places or self.main] + [self.warmth]
        opposite = False
        for words, values, least in (
            (("brighter", "darker"), light, 1.5),
            (("warmer", "colder"), warmth, 2.0),
        ):
            for word, sign in zip(words, (1, -1), strict=True):
                if word not in claim.senses or opposite:
                    continue
                best = max(sign * value for value in values)
                if best < -least:
                    opposite = True
                    other = words[1] if sign > 0 else words[0]
                    yield Doubt(
                        "swapped", 0.95, f"says {word}; the picture is {other} by {-best:.0f}"
                    )
                elif best < least:
                    yield Doubt("kind", 0.8, f"says {word}; light and colours differ by {best:.1f}")
        faint = abs(self.light) < 3 and abs(self.warmth) < 4 and self.seen.rest < 3.2
        if faint and not opposite and not claim.places and not self.everywhere:
            yield Doubt("kind", 0.75, f"speaks of the light; {self._how_much()}")

    def _blurred(self, claim: Claim) -> Iterator[Doubt]:
        soft, sharp = self.seen.softer, self.seen.sharper
        if soft is None:
            swapped = sharp is not None and self.seen.changed < 0.02
            yield Doubt(
                "swapped" if swapped else "kind",
                0.85,
                f"says blur; no detail is lost, {self._how_much()}",
            )
        elif self.regions and self.regions[0].after.chroma - self.regions[0].before.chroma > 25:
            yield Doubt("kind", 0.7, f"says blur; {_seen(self.regions[0])}")
        elif claim.places:
            miss = min(place.misses(soft.centre, soft.box) for place in claim.places)
            if miss > 0.1:
                yield Doubt(
                    "side",
                    miss,
                    f"says blur at the {either(map(str, claim.places))}; it is {_where(soft)}",
                )

    def _styled(self, claim: Claim) -> Iterator[Doubt]:
        seen = self.seen
        if "grey" in claim.senses:
            if seen.whole.after.chroma > max(5.0, 0.5 * seen.whole.before.chroma):
                yield Doubt("kind", 0.9, "says black and white; the colours are still there")
            return
        detail = seen.softer is not None or seen.sharper is not None
        if seen.rest < 3 and seen.changed < 0.3 and not (detail and seen.changed < 0.005):
            yield Doubt("kind", 0.85, f"speaks of a style; {self._how_much()}")

    def _how_much(self) -> str:
        if not self.regions:
            return f"only {self.seen.changed:.1%} of the area changed"
        return _seen(self.regions[0])

    # Where -------------------------------------------------------------------------------------

    def _there(self, claim: Claim) -> list[Region]:
        """The regions that a claim may speak of: those at its place, or all."""
        if not claim.places or claim.scope != "part":
            return self.main
        return [r for r in self.main if _miss(claim.places, r) < 0.5]

    def _place(self, claim: Claim) -> Iterator[Doubt]:
        if not self.regions or claim.kind in ("blur", "view"):
            return
        for places in filter(None, (claim.places, claim.origin)):
            miss, nearest = min(
                ((_miss(places, region), region) for region in self.main), key=lambda both: both[0]
            )
            if miss > 0.05:
                yield Doubt("side", miss, f"says {either(map(str, places))}; {_seen(nearest)}")
        if claim.places and self.seen.changed > 0.6 and claim.kind in _LOCAL:
            yield Doubt("kind", 0.4, f"says {claim.places[0]}; all of the picture changed")

    # Colours -----------------------------------------------------------------------------------

    def _colours(self, claim: Claim) -> Iterator[Doubt]:
        regions = self._there(claim) or self.main
        if not regions and claim.scope != "background":
            return
        if claim.scope == "background":
            regions = [*regions, self.seen.frame]
        # It is there before and after; what changed is its edge, or where it is.
        kept = claim.kind in ("move", "resize") or bool(claim.before & claim.after)
        for groups, side, word, is_ in (
            (claim.after, "after", "becomes", "is"),
            (claim.before, "before", "was", "was"),
        ):
            if not groups:
                continue
            if kept and any(
                _share(look, groups) >= _LEAST for r in self.main for look in (r.before, r.after)
            ):
                continue
            share, region = max(
                ((_share(getattr(r, side), groups), r) for r in regions), key=lambda both: both[0]
            )
            other = "before" if side == "after" else "after"
            if share >= _LEAST:
                continue
            weight = min(1.0, (_LEAST - share) / 0.1) * (0.95 if side == "after" else 0.85)
            there = _share(getattr(region, other), groups)
            swapped = there > 0.4 and bool(claim.before and claim.after)
            yield Doubt(
                "swapped" if swapped else f"{'new' if side == 'after' else 'old'} colour",
                weight,
                f"says that it {word} {either(groups)}; what changed {is_} "
                f"{nearest(getattr(region, side).lab)}, {share:.0%} of it may be called so",
            )

    # What no claim speaks of -------------------------------------------------------------------

    def _unclaimed(self, claims: Sequence[Claim]) -> Iterator[Doubt]:
        if self.everywhere or len(self.regions) < 2 or self.seen.view is not None:
            return
        if any(
            c.scope != "part" or c.kind in ("style", "view", "light", "background") for c in claims
        ):
            return
        top = self.regions[0].weight
        for region in self.regions:
            if region.weight < 0.2 * top or region.share < 0.0025:
                continue
            if not any(self._explains(claim, region) for claim in claims):
                yield Doubt("unclaimed", 0.8, f"nothing is said of a change: {_seen(region)}")
                return

    def _explains(self, claim: Claim, region: Region) -> bool:
        places = (*claim.places, *claim.origin)
        if places and not (claim.kind == "move" and not claim.origin):
            return _miss(places, region) < 0.8
        if claim.after:
            return _share(region.after, claim.after) > 0.1
        return True


def _miss(places: Iterable[Place], region: Region) -> float:
    return min(place.misses(region.centre, region.box) for place in places)


def _share(look: Look, groups: frozenset[str]) -> float:
    """The share of a region that may be called by any of these groups."""
    return max(look.colours.get(group, 0.0) for group in groups)


def _where(region: Region) -> str:
    (x, y), names = region.centre, ("left", "centre", "right")
    across = names[min(2, int(3 * x))]
    down = ("upper", "middle", "lower")[min(2, int(3 * y))]
    word = "at the centre" if (across, down) == ("centre", "middle") else f"at the {down} {across}"
    if down == "middle" and across != "centre":
        word = f"on the {across}"
    share = f"{region.share:.1%}" if region.share < 0.1 else f"{region.share:.0%}"
    return f"{word}, {share} of the area"


def _seen(region: Region) -> str:
    colours = f"{nearest(region.before.lab)} → {nearest(region.after.lab)}"
    return f"the change is {_where(region)} ({colours})"


def either(words: Iterable[object]) -> str:
    """Words with "or" between."""
    return " or ".join(sorted(map(str, words)))
