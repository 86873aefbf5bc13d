"""The two-stage flow and its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from chronoprep.captioning import View, clean, is_no_change, label
from chronoprep.config import LabelSettings
from chronoprep.data import GREEDY, Chat, Completion, Sampling
from chronoprep.errors import BackendError, ConfigError
from chronoprep.prompts import load_prompts, parse, presets
from conftest import photo


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
    ],
)
def test_other_texts_are_changes(text: str) -> None:
    assert not is_no_change(text)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  Add\n a   hat ", "Add a hat"),
        ("Add <|image_pad|>a hat<|im_end|>", "Add a hat"),
        ("Add <|im_<|x|>end|> a hat", "Add a hat"),
        ("```json\nAdd a hat\n```", "Add a hat"),
        ('"Add a hat"', "Add a hat"),
        ("“Add a hat”", "Add a hat"),
        ('"Hi" becomes "Bye"', '"Hi" becomes "Bye"'),
        ("Add a hat</s>", "Add a hat"),
        ("Add\x00 a\x1b hat", "Add a hat"),
        ("3 < 4 and <b>bold</b> stay", "3 < 4 and <b>bold</b> stay"),
    ],
)
def test_model_text_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert clean(cleaned) == cleaned


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
    (answer,) = label(queue, PROMPTS, [view()], with_cot=True)
    assert answer.caption == "Add a hat"
    assert answer.cot == "The user wants to add a hat."
    assert "Add a hat" in words(queue.batches[1][0])
    assert "image_pad" not in words(queue.batches[1][0])


def test_a_batch_keeps_its_order_and_drops_what_is_finished() -> None:
    queue = Queue("one", "No change", "three", "cot 1", "cot brought", "cot 3")
    views = [view(), view("brought"), view(), view()]
    answers = label(queue, PROMPTS, views, with_cot=True)
    assert [a.caption for a in answers] == ["one", "brought", "no change", "three"]
    assert [a.cot for a in answers] == ["cot 1", "cot brought", None, "cot 3"]


def test_the_guard_refuses_empty_and_cut_answers() -> None:
    cut = Completion("Add a", 512, truncated=True)
    answers = label(Queue(" ", cut), PROMPTS, [view(), view()], with_cot=False)
    assert answers[0].error is not None
    assert "empty" in answers[0].error
    assert answers[1].error is not None
    assert "512" in answers[1].error
    (kept,) = label(Queue(cut), PROMPTS, [view()], with_cot=False, guard=False)
    assert kept.caption == "Add a"


def test_a_failed_stage_2_keeps_the_caption() -> None:
    (answer,) = label(Queue("Add a hat", ""), PROMPTS, [view()], with_cot=True)
    assert answer.caption == "Add a hat"
    assert answer.error is not None
    assert "stage 2" in answer.error


def test_one_refused_pair_does_not_take_its_batch_along() -> None:
    bad = ValueError("aspect ratio must be smaller than 200")
    queue = Queue(bad, "first", bad, "third")
    answers = label(queue, PROMPTS, [view(), view(), view()], with_cot=False)
    assert [a.caption for a in answers] == ["first", None, "third"]
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
