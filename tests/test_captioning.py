"""The two-stage flow and its prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from chronoprep import digest
from chronoprep.config import LabelSettings
from chronoprep.data import GREEDY, Chat, Completion, Sampling
from chronoprep.errors import BackendError, ConfigError
from chronoprep.labels.captioning import View, label
from chronoprep.labels.guard import is_no_change
from chronoprep.labels.prompts import load_prompts, parse, presets
from conftest import photo
from degenerate import COT


class Queue:
    """A stand-in for a model: gives the answers in order and keeps what it was asked."""

    def __init__(self, *answers: str | Exception | Completion) -> None:
        self.answers = list(answers)
        self.batches: list[list[Chat]] = []
        self.samplings: list[Sampling] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling = GREEDY) -> list[Completion]:
        self.batches.append(list(chats))
        self.samplings.append(sampling)
        done = []
        for _ in chats:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            done.append(
                answer if isinstance(answer, Completion) else Completion(answer, 5, truncated=False)
            )
        return done

    def close(self) -> None: ...


PROMPTS = load_prompts(LabelSettings())

# What the model is shown and held to: labels of another wording are stale, and the little model
# of the tests was trained on `compact`.
RENDERED = {
    ("compact", "caption"): "7bd0139a174eb949f89d500d",
    ("compact", "cot"): "06a4120eae9a10097e90ef1f",
    ("default", "caption"): "43688a8cb147b4f3c1a36435",
    ("default", "cot"): "dc7214f3738afa63677fde83",
    ("detail", "caption"): "f0df7494ffad2be5c54d642e",
    ("detail", "cot"): "41a336cff49975f8199d8155",
    ("lighting", "caption"): "ec2c95b117544b807a814028",
    ("lighting", "cot"): "3371af205293302a2633c117",
    ("video", "caption"): "f04228897776037f66c0ad7e",
    ("video", "cot"): "f9640ce8ad1713fee91bc318",
}


def view(caption: str | None = None) -> View:
    return View(photo(0), photo(1), caption)


def words(chat: Chat) -> str:
    return "\n".join(part for turn in chat for part in turn.parts if isinstance(part, str))


@pytest.mark.parametrize(
    "text",
    [
        "no change",
        "No change.",
        " NO CHANGE \n",
        '"no change"',
        "“No change.”",
        "'No change'",
        "```\nno change\n```",
        "```text\nNo change.\n```",
        "**No change**",
        "no  change!",
        "No\nchange",
        "`no change`",
        "<|im_start|>no change<|im_end|>",
        "No-change",
        "no changes",
        "ｎｏ ｃｈａｎｇｅ",
        "There is no change.",
        "There is no visible change.",
        "There's no noticeable difference between the two images.",
        "There are no visible changes between the pictures.",
        "No visible differences were found between the before and after pictures.",
        "No changes detected",
        "No change is needed.",
        "No changes were made.",
        "No changes have been made to the image",
        "No edit needed.",
        "No edits are required",
        "no difference",
        "Nothing changed between them.",
        "Nothing has changed",
        "Nothing is different.",
        "Nothing needs to be changed.",
        "no change, the image remains the same.",
        "No change: the scene is the same.",
        "No change is needed as both images are identical.",
        "Keep everything as it is.",
        "Keep the image exactly the same.",
        "Leave everything unchanged",
        "Make no changes.",
        "Do not change anything.",
        "Don’t change anything",
        "Everything stays the same.",
        "The images are identical.",
        "The two pictures look exactly the same.",
        "Both photos are identical; no edit is needed.",
        "The picture is unchanged.",
        "Unchanged",
        "Answer: no change",
        "The answer is no change.",
    ],
)
def test_no_change_is_heard_however_it_is_written(text: str) -> None:
    assert is_no_change(text)
    queue = Queue(text)
    (answer,) = label(queue, PROMPTS, [view()], with_cot=True)
    assert answer.no_change
    assert answer.caption == "no change"
    assert len(queue.batches) == 1, "stage 2 must not run"


@pytest.mark.parametrize(
    "text",
    [
        "Make no change to the sky; add a boat",
        "change",
        "",
        "There is no change of pose, add a hat",
        "No",
        "no change of clothes: remove the coat",
        "No changes to the background; add a hat",
        "No changes to the background",
        "No change except for a hat",
        "No change is needed; add a hat",
        "Add a sign that says No Change",
        "Change nothing but the sky's colour to red",
        "Make the two halves identical",
        "Remove the differences between the two shoes",
        "Keep everything as it is but remove the hat",
        "Keep everything the same, add a hat",
        "Keep the image of the cat",
        "The images are not identical",
        "The two pictures are nearly identical",
        "Both pictures on the wall are the same now",
        "Change the image",
        "Everything is red",
        "Nothing but the hat changed",
    ],
)
def test_other_texts_are_changes(text: str) -> None:
    assert not is_no_change(text)


def test_both_stages_share_all_up_to_and_with_the_images() -> None:
    for preset in presets():
        prompts = load_prompts(LabelSettings(preset=preset))
        source, target = photo(0), photo(1)
        chats = prompts.caption.fill(source, target), prompts.cot.fill(source, target, "Add it")
        one, two = ([(turn.role, part) for turn in chat for part in turn.parts] for chat in chats)
        shared = one[: one.index(("user", target)) + 1]
        assert ("user", source) in shared
        assert two[: len(shared)] == shared
        assert "Add it" in words(chats[1])


def test_stage_2_sees_the_clean_caption() -> None:
    queue = Queue("Add a <|image_pad|>hat", "The user wants to add a hat.")
    (answer,) = label(queue, PROMPTS, [view()], with_cot=True, guard=False)
    assert answer.caption == "Add a hat"
    assert answer.cot == "The user wants to add a hat."
    assert "Add a hat" in words(queue.batches[1][0])
    assert "image_pad" not in words(queue.batches[1][0])


def test_a_batch_keeps_its_order_and_drops_what_is_finished() -> None:
    queue = Queue("one", "No change", "three", "cot 1", "cot brought", "cot 3")
    views = [view(), view("brought"), view(), view()]
    answers = label(queue, PROMPTS, views, with_cot=True, guard=False)
    assert [a.caption for a in answers] == ["one", "brought", "no change", "three"]
    assert [a.cot for a in answers] == ["cot 1", "cot brought", None, "cot 3"]


CUT = Completion("Add a", 512, truncated=True)


def test_the_guard_refuses_and_says_why() -> None:
    answers = label(Queue(" ", CUT), PROMPTS, [view(), view()], with_cot=False)
    assert answers[0].error is not None
    assert "empty" in answers[0].error
    assert answers[1].error is not None
    assert "512" in answers[1].error
    assert answers[1].refused == "Add a"
    (kept,) = label(Queue(CUT), PROMPTS, [view()], with_cot=False, guard=False, retries=2)
    assert kept.caption == "Add a"
    assert "512" in kept.faults["caption"]


def test_a_failed_stage_2_keeps_the_caption() -> None:
    (answer,) = label(Queue("Add a hat", "!" * 99), PROMPTS, [view()], with_cot=True)
    assert answer.caption == "Add a hat"
    assert answer.refused == "!" * 99
    assert answer.error is not None
    assert "stage 2" in answer.error
    assert "repeated character" in answer.error


def test_a_refused_answer_is_drawn_again_with_another_seed() -> None:
    views = [view() for _ in range(3)]
    queue = Queue("Add a hat", "", "Here is: a hat", CUT, "Add a coat", "Add a tie", COT, COT, COT)
    answers = label(queue, PROMPTS, views, with_cot=True, retries=2)
    assert [a.caption for a in answers] == ["Add a hat", "Add a tie", "Add a coat"]
    assert [a.cot for a in answers] == [COT] * 3
    assert [len(batch) for batch in queue.batches] == [3, 2, 1, 3]
    assert [s.seed for s in queue.samplings] == [0, 1, 2, 0]
    assert [s.temperature > 0 for s in queue.samplings] == [False, True, True, False]
    assert [a.retried.get("caption", {}).get("seed") for a in answers] == [None, 2, 1]
    faults = answers[1].retried["caption"]["refused"]
    assert [str(fault).split(" (")[0] for fault in faults] == ["empty", "cut"]  # type: ignore[attr-defined]


def test_the_budget_of_retries_ends() -> None:
    queue = Queue("", "Sure, here it is", "the the the the the the", "Add a hat")
    (answer,) = label(queue, PROMPTS, [view()], with_cot=True, retries=2)
    assert answer.caption is None
    assert "loop" in str(answer.error)
    assert answer.refused == "the the the the the the"
    assert len(queue.batches) == 3


def test_no_change_is_an_answer_to_stage_1_alone() -> None:
    (answer,) = label(Queue("Add a hat", "No change."), PROMPTS, [view()], with_cot=True)
    assert "opening" in str(answer.error)
    (answer,) = label(Queue(Completion("no change", 2, truncated=True)), PROMPTS, [view()],
                      with_cot=False)  # fmt: skip
    assert "cut" in str(answer.error)


def test_an_own_template_is_held_against_its_own_words_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Edit: {caption}. In zwei Sätzen, auf Deutsch, was sich ändert und was bleibt.")
    own = "Der Mann trägt einen roten Hut. Das erste Bild bleibt sonst wie es ist."
    prompts = load_prompts(LabelSettings(cot_prompt=path))
    (answer,) = label(Queue("Add a hat", own), prompts, [view()], with_cot=True)
    assert answer.cot == own
    path.write_text(path.read_text() + "\n[[answer]]\nbegins: Der Nutzer\nwords: 5 to 30\n")
    prompts = load_prompts(LabelSettings(cot_prompt=path))
    (answer,) = label(Queue("Add a hat", own), prompts, [view()], with_cot=True)
    assert "opening" in str(answer.error)
    assert "[[answer]]" not in words(prompts.cot.fill(photo(0), photo(1), "Add a hat"))


def test_one_refused_pair_does_not_take_its_batch_along() -> None:
    bad = ValueError("aspect ratio must be smaller than 200")
    queue = Queue(bad, "Add a hat", bad, "Add a tie")
    answers = label(queue, PROMPTS, [view(), view(), view()], with_cot=False, retries=1)
    assert [a.caption for a in answers] == ["Add a hat", None, "Add a tie"]
    assert "aspect ratio" in str(answers[1].error)


def test_a_machine_error_stops_the_run() -> None:
    with pytest.raises(BackendError):
        label(Queue(BackendError("gone")), PROMPTS, [view()], with_cot=False)


def test_a_plain_text_file_is_a_system_prompt_before_the_images(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text('Describe {"json": 1} edits.')
    prompts = load_prompts(LabelSettings(caption_prompt=tmp_path / "mine.txt"))
    source, target = photo(0), photo(1)
    system, user = prompts.caption.fill(source, target)
    assert (system.role, system.parts) == ("system", ('Describe {"json": 1} edits.',))
    assert (user.role, user.parts) == ("user", (source, target))


def test_the_packaged_prompts_keep_their_wording() -> None:
    rendered = {}
    for preset in presets():
        prompts = load_prompts(LabelSettings(preset=preset))
        for stage, template in (("caption", prompts.caption), ("cot", prompts.cot)):
            rendered[preset, stage] = digest.of_values(template.turns, asdict(template.form))
            assert template.version == f"{preset}@{rendered[preset, stage][:12]}"
    assert rendered == RENDERED


def test_an_own_template_may_include_what_the_packaged_ones_share() -> None:
    text = "[[include caption]]\n- Name colours.\n[[answer]]\nwords: 5-9\n"
    template = parse(text, "mine.txt", "caption")
    (system, _), (user, body) = template.turns
    assert (system, user) == ("system", "user")
    assert body.startswith("{source}\n{target}\nWrite the edit instruction")
    assert body.endswith("- Name colours.")
    assert template.form == replace(PROMPTS.caption.form, words=(5, 9))
    spelled_out = "".join(f"[[{role}]]\n{text}\n" for role, text in template.turns)
    same = parse(f"{spelled_out}[[answer]]\nwords: 5-9\nlanguage: English\nimages: no",
                 "mine.txt", "caption")  # fmt: skip
    assert same.version == template.version


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link", "large", "latin", "missing"])
def test_what_is_no_template_is_refused_unread(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.write_text("Say it. " * 200_000)
    elif kind == "latin":
        path.write_bytes("Ändere".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_prompts(LabelSettings(caption_prompt=path))
    assert str(path) in caught.value.message


def test_a_template_is_versioned_by_its_content() -> None:
    one = parse("[[user]]\n{source}{target} Say it.", "a", "caption")
    two = parse("[[user]]\n{source}{target} Say it!", "a", "caption")
    assert one.version != two.version
    assert one.version == parse("[[user]]\n{source}{target} Say it.", "a", "caption").version


@pytest.mark.parametrize(
    ("text", "stage", "part"),
    [
        ("[[user]]\n{source} Say it.", "caption", "{target}"),
        ("[[user]]\n{source}{target}{target} Say it.", "caption", "{target}"),
        ("[[robot]]\n{source}{target} Say it.", "caption", "robot"),
        ("[[user]]\n{source}{target} Say it.", "cot", "{caption}"),
        ("Say it.", "cot", "{caption}"),
        ("Hello\n[[user]]\n{source}{target}", "caption", "before"),
        ("[[system]]\n{source}{target}\n[[user]]\n{source}{target} Say", "caption", "user turn"),
        ("   ", "caption", "empty"),
        ("Say it.\n[[answer]]\nwords: many", "caption", "words: many"),
        ("Say it.\n[[answer]]\nwords: 9999-1", "caption", "9999-1"),
        ("Say it.\n[[answer]]\nwords: 0-0", "caption", "0-0"),
        ("Say it.\n[[include nothing]]", "caption", "nothing"),
        ("[[user]]\n{source}\n{target}\n", "caption", "empty"),
    ],
)
def test_a_broken_template_says_what_it_lacks(text: str, stage: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "mine.txt", stage)  # type: ignore[arg-type]
    assert part in caught.value.message
    assert "mine.txt" in caught.value.message


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        load_prompts(LabelSettings(preset="nope"))
    assert "lighting" in str(caught.value.hint)
