"""Labels held against what changed between their images, through the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chronoprep.data import Likelihood
from chronoprep.dataset import Dataset, Label, Review, Score
from chronoprep.labels import scoring
from conftest import Result
from test_difference import picture

Run = Callable[..., Result]

PLACES = {"top left": (90, 80), "bottom right": (420, 310)}
RED, BLUE = (220, 30, 30), (40, 80, 220)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(pixels, (256, 192))[..., ::-1])


def disc(pixels: np.ndarray, place: str, colour: tuple[int, int, int]) -> np.ndarray:
    return cv2.circle(pixels.copy(), PLACES[place], 45, colour, -1)


def labelled(folder: Path, run: Run, captions: dict[str, str], **pictures: Any) -> Path:
    """A dataset of labels that the data brings, each of a pair: a red disc comes to the top left.

    Args:
        pictures: Source and target of a key, where they are others.
    """
    rows = []
    for number, (key, caption) in enumerate(captions.items()):
        source = picture(number % 3)
        source, target = pictures.get(key, (source, disc(source, "top left", RED)))
        save(folder / f"input/{key}.png", source)
        save(folder / f"output/{key}.png", target)
        rows.append(
            {"key": key, "source": f"input/{key}.png", "target": f"output/{key}.png"}
            | ({"caption": caption} if caption == "no change" else {"prompt": caption})
        )
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run("build-csv", manifest, "-d", folder / "data", "--codec", "h264").code == 0
    return folder / "data"


def by_key(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.stderr
    return {verdict["key"]: verdict for verdict in result.json}


RIGHT = "Add a red circle at the top left of the picture."
WRONG = {
    "side": ("Add a red circle at the bottom right.", "bottom right; the change is at the upper"),
    "colour": ("Add a blue circle at the top left.", "becomes blue; what changed is red"),
    "swapped": ("Remove the red circle at the top left.", "something is there that was not"),
    "nothing": ("no change", "says no change; the change is at the upper left"),
    "kind": ("Make the whole picture black and white.", "the colours are still there"),
    "text": ("!" * 60, "degenerate"),
    "invented": (
        "Add a red circle at the top left and remove the tree at the bottom right.",
        "says bottom right",
    ),
}


def test_wrong_labels_are_suspects_and_say_why(tmp_path: Path, run: Run) -> None:
    captions = {"right": RIGHT} | {key: caption for key, (caption, _) in WRONG.items()}
    data = labelled(tmp_path, run, captions)
    result = run("verify", data, "--json")
    verdicts = by_key(result)
    assert verdicts["right"] == {
        "key": "right", "score": 0.0, "percentile": 0.0, "suspect": False, "reasons": [],
    }  # fmt: skip
    for key, (_, reason) in WRONG.items():
        assert verdicts[key]["suspect"], key
        assert 0.5 < verdicts[key]["score"] <= 1
        assert any(reason in said for said in verdicts[key]["reasons"]), verdicts[key]
    scores = [verdict["score"] for verdict in result.json]
    assert scores == sorted(scores, reverse=True)
    shown = run("verify", data).stdout
    assert f"{len(WRONG)} of {len(captions)} labels are suspects" in shown


def test_a_change_on_identical_images_and_a_true_no_change(tmp_path: Path, run: Run) -> None:
    same = picture(), picture()
    captions = {"claimed": RIGHT, "honest": "no change"}
    verdicts = by_key(
        run("verify", labelled(tmp_path, run, captions, claimed=same, honest=same), "--json")
    )
    assert verdicts["claimed"]["reasons"] == ["speaks of an edit; the pictures are identical"]
    assert (verdicts["honest"]["suspect"], verdicts["honest"]["reasons"]) == (False, [])


def test_a_change_that_no_claim_speaks_of(tmp_path: Path, run: Run) -> None:
    both = disc(disc(picture(), "top left", RED), "bottom right", BLUE)
    told = "Add a red circle at the top left and a blue circle at the bottom right."
    data = labelled(
        tmp_path, run, {"half": RIGHT, "all": told}, half=(picture(), both), all=(picture(), both)
    )
    verdicts = by_key(run("verify", data, "--json"))
    assert not verdicts["all"]["suspect"]
    assert verdicts["half"]["suspect"]
    assert "nothing is said of a change" in verdicts["half"]["reasons"][0]


def test_the_caption_against_the_cot(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {"a": RIGHT, "b": RIGHT})
    cots = {"a": "The user wants to add a red circle at the top left.",
            "b": "The user wants to add a red circle at the bottom right."}  # fmt: skip
    Dataset(data).append(
        Label(
            key=key, caption=RIGHT, caption_cot=cot, images=Dataset(data).journal.state(key).images
        )
        for key, cot in cots.items()
    )
    verdicts = by_key(run("verify", data, "--json"))
    assert not verdicts["a"]["suspect"]
    assert verdicts["b"]["reasons"] == ["the caption says top left, the CoT bottom right"]


def test_only_what_is_new_is_judged(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {"a": RIGHT, "b": RIGHT})

    def done() -> tuple[int, int]:
        before = (data / "labels.jsonl").read_text().count('"kind":"score"')
        assert run("verify", data).code == 0
        after = (data / "labels.jsonl").read_text().count('"kind":"score"')
        return after - before, after

    assert done() == (2, 2)
    assert done() == (0, 2)
    Dataset(data).append([Review(key="a", verdict="edit", caption_cot=WRONG["side"][0])])
    assert done() == (1, 3)
    verdict = by_key(run("verify", data, "--json"))["a"]
    assert verdict["score"] > 0.5
    assert not verdict["suspect"]  # a human wrote it
    save(tmp_path / "output/b.png", disc(picture(1), "bottom right", RED))
    assert done() == (1, 4)
    assert by_key(run("verify", data, "--json"))["b"]["suspect"]


def test_an_image_that_is_gone_fails_alone(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {"a": RIGHT, "b": RIGHT})
    (tmp_path / "output/b.png").unlink()
    result = run("verify", data, "--json")
    assert result.code == 1
    assert [verdict["key"] for verdict in result.json] == ["a"]
    assert "b.png" in run("verify", data).stdout


def test_doubted_labels_are_left_out_of_the_table(tmp_path: Path, run: Run) -> None:
    captions = {"right": RIGHT, "wrong": WRONG["colour"][0], "human": WRONG["colour"][0]}
    data = labelled(tmp_path, run, captions)
    unjudged = run("build-csv", "-d", data, "--min-score", 0.5)
    assert "left out: 3 not judged by `chronoprep verify`" in unjudged.stdout
    assert run("verify", data).code == 0
    Dataset(data).append([Review(key="human", verdict="accept")])
    result = run("build-csv", "-d", data, "--min-score", 0.5)
    assert "left out: 1 doubted by verify" in result.stdout
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["human", "right"]


def test_false_alarms_are_what_humans_say_they_are(tmp_path: Path, run: Run) -> None:
    """90 accepted labels whose scores are known: 5 % of them lie above the threshold."""
    captions = {f"k{number:03}": RIGHT for number in range(3)}
    data = labelled(tmp_path, run, captions)
    few = run("verify", data, "--false-alarms", 0.05)
    assert "needs 60 labels that a human accepted; there are 0" in few.stdout
    accepted = [(number / 100, "add" if number % 3 else "remove") for number in range(90)]
    threshold = scoring.calibrated(accepted, 0.05)
    assert threshold is not None
    assert threshold.accepted == 90
    assert sum(score > threshold.all for score, _ in accepted) == 3  # of 90: at most 5 %
    assert set(threshold.by_edit) == {"add"}
    assert threshold.of("remove") == threshold.all
    assert scoring.calibrated(accepted[:59], 0.05) is None


def test_how_sure_the_captioner_was_counts(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {"a": RIGHT, "b": RIGHT, "c": RIGHT})
    journal = Dataset(data).journal
    Dataset(data).append(
        Label(
            key=key, caption_cot=RIGHT, images=journal.state(key).images,
            likelihood={"cot": Likelihood(worst / 4, worst, "red")},
        )
        for key, worst in (("a", -0.1), ("b", -3.0), ("c", -0.5))
    )  # fmt: skip
    result = run("verify", data, "--json")
    assert [verdict["key"] for verdict in result.json] == ["b", "c", "a"]
    assert [verdict["score"] for verdict in result.json] == [0.5, 0.25, 0.0]
    assert not any(verdict["suspect"] for verdict in result.json)  # ranks alone accuse nobody


def test_how_targets_lie_is_told_each_time(tmp_path: Path, run: Run) -> None:
    source, other = picture(0), picture(2)
    edited = disc(source, "top left", RED)
    width = source.shape[1]
    bars = edited.copy()
    bars[:, : width // 12] = 0
    pairs = {
        "shifted": (source, np.roll(edited, (round(0.025 * width), 3), axis=(1, 0))),
        "border": (source, bars),
        "other": (source, other),
    }
    data = labelled(tmp_path, run, dict.fromkeys(["good", *pairs], RIGHT), **pairs)
    for _ in range(2):  # the second time, nothing is measured
        told = run("verify", data).stdout
        assert "shifted: the target lies +6.5 px to the right" in told
        assert "border: the target has a plain border that the source has not: 21 px left" in told
        assert "good: the target" not in told
    told = run("verify", data, "--align").stdout
    assert "other: target not aligned: too little of it is like the source" in told
    assert "+6.5 px" not in told, "it was moved back before it was compared"
    assert "+6.5 px" in run("verify", data).stdout, "switched off, it is where it was"
    judged = [e for e in Dataset(data).journal.events("shifted") if isinstance(e, Score)]
    assert len(judged) == 3, "once each time that the pair was seen otherwise"


def test_one_label_of_many_pairs(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {f"k{number}": RIGHT for number in range(6)})
    shown = run("verify", data).stdout
    assert f"6 of 6 labels say: {RIGHT}" in shown


def test_a_dry_run_judges_nothing(tmp_path: Path, run: Run) -> None:
    data = labelled(tmp_path, run, {"a": RIGHT})
    assert run("verify", data, "--dry-run").code == 0
    assert not any(isinstance(event, Score) for event in Dataset(data).journal.events("a"))
    assert run("verify", "--dry-run").code == 2


@pytest.mark.parametrize("accepted", [60, 200])
def test_conformal_thresholds_hold_what_they_promise(accepted: int) -> None:
    rng = np.random.default_rng(accepted)
    rates = []
    for _ in range(200):
        scores = [(float(score), None) for score in rng.beta(1, 6, accepted)]
        threshold = scoring.calibrated(scores, 0.1)
        assert threshold is not None
        rates.append(float((rng.beta(1, 6, 2000) > threshold.all).mean()))
    assert np.mean(rates) <= 0.105
