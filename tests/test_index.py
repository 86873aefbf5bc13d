"""A dataset knows its pairs: what a second look at PAIRS changes, and what is done without one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chronoprep.dataset import Dataset, Review
from conftest import Model, label_of, photo, text_of, write_pairs
from test_cli import Run, counts
from trainer import read_dataset


def keys(folder: str = "data") -> list[str]:
    return [sample.key for sample in read_dataset(Path(folder))]


def codes(result: object) -> dict[str, str]:
    """Findings of the pairs: code → message."""
    return {f["code"]: f["message"] for f in result.json[0]["findings"]}  # type: ignore[attr-defined]


def test_after_discovery_the_dataset_alone_is_enough(
    run: Run, tmp_path: Path, model: Model, tiny_umt5: Path
) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("caption", tmp_path / "pairs", "-d", "data").code == 0
    assert model.calls == {"caption": 2, "cot": 0}
    for arguments in (
        ("cot", "--dataset", "data"),
        ("pair2video", "data"),  # a dataset may stand in the place of PAIRS
        ("build-csv", "--dataset", "data"),
        ("umt5", "data", "--model", tiny_umt5),
    ):
        assert run(*arguments).code == 0, arguments
    samples = read_dataset(Path("data"))
    assert [sample.key for sample in samples] == ["a", "b"]
    assert all(sample.umt5 is not None for sample in samples)
    again = run("prepare", "data", "--umt5", "--umt5-model", tiny_umt5, "--json").json
    assert [s["skipped"] for s in again if s["what"] in ("labels", "videos", "embeddings")] == [
        2
    ] * 3
    assert model.calls == {"caption": 2, "cot": 2}


def test_build_csv_alone_needs_no_image(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("prepare", pairs, "-d", "data", "--prompt", "Do it.").code == 0
    before = Path("data/metadata.csv").read_bytes()
    shutil.rmtree(pairs)
    Path("data/metadata.csv").unlink()
    assert run("build-csv", "--dataset", "data").code == 0
    assert Path("data/metadata.csv").read_bytes() == before
    # What needs the images says where they were.
    gone = run("pair2video", "--dataset", "data")
    assert gone.code == 2
    assert f"{pairs}: the pairs of data are not there any more" in gone.stderr


def test_a_dataset_that_knows_no_pairs_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for command in ("caption", "cot", "pair2video", "build-csv", "prepare"):
        result = run(command, "--dataset", "data")
        assert result.code == 2
        assert "knows no pairs yet" in result.stderr


def test_pairs_that_are_gone_are_told_and_leave_the_table(run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b", "c"])
    options = (pairs, "-d", "data", "--prompt", "Do it.", "--json")
    assert run("prepare", *options).code == 0
    for side in ("input", "output"):
        (pairs / side / "b.png").unlink()
        photo(9).save(pairs / side / "d.png")
    limited = run("prepare", *options, "--limit", 1)
    assert codes(limited) == {}, "what a limit leaves out is not gone"
    result = run("prepare", *options)
    assert "1 pair(s) are not in" in codes(result)["gone"]
    assert codes(result)["gone"].endswith(": b")
    assert keys() == ["a", "c", "d"]
    assert "gone" not in codes(run("prepare", *options)), "it is said once"


def test_a_renamed_pair_keeps_its_label_and_is_trained_once(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("prepare", pairs, "-d", "data").code == 0
    Dataset(Path("data")).append(
        [
            Review(
                key="a", verdict="edit", caption_cot="My own.", images=label_of("data", "a").images
            )
        ]
    )
    for side in ("input", "output"):
        (pairs / side / "a.png").rename(pairs / side / "z.png")
        # Copied, so that its time is another: the bytes tell.
        shutil.copyfile(pairs / side / "b.png", pairs / side / "y.png")
        (pairs / side / "b.png").unlink()
        os.utime(pairs / side / "y.png", (1e9, 1e9))
    result = run("prepare", pairs, "-d", "data", "--json")
    assert result.code == 0
    renamed = [f["message"] for f in result.json[0]["findings"] if f["code"] == "renamed"]
    assert sorted(message.split(";")[0] for message in renamed) == [
        "a is now called z",
        "b is now called y",
    ]
    assert keys() == ["y", "z"]
    assert text_of("data", "z")[1] == "My own."
    assert model.calls == {"caption": 2, "cot": 2}, "no model was asked again"


def test_a_moved_folder_is_pointed_to_by_naming_its_new_place(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    assert run("prepare", pairs, "-d", "data").code == 0
    moved = pairs.rename(tmp_path / "elsewhere")
    assert run("caption", "--dataset", "data").code == 2
    result = run("prepare", moved, "-d", "data", "--json")
    assert codes(result) == {"moved": f"the pairs of {pairs} have moved to {moved}"}
    assert counts(result) == (0, 2, 0)
    assert counts(run("prepare", "data", "--json"), "videos") == (0, 2, 0)
    assert model.calls == {"caption": 2, "cot": 2}


def test_a_second_set_is_added_and_its_equal_names_are_refused(run: Run, tmp_path: Path) -> None:
    options = ("-d", "data", "--prompt", "Do it.", "--json")
    one, other = write_pairs(tmp_path / "one", ["a", "b"]), tmp_path / "other"
    assert run("prepare", one, *options).code == 0
    for side in ("input", "output"):
        (other / side).mkdir(parents=True)
        photo(50 + len(side)).save(other / side / "b.png")
        photo(60 + len(side)).save(other / side / "c.png")
    result = run("prepare", other, *options)
    assert result.code == 1
    (failure,) = result.json[0]["failures"]
    assert failure["key"] == "b"
    assert "belongs to" in failure["reason"]
    assert keys() == ["a", "b", "c"]
    frames = {sample.key: sample.frames[0] for sample in read_dataset(Path("data"))}
    assert (frames["b"] == photo(2)).all(), "the first set's pair stands"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_damaged_index_is_named(content: bytes, run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    assert run("prepare", pairs, "-d", "data", "--prompt", "Do it.").code == 0
    Path("data/pairs.parquet").write_bytes(content)
    result = run("build-csv", "--dataset", "data")
    assert result.code == 2
    assert "data/pairs.parquet: can't read" in result.stderr
    assert "name PAIRS again" in result.stderr
    Path("data/pairs.parquet").unlink()
    again = run("prepare", pairs, "-d", "data", "--prompt", "Do it.", "--json")
    assert counts(again, "videos") == (0, 1, 0), "labels and videos are kept"


def test_every_pair_has_a_row_or_a_reason(run: Run, tmp_path: Path, model: Model) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b", "c", "d"])
    good = model.answer
    model.answer = lambda stage: "No change." if model.calls[stage] == 1 else good(stage)
    run("caption", pairs, "-d", "data", "--limit", 3)
    (pairs / "output" / "d.png").write_bytes(b"broken")
    result = run("build-csv", pairs, "-d", "data", "--allow-caption-as-prompt", "--json")
    table = result.json[-1]
    left_out = sum(int(note.split()[2]) for note in table["notes"] if note.startswith("left out"))
    assert table["done"] + left_out == 4
    assert any("without a label" in note for note in table["notes"])


def test_a_trial_with_another_preset_that_fails_costs_nothing(
    run: Run, tmp_path: Path, model: Model
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    run("prepare", pairs, "-d", "data")
    before = Path("data/metadata.csv").read_bytes()
    good = model.answer
    model.answer = lambda _: "!" * 99
    assert run("prepare", pairs, "-d", "data", "--preset", "detail", "--retries", 0).code == 1
    assert Path("data/metadata.csv").read_bytes() == before
    model.answer = good
    asked = dict(model.calls)
    assert run("prepare", pairs, "-d", "data").code == 0
    assert dict(model.calls) == asked, "going back asks no model"
    assert run("prepare", pairs, "-d", "data", "--preset", "detail").code == 0
    asked = dict(model.calls)
    assert counts(run("prepare", pairs, "-d", "data", "--json")) == (0, 2, 0)
    assert Path("data/metadata.csv").read_bytes() == before, "the earlier label is taken again"
    assert dict(model.calls) == asked


@pytest.mark.usefixtures("model")
def test_a_damaged_line_is_named_by_every_command(
    run: Run, tmp_path: Path, tiny_umt5: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs", ["a"])
    run("prepare", pairs, "-d", "data")
    journal = Path("data/labels.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], '{"key": "a", "kind": oops}\n', *lines[1:]]))
    commands: list[Callable[[], object]] = [
        lambda name=name: run(name, "--dataset", "data")  # type: ignore[misc]
        for name in ("caption", "cot", "pair2video", "build-csv", "prepare")
    ]
    for command in (*commands, lambda: run("umt5", "data", "--model", tiny_umt5)):
        result = command()
        assert result.code == 1  # type: ignore[attr-defined]
        assert "data/labels.jsonl:2: " in result.stdout  # type: ignore[attr-defined]
    assert keys() == ["a"]
