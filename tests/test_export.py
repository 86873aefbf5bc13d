"""Exports, read back as each trainer reads them."""

from __future__ import annotations

import ast
import glob
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import trainers
from chronoprep.cli.app import application
from chronoprep.config import load_settings
from chronoprep.data import Pair
from chronoprep.dataset import Dataset, Label, Review
from chronoprep.errors import ConfigError
from chronoprep.export import TRAINERS, file_name
from chronoprep.images.load import load_pair
from chronoprep.workflows.export import Export, export_dataset
from chronoprep.workflows.stage import opened
from conftest import Model, photo, text_of, write_pairs

Run = Callable[..., Any]
NAMES = (
    *("a", "a_1", "a_b", "a.b", "a.b_2", "test_01", "val-2", "train", "dev 3", "NA", "0001", "1e5"),
    *(
        "[x]",
        "[x]_1",
        "{y}",
        "%20",
        "100%",
        "a#b",
        "a&b",
        "it's",
        "q;r",
        "$HOME",
        "`id`",
        "~",
        "-rf",
    ),
    *(
        "é",
        "e\u0301x",
        "日本語",
        "🙂",
        "Ünïcödé name",
        "two  spaces",
        "tab\tname",
        "x=1,y=2",
        "con",
    ),
    *("_controls_", "metadata", "validation", "image.png", "image.txt", "k" * 240, "a_b_c", "(1)"),
    *("a@2x", "^", "!", "+", "a,b", "None", "true", "last one"),
)
TEXTS = (
    "Make the sky red.",
    "First line.\nSecond line.\n\nThird, after an empty one.",
    "NA",
    'She said "hello", twice; it\'s 1,000 %.',
    "Line one.\r\nLine two.\rLine three.",
    "- item: {not a slot} # no comment\n- [x] done",
    "日本語のテキスト。🙂\u2028After a line separator.",
    "  spaces around  ",
    '"quoted"',
    "null",
)
ODD = 'out\'s "[1]" 🙂 $HOME `id`\u2028\x7f'  # a folder for an export


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 pairs of two sizes with hostile names and texts, in formats that may stay and that may
    not."""
    folder = tmp_path_factory.mktemp("export")
    images = folder / "images"
    images.mkdir()
    rows = []
    for number, name in enumerate(NAMES[:50]):
        size = ((40, 32), (24, 48))[number % 2]
        source, target = picture(number, size), picture(1000 + number, size)
        kind = ("png", "jpg", "webp", "turned", "grey", "other-size", "clear", "mixed")[number % 8]
        before, after = images / f"{number}-s.png", images / f"{number}-t.png"
        if kind == "jpg":
            before, after = before.with_suffix(".jpg"), after.with_suffix(".jpeg")
        elif kind == "mixed":
            before = before.with_suffix(".jpg")
        elif kind == "webp":
            before, after = before.with_suffix(".webp"), after.with_suffix(".webp")
        elif kind == "turned":
            before = before.with_suffix(".jpg")
            exif = Image.Exif()
            exif[0x0112] = 6
            source.transpose(Image.Transpose.ROTATE_90).save(before, exif=exif)
        elif kind == "grey":
            source = source.convert("L")
        elif kind == "other-size":
            target = target.resize((60, 50))
        elif kind == "clear":
            target.putalpha(picture(number, size).convert("L"))
        if kind != "turned":
            source.save(before)
        target.save(after)
        rows.append({"key": name, "source": str(before), "target": str(after)})
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = folder / "dataset"
    with opened(made, load_settings(), pairs=manifest) as run:
        assert len(run.entries) == 50, run.summary.findings
        run.dataset.append(
            Label(key=entry.key, caption=text, caption_cot=f"The user wants to: {text}")
            for entry, text in zip(run.entries, cycle(TEXTS))
        )
    return made


def wanted(dataset: Path) -> trainers.Read:
    """What should be read: the images as the videos have them, and the labels' texts."""
    opened, settings, found = Dataset(dataset), load_settings(), {}
    for entry in opened.index.entries():
        loaded = load_pair(Pair(*entry[:3]), settings.images)
        text = opened.journal.state(entry.key).text.caption
        assert text is not None
        found[entry.key] = (np.asarray(loaded.source), np.asarray(loaded.target), text)
    assert len(found) == 50
    return found


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def assert_same(read: trainers.Read, expected: trainers.Read, text: object = None) -> None:
    assert set(read) == set(expected)
    for key, (source, target, caption) in expected.items():
        np.testing.assert_array_equal(read[key][0], source, err_msg=f"source of {key}")
        np.testing.assert_array_equal(read[key][1], target, err_msg=f"target of {key}")
        assert read[key][2] == (text(caption) if callable(text) else caption), key


