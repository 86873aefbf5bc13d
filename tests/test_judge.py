"""Labels verified by a model: claims of two texts compared, and what the model is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronoprep import engine, vlm
from chronoprep.config import Settings
from chronoprep.data import GREEDY, Chat, Completion, Likelihood, Picture, Sampling
from chronoprep.labels.claims import Claim, claims_of
from chronoprep.labels.claims.comparing import (
    contradiction,
    in_either_order,
    in_mirror,
    mirrored,
    reversed_,
)
from chronoprep.labels.judge import SCHEMA, Judge, Judged, JudgeTask, read_verdicts
from chronoprep.workflows.label import recipe_of
from conftest import Result, photo, write_pairs

Run = Callable[..., Result]
CAR = "Change the colour of the car on the left from red to blue"


@pytest.mark.parametrize(
    ("label", "text", "least", "most"),
    [
        (CAR, "Turn the red car on the left blue", 0, 0.1),
        (CAR, "Recolour the red automobile at the left side of the image to blue.", 0, 0.4),
        (CAR, "Change the car on the right from red to blue", 0.8, 1),
        (CAR, "Change the colour of the car on the left from red to green", 0.8, 1),
        (CAR, "Change the colour of the car on the left from blue to red", 0.8, 1),
        (CAR, "Remove the car on the left", 0.4, 1),
        (CAR, "no change", 1, 1),
        ("Add a hat to the man", "Remove the hat from the man", 0.9, 1),
        ("Add a hat to the man", "Put a hat on the man's head", 0, 0.4),
        ("Make the sky darker", "Make the sky brighter", 0.9, 1),
        ("Add a dog; remove the tree", "Add a dog", 0.5, 1),
        ("Add a dog", "Add a dog; remove the tree on the right", 0.5, 1),
        ("Add a dog; remove the tree", "Remove the tree; add a dog", 0, 0.1),
        (
            "Change the background from plain beige to checked beige",
            "Change the background from checked beige to plain beige",
            0.9,
            1,
        ),
        (
            "Replace the solid mint backdrop with a chequered mint one",
            "Change the background from plain mint to checked mint",
            0,
            0.1,
        ),
        ("Turn the cat into a dog", "Change the dog to a cat", 0.9, 1),
        ("Move the cup from the left to the top", "Move the cup from the top to the left", 0.9, 1),
        ("Add a red circle at the top", "Add a red square at the top", 0.7, 1),
        ("Remove the ring at the top", "Remove the ring on the left", 0.5, 0.9),
        ("Remove the ring on the left", "Remove the ring at the top left", 0, 0.4),
        ("Swap the ring for a star", "Replace the star with a ring", 0.7, 1),
        ("Substitute a star for the ring", "Replace the ring with a star", 0, 0.4),
        ("Replace the ring with a star", "Replace the ring with a square", 0.7, 1),
        ("Add a red circle at the top", "Insert a tiny red disc at the upper edge", 0, 0.1),
        ("Erase the green block on the left", "Remove the green thing on the left", 0, 0.4),
        ("no change", "No change.", 0, 0),
        ("no change", "Add a hat to the man", 1, 1),
    ],
)
def test_what_cannot_both_be_true(label: str, text: str, least: float, most: float) -> None:
    found = contradiction(None if label == "no change" else claims_of(label), text)
    assert found is not None
    weight, why = found
    assert least <= weight <= most, why
    assert bool(why) or weight < 0.05


@pytest.mark.parametrize("text", ["It is a nice day.", "Change.", "Change left.", ""])
def test_what_is_not_understood_is_no_evidence(text: str) -> None:
    assert contradiction(claims_of(CAR), text) is None
    assert contradiction(claims_of(text), CAR) is None


def against(claims: Sequence[Claim], text: str) -> float:
    found = contradiction(claims, text)
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("label", "back", "otherwise"),
    [
        ("Replace the ring with a star", "Replace the star with a ring",
         "Replace the ring with a star"),
        ("Substitute a star for the ring", "Swap the star for a ring",
         "Substitute a star for the ring"),
        ("Change the background from striped beige to checked mint",
         "Change the background from checked mint to striped beige",
         "Change the background from striped beige to checked mint"),
        ("Move the ring from the left to the top", "Move the ring from the top to the left",
         "Move the ring from the left to the top"),
        ("Enlarge the small star", "Shrink the large star", "Enlarge the small star"),
    ],
)  # fmt: skip
def test_what_comes_of_an_edit_is_where_the_way_back_begins(
    label: str, back: str, otherwise: str
) -> None:
    claims = reversed_(claims_of(label))
    assert against(claims, back) < 0.1
    assert against(claims, otherwise) > 0.3


@pytest.mark.parametrize(
    ("text", "mirrored_text"),
    [
        ("Move it from the left to the far right.", "Move it from the right to the far left."),
        ("LEFT of the leftmost tree; Right", "RIGHT of the rightmost tree; Left"),
        ("Add bright leftovers", "Add bright leftovers"),
    ],
)
def test_a_text_in_the_mirror(text: str, mirrored_text: str) -> None:
    assert in_mirror(text) == mirrored_text
    assert in_mirror(mirrored_text) == text


def test_claims_in_the_mirror_and_on_the_way_back() -> None:
    claims = claims_of("Change the car on the left from red to blue; add a bird at the top right")
    flipped = "Turn the red car on the right blue; add a bird at the top left"
    back = "Turn the blue car on the left red; remove the bird at the top right"
    assert against(mirrored(claims), flipped) < 0.3
    assert against(reversed_(claims), back) < 0.3
    assert mirrored(mirrored(claims)) == claims
    assert reversed_(reversed_(claims)) == claims


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ('{"reasoning": "x", "verdicts": [{"statement": 1, "verdict": "no"}], "missing": ""}',
         {1: "no"}),
        ('Sure! ```json\n{"verdicts": [{"verdict": "Yes"}, {"verdict": "unsure"}]}\n```',
         {1: "yes", 2: "unsure"}),
        ("1. yes\n2: No, it is on the right\n3) unsure", {1: "yes", 2: "no", 3: "unsure"}),
        ("**1**: the car is blue: yes", {1: "yes"}),
        ('{"verdicts": [{"statement": 2, "verdict": "maybe"}]}', {}),
        ('{"verdicts": "yes"}', {}),
        ("[" * 100_000, {}),
        ("{" * 100_000, {}),
        ("", {}),
    ],
)  # fmt: skip
def test_verdicts_are_read_in_any_form(text: str, verdicts: dict[int, str]) -> None:
    assert read_verdicts(text)[0] == verdicts


@given(st.text(alphabet='{}[]":, \n12yesno.unsure', max_size=300))
def test_no_answer_is_an_error(text: str) -> None:
    verdicts, _, _ = read_verdicts(text)
    assert set(verdicts.values()) <= {"yes", "no", "unsure"}


class Model:
    """A stand-in that answers by what it is asked, and keeps it."""

    def __init__(self, caption: str, verdict: str = "yes", missing: str = "") -> None:
        self.caption, self.verdict, self.missing = caption, verdict, missing
        self.asked: list[tuple[Chat, Sampling]] = []
        self.likelihood: Likelihood | None = None

    def generate(self, chats: Sequence[Chat], sampling: Sampling = GREEDY) -> list[Completion]:
        self.asked += [(chat, sampling) for chat in chats]
        answers = []
        for chat in chats:
            text = self.caption
            if "Statements of the label" in str(chat[-1].parts[-1]):
                verdicts = [{"statement": 1, "place": "left", "verdict": self.verdict}]
                text = json.dumps(
                    {"reasoning": "Seen.", "verdicts": verdicts, "missing": self.missing}
                )
            answers.append(Completion(text, 5, truncated=False, likelihood=self.likelihood))
        return answers

    def close(self) -> None: ...


@pytest.fixture
def judged(
    tmp_path: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Judged]:
    photo(1, (64, 48)).save(tmp_path / "s.png")
    photo(2, (64, 48)).save(tmp_path / "t.png")
    settings = Settings.model_validate({"vlm": {"model": str(tiny("qwen3_vl"))}})

    def judge(model: Model, caption: str, *, own: bool = False, passes: int = 1) -> Judged:
        monkeypatch.setattr(vlm.Model, "load", lambda _: model)
        task = JudgeTask("k", str(tmp_path / "s.png"), str(tmp_path / "t.png"), caption,
                         "yes" if own else None)  # fmt: skip
        ((outcome,),) = engine.run(Judge(recipe_of(settings), passes), [task])
        assert outcome.value is not None, outcome.error
        return outcome.value

    return judge


def pictures_of(chat: Chat) -> list[np.ndarray]:
    parts = [part for turn in chat for part in turn.parts if isinstance(part, Picture)]
    return [np.asarray(part.pixels) for part in parts]


def test_another_model_does_not_see_the_label_before_it_has_looked(
    judged: Callable[..., Judged],
) -> None:
    model = Model(CAR)
    done = judged(model, CAR, passes=2)
    assert done.signals == {"recaption": 0.0, "judge": 0.0, "missing": 0.0}
    assert done.reasons == ()
    (blind, first), (asked, second), (_, third), (_, fourth) = model.asked
    assert "Statements" not in str(blind)
    words = str(asked[-1].parts[-1])
    assert f"Seen without the label: {CAR}" in words
    assert "1. change the colour of the car on the left from red to blue" in words
    assert (first, second.schema) == (GREEDY, SCHEMA)
    assert third.temperature > 0  # the second pass is drawn
    assert fourth == replace(third, schema=SCHEMA)


def test_what_another_model_sees_counts_against_a_label(judged: Callable[..., Judged]) -> None:
    done = judged(Model("Remove the dog on the right", "no", "a hat is gone"), CAR)
    assert done.signals["recaption"] > 0.8
    assert done.signals["judge"] == 1.0
    assert done.signals["missing"] == 0.5
    assert any("says no to" in reason and "Seen." in reason for reason in done.reasons)
    assert any("a hat is gone" in reason for reason in done.reasons)


def test_its_own_model_is_shown_other_views(judged: Callable[..., Judged]) -> None:
    model = Model("Change the colour of the car on the right from red to blue")
    done = judged(model, CAR, own=True)
    assert done.signals["mirror"] < 0.1  # it flips, as it must
    assert done.signals["swap"] > 0.8  # it should have said: from blue to red
    source, target = (np.asarray(photo(n, (64, 48))) for n in (1, 2))
    mirror, swap = (pictures_of(chat) for chat, _ in model.asked)
    assert np.array_equal(mirror[0], source[:, ::-1])
    assert np.array_equal(mirror[1], target[:, ::-1])
    assert np.array_equal(swap[0], target)
    assert np.array_equal(swap[1], source)
    assert len(model.asked) == 2
    assert "mirror_unsure" not in done.signals, "the backend does not tell"


def test_how_sure_its_own_model_is_of_other_views(judged: Callable[..., Judged]) -> None:
    model = Model(CAR)
    model.likelihood = Likelihood(-0.1, -0.7, " left")
    done = judged(model, CAR, own=True)
    assert done.signals["mirror_unsure"] == pytest.approx(0.503, abs=0.001)
    assert "mirror_label" not in done.signals, "the backend can't score a text"


def test_two_edits_in_either_order() -> None:
    there, back = "Remove the cat; add a dog.", "Add a dog; remove the cat."
    assert in_either_order(there) == [there, back]
    assert in_either_order(back) == [back, there]
    for text in (CAR, "", "; ", "no change", "A; b; c"):
        assert in_either_order(text) == [text]


class Scoring(Model):
    """One that also tells how likely a text is."""

    def likelihoods(self, chats: Sequence[Chat], texts: Sequence[str]) -> list[Likelihood | None]:
        self.scored = list(zip(chats, texts, strict=True))
        return [Likelihood(-0.1, -2.0, " right")] * len(texts)


def test_its_own_model_scores_the_label_in_the_mirror(judged: Callable[..., Judged]) -> None:
    model = Scoring(CAR)
    done = judged(model, CAR, own=True)
    assert done.signals["mirror_label"] == pytest.approx(0.865, abs=0.001)
    ((chat, text),) = model.scored
    assert text == CAR.replace("left", "right")
    assert np.array_equal(pictures_of(chat)[0], np.asarray(photo(1, (64, 48)))[:, ::-1])
    assert set(judged(Scoring(CAR), CAR).signals) == {"recaption", "judge", "missing"}


def test_wrong_labels_are_found_by_a_model_and_asked_once(run: Run) -> None:
    assert run("synth", 10, "--output", "pairs", "--seed", 3, "--size", 128).code == 0
    rows = [json.loads(line) for line in Path("pairs/truth.jsonl").read_text("utf-8").splitlines()]
    captions = [row["caption"] for row in rows]
    wrong = {row["key"] for row in rows[:4]}
    for number, row in enumerate(rows):
        row["caption"] = captions[(number + 1) % 4] if number < 4 else row["caption"]
        row["prompt"] = f"The user wants to do this: {row['caption']}"
    Path("pairs/labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ("prepare", "pairs/labels.jsonl", "-d", "data", "--model", "shapes")
    assert run(*command).code == 0

    result = run("verify", "data", "--model", "shapes", "--json")
    assert result.code == 0, result.stderr
    verdicts = {row["key"]: row for row in result.json}
    assert len(verdicts) == 10
    assert {row["key"] for row in result.json[:4]} == wrong
    assert all(verdicts[key]["suspect"] for key in wrong)
    assert any("another model" in reason for key in wrong for reason in verdicts[key]["reasons"])
    again = run("verify", "data", "--model", "shapes")
    assert "Loading" not in again.stderr
    assert run("verify", "data", "--json").json == result.json


def test_a_model_is_not_asked_about_labels_of_other_images(
    run: Run, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(Path("pairs"), ["a", "b"])
    monkeypatch.setenv("CHRONOPREP_VLM_MODEL", str(tiny("qwen3_vl")))
    monkeypatch.setattr(vlm.Model, "load", lambda _: Model(CAR))
    assert run("caption", "pairs", "-d", "data").code == 0
    photo(7).save("pairs/output/b.png")
    judge = Model(CAR)
    monkeypatch.setattr(vlm.Model, "load", lambda _: judge)
    result = run("verify", "data", "--model", tiny("qwen3_vl"))
    assert "1 labelled for other images" in result.stdout
    assert len(judge.asked) == 2  # of the other pair, mirrored and swapped
