"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_inputs import write_bad_inputs
from chronoprep import vlm, workflows
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import Settings
from chronoprep.dataset import Dataset, Review
from chronoprep.dataset.index import FILE as INDEX
from chronoprep.labels.prompts import load_prompts
from chronoprep.labels.recipe import Recipe
from conftest import EXAMPLES, HANGS, Model, Result, label_of, photo, text_of, write_pairs
from trainer import read_dataset, read_video

Run = Callable[..., Result]
NAMES = [f"p{i:02}" for i in range(6)]


def counts(result: Result, what: str = "labels") -> tuple[int, int, int]:
    (summary,) = [s for s in result.json if s["what"] == what]
    return summary["done"], summary["skipped"], summary["failed"]


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_vl_moe", "qwen3_omni_moe"])
def test_prepare_with_a_real_checkpoint(
    family: str, run: Run, tmp_path: Path, tiny: Callable[[str], Path], tiny_umt5: Path
) -> None:
    write_pairs(tmp_path / "pairs", NAMES)
    result = run(
        "prepare", tmp_path / "pairs", "-d", tmp_path / "data", "--model", tiny(family),
        "--max-new-tokens", 12, "--no-guard", "--batch-size", 4, "--device", "cpu",
        "--umt5", "--umt5-model", tiny_umt5,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    samples = read_dataset(tmp_path / "data")
    assert [s.key for s in samples] == NAMES
    assert len({s.prompt for s in samples}) > 1
    for number, sample in enumerate(samples):
        assert np.array_equal(sample.frames[0], np.asarray(photo(2 * number)))
        label = label_of(tmp_path / "data", sample.key)
        assert sample.prompt.strip('"') == label.caption_cot
        assert label.model == family
        assert label.revision.startswith("folder-")
        assert str(label.caption_prompt).startswith("default@")


def test_a_pair_that_the_processor_refuses_fails_alone(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    for side in ("input", "output"):
        photo(7, (2400, 8)).save(pairs / side / "p02.png")  # over the family's ratio of 200
    result = run(
        "prepare", pairs, "-d", "data", "--model", tiny("qwen3_vl"), "--max-new-tokens", 8,
        "--no-guard", "--json",
    )  # fmt: skip
    assert result.code == 1
    assert counts(result) == (5, 0, 1)
    assert "aspect ratio" in result.json[1]["failures"][0]["reason"]


def test_the_command_line_shows_any_text_on_any_terminal(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    command = [sys.executable, "-m", "chronoprep", "prepare", "pairs", "-d", "d", "--prompt", "X."]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_fixed_prompt_in_the_file_is_not_for_caption(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    Path("chronoprep.toml").write_text('[labels]\nprompt = "From the file."\n')
    assert run("caption", pairs, "-d", "data").code == 0
    assert model.calls["caption"] == 1


def test_the_order_of_batches_does_not_change_the_labels(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    write_pairs(tmp_path / "pairs", NAMES)
    texts = []
    for size in (1, 4):
        run(
            "caption", tmp_path / "pairs", "-d", tmp_path / f"d{size}", "--generate-cot",
            "--model", tiny("qwen3_vl"), "--max-new-tokens", 12, "--no-guard",
            "--batch-size", size,
        )  # fmt: skip
        texts.append([text_of(tmp_path / f"d{size}", name) for name in NAMES])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_a_second_run_asks_nothing(run: Run, tmp_path: Path, model: Model) -> None:
    write_pairs(tmp_path / "pairs", NAMES)
    first = run("prepare", tmp_path / "pairs", "-d", "data", "--json")
    assert first.code == 0, first.stderr
    assert counts(first) == (6, 0, 0)
    asked = dict(model.calls)
    again = run("prepare", tmp_path / "pairs", "-d", "data", "--json")
    assert counts(again) == (0, 6, 0)
    assert counts(again, "videos") == (0, 6, 0)
    assert model.calls == asked == {"caption": 6, "cot": 6}


@pytest.mark.usefixtures("model")
def test_a_changed_image_touches_its_pair_alone(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    run("prepare", pairs, "-d", "data")
    photo(99).save(pairs / "output" / "p03.png")
    result = run("prepare", pairs, "-d", "data", "--json")
    assert counts(result) == (1, 5, 0)
    assert counts(result, "videos") == (1, 5, 0)
    assert np.array_equal(read_video(Path("data/videos/p03.mp4"))[1], np.asarray(photo(99)))


def test_a_changed_cot_prompt_keeps_the_captions(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    run("prepare", pairs, "-d", "data")
    (tmp_path / "cot.txt").write_text(
        "[[user]]\n{source}{target}\nThe edit that leads here is {caption}. Say it longer."
    )
    result = run("prepare", pairs, "-d", "data", "--cot-prompt", tmp_path / "cot.txt", "--json")
    assert counts(result) == (6, 0, 0)
    assert model.calls == {"caption": 6, "cot": 12}


@pytest.mark.usefixtures("model")
def test_a_changed_model_labels_all_again(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    run("prepare", pairs, "-d", "data")
    result = run("prepare", pairs, "-d", "data", "--model", tiny("qwen2_5_vl"), "--json")
    assert counts(result) == (6, 0, 0)


def test_failures_are_tried_again(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    good = model.answer
    model.answer = lambda stage: good(stage) if stage == "caption" else ""
    first = run("prepare", pairs, "-d", "data", "--json", "--retries", 0)
    assert first.code == 1
    assert counts(first) == (0, 0, 6)
    assert "empty" in first.json[1]["failures"][0]["reason"]
    model.answer = good
    again = run("prepare", pairs, "-d", "data", "--json")
    assert again.code == 0
    assert counts(again) == (6, 0, 0)
    assert model.calls == {"caption": 6, "cot": 12}, "the captions were good and are kept"


def test_what_passed_without_the_guard_is_labelled_again_with_it(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    good = model.answer

    def poisoned(stage: str) -> str:
        number = model.calls[stage]
        wrong = {("caption", 1): "Sure! Add a hat", ("cot", 4): "the the the the the the the"}
        return wrong.get((stage, number)) or good(stage)

    model.answer = poisoned
    options = (pairs, "-d", "data", "--json", "--batch-size", 6)
    assert counts(run("prepare", *options, "--no-guard")) == (6, 0, 0)
    faults = {key: label_of("data", key).faults for key in NAMES}
    (talk,) = (key for key in NAMES if faults[key] == {"caption": "meta talk (Sure!)"})
    (loop,) = (key for key in NAMES if faults[key] == {"cot": "loop ('the')"})
    assert all(fault is None for key, fault in faults.items() if key not in (talk, loop))
    assert counts(run("prepare", *options, "--no-guard")) == (0, 6, 0)
    model.answer = good
    refused = run("cot", *options).json[1]["failures"]
    assert [f["key"] for f in refused] == [talk]
    assert "Sure!" in refused[0]["reason"]
    assert model.calls == {"caption": 6, "cot": 7}, "the looped prompt alone was asked for again"
    assert counts(run("prepare", *options)) == (1, 5, 0)
    assert model.calls == {"caption": 7, "cot": 8}
    assert not any(label_of("data", name).faults for name in NAMES)
    assert counts(run("prepare", *options)) == (0, 6, 0)


@pytest.mark.usefixtures("model")
def test_a_humans_words_are_never_written_over(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    run("prepare", pairs, "-d", "data")
    images = label_of("data", "p01").images
    mine = Review(key="p01", verdict="edit", caption="Mine", caption_cot="My own.", images=images)
    Dataset(Path("data")).append([mine])
    for options in (("--preset", "detail"), ("--prompt", "Fixed."), ("--preset", "lighting")):
        run("prepare", pairs, "-d", "data", *options)
        assert text_of("data", "p01") == ("Mine", "My own."), options
        prompts = {sample.key: sample.prompt for sample in read_dataset(Path("data"))}
        assert prompts["p01"] == "My own."
        assert (prompts["p02"] == "Fixed.") == ("Fixed." in options)


def test_a_humans_words_are_of_their_images(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    run("prepare", pairs, "-d", "data")
    images = label_of("data", "a").images
    Dataset(Path("data")).append([Review(key="a", verdict="edit", caption="Mine", images=images)])
    target = pairs / "output/a.png"
    before = target.read_bytes()
    photo(99).save(target)
    run("prepare", pairs, "-d", "data")
    assert text_of("data", "a")[0] != "Mine"
    assert model.calls == {"caption": 2, "cot": 2}
    target.write_bytes(before)
    run("prepare", pairs, "-d", "data")
    caption, cot = text_of("data", "a")
    assert caption == "Mine", "with the images the words are back"
    assert cot, "and completed"
    assert model.calls == {"caption": 2, "cot": 3}


def test_cot_goes_on_from_the_caption_that_the_model_wrote(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    (pairs / "a.txt").write_text("Brought with the data")
    for _ in range(2):
        run("caption", pairs, "-d", "data")
        run("cot", pairs, "-d", "data")
    assert text_of("data", "a")[0] != "Brought with the data"
    assert model.calls == {"caption": 1, "cot": 1}


@pytest.mark.usefixtures("model")
def test_what_changes_no_text_makes_no_label_stale(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    folder = Path(shutil.copytree(tiny("qwen3_vl"), tmp_path / "copy"))
    for name in ("one.txt", "two.txt"):
        Path(name).write_text("Say what changed, in a sentence.")
    options = (pairs, "-d", "data", "--json", "--model", folder, "--caption-prompt")
    assert counts(run("caption", *options, "one.txt")) == (6, 0, 0)
    (folder / "trainer_state.json").write_text("{}")
    assert counts(run("caption", *options, "two.txt", "--max-new-tokens", 700)) == (0, 6, 0)
    # A file that is away for a moment.
    (pairs / "input/p00.png").rename("p00.png")
    (pairs / "input/p00.png").touch()
    assert counts(run("caption", *options, "one.txt")) == (0, 5, 1)
    Path("p00.png").rename(pairs / "input/p00.png")
    assert counts(run("caption", *options, "one.txt")) == (0, 6, 0)


def test_what_changes_the_text_makes_a_label_stale() -> None:
    def ids(**settings: object) -> str:
        all_of_it = Settings.model_validate({"vlm": settings})
        model = vlm.Model(all_of_it.vlm, Checkpoint("m", None, "r", {}), all_of_it.vlm.backend)
        recipe = Recipe(model, load_prompts(all_of_it.labels), all_of_it)
        assert recipe.generation["backend"] == settings["backend"]
        return recipe.caption_id("images")

    plain = ids(backend="vllm")
    assert plain == ids(backend="vllm", vllm={"max_num_seqs": 8}) == ids(backend="transformers")
    others = [{"quantization": "fp8"}, {"mm_processor_kwargs": {"max_pixels": 65536}}]
    assert len({plain, *(ids(backend="vllm", vllm=other) for other in others)}) == 3
    assert plain != ids(backend="vllm", dtype="bfloat16")
    # What a server runs is its own affair.
    assert ids(backend="openai") == ids(backend="openai", dtype="bfloat16")


def test_no_change_is_left_out_and_counted(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    model.answer = lambda _: '"No change."'
    result = run("prepare", pairs, "-d", "data")
    assert result.code == 0
    assert "left out: 6 no change" in result.stdout
    assert model.calls["cot"] == 0


@pytest.mark.usefixtures("model")
def test_captions_count_as_prompts_only_if_asked(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    assert run("caption", pairs, "-d", "data").code == 0
    without = run("build-csv", pairs, "-d", "data")
    assert "left out: 6 without a prompt" in without.stdout
    assert run("build-csv", pairs, "-d", "data", "--allow-caption-as-prompt").code == 0
    assert [s.prompt for s in read_dataset(Path("data"))] == ["Add a hat"] * 6


@pytest.mark.usefixtures("model")
def test_a_label_of_other_images_stays_out_of_the_csv(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    run("prepare", pairs, "-d", "data")
    photo(99).save(pairs / "output" / "p03.png")
    result = run("build-csv", pairs, "-d", "data")
    assert "left out: 1 labelled for other images" in result.stdout
    assert "p03" not in [s.key for s in read_dataset(Path("data"))]
    run("prepare", pairs, "-d", "data")
    assert "p03" in [s.key for s in read_dataset(Path("data"))]


def test_cot_goes_on_from_the_journal(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    none = run("cot", pairs, "-d", "data", "--json")
    assert none.code == 1
    assert "no caption" in none.json[1]["failures"][0]["reason"]
    run("caption", pairs, "-d", "data")
    assert counts(run("cot", pairs, "-d", "data", "--json")) == (6, 0, 0)
    assert model.calls == {"caption": 6, "cot": 6}
    assert counts(run("prepare", pairs, "-d", "data", "--json")) == (0, 6, 0)


def test_a_brought_caption_is_stage_1(run: Run, tmp_path: Path, model: Model) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b"])
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(
        "source,target,instruction\npairs/input/a.png,pairs/output/a.png,Paint it <|im_end|>red\n"
        "pairs/input/b.png,pairs/output/b.png,\n"
    )
    assert run("prepare", manifest, "-d", "data").code == 0
    label = label_of("data", "a")
    assert (label.caption, label.origin) == ("Paint it red", "brought")
    assert model.calls == {"caption": 1, "cot": 2}
    run("prepare", manifest, "-d", "data")
    assert model.calls == {"caption": 1, "cot": 2}


@pytest.mark.usefixtures("model")
def test_bad_pairs_are_named_and_the_good_ones_done(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    expected = write_bad_inputs(pairs / "input", pairs / "output")
    (pairs / "input" / "alone.png").write_bytes(b"x")
    assert len(expected) >= 30
    result = run("prepare", pairs, "-d", "data", "--json")
    assert result.code == 1
    assert counts(result) == (6, 0, len(expected))
    reasons = {f["key"]: f["reason"] for f in result.json[1]["failures"]}
    for key, part in expected.items():
        assert part in reasons[key], key
    assert "alone.png" in str(result.json[0]["findings"])
    assert [s.key for s in read_dataset(Path("data"))] == NAMES
    journal = Dataset(Path("data")).journal
    assert all(journal.state(key).status == "failed" for key in expected)
    # The same with a fixed prompt: the videos find them.
    fixed = run("prepare", pairs, "-d", "fixed", "--prompt", "Do it.", "--json")
    assert fixed.code == 1
    assert counts(fixed, "videos") == (6, 0, len(expected))
    assert len(read_dataset(Path("fixed"))) == 6
    strict = run("prepare", pairs, "-d", "strict", "--strict")
    assert strict.code == 2
    assert "alone.png" in strict.stderr


def test_sizes_that_differ_are_reported_and_fitted(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    photo(5, (200, 100)).save(pairs / "output" / "a.png")
    result = run("pair2video", pairs, "-d", "data")
    assert result.code == 0
    assert "images adjusted: 1 (a: target 200×100" in result.stdout
    assert read_video(Path("data/videos/a.mp4"))[1].shape == (72, 96, 3)
    refused = run("pair2video", pairs, "-d", "data", "--fit", "error")
    assert refused.code == 1
    assert not Path("data/videos/a.mp4").exists(), "the old video shows what is now refused"


def test_one_pair_like_the_reference_script(
    run: Run, tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    options = ("--model", tiny("qwen3_vl"), "--max-new-tokens", 8, "--no-guard")
    lost = run("caption", *options)
    assert lost.code == 2
    assert "--input-image A.jpg" in lost.stderr
    assert "FOLDER --dataset" in lost.stderr
    folder = tmp_path / "assets" / "images"
    folder.mkdir(parents=True)
    photo(1).save(folder / "input.jpg")
    photo(2).save(folder / "output.jpg")
    assert run("caption", *options).code == 0
    text = (tmp_path / "assets/captions/caption.txt").read_text("utf-8")
    # A folder's name holds ".txt", too, and must not be rewritten.
    (tmp_path / "a.txt.d").mkdir()
    both = run("caption", *options, "--generate-cot", "--output-file", "a.txt.d/label.txt")
    label = json.loads((tmp_path / "a.txt.d" / "label.json").read_text("utf-8"))
    assert set(label) == {"caption", "caption_cot"}
    assert label["caption"] == text.strip()
    assert label["caption_cot"] in both.stdout
    bare = run("caption", *options, "--output-file", "bare.txt")
    assert bare.code == 0
    assert (tmp_path / "bare.txt").is_file()
    piped = run("caption", *options, "--output-file", "-")
    assert piped.stdout.strip() == text.strip()
    given = run("cot", *options, "--caption", "Add a hat", "--output-file", "-")
    assert json.loads(given.stdout)["caption"] == "Add a hat"
    empty = run("cot", *options, "--caption", '""', "--output-file", "-")
    assert (empty.code, empty.stdout) == (2, "")


def test_one_video(run: Run) -> None:
    photo(1, (33, 21)).save("a.png")
    photo(2, (33, 21)).save("b.png")
    options = ("--input-image", "a.png", "--output-image", "b.png", "--output-file")
    assert run("pair2video", *options, "sub/x.mp4").code == 0
    assert len(read_video(Path("sub/x.mp4"))) == 2
    assert run("pair2video", *options, "x.gif").code == 2
    Path("b.png").write_text("no image")
    bad = run("pair2video", *options, "y.mp4")
    assert bad.code == 1
    assert "b.png" in bad.stderr
    assert not Path("y.mp4").exists()


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    for command in ("prepare", "caption", "pair2video"):
        result = run(command, pairs, "-d", "data", "--dry-run", "--json")
        assert result.code == 0, result.stderr
        assert result.json[1]["todo"] == 6
    assert run("prepare", pairs, "-d", "data", "--dry-run", "--json").json[2]["todo"] == 6
    fixed = run("build-csv", pairs, "-d", "data", "--dry-run", "--json", "--prompt", "Add a hat")
    assert [summary["todo"] for summary in fixed.json[1:]] == [6, 6]
    assert not Path("data").exists()
    assert model.calls == {"caption": 0, "cot": 0}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["prepare", "nowhere", "-d", "d"], "nowhere"),
        (["prepare", "pairs", "-d", "d", "--model", "./no-model"], "no-model"),
        (["prepare", "pairs", "-d", "d", "--model", "Qwen/Qwen3-VL-4B-Instruct"], "--prompt"),
        (["prepare", "pairs", "-d", "d", "--prompt", " "], "--prompt"),
        (["prepare", "pairs", "-d", "d", "--preset", "nope"], "nope"),
        (["prepare", "pairs", "-d", "d", "--max-resolution", "3"], "--max-resolution"),
        (["prepare", "pairs", "-d", "d", "--codec", "vhs"], "vhs"),
        (["prepare", "pairs", "-d", "d", "--backend", "vhs"], "vhs"),
        (["caption", "pairs"], "--dataset"),
        (["caption", "pairs", "-d", "d", "--input-image", "x.png"], "Either"),
        (["cot", "--input-image", "x.png"], "x.png"),
        (["umt5", "--csv", "nowhere.csv"], "nowhere.csv"),
        (["umt5"], "one dataset folder"),
        (["umt5", "d", "--csv", "d/metadata.csv"], "one dataset folder"),
        (["prepare", "pairs"], "--dataset"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_remedy(
    arguments: list[str], part: str, run: Run, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    result = run(*arguments)
    assert result.code == 2
    assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("d/labels.jsonl").exists()


def test_settings_come_from_flags_then_environment_then_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])

    def prompt() -> str | None:
        return label_of("data", "a").caption_cot

    Path("chronoprep.toml").write_text('[labels]\nprompt = "From the file."\n')
    run("prepare", pairs, "-d", "data")
    assert prompt() == "From the file."
    monkeypatch.setenv("CHRONOPREP_LABELS_PROMPT", "From the environment.")
    run("prepare", pairs, "-d", "data")
    assert prompt() == "From the environment."
    run("prepare", pairs, "-d", "data", "--prompt", "From the flag.")
    assert prompt() == "From the flag."


@pytest.mark.parametrize(
    ("toml", "part"),
    [("[vlm]\nbatchsize = 2", "batch_size"), ("[vml]\nmodel = 'x'", "[vlm]"),
     ("model = 'x'", "[vlm]"), ("[vlm]\nbatch_size = 'many'", "batch_size"), ("[vlm", "TOML")],
)  # fmt: skip
def test_a_wrong_setting_names_the_right_one(
    toml: str, part: str, run: Run, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    Path("chronoprep.toml").write_text(toml)
    result = run("prepare", pairs, "-d", "data", "--prompt", "X.")
    assert result.code == 2
    assert part in result.stderr
    assert "chronoprep.toml" in result.stderr


# 3.11's own reader of TOML takes such a key, that for 3.10 does not.
DOTTED = "vlm.model" if sys.version_info >= (3, 11) else "nested too deeply"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[vlm]\nmodel = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"[vlm]\nbatch_size = " + b"9" * 5000, "not valid TOML"),
        (b"[vlm]\nmodel = 0x" + b"f" * 5000, "vlm.model"),
        (b"[vlm]\nmodel." + b"a." * 5000 + b"b = 1", DOTTED),
        (b"# " * 600_000, "1 MB"),
        (b"\xff", "can't read"),
        (None, "regular file"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(
    content: bytes | None, part: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    result = run("pairs", tmp_path, "--config", file)
    assert result.code == 2
    assert part in result.stderr
    assert file.name in result.stderr
    assert len(result.stderr) < 1000


def test_an_unknown_variable_names_the_nearest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    monkeypatch.setenv("CHRONOPREP_VLM_BATCHSIZE", "3")
    result = run("prepare", pairs, "-d", "data", "--prompt", "X.")
    assert result.code == 2
    assert "CHRONOPREP_VLM_BATCH_SIZE" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from chronoprep.cli import app\n"
        "heavy = {'torch', 'transformers', 'polars', 'av', 'PIL', 'numpy', 'huggingface_hub'}\n"
        "light = {'rich', 'pydantic', 'markdown_it', 'pygments', 'asyncio', 'chronoprep.config',\n"
        "    'chronoprep.data', 'chronoprep.workflows'}\n"
        "for words, none_of in ((['--help'], heavy | light), (['prepare', '--help'], heavy)):\n"
        "    try: app(words)\n"
        "    except SystemExit: pass\n"
        "    if found := none_of & set(sys.modules): sys.exit(str(sorted(found)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_name_cannot_speak_to_the_terminal(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    red = "\x1b[31mred\x1b]0;title\x07\x9b"
    photo(1).save(pairs / f"input/{red}.png")
    photo(2).save(pairs / f"input/{red}2.png")
    (pairs / f"output/{red}2.png").write_bytes(b"no image")
    for command in (["pairs", pairs], ["pair2video", pairs, "-d", red]):
        for form in ([], ["--json"]):
            result = run(*command, *form)
            assert result.code == 1
            assert "[31mred" in result.stdout
            assert not {"\x1b", "\x07", "\x9b"} & set(result.stdout + result.stderr)
    for words in ([tmp_path / f"no {red}"], ["a", red], ["a", "--limit", red], [f"--{red}"]):
        refused = run("pairs", *words)
        assert refused.code == 2
        assert not {"\x1b", "\x07", "\x9b"} & set(refused.stderr)


def test_a_dataset_that_knows_its_pairs_stands_for_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def add_cot(*arguments: object, **_: object) -> list[workflows.Summary]:
        seen.append(arguments)
        return []

    monkeypatch.setattr(workflows, "add_cot", add_cot)
    (tmp_path / "known").mkdir()
    refused = run("cot", "known")
    assert refused.code == 2
    assert "--dataset" in refused.stderr
    (tmp_path / "known" / INDEX).touch()
    for arguments in (["known"], ["--dataset", "known"]):
        assert run("cot", *arguments).code == 0
    assert [Path("known") in arguments for arguments in seen] == [True, True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["--help"]])
def test_a_result_that_nobody_takes_is_one_message(words: list[str]) -> None:
    reader, closed = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "chronoprep", *words]
    for place in (os.open("/dev/full", os.O_WRONLY), closed):
        result = subprocess.run(command, stdout=place, stderr=subprocess.PIPE, text=True)
        os.close(place)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "Exception ignored" not in result.stderr
        if words != ["--help"]:
            assert "can't write to stdout" in result.stderr


def test_ctrl_c_during_the_first_imports_is_quiet() -> None:
    script = """if True:
        import sys
        class Stopped:
            def find_spec(self, name, *_):
                if name == "typer":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Stopped())
        from chronoprep.cli import main
        main()
    """
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "")


def test_ctrl_c_keeps_what_is_done(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", NAMES)
    good = model.answer

    def stop_at_the_third(stage: str) -> str:
        if model.calls["caption"] > 2:
            raise KeyboardInterrupt
        return good(stage)

    model.answer = stop_at_the_third
    result = run("prepare", pairs, "-d", "data", "--batch-size", 2)
    assert result.code == 130
    assert len(Dataset(Path("data")).journal) == 2
    model.answer = good
    assert counts(run("prepare", pairs, "-d", "data", "--json")) == (4, 2, 0)


def test_ctrl_c_ends_the_wait_for_a_server_that_says_nothing() -> None:
    script = """if True:
        import threading
        import polars  # its signal handler restarts the wait
        from chronoprep.engine import gathered
        closed = threading.Event()
        def ask(pair):
            print("asked", flush=True)
            closed.wait()
        list(gathered(ask, [1], workers=1, stop=closed.set))
    """
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        try:
            assert "KeyboardInterrupt" in process.communicate(timeout=HANGS)[1]
        finally:
            process.kill()


def test_the_examples_become_a_dataset(run: Run) -> None:
    result = run("prepare", EXAMPLES, "-d", "data")
    assert result.code == 0
    samples = read_dataset(Path("data"))
    assert len(samples) == 5
    for sample in samples:
        assert sample.prompt.startswith("The user wants to ")
        assert 80 <= len(sample.prompt.split()) <= 100
        for frame, side in zip(sample.frames, ("input", "output"), strict=True):
            with Image.open(EXAMPLES / side / f"{sample.key}.jpg") as image:
                assert np.array_equal(frame, np.asarray(image.convert("RGB")))


def test_models_lists_the_registry(run: Run) -> None:
    names = {row["name"] for row in run("models", "--json").json}
    assert {"qwen3-vl-30b", "qwen2.5-vl-7b", "qwen3-omni-30b"} <= names
    assert "Qwen/Qwen3-VL-30B-A3B-Instruct" in run("models").stdout


def test_files_that_look_the_same_are_not_read_again(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("caption", pairs, "-d", "data").code == 0
    file = pairs / "input/a.png"
    status = file.stat()
    data = file.read_bytes()
    file.write_bytes(data[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = run("caption", pairs, "-d", "data", "--json").json[1]
    assert (again["skipped"], again["failed"]) == (2, 0)
    file.write_bytes(data[::-1])
    changed = run("caption", pairs, "-d", "data", "--json").json[1]
    assert (changed["skipped"], changed["failed"]) == (1, 1)
    # Another time and the same bytes: read again, and found to be up to date.
    (pairs / "output/b.png").touch()
    assert run("caption", pairs, "-d", "data", "--json").json[1]["skipped"] == 1
    assert model.calls["caption"] == 2


def test_exchanged_files_that_look_alike_are_read_again(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    for file in pairs.glob("*/*.png"):  # as unpacked with one time, and of one size
        with Image.open(file) as image:
            image.save(file.with_suffix(".bmp"))
        file.unlink()
        os.utime(file.with_suffix(".bmp"), (1e9, 1e9))
    assert run("caption", pairs, "-d", "data").code == 0
    for one, other in (("input", "x"), ("output", "input"), ("x", "output")):
        (pairs / one).rename(pairs / other)
    assert run("caption", pairs, "-d", "data", "--json").json[1]["done"] == 2
    table = tmp_path / "table.csv"
    for source in ("a", "b"):
        table.write_text(f"key,source,target\nk,pairs/input/{source}.bmp,pairs/output/a.bmp\n")
        assert run("caption", table, "-d", "other", "--json").json[1]["done"] == 1
    assert model.calls["caption"] == 6


def test_a_label_tells_which_images_the_model_saw(
    run: Run, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])

    def load(*_: object) -> Model:
        # A picture is put right while the model loads.
        photo(7, (40, 30)).save(pairs / "input/b.png")
        return model

    monkeypatch.setattr(vlm.Model, "load", load)
    assert run("caption", pairs, "-d", "data").code == 0
    assert counts(run("caption", pairs, "-d", "data", "--json")) == (0, 2, 0)


@pytest.mark.usefixtures("model")
def test_a_run_about_some_pairs_leaves_the_others(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["cat", "cot", "dog", "a,b"])
    assert counts(run("caption", pairs, "-d", "data", "--keys", "c*,a*b", "--json")) == (3, 0, 0)
    assert text_of("data", "dog") == (None, None)
    # The dataset knows them all, and its table holds all that have a label.
    words = ("prepare", "data", "--prompt", "Paint it.", "--json", "-q")
    (pairs_, labels, videos, table) = run(*words, "--keys", "dog").json
    assert (pairs_["done"], labels["done"], videos["done"], table["done"]) == (4, 1, 1, 1)
    assert run(*words).json[-1]["done"] == 4
    wrong = run("cot", "data", "--keys", "dog,cet")
    assert wrong.code == 2
    assert "--keys cet: no pair is called so." in wrong.stderr
    assert "Did you mean c" in wrong.stderr
    assert run("cot", "data", "--keys", "dog", "--shard", "0/2").code == 2
