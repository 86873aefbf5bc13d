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
from chronoprep.labels.forms import misshapen
from chronoprep.labels.wording import either, told, told_where

if TYPE_CHECKING:
    from chronoprep.images.difference import Difference
    from chronoprep.images.regions import Look, Region

_SUBTLE = ("replace", "resize", "change", "background")
_LOCAL = ("add", "remove", "replace", "move", "resize")
_ANYWHERE = ("style", "view", "light")  # kinds that leave nothing as it was
_FOCUS = ("blur", "sharpen")  # said of a thing, they may be of all around it
_SEAM = 35.0  # ΔE between the mean colours of a seam
_PATTERN = 4.5  # ΔE all over the picture: a faint pattern has come or gone
# Other groups are of things in the shade, too.
_HUES = frozenset(("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink"))
_MUCH = 0.2  # share of the area that no thing has, but for a background
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

    def __init__(self, seen: Difference, claims: Sequence[Claim]) -> None:
        self.seen, self.claims = seen, claims
        # Where the background became another, things are looked for in what else changed.
        self.behind = seen.changed > 0.3 and any(c.scope == "background" for c in claims)
        self.regions = seen.beside if self.behind else seen.regions
        top = self.regions[0].weight if self.regions else 0.0
        self.main = [r for r in self.regions if r.weight >= 0.03 * top]
        before, after = seen.whole.before, seen.whole.after
        self.light = after.lab[0] - before.lab[0]
        self.warmth = after.lab[2] - before.lab[2]
        self.paler = after.chroma / max(before.chroma, 1.0)
        # Everything is another, and its forms are where they were: light, colours, a style.
        self.everywhere = seen.changed > 0.6 or (seen.rest > 6 and seen.view is None)
        self.local = not self.everywhere and seen.changed < 0.5 and seen.view is None
        self.nothing = (
            not seen.regions
            and seen.view is None
            and seen.rest < _PATTERN
            and abs(self.light) < 3.5
        )
        self.faint = (
            seen.changed > 0.0008
            or seen.plain > 0.02
            or seen.softer is not None
            or seen.sharper is not None
        )

    def no_change(self) -> Iterator[Doubt]:
        """Against a label that says that nothing changed."""
        if self.seen.identical or self.nothing:
            return
        if self.regions:
            region = self.regions[0]
            # A frame that shifts by a pixel leaves up to half as much at edges as the least edit.
            size = min(1.0, 0.2 + region.weight / 0.25)
            size *= 1 if self.seen.changed > 0.03 or any(r.clear for r in self.regions) else 0.5
            yield Doubt("no change", size, f"says no change; {told(region)}")
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
        detail = ("light", "blur", "sharpen", "style", "view")
        if self.nothing and not any(claim.kind in detail for claim in claims):
            sure = 0.6 if self.faint and any(c.kind in _SUBTLE for c in claims) else 0.95
            yield Doubt("identical", sure, "speaks of an edit; nothing is seen to have changed")
            return
        if not claims:
            yield Doubt("not understood", 0.3, "speaks of no edit that is understood")
            return
        for claim in claims:
            if self.behind and claim.scope == "part" and not self.main:
                yield Doubt(
                    "kind", 0.7, f"says {claim.kind}; only the background is seen to change"
                )
                continue
            yield from self._kind(claim)
            yield from self._place(claim)
            yield from self._colours(claim)
            yield from self._form(claim)
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
            yield from self._behind()
        elif claim.kind == "sharpen":
            if seen.sharper is None and seen.softer is not None:
                yield Doubt("swapped", 0.8, "says sharper; the picture has less detail")
            elif seen.sharper is None and local:
                yield Doubt("kind", 0.7, f"says sharper; {self._how_much()}")
        elif claim.kind in ("move", "replace", "recolour"):
            yield from self._of_a_thing(claim)

    def _behind(self) -> Iterator[Doubt]:
        """Whether the background became another: most of it lies along the edges."""
        if self.seen.changed < 0.3 and self.seen.border < 6 and self.seen.rest < _PATTERN:
            yield Doubt("kind", 0.85, f"speaks of the background; {self._how_much()}")

    def _of_a_thing(self, claim: Claim) -> Iterator[Doubt]:
        main = self._there(claim)
        if not main:
            return
        if claim.kind == "move" and claim.origin and claim.places:
            goal, origin = (
                min(self.main, key=lambda r: min(place.off(r.centre) for place in places))
                for places in (claim.places, claim.origin)
            )
            if goal is not origin and origin.appears > 0.25 and goal.appears < -0.25:
                yield Doubt("swapped", 0.9, f"says move; something is gone, {told_where(goal)}")
        if claim.kind == "move":
            came = max((r.appears for r in self.main), key=abs)
            if len(self.regions) == 1 and self.everywhere is False and abs(came) > 0.45:
                what = "something is there that was not" if came > 0 else "something is gone"
                yield Doubt("kind", 0.6, f"says move; only {what}, {told_where(main[0])}")
            elif self.everywhere and self.seen.whole.kept > 0.85:
                yield Doubt("kind", 0.6, "says move; all of the picture changed, forms are kept")
        if claim.kind == "recolour" and claim.after and len(main) == 1:
            region = main[0]
            gone = region.kept < 0.3 and region.appears < -0.45
            if gone and _share(region.after, claim.after) < 0.5:
                yield Doubt("kind", 0.6, f"says recolour; something is gone, {told_where(region)}")

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
            yield Doubt("swapped", weight, f"says {claim.kind}; {what}, {told_where(best)}")
        elif best.kept > 0.5 and (
            sign * best.appears < (0.2 if best.kept > 0.75 else 0.15)
            or (best.before if sign > 0 else best.after).apart > 20
        ):
            yield Doubt(
                "kind", 0.75, f"says {claim.kind}; the forms are as before, {told_where(best)}"
            )

    def _resized(self, claim: Claim) -> Iterator[Doubt]:
        if self.everywhere and not self.behind:
            yield Doubt("kind", 0.6, f"says {claim.kind}; all of the picture changed")
        regions = self._there(claim)
        if len(regions) == 1 and regions[0].kept > 0.8:
            where = told_where(regions[0])
            yield Doubt("kind", 0.7, f"says {claim.kind}; the forms are as before, {where}")
        sign = ("larger" in claim.senses) - ("smaller" in claim.senses)
        if not regions or not sign:
            return
        against = max(-sign * r.appears for r in regions[:1])
        if against > 0.25:
            wrong = "smaller" if sign > 0 else "larger"
            yield Doubt(
                "swapped",
                min(0.9, 0.3 + against),
                f"says the opposite: it is {wrong}, {told_where(regions[0])}",
            )
        elif len(regions) == 1 and against > -0.05:
            yield Doubt("kind", 0.6, f"says {claim.kind}; no thing is, {told_where(regions[0])}")

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
            # What is smooth already can be blurred without a trace.
            sure = 0.85 if self.regions or sharp is not None else 0.4
            rule = "swapped" if sharp is not None and self.seen.changed < 0.02 else "kind"
            yield Doubt(rule, sure, f"says blur; no detail is lost, {self._how_much()}")
        elif self.regions and self.regions[0].after.chroma - self.regions[0].before.chroma > 25:
            yield Doubt("kind", 0.7, f"says blur; {told(self.regions[0])}")
        elif claim.places:
            miss = min(place.misses(soft.centre, soft.box) for place in claim.places)
            if miss > 0.1:
                yield Doubt(
                    "side",
                    miss,
                    f"says blur at the {either(map(str, claim.places))}; it is {told_where(soft)}",
                )

    def _styled(self, claim: Claim) -> Iterator[Doubt]:
        seen = self.seen
        if "grey" in claim.senses:
            if seen.whole.after.chroma > max(5.0, 0.5 * seen.whole.before.chroma):
                yield Doubt("kind", 0.9, "says black and white; the colours are still there")
            return
        # A style is all over the picture, and mostly in its detail.
        detail = max((r.share for r in (seen.softer, seen.sharper) if r is not None), default=0.0)
        if seen.rest < 3 and seen.changed < 0.3 and detail < max(0.02, 2 * seen.changed):
            yield Doubt("kind", 0.85, f"speaks of a style; {self._how_much()}")

    def _how_much(self) -> str:
        if not self.regions:
            return f"only {self.seen.changed:.1%} of the area changed"
        return told(self.regions[0])

    # Where -------------------------------------------------------------------------------------

    def _there(self, claim: Claim) -> list[Region]:
        """The regions that a claim may speak of: those at its place, or all."""
        if not claim.places or claim.scope != "part":
            return self.main
        here = [r for r in self.main if _miss(claim.places, r) < 0.5]
        own = [r for r in here if not self._of_another(claim, r)]
        return own or here

    def _of_another(self, claim: Claim, region: Region) -> bool:
        """Whether another claim names the place of a region better: "left" may also be a corner."""
        others = [c for c in self.claims if c is not claim and c.places]
        off = _off((*claim.places, *claim.origin), region)
        return any(off > _off((*c.places, *c.origin), region) + 0.1 for c in others)

    def _place(self, claim: Claim) -> Iterator[Doubt]:
        if not self.regions or claim.kind in ("blur", "view"):
            return
        for places in filter(None, (claim.places, claim.origin)):
            miss, nearest = min(
                ((_miss(places, region), region) for region in self.main), key=lambda both: both[0]
            )
            if miss > 0.05:
                yield Doubt("side", miss, f"says {either(map(str, places))}; {told(nearest)}")

    # Colours -----------------------------------------------------------------------------------

    def _colours(self, claim: Claim) -> Iterator[Doubt]:
        regions = self._there(claim) or self.main
        if not regions and claim.scope != "background":
            return
        regions = [r for r in regions if self.differs(r)] or regions
        if claim.scope == "part" and all(self._anothers(claim, r) for r in regions):
            # A thing of another form in its own colour may go unseen, hardly anything else.
            sure = 0.4 if claim.before & claim.after else 0.7
            yield Doubt("unseen", sure, f"nothing is seen of {claim.text!r}")
            return
        if claim.scope == "background":
            regions = [*(r for r in regions if r.share > _MUCH), self.seen.frame]
        for groups, after, word in ((claim.after, True, "becomes"), (claim.before, False, "was")):
            if not groups:
                continue
            looks = [both for region in regions for both in self._looks(claim, region, after=after)]
            look, old = max(looks, key=lambda both: _share(both[0], groups))
            share, gain = _share(look, groups), _share(look, groups) - _share(old, groups)
            # Another colour came, and this one did not.
            won = max(v - old.colours[g] for g, v in look.colours.items() if g not in groups)
            clearly = max(look.colours[hue] for hue in _HUES - groups)
            weight = min(1.0, max(0.0, _LEAST - share) / 0.05) * (0.95 if after else 0.85)
            if share < 0.4 * clearly and clearly > 0.8:
                weight = max(weight, 0.6)
            if share >= _LEAST and gain < 0.03 and won > 0.5 and share < 0.5:
                weight = max(weight, 0.8)
            if weight < 0.05:
                continue
            turned = _share(old, groups) > 0.4 and bool(claim.before and claim.after)
            kind = "swapped" if turned else f"{'new' if after else 'old'} colour"
            name = nearest(look.lab)
            yield Doubt(
                kind, weight,
                f"says that it {word} {either(groups)}; what changed {'is' if after else 'was'} "
                f"{name}, {share:.0%} of it may be called {either(groups)}",
            )  # fmt: skip

    def _anothers(self, claim: Claim, region: Region) -> bool:
        """Whether a region is of another claim, by its place and its colours, and not of this."""

        def coloured(one: Claim) -> float:
            sides = (region.after, one.after), (region.before, one.before)
            return max((_share(look, groups) for look, groups in sides if groups), default=0.5)

        if coloured(claim) > 0.1:
            return False
        others = [c for c in self.claims if c is not claim and c.scope == "part"]
        return any(coloured(c) > 0.5 and self._explains(c, region) for c in others)

    def _looks(self, claim: Claim, region: Region, *, after: bool) -> list[tuple[Look, Look]]:
        """How the thing of a claim looks in a region, each with how it looks in the other
        picture."""
        now, once = (region.after, region.before), (region.before, region.after)
        if claim.kind in ("move", "resize"):  # it is where something came, or was where it is gone
            grows = ("larger" in claim.senses) - ("smaller" in claim.senses)
            came = grows or (region.appears > 0.2) - (region.appears < -0.2)
            return [now, once] if not came else [now] if came > 0 else [once]
        if claim.before & claim.after and claim.scope != "background":
            return [now, once]
        return [now if after else once]

    def _form(self, claim: Claim) -> Iterator[Doubt]:
        regions = [r for r in self._there(claim) if self.differs(r)]
        form = misshapen(claim, regions, holes=not self.behind)
        if form is not None:
            yield Doubt("form", 0.75, f"the form of what changed is a {form}: {told(regions[0])}")

    # What no claim speaks of -------------------------------------------------------------------

    def _unclaimed(self, claims: Sequence[Claim]) -> Iterator[Doubt]:
        if self.seen.view is not None or any(claim.kind in _ANYWHERE for claim in claims):
            return
        if self.everywhere and not self.behind:
            local = all(c.scope == "part" and c.places and c.kind not in _FOCUS for c in claims)
            if self.seen.changed > 0.6 and local:
                where = either({str(place) for claim in claims for place in claim.places})
                yield Doubt("unclaimed", 0.8, f"says {where}; all of the picture changed")
            return
        if not self.behind and any(claim.scope != "part" for claim in claims):
            return
        own = [claim for claim in claims if claim.scope == "part"]
        if self.behind and (len(self.regions) > 3 or sum(r.share for r in self.regions) > 0.15):
            return  # another scene: all kinds of things differ
        if not self.regions or (own and len(self.regions) < 2):
            return
        top = self.regions[0].weight
        for region in self.regions:
            small = region.weight < 0.2 * top or region.share < (0.016 if self.behind else 0.008)
            if small or not self.differs(region):
                continue
            if not any(self._explains(claim, region) for claim in own):
                yield Doubt("unclaimed", 0.8, f"nothing is said of a change: {told(region)}")
                return

    def differs(self, region: Region) -> bool:
        """Whether a region is more than the edge of a thing that moved a little."""
        if not self.behind:
            return region.clear
        # A thing that stays has a seam of old and new background around it.
        return abs(region.appears) >= 0.4 or region.gap >= _SEAM

    def _explains(self, claim: Claim, region: Region) -> bool:
        places = (*claim.places, *claim.origin)
        if places and not (claim.kind == "move" and not claim.origin):
            return _miss(places, region) < 0.8
        if claim.after:
            return _share(region.after, claim.after) > 0.1
        return True


def _miss(places: Iterable[Place], region: Region) -> float:
    return min(place.misses(region.centre, region.box) for place in places)


def _off(places: Iterable[Place], region: Region) -> float:
    return min(place.off(region.centre) for place in places)


def _share(look: Look, groups: frozenset[str]) -> float:
    """The share of a region that may be called by any of these groups."""
    return max(look.colours.get(group, 0.0) for group in groups)
