"""Labels of synthetic pairs in the words of another author."""

from __future__ import annotations

import random
import re

_PLACES = {
    "top left": ["in the upper left corner", "at the upper left of the picture", "up on the left"],
    "top right": ["in the top right hand corner", "at the upper right of the image"],
    "bottom left": ["in the lower left corner", "at the bottom left of the frame"],
    "bottom right": ["in the bottom right corner", "in the lower right part of the picture"],
    "top": ["at the upper edge of the picture", "at the very top", "near the top of the image"],
    "bottom": ["at the bottom of the frame", "at the lower edge of the picture"],
    "left": ["on the left side of the image", "on the left hand side", "at the left edge"],
    "right": ["on the right side of the picture", "on the far right", "on the right hand side"],
    "centre": ["in the middle of the picture", "at the center of the image", "in the center"],
}
_WORDS = {
    "small": ["little", "tiny", "small"],
    "large": ["big", "huge", "large"],
    "circle": ["disc", "round dot", "circle"],
    "square": ["square", "block"],
    "triangle": ["triangle"],
    "star": ["star", "star shape"],
    "ring": ["ring", "hoop"],
    "purple": ["violet", "purple"],
    "orange": ["orange", "tangerine"],
    "striped": ["striped", "stripy"],
    "checked": ["checked", "chequered"],
    "plain": ["plain", "solid"],
}
_THING = r"(?P<a>\w+ \w+ \w+) (?:at|on|in) the (?P<p>[a-z ]+?)"
_FORMS = [
    (rf"recolour the {_THING} (?P<c>\w+)", [
        "The {a} {p} turns {c}", "Paint the {a} {p} {c}", "{P}, the {a} is now {c}",
        "Change the colour of the {a} {p} to {c}"]),
    (r"move the (?P<a>\w+ \w+ \w+) from the (?P<o>[a-z ]+) to the (?P<p>[a-z ]+)", [
        "Shift the {a} from the {o} to the {q}", "The {a} has moved from the {o} to the {q}",
        "Relocate the {a} from the {o} to the {q}"]),
    (rf"remove the {_THING}", [
        "Get rid of the {a} {p}", "Erase the {a} {p}", "The {a} {p} has been removed",
        "Take away the {a} {p}"]),
    (rf"add an? {_THING}", [
        "Put a {a} {p}", "Insert a {a} {p}", "{P}, a {a} has been added", "A {a} appears {p}"]),
    (rf"replace the {_THING} with an? (?P<b>\w+ \w+ \w+)", [
        "Swap the {a} {p} for a {b}", "Turn the {a} {p} into a {b}",
        "Substitute a {b} for the {a} {p}"]),
    (rf"enlarge the {_THING}", [
        "Make the {a} {p} bigger", "The {a} {p} has grown", "Scale up the {a} {p}"]),
    (rf"shrink the {_THING}", [
        "Make the {a} {p} smaller", "The {a} {p} is smaller now", "Scale down the {a} {p}"]),
    (r"change the background from (?P<a>\w+ \w+) to (?P<b>\w+ \w+)", [
        "The background goes from {a} to {b}", "Turn the {a} background into a {b} one",
        "Replace the {a} backdrop with a {b} one"]),
]  # fmt: skip


def reworded(text: str, rng: random.Random) -> str:
    """A label in other words; one that is no label of `synth` stays as it is."""
    if text == "no change":
        return rng.choice(["No difference.", "Nothing has changed.", "The images are identical."])
    said = [_edit(part, rng) for part in text.removesuffix(".").split("; ")]
    if None in said:
        return text
    joint = rng.choice([". ", "; ", ", and "])
    first, *others = map(str, said)
    low = joint != ". "
    return joint.join([first, *(o[0].lower() + o[1:] if low else o for o in others)]) + "."


def _edit(phrase: str, rng: random.Random) -> str | None:
    for pattern, templates in _FORMS:
        match = re.fullmatch(pattern, phrase[0].lower() + phrase[1:])
        if match is None:
            continue
        found = match.groupdict()
        words = {name: _words(part, rng) for name, part in found.items() if name in "abc"}
        if "p" in found:
            place = rng.choice(_PLACES[found["p"]])
            words |= {"p": place, "P": place[0].upper() + place[1:], "q": found["p"]}
        return rng.choice(templates).format(**words, o=found.get("o"))
    return None


def _words(text: str, rng: random.Random) -> str:
    return " ".join(rng.choice(_WORDS.get(word, [word])) for word in text.split())