def export(dataset: Path, to: str, output: Path, **settings: object) -> Export:
    return export_dataset(dataset, load_settings({"export": settings}), to=to, output=output)


@pytest.mark.parametrize(
    ("to", "text"),
    [
        # Its own split at commas doubles the space behind them.
        ("ai-toolkit", lambda text: ", ".join(lines(text).split(","))),
        ("musubi", lines),
        ("diffusion-pipe", lines),
        ("simpletuner", lambda text: " ".join(text.split())),
        ("diffsynth", None),
    ],
)
def test_trainers_read_back_what_was_exported(
    dataset: Path, tmp_path: Path, to: str, text: object
) -> None:
    done = export(dataset, to, tmp_path / ODD)
    assert done.summaries[-1].done == 50
    reader = getattr(trainers, to.replace("-", "_"))
    named = {file_name(key): pair for key, pair in wanted(dataset).items()}
    assert_same(reader(tmp_path / ODD), named, text)


@pytest.mark.parametrize(
    ("to", "columns"),
    [
        ("imagefolder", ("source", "target", "prompt")),
        ("diffusers", ("original_image", "edited_image", "edit_prompt")),
    ],
)
def test_datasets_reads_its_own_folder(
    dataset: Path, tmp_path: Path, to: str, columns: tuple[str, str, str]
) -> None:
    from datasets import load_dataset

    export(dataset, to, tmp_path / "edits")
    loaded = load_dataset(str(tmp_path / "edits"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert_same(trainers.of_columns(loaded["train"], *columns), wanted(dataset))


def test_the_script_of_instruct_pix2pix_finds_its_columns_unnamed(
    dataset: Path, tmp_path: Path
) -> None:
    from datasets import load_dataset

    export(dataset, "diffusers", tmp_path / "edits")
    files = {"train": str(tmp_path / "edits" / "**")}  # as its --train_data_dir does
    loaded = load_dataset("imagefolder", data_files=files, cache_dir=str(tmp_path / "cache"))
    source, text, target = loaded["train"].column_names[:3]
    assert_same(trainers.of_columns(loaded["train"], source, target, text), wanted(dataset))


def test_files_stay_what_they_are_where_they_may(dataset: Path, tmp_path: Path) -> None:
    export(dataset, "diffsynth", tmp_path / "edits")
    for entry in Dataset(dataset).index.entries():
        source = Path(entry.source)
        name = f"{glob.escape(file_name(entry.key))}.???"
        (control,) = (tmp_path / "edits" / "control").glob(name)
        with Image.open(source) as image:
            turned = image.getexif().get(0x0112, 1) != 1
            plain = source.suffix in (".jpg", ".png") and image.mode == "RGB" and not turned
        assert control.samefile(source) == plain, entry.source


def test_a_second_export_does_nothing_and_a_third_what_changed(
    dataset: Path, tmp_path: Path
) -> None:
    copy, output = tmp_path / "dataset", tmp_path / "edits"
    shutil.copytree(dataset, copy)
    assert export(copy, "ai-toolkit", output).summaries[-1].done == 50

    def files() -> dict[Path, tuple[int, int]]:
        found = ((path, path.stat()) for path in output.rglob("*") if path.is_file())
        return {path: (status.st_ino, status.st_mtime_ns) for path, status in found}

    before = files()
    again = export(copy, "ai-toolkit", output).summaries[-1]
    assert (again.done, again.skipped) == (0, 50)
    assert files() == before

    (output / "train.yaml").write_text("mine: true\n")
    (output / "target" / "a.png").unlink()
    Dataset(copy).append(
        [Label(key="a_b", caption="Another text."), Review(key="a_1", verdict="reject")]
    )
    changed = export(copy, "ai-toolkit", output).summaries[-1]
    assert (changed.done, changed.skipped) == (1, 48)
    assert "left out: 1 rejected" in changed.notes
    assert (output / "target" / "a_b.txt").read_text() == "Another text."
    assert not list(output.glob("*/a_1.*"))
    assert (output / "train.yaml").read_text() == "mine: true\n"


def test_an_export_that_was_killed_goes_on(dataset: Path, tmp_path: Path) -> None:
    """Without the last lines of its record it is where a killed run leaves it."""
    output = tmp_path / "edits"
    export(dataset, "ai-toolkit", output)
    record = output / ".chronoprep-export.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    keys = [json.loads(line)[0] for line in lines[1:]]
    started = [json.dumps([key, "", "", "", [0, 0], "", None, "", None]) + "\n" for key in keys]
    record.write_text("".join([lines[0], *started, *lines[1:31], lines[31][:20]]))
    done = export(dataset, "ai-toolkit", output).summaries[-1]
    assert (done.done, done.skipped) == (20, 30)
    assert len(trainers.ai_toolkit(output)) == 50


def test_what_is_left_out_is_counted(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    Dataset(copy).append(
        [
            Label(key="a", caption="no change"),
            Review(key="a_1", verdict="reject"),
            Review(key="a_b", verdict="accept"),
            Review(key="a.b", verdict="edit", caption="By hand.", caption_cot="At length."),
        ]
    )
    done = export(copy, "diffsynth", tmp_path / "edits", only="accepted", trigger="ohwx {caption}!")
    assert {key: text for key, (_, _, text) in trainers.diffsynth(tmp_path / "edits").items()} == {
        "a_b": f"ohwx {TEXTS[2]}!",
        "a.b": "ohwx By hand.!",
    }
    assert done.summaries[-1].notes == [
        "left out: 1 no change", "left out: 46 not accepted by a human", "left out: 1 rejected"
    ]  # fmt: skip
    export(copy, "diffsynth", tmp_path / "long", only="accepted", text="cot")
    assert trainers.diffsynth(tmp_path / "long")["a.b"][2] == "At length."


def test_splits_keep_all_edits_of_a_source_together(dataset: Path, tmp_path: Path) -> None:
    entries = list(Dataset(dataset).index.entries())
    rows = [
        {"key": f"{number}-{other}", "source": entries[number].source, "target": entry.target}
        for number in range(20)
        for other, entry in enumerate(entries[:3])
    ]
    manifest, made = tmp_path / "pairs.jsonl", tmp_path / "made"

    def split(rows: list[dict[str, str]], output: Path) -> dict[str, str]:
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with opened(made, load_settings(), pairs=manifest) as run:
            run.dataset.append(Label(key=entry.key, caption="Edit.") for entry in run.entries)
        export(made, "diffusion-pipe", output, split="train=0.7,val=0.3")
        read = {name: trainers.diffusion_pipe(output, name) for name in ("", "val")}
        return {key: name for name, samples in read.items() for key in samples}

    few = split(rows[:30], tmp_path / "few")
    all_of_them = split(rows, tmp_path / "all")
    assert set(all_of_them) == {row["key"] for row in rows}
    assert set(all_of_them.values()) == {"", "val"}
    assert {all_of_them[f"{number}-{other}"] == all_of_them[f"{number}-0"]
            for number in range(20) for other in range(3)} == {True}  # fmt: skip
    assert few == {key: all_of_them[key] for key in few}


def test_splits_keep_sources_that_look_alike_together(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        image = photo(number, (160, 120))
        photo(100 + number, (160, 120)).save(tmp_path / f"{number}-t.png")
        copies = {"png": image, "jpg": image, "webp": image.resize((128, 96))}
        for kind, copy in copies.items():
            copy.save(tmp_path / f"{number}.{kind}")
            rows.append({"key": f"{number}-{kind}", "source": str(tmp_path / f"{number}.{kind}"),
                         "target": str(tmp_path / f"{number}-t.png")})  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with opened(tmp_path / "made", load_settings(), pairs=tmp_path / "pairs.jsonl") as run:
        run.dataset.append(Label(key=entry.key, caption="Edit.") for entry in run.entries)
    export(tmp_path / "made", "diffusion-pipe", tmp_path / "out", split="a=0.5,b=0.5")
    read = {name: set(trainers.diffusion_pipe(tmp_path / "out", name)) for name in ("", "b")}
    assert len(read[""]) + len(read["b"]) == 36
    assert read[""]
    assert read["b"]
    for number in range(12):
        family = {f"{number}-{kind}" for kind in ("png", "jpg", "webp")}
        assert family <= read[""] or family <= read["b"]
    again = export(tmp_path / "made", "diffusion-pipe", tmp_path / "out", split="a=0.5,b=0.5")
    assert again.summaries[-1].skipped == 36


def test_splits_that_there_are_no_more_leave_nothing(dataset: Path, tmp_path: Path) -> None:
    for to, split in (("imagefolder", "a=0.5,b=0.5"), ("diffusion-pipe", "val=0.5,train=0.5")):
        output = tmp_path / to
        export(dataset, to, output, split=split)
        assert (output / split.split("=")[0] / "target").exists()
        (output / "README.md").write_text("mine")
        export(dataset, to, output)
        assert not list(output.glob("*/metadata.jsonl"))
        assert not list(output.glob("dataset-*.toml"))
        assert {path.name for path in output.iterdir() if path.is_dir()} == {"control", "target"}
        assert (output / "README.md").read_text() == "mine"


def test_what_is_called_train_is_trained_on(dataset: Path, tmp_path: Path) -> None:
    export(dataset, "musubi", tmp_path / "edits", split="val=0.9,train=0.1")
    assert len(list((tmp_path / "edits" / "train" / "target").glob("*.txt"))) < 20
    settings = (tmp_path / "edits" / "dataset.toml").read_text()
    assert "edits/train/target" in settings
    assert "val" not in settings
    readme = (tmp_path / "edits" / "README.md").read_text()
    assert "`val/`: held out" in readme
    assert "nothing in musubi" in readme


def test_without_a_pair_to_train_on_no_training_is_named(run: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("build-csv", "pairs", "-d", "data", "--prompt", "Paint it.").code == 0
    words = ("export", "data", "--to", "musubi", "--output", "edits")
    done = run(*words, "--only", "accepted")
    assert done.code == 1
    assert "2 not accepted by a human" in done.stdout
    assert "edits holds no pairs to train on" in done.stdout
    assert "accelerate" not in done.stdout
    assert run(*words, "--json").json[-1]["start"].startswith("# In the folder of musubi-tuner:")
    assert run(*words, "--only", "accepted", "--json").json[-1]["start"] is None
    assert not list((tmp_path / "edits" / "target").iterdir())


@pytest.mark.parametrize(("key", "split"), [("../../mine", ""), ("mine", "../.."), ("x", "..")])
def test_a_record_of_somebody_else_deletes_nothing(
    dataset: Path, tmp_path: Path, key: str, split: str
) -> None:
    output, mine = tmp_path / "edits", tmp_path / "mine.png"
    export(dataset, "musubi", output)
    (tmp_path / "target").mkdir()
    for path in (mine, tmp_path / "target" / "mine.png", tmp_path / "target" / "x.png"):
        path.write_bytes(b"keep")
    with (output / ".chronoprep-export.jsonl").open("a") as record:
        row = [key, split, "x.png", "x.png", [4, 4], "", None, "", None]
        record.write(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match="damaged"):
        export(dataset, "musubi", output)
    assert mine.exists()
    assert len(list((tmp_path / "target").iterdir())) == 2


@pytest.mark.parametrize("output", ["data/videos", "data/umt5/x", os.fsdecode(b"edits\xff")])
def test_a_folder_that_no_export_can_have_is_refused(run: Run, tmp_path: Path, output: str) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    assert run("build-csv", "pairs", "-d", "data", "--prompt", "Paint it.").code == 0
    refused = run("export", "data", "--to", "musubi", "--output", output)
    assert refused.code == 2
    assert "Give --output a folder of" in refused.stderr


def test_a_command_stands_a_shell(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / ODD
    start = export(dataset, "imagefolder", folder).start
    script = f'python() {{ printf "%s" "$2"; }}; {start}'
    shown = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    loaded = re.search(r"load_dataset\((.*?)\)\)$", shown.stdout.decode())
    assert loaded is not None
    assert ast.literal_eval(loaded[1]) == str(folder)


@pytest.mark.parametrize(
    ("settings", "to", "message"),
    [
        ({"split": "train=0.9"}, "musubi", "add up to 1"),
        ({"split": "train"}, "musubi", "no shares"),
        ({"trigger": "ohwx"}, "musubi", "no place for the text"),
        ({}, "kohya", "There are: ai-toolkit"),
    ],
)
def test_wrong_settings_are_refused_at_once(
    dataset: Path, tmp_path: Path, settings: dict[str, str], to: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        export(dataset, to, tmp_path / "edits", **settings)
    assert message in refused.value.reason
    assert not (tmp_path / "edits").exists()


def test_a_folder_of_something_else_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="no export"):
        export(dataset, "musubi", tmp_path)
    export(dataset, "musubi", tmp_path / "edits")
    with pytest.raises(ConfigError, match="for musubi"):
        export(dataset, "diffsynth", tmp_path / "edits")


def test_every_trainer_has_commands_and_settings_that_name_what_is_there(
    dataset: Path, tmp_path: Path
) -> None:
    for to in TRAINERS:
        output = tmp_path / to
        done = CliRunner().invoke(
            application(), ["export", str(dataset), "--to", to, "-o", str(output)]
        )
        assert done.exit_code == 0, done.output
        shown = done.output
        start = (output / "README.md").read_text().split("```sh\n")[1].split("\n```")[0]
        assert start in shown
        named = re.findall(re.escape(str(tmp_path)) + r"[^\s\"')]*", start)
        assert named
        assert all(Path(path).exists() or Path(path).name == "output" for path in named)


def test_a_trigger_for_chronoedit_is_put_around_each_caption(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    words = ("-d", "data", "--prompt", "ohwx: {caption}")
    failed = run("build-csv", pairs, *words)
    assert failed.code == 1
    assert "no caption for the {caption}" in failed.stderr + failed.stdout
    assert run("prepare", pairs, *words).code == 0
    assert model.calls == {"caption": 2, "cot": 0}
    caption, prompt = text_of("data", "a")
    assert caption
    assert prompt == f"ohwx: {caption}"
    # With another one, no model is asked: what wrote the caption is still known.
    again = run("prepare", "-d", "data", "--prompt", "{caption} In ohwx style.")
    assert again.code == 0
    assert model.calls == {"caption": 2, "cot": 0}
    assert text_of("data", "a") == (caption, f"{caption} In ohwx style.")
    events = len(Dataset(tmp_path / "data").journal.events("a"))
    assert run("prepare", "-d", "data", "--prompt", "{caption} In ohwx style.").code == 0
    assert len(Dataset(tmp_path / "data").journal.events("a")) == events
    assert f'"{caption} In ohwx style."' in (tmp_path / "data" / "metadata.csv").read_text()
