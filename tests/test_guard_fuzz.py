"""Whatever a model writes, the guard is done with it soon, and says one thing of it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronoprep.config import LabelSettings
from chronoprep.data import FREE_FORM, Completion, Form
from chronoprep.labels import prompts
from chronoprep.labels.guard import clean, cleaning, find_fault, is_no_change, rules
from chronoprep.labels.prompts import load_prompts
from chronoprep.vlm import thoughts
from degenerate import CAPTION_FAULTS, COT_FAULTS, GOOD_CAPTIONS, INNOCENT_CAPTIONS

LENGTH = 20_000
# Of the processor's time, so that a busy machine makes no difference; an answer takes 0.1 s.
ONLY_A_HANG = 30.0

FORMS = [load_prompts(LabelSettings()).caption.form, load_prompts(LabelSettings()).cot.form]

PATTERNS = {
    f"{module.__name__}.{name}": pattern
    for module in (cleaning, rules, prompts, thoughts)
    for name, pattern in vars(module).items()
    if isinstance(pattern, re.Pattern)
} | {name: rules._phrases(name) for name in ("refusal", "meta_talk", "images")}

# What the patterns look for, whole and in halves.
FRAGMENTS = [
    *("\n", " ", "  ", "\t", "\r", "\x85", "\u2028", "\u3000", "\u200b", "\ufffd", "\ud800"),
    *("a", "ab", "abc", "x", "é", "的", "I", "1", "11", "_", "-", ".", ",", ";", ":", "!", "!!"),
    *("- ", "* ", "• ", "1.", "1. ", "12) ", "#", "# ", "**", "*", "__", "`", "```", "|", "---"),
    *("> ", "[", "](", "]", "(", ")", "<", ">", "<br", "</", "{", "}", '{"', "[a](b"),
    *('"', "'", "“", "”", "‘", "’", "«", "»", "「", "」", "『", "』"),
    *("<|", "|>", "<|x", "<|x|>", "<s>", "</s>", "<image>", "[INST]", "◁", "▷", "<0x0A>"),
    *("<think>", "</think>", "◁think▷", "assistant", "user", "### ", "[[", "]]", "{source}"),
    *("I ", "I can't ", "I'm sorry", "sorry", "unfortunately", "as an AI", "but ", "and ", "that "),
    *("no change", "no ", "the ", "both ", "images ", "is ", "unchanged ", "the same ", "between "),
    *("note", "note:", "answer", "instruction:", "final ", "edit ", "word count ", "approx"),
    *("about ", "12 words", "please upload ", "image A", "left image ", "of ", "step 1", "add "),
]  # fmt: skip


@contextmanager
def unless_it_hangs() -> Iterator[None]:
    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, ONLY_A_HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def judge(text: str, form: Form = FREE_FORM) -> None:
    for truncated in (False, True):
        fault = find_fault(Completion(text, 9, truncated=truncated), form)
        assert fault is not None or not truncated


def long(unit: str, share: int = 1) -> str:
    """A unit again and again, up to the length or a share of it."""
    return unit * (LENGTH // share // len(unit))


@st.composite
def grown(draw: st.DrawFn) -> str:
    """A few fragments again and again, in turn or each on its own, between a head and a tail."""
    some = st.lists(st.sampled_from(FRAGMENTS), max_size=4).map("".join)
    units = draw(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4))
    if draw(st.booleans()):
        units = ["".join(units)]
    body = "".join(long(unit, len(units)) for unit in units)
    return draw(some) + body + draw(some)


@pytest.mark.parametrize(
    "text", ["1. Add a hat" + "\n" * 40 + "x", "- Add a hat" + "\n" * 40 + "x"]
)
def test_a_list_item_before_many_line_breaks_is_judged(text: str) -> None:
    with unless_it_hangs():
        fault = find_fault(Completion(text, 60, truncated=False), FORMS[0])
    assert fault is not None
    assert fault.name == "markdown"


@pytest.mark.parametrize(
    "text",
    [
        long("\n") + "x",
        "x" + long("\n") + "x",
        "x" + long(" ") + "x",
        long("<|x", 2) + long("|>", 2),
        "x" + long("<s>"),
        long("__", 2) + "x" + long("__", 2),
        long("["),
        long("[a](b"),
        long("(-["),
        "no change" + long("-+") + ", a",
        long("the ", 2) + "same " + long("the ", 2),
        "unchanged " + long("between the and the and ") + "x",
        " ".join(f"w{i * i % 7919}" for i in range(LENGTH // 6)),
        " ".join("ab"[bin(i).count("1") % 2] for i in range(LENGTH // 2)),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_made_work_grow_faster_than_the_text(text: str) -> None:
    with unless_it_hangs():
        for form in (FREE_FORM, *FORMS):
            judge(text, form)
        is_no_change(text)
        for pattern in PATTERNS.values():
            pattern.search(text)


@settings(max_examples=30)
@given(grown())
def test_no_text_makes_a_pattern_hang(text: str) -> None:
    with unless_it_hangs():
        for pattern in PATTERNS.values():
            pattern.search(text)
        judge(text, FORMS[0])
        judge(text)
        is_no_change(text)


ANSWERS = [text for _, text in CAPTION_FAULTS + COT_FAULTS] + GOOD_CAPTIONS + INNOCENT_CAPTIONS


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from(FRAGMENTS + ANSWERS) | st.text(max_size=9), max_size=12).map("".join)
)
def test_any_text_is_judged_and_its_cleaning_ends(text: str) -> None:
    for form in (FREE_FORM, *FORMS):
        judge(text, form)
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert is_no_change(cleaned) == is_no_change(text)
    cleaned.encode()
