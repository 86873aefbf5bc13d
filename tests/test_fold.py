"""The rules of the journal: what any history of runs, failures, reviews, other settings and damaged
lines comes to, held against a model of ten lines."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronoprep.config import Settings
from chronoprep.data import Outcome, Pair
from chronoprep.dataset import (
    Dataset,
    Event,
    Failure,
    Journal,
    Label,
    Review,
    Roles,
    Score,
    State,
    Text,
    Undo,
)
from chronoprep.dataset.events import text_digest
from chronoprep.errors import BackendError
from chronoprep.labels.captioning import Answer
from chronoprep.labels.labeller import Labelled
from chronoprep.labels.prompts import Prompts, parse
from chronoprep.labels.recipe import LabelTask, Recipe, plan
from chronoprep.workflows.label import events_of
from conftest import HANGS

PAIR = Pair("a", "a.png", "b.png")
IMAGES = {"A": "a" * 32, "B": "b" * 32}
DAMAGE = ['{"key":"a","ki', "nonsense", '{"key":"a","kind":"label","caption":7}', "\0\0", "[1]"]
# What a reviewer does: the verdict, and what of the text is new.
WORDS = {
    "accept": Review(verdict="accept"),
    "reject": Review(verdict="reject"),
    "prompt": Review(verdict="edit", caption_cot="human prompt"),
    "caption": Review(verdict="edit", caption="human caption"),
}


def recipe(number: int) -> Recipe:
    """A recipe of its own preset."""
    turns = f"[[user]]\n{{source}}{{target}} {number} "
    prompts = Prompts(parse(turns, "p", "caption"), parse(turns + "{caption}", "p", "cot"))
    checkpoint = SimpleNamespace(name="m", revision="r")
    model: Any = SimpleNamespace(checkpoint=checkpoint, text_settings={}, backend="transformers")
    return Recipe(model, prompts, Settings())


RECIPES = [recipe(0), recipe(1)]

run_of = st.tuples(
    st.sampled_from([0, 1]), st.sampled_from("AB"), st.sampled_from(["ok", "ok", "caption", "cot"])
)
step = st.one_of(
    run_of, run_of, st.sampled_from([*WORDS, "video failed"]), st.sampled_from(range(len(DAMAGE)))
)


class Model:
    """Ten lines: what stands, what humans said of each images, what was made with which recipe."""

    def __init__(self) -> None:
        self.at, self.failed = "", False
        self.standing: Text = Text()
        self.made: dict[tuple[int, str], Text] = {}
        self.begun: set[tuple[int, str]] = set()  # their caption is there
        self.said: dict[str, tuple[str, Text]] = {}

    def run(self, number: int, at: str, went: str) -> bool:
        """Whether the model has to be asked."""
        verdict, words = self.said.get(at, ("", Text()))
        if verdict == "reject" or (verdict and words.cot):
            self.failed = self.failed and self.at == at
            self.at = at
            return False
        if verdict:  # a caption of a human's, to be completed
            if went == "ok":
                self.said[at] = (verdict, Text(words.caption, f"cot {number} {at}"))
                self.at, self.failed = at, False
            else:
                self.at, self.failed = at if self.text.cot is None else self.at, True
            return True
        if (number, at) in self.made:
            self.at, self.standing, self.failed = at, self.made[number, at], False
            return False
        text = Text(f"caption {number} {at}", f"cot {number} {at}")
        if went == "ok":
            self.made[number, at] = text
            self.at, self.standing, self.failed = at, text, False
        else:
            went = "cot" if (number, at) in self.begun else went
            if went == "cot" and self.text.cot is None:
                self.begun.add((number, at))
                self.at, self.standing = at, Text(text.caption)
            self.failed = True
        return True

    def review(self, words: Review) -> None:
        old = self.text
        cot = None if words.caption not in (None, old.caption) else old.cot
        text = Text(words.caption or old.caption, words.caption_cot or cot)
        self.said[self.at] = (words.verdict, text)

    @property
    def text(self) -> Text:
        return self.said.get(self.at, ("", self.standing))[1]

    @property
    def status(self) -> str | None:
        if self.said.get(self.at, ("",))[0] == "reject":
            return "rejected"
        return "ok" if self.text != (None, None) else "failed" if self.failed else None


def answered(task: LabelTask, number: int, at: str, went: str) -> Outcome[Labelled]:
    """What a worker gives for a task."""
    caption = task.caption or f"caption {number} {at}"
    if went == "ok":
        answer = Answer(caption, f"cot {number} {at}")
    elif went == "cot" or task.caption is not None:
        answer = Answer(caption, error="stage 2 (CoT): loop")
    else:
        answer = Answer(error="stage 1 (caption): empty")
    return Outcome("a", Labelled(task.caption, answer, IMAGES[at], f"files {at}", (), 0.1))


@given(st.lists(step, max_size=14))
@settings(max_examples=10_000)
def test_any_history_comes_to_what_ten_lines_say(history: list[Any]) -> None:
    events: list[Event] = []
    lines: list[str] = []
    model, damaged = Model(), 0
    for number in history:
        now = State(tuple(events))
        new: list[Event] = []
        if isinstance(number, int):
            lines.append(DAMAGE[number])
            damaged += 1
        elif number == "video failed":
            new = [Failure(key="a", stage="video", error="x")]
        elif isinstance(number, str):
            if now.text == (None, None):
                continue  # there is nothing to look at
            new = [WORDS[number].model_copy(update={"key": "a", "images": now.images})]
            model.review(WORDS[number])
        else:
            which, at, went = number
            images = IMAGES[at] if now.knows_images else None
            made = plan(PAIR, now, images, RECIPES[which], with_cot=True, captions="model")
            assert isinstance(made, LabelTask) == model.run(which, at, went), (history, made)
            if isinstance(made, LabelTask):
                outcome = answered(made, which, at, went)
                new = list(events_of(outcome, RECIPES[which], now))
            elif made is not None:
                new = [made]
        events += new
        lines += [event.model_dump_json(exclude_none=True) for event in new]
        after = State(tuple(events))
        assert (after.status, after.text) == (model.status, model.text), history
    path = Path(tempfile.gettempdir()) / f"chronoprep-test-fold-{os.getpid()}.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    journal = Journal(path)
    assert journal.state("a") == State(tuple(events)), "damaged lines cost only themselves"
    assert len(journal.damage()) == min(damaged, 5) + (damaged > 5)
    path.unlink()


def test_scores_belong_to_the_text_that_they_judged() -> None:
    label = Label(key="a", caption="x", caption_cot="y", images="1")
    score = Score(key="a", of=text_digest(Text("x", "y")), scores={"rules": 0.5})
    assert State(
        (
            label,
            score,
        )
    ).scores == [score]
    other = Review(key="a", verdict="edit", caption_cot="z", images="1")
    assert (
        State(
            (
                label,
                score,
                other,
            )
        ).scores
        == []
    )
    back = Review(key="a", verdict="edit", caption_cot="y", images="1")
    assert State(
        (
            label,
            score,
            other,
            back,
        )
    ).scores == [score], "and count again with the text"


def test_a_review_counts_again_when_its_images_are_back() -> None:
    one = Label(key="a", caption="x", caption_cot="y", images="1")
    word = Review(key="a", verdict="edit", caption_cot="human", images="1")
    other = Label(key="a", caption="p", caption_cot="q", images="2")
    assert State(
        (
            one,
            word,
            other,
        )
    ).text == ("p", "q")
    assert State(
        (
            one,
            word,
            other,
            one,
        )
    ).text == ("x", "human")


def test_unknown_images_count_as_the_same() -> None:
    fixed = Label(key="a", origin="fixed", caption_cot="Do it.")
    word = Review(key="a", verdict="edit", caption_cot="Do that.")
    later = Label(key="a", caption="x", caption_cot="y", images="1")
    assert State(
        (
            fixed,
            word,
            later,
        )
    ).text == (None, "Do that.")


def test_two_writers_never_mix_their_lines(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from chronoprep.dataset import Dataset, Label\n"
        "dataset = Dataset(Path(sys.argv[1]))\n"
        "for n in range(150):\n"
        "    dataset.append([Label(key=f'{sys.argv[2]}-{n}', caption='long ' * 2000)])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    writers = [subprocess.Popen([*command, name]) for name in ("one", "two", "three")]
    watched = Journal(tmp_path / "data" / "labels.jsonl")
    while any(writer.poll() is None for writer in writers):
        watched.refresh()
        assert watched.damage() == [], "a reader never sees half a line"
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    journal = Dataset(tmp_path / "data").journal
    assert len(journal) == 450
    assert journal.damage() == []
    assert len({journal.state(key).text.caption for key in journal}) == 1


@pytest.mark.parametrize(
    "damage",
    [b'{"key":"c","ki\n', b"\xff\xfe{\x00}\x00\n", b"\0\0\0\n", b"not json\n", b'["a"]\n',
     b'{"key":"../../evil","kind":"label"}\n', b'{"key":"","kind":"label"}\n',
     b'{"key":"a\\nb","kind":"label"}\n', b'{"key":"b","kind":"odd"}\n'],
)  # fmt: skip
def test_a_damaged_line_costs_only_itself(damage: bytes, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.append([Label(key="a", caption="one")])
    path = tmp_path / "labels.jsonl"
    path.write_bytes(path.read_bytes() + damage)
    dataset.append([Label(key="b", caption="two")])
    journal = Journal(path)
    assert (journal.state("a").text.caption, journal.state("b").text.caption) == ("one", "two")
    (finding,) = journal.damage()
    assert finding.severity == "error"
    assert finding.message.startswith(f"{path}:2: ")


def test_a_byte_order_mark_and_windows_line_ends_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    lines = [Label(key=key, caption=key).model_dump_json() for key in "ab"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    journal = Journal(path)
    assert [journal.state(key).text.caption for key in "ab"] == ["a", "b"]
    assert journal.damage() == []


def test_a_torn_last_line_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(Label(key="a", caption="one").model_dump_json().encode() + b'\n{"key":"b","k')
    first = Dataset(tmp_path)
    assert "labels.jsonl:2: " in first.journal.damage()[0].message
    first.append([Label(key="c", caption="three")])
    assert len(first.journal.damage()) == 1
    assert '{\\"key\\":\\"b\\",\\"k' in path.read_text(), "its words are still there"
    again = Dataset(tmp_path).journal
    assert again.damage() == []
    assert list(again) == ["a", "c"]


def test_a_whole_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(Label(key="a", caption="one").model_dump_json())
    dataset = Dataset(tmp_path)
    assert dataset.journal.state("a").text.caption == "one"
    dataset.append([Label(key="b", caption="two")])
    assert len(path.read_text().splitlines()) == 2
    assert Journal(path).damage() == []


def labelled(caption: str, images: str) -> Label:
    return Label(key="a", caption=caption, caption_cot=f"{caption} at length", images=images)


any_event = st.one_of(
    st.builds(labelled, st.sampled_from("xy"), st.sampled_from("12")),
    st.builds(
        lambda word, images: word.model_copy(update={"key": "a", "images": images}),
        st.sampled_from(list(WORDS.values())),
        st.sampled_from("12"),
    ),
    st.just(Failure(key="a", stage="caption", error="x")),
)


@given(st.lists(any_event, max_size=6), st.lists(any_event, max_size=6))
@settings(max_examples=500)
def test_an_undo_takes_back_the_last_review_and_nothing_else(
    before: list[Event], after: list[Event]
) -> None:
    """Whatever runs have done between the two."""
    meanwhile = [event for event in after if not isinstance(event, Review)]
    reject = Review(key="a", verdict="reject", images="1", error="colour", severity="major")
    undone = State([*before, reject, *meanwhile, Undo(key="a")])
    never = State([*before, *meanwhile])
    for name in ("status", "text", "verdict", "review"):
        assert getattr(undone, name) == getattr(never, name)
    again = State([*undone.events, *after])
    assert (again.status, again.text) == (
        State([*never.events, *after]).status,
        State([*never.events, *after]).text,
    )


def test_undo_after_undo_goes_further_back() -> None:
    label = labelled("x", "1")
    accept = Review(key="a", verdict="accept", images="1")
    edit = Review(key="a", verdict="edit", caption="z", images="1")
    undo = Undo(key="a")
    assert State([label, accept, edit]).text == ("z", None)
    assert State([label, accept, edit, undo]).verdict == "accept"
    assert State([label, accept, edit, undo]).text == ("x", "x at length")
    assert State([label, accept, edit, undo, undo]).verdict is None
    assert State([label, accept, edit, undo, undo, undo, accept]).verdict == "accept"


def test_a_label_of_images_whose_roles_are_exchanged_is_none_until_a_human_takes_it_over() -> None:
    label, scored = labelled("Add a hat.", "12"), Failure(key="a", stage="verify", error="x")
    turned = Roles(key="a", source="b.png", target="a.png", images="21", instead="12")
    now = State([label, turned, scored])
    assert (now.text, now.status, now.images) == ((None, None), None, "21")
    taken = Review(key="a", verdict="accept", images="21")
    assert State([*now.events, taken]).text == ("Add a hat.", "Add a hat. at length")
    renewed = labelled("Remove the hat.", "21")
    assert State([*now.events, renewed]).text.caption == "Remove the hat."
    late = labelled("Add a hat again.", "12")  # of a run that began before
    assert State([*now.events, late]).status is None
    back = Roles(key="a", source="a.png", target="b.png", images="12", instead="21")
    assert State([*now.events, back]).text.caption == "Add a hat."
    fixed = Label(key="a", origin="fixed", caption_cot="Do it.")
    assert State([fixed, turned]).text.cot == "Do it.", "it was written without a look at them"


def test_a_revision_names_what_a_reviewer_sees() -> None:
    label = labelled("x", "1")
    seen = State([label]).revision
    score = Score(key="a", of=text_digest(Text("x", "x at length")), scores={"side": 1.0})
    failed = Failure(key="a", stage="video", error="x")
    assert State([label, score, failed, label]).revision == seen
    accept = Review(key="a", verdict="accept", images="1")
    others = [[labelled("y", "1")], [labelled("x", "2")], [accept], [accept, Undo(key="a")]]
    revisions = {State([label, *more]).revision for more in others}
    assert seen not in revisions
    assert len(revisions) == len(others)


def test_of_two_who_decide_on_what_they_saw_only_the_first_is_written(tmp_path: Path) -> None:
    import subprocess
    import sys

    Dataset(tmp_path / "data").append([labelled("x", "1")])
    script = (
        "import sys; from pathlib import Path; from chronoprep.dataset import Dataset, Review\n"
        "dataset, name = Dataset(Path(sys.argv[1])), sys.argv[2]\n"
        "won = 0\n"
        "for n in range(40):\n"
        "    saw = dataset.journal.state('a').revision\n"
        "    review = Review(key='a', verdict='accept', images='1', reviewer=name)\n"
        "    won += dataset.append([review], lambda: dataset.journal.state('a').revision == saw)\n"
        "print(won)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    asked = [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in "pq"]
    won = [int(process.communicate(timeout=HANGS)[0]) for process in asked]
    reviews = [e for e in Dataset(tmp_path / "data").journal.events("a") if isinstance(e, Review)]
    assert [sum(r.reviewer == name for r in reviews) for name in "pq"] == won
    assert sum(won) >= 40, "there is always one who gets through"


def test_a_disk_that_is_full_cuts_no_line_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "labels.jsonl")
    journal.append([Label(key="a", caption="x")])
    before = journal.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, limits[1]))
    try:
        with pytest.raises(BackendError, match="can't write"):
            journal.append([Label(key="b", caption="y" * 100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.path.read_bytes() == before
    journal.append([Label(key="b", caption="y")])
    again = Journal(journal.path)
    assert not again.damage()
    assert list(again) == ["a", "b"]
