"""What captions claim, as people and models write them."""

from __future__ import annotations

import time

import pytest

from chronoprep.labels.claims import claims_of

# Text, then each claim: kind | places | colours before > after.
CASES = [
    ("Change the astronaut's orange suit to blue.", ["recolour||orange>blue"]),
    (
        "The user wants to change the color of the car on the left from red to blue while keeping "
        "the street, the green trees and the lighting exactly as they are.",
        ["recolour|left|red>blue"],
    ),
    ("Add a red hat to the man on the right.", ["add|right|>red"]),
    ("Add a small patch on the orange suit.", ["add||>"]),
    ("Remove the white mug from the wooden table.", ["remove||white>"]),
    ("Remove the tree to the left of the house.", ["remove||>"]),
    ("Put the cup to the right of the centre.", ["add||>"]),
    ("Raise the woman's left hand.", ["change||>"]),
    ("Move the ball from the bottom left to the top right.", ["move|bottom left>top right|>"]),
    ("Replace the blue vase with a yellow one.", ["replace||blue>yellow"]),
    ("Replace the background with a plain green one.", ["background||>green"]),
    ("Turn the sky pink.", ["recolour||>pink"]),
    ("The roof is now green instead of grey.", ["recolour||grey>green"]),
    ("The tiny blue disc has moved from the right to the bottom.", ["move|right>bottom|blue>"]),
    ("On the far right, a large black disc has been added.", ["add|right|>black"]),
    (
        "Change the colour of the big blue ring at the upper edge of the picture to orange, and "
        "the little green triangle in the lower left corner has been removed.",
        ["recolour|top|blue>orange", "remove|bottom left|green>"],
    ),
    ("Make the picture black and white.", ["style||>"]),
    ("Make the whole image darker.", ["light||>"]),
    ("Blur the background behind the dog.", ["blur||>"]),
    ("Zoom in on the flower.", ["view||>"]),
    ("Enlarge the yellow balloon at the top.", ["resize|top|yellow>"]),
    ("Shrink the two red cars in the lower-right corner.", ["resize|bottom right|red>"]),
    (
        "Add a red balloon on the left and a yellow balloon on the right.",
        ["add|left|>red", "add|right|>yellow"],
    ),
    (
        "Remove the bench in the bottom-left corner and paint the door blue; keep the rest.",
        ["remove|bottom left|>", "recolour||>blue"],
    ),
    ("The woman now wears a green scarf.", ["add||>green"]),
    ("The car has been removed from the street.", ["remove||>"]),
    ("Write OPEN in white letters at the top of the picture.", ["add|top|>white"]),
    ("Place an orange on the table.", ["add||>"]),
    ("Put a grey-haired man beside the door.", ["add||>"]),
    ("Take the glasses off the man.", ["remove||>"]),
    ("Give the dog a blue collar.", ["change||>blue"]),
    ("Do not change the sky, but add a kite at the upper right.", ["add|top right|>"]),
    ("One of the balloons, the yellow one at the top, has vanished.", ["remove|top|yellow>"]),
    ("A bird has appeared in the upper right corner.", ["add|top right|>"]),
    ("The man's shirt went from teal to magenta.", ["recolour||turquoise>purple"]),
    ("Lower the brightness.", ["light||>"]),
    ("Halve the size of the red ball.", ["resize||red>"]),
    ("Make the scene look like a watercolour painting.", ["style||>"]),
    ('The sign now reads "OPEN".', ["change||>"]),
    ("Turn the tiny green ring into a tiny green disc.", ["replace||green>green"]),
    ("Turn the red car into a blue car.", ["recolour||red>blue"]),
    ("Turn the leaves to a golden orange.", ["recolour||>orange,yellow"]),
    ("Change her hair to a dark brown tone.", ["recolour||>brown"]),
    (
        "Make the red block in the top right hand corner bigger; take the green circle away.",
        ["resize|top right|red>", "remove||green>"],
    ),
    (
        "A black kite appears in the top right-hand corner, and scale up the boat on the left.",
        ["add|top right|>black", "resize|left|>"],
    ),
    (
        "Turn the brown background into a mint one, and up on the left, the block is now blue.",
        ["background||brown>", "recolour|top left|>blue"],
    ),
    ("Take away the mug down on the right.", ["remove|bottom right|>"]),
    ("I can't see any difference.", []),
    ("no change", []),
    ("Nothing has changed between the two images.", []),
    ("A photo of a dog.", []),
]


def spelled(text: str) -> list[str]:
    claims = []
    for claim in claims_of(text):
        places = ">".join(map(str, (*claim.origin, *claim.places)))
        colours = f"{','.join(sorted(claim.before))}>{','.join(sorted(claim.after))}"
        claims.append(f"{claim.kind}|{places}|{colours}")
    return claims


@pytest.mark.parametrize(("text", "claims"), CASES)
def test_what_a_caption_claims(text: str, claims: list[str]) -> None:
    assert spelled(text) == claims


@pytest.mark.parametrize(
    ("text", "senses"),
    [
        ("Lower the exposure.", {"darker"}),
        ("Raise the brightness of the room.", {"brighter"}),
        ("Make the window twice as big.", {"larger"}),
        ("Make the photo black and white.", {"grey"}),
        ("Colourise the black-and-white photo.", set()),
        ("Turn the black-and-white picture into a full colour one.", set()),
    ],
)
def test_which_way_a_claim_goes(text: str, senses: set[str]) -> None:
    (claim,) = claims_of(text)
    assert claim.senses == senses


def test_of_a_long_text_the_first_sentence_is_the_claim() -> None:
    cot = (
        "The user wants to recolour the red car on the left blue. The car stands on a wet street "
        "under grey clouds, and its white roof carries two yellow boxes. Everything else stays: "
        "the trees on the right, the brown house at the top and some people in the background."
    )
    assert spelled(cot) == ["recolour|left|red>blue"]


def test_what_stays_is_no_claim() -> None:
    text = "Brighten the room, keep the red sofa on the left and leave the green plant untouched."
    assert [claim.kind for claim in claims_of(text)] == ["light"]


@pytest.mark.parametrize(
    "piece", ["a", "red ", "from red to ", ", and the ", "the left of the ", '"', "Add a ", ". "]
)
def test_any_text_is_read_in_time(piece: str) -> None:
    """Work grows with the text, and no faster: ten times the text is no matter of minutes."""
    begun = time.process_time()
    claims_of(piece * 40_000)
    assert time.process_time() - begun < 20
