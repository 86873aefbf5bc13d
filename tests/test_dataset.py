"""The dataset folder as the trainers, a crash and a second run meet it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chronoprep.config import LabelSettings, Settings
from chronoprep.dataset import Dataset, Label, read_table, write_table
from chronoprep.errors import BackendError, ConfigError
from chronoprep.workflows import prepare
from conftest import Result, photo, text_of, write_pairs
from trainer import read_dataset

HOSTILE = [
    "a, b, c", 'say "hi"', "two\nlines", "tab\there", "NA", "0001", "null", "None", "nan", "True",
    "1e5", "😀 smile", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "'quoted'", "é è ü ß", "日本語",
    "ends with backslash\\", '""', ",,,", "#comment", "  spaced  ", "a;b|c", "<b>html</b>", "&amp;",
    "{caption}", "%s %d", "\u200bzero width", "long " * 300, "1,5", "N/A", "inf", "0x1F", "12:30",
    "2024-01-01", "1_000", "‘curly’", "\ufeffbom", "a\r\nb", "false", "-0", "1.", ".5", "#N/A", "~",
    "//", "C:\\dir", "--flag", "$HOME", "`x`",
]  # fmt: skip


def test_hostile_keys_and_prompts_come_back_through_the_trainers_readers(
    tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    rows = []
    for number, text in enumerate(HOSTILE):
        for offset, side in enumerate(("s", "t")):
            photo(2 * number + offset, (37, 23)).save(tmp_path / f"{side}{number}.png")
        # Even rows have a hostile key, too.
        key = text[:40] if number % 2 == 0 else f"plain{number}"
        rows.append(
            {"key": key, "source": f"s{number}.png", "target": f"t{number}.png", "prompt": text}
        )
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "dataset"
    result = run("prepare", manifest, "-d", folder, "--umt5", "--umt5-model", tiny_umt5)
    assert result.code == 0, result.stderr + result.stdout

    samples = read_dataset(folder)
    assert len(samples) == len(HOSTILE) >= 50
    written = {s.key: s for s in samples}
    assert set(written) == set(Dataset(folder).journal)
    frames = {np.asarray(photo(2 * n, (37, 23))).tobytes(): n for n in range(len(HOSTILE))}
    for key, sample in written.items():
        number = frames[sample.frames[0].tobytes()]
        assert np.array_equal(sample.frames[1], np.asarray(photo(2 * number + 1, (37, 23))))
        wanted = HOSTILE[number].strip()
        assert sample.prompt in (wanted, f'"{wanted}"')
        assert text_of(folder, key) == (None, wanted)
        assert sample.umt5 is not None
    assert sum(s.prompt.startswith('"') for s in samples) < 25
    assert not list(folder.rglob("*.tmp"))


def test_damaged_lines_are_named_and_cost_only_themselves(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b"])
    command = ("prepare", tmp_path / "pairs", "-d", "data", "--json", "--prompt")
    assert run(*command, "One.").code == 0
    journal = Path("data/labels.jsonl")
    lines = journal.read_text("utf-8").splitlines()
    journal.write_text(
        "\n".join([*lines, '{"key":"a","kind":"label","cap', lines[0][:-9]]), "utf-8"
    )

    result = run(*command, "Two.")
    assert result.code == 1
    messages = [finding["message"] for finding in result.json[0]["findings"]]
    assert [f"labels.jsonl:{len(lines) + n}: " in messages[n - 1] for n in (1, 2)] == [True] * 2
    assert {text_of("data", key) for key in "ab"} == {(None, "Two.")}
    result = run(*command, "Two.")
    (finding,) = result.json[0]["findings"]
    assert (result.code, f"labels.jsonl:{len(lines) + 1}: " in finding["message"]) == (1, True)
    journal.write_text(journal.read_text("utf-8").replace('{"key":"a","kind":"label","cap\n', ""))
    assert run(*command, "Two.").code == 0, "mended"


def test_what_was_read_of_a_label_stays_as_it_was(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.append([Label(key="a", caption="one")])
    before = dataset.journal.state("a")
    dataset.append([Label(key="a", caption="two"), Label(key="b")])
    assert before.text.caption == "one"
    assert dataset.journal.state("a").text.caption == "two"
    assert list(dataset.journal) == ["a", "b"]


def test_a_second_run_is_kept_out(tmp_path: Path, run: Callable[..., Result]) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with Dataset(tmp_path / "data").locked():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        entered.wait()
        result = run("prepare", tmp_path / "pairs", "-d", tmp_path / "data", "--prompt", "Do it.")
    finally:
        leave.set()
        thread.join()
    assert result.code == 1
    assert "another chronoprep run" in result.stderr
    again = run("prepare", tmp_path / "pairs", "-d", tmp_path / "data", "--prompt", "Do it.")
    assert again.code == 0


def test_what_a_killed_run_left_half_written_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    left = [".metadata.csv.tmp", "videos/.a.mp4.tmp", "umt5/.a.pkl.tmp"]
    others = [".editor.tmp", "notes.csv.tmp", "umt5/a.pkl", "umt5/.hidden"]
    for name in (*left, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with Dataset(tmp_path).locked():
        pass
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in others if (tmp_path / name).exists()] == others
    (tmp_path / "videos/.b.mp4.tmp").mkdir()  # what can't be removed is named
    with pytest.raises(BackendError, match=r"\.b\.mp4\.tmp"), Dataset(tmp_path).locked():
        pass


def test_a_full_disk_stops_the_run_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    settings = Settings(labels=LabelSettings(prompt="Do it."))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chronoprep.files.os.fsync", full)
    with pytest.raises(BackendError, match="No space left"):
        prepare(tmp_path / "data", settings, pairs=tmp_path / "pairs")


def test_embeddings_follow_the_prompt(
    tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b"])
    data = tmp_path / "data"
    options = (tmp_path / "pairs", "-d", data, "--umt5", "--umt5-model", tiny_umt5, "--json")

    def counts(prompt: str) -> tuple[int, int]:
        result = run("prepare", *options, "--prompt", prompt)
        assert result.code == 0, result.stderr
        embeddings = {row["what"]: row for row in result.json}["embeddings"]
        return embeddings["done"], embeddings["skipped"]

    assert counts("Put it on the table.") == (2, 0)
    before = [s.umt5 for s in read_dataset(data)]
    assert counts("Put it on the table.") == (0, 2)
    assert counts("Take it off the table, please.") == (2, 0)
    after = [s.umt5 for s in read_dataset(data)]
    assert before[0].shape != after[0].shape


def test_a_copied_dataset_is_compared_and_kept(
    tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a", "b", "c"])
    options = ("--umt5", "--umt5-model", tiny_umt5, "--prompt", "Add a hat.", "--json")
    assert run("prepare", tmp_path / "pairs", "-d", "data", *options).code == 0
    shutil.copytree("data", "copy", copy_function=shutil.copy)  # with other times
    files = [path for name in ("videos", "umt5") for path in Path("copy", name).iterdir()]
    copied = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
    sizes = []
    for _ in range(2):
        result = run("prepare", "-d", "copy", *options)
        assert result.code == 0, result.stderr
        rows = {row["what"]: row for row in result.json}
        for stage in ("labels", "videos", "embeddings"):
            assert (rows[stage]["done"], rows[stage]["skipped"]) == (0, 3), stage
        sizes.append(Path("copy/labels.jsonl").stat().st_size)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files} == copied
    assert sizes[0] == sizes[1], "what was compared is known the next time"
    assert Path("copy/metadata.csv").read_bytes() == Path("data/metadata.csv").read_bytes()


def test_a_stale_embedding_never_stands_in_the_csv(
    tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    data = tmp_path / "data"
    run("prepare", tmp_path / "pairs", "-d", data, "--prompt", "One.", "--umt5", "--umt5-model",
        tiny_umt5)  # fmt: skip
    assert read_table(data / "metadata.csv")["umt5"].to_list() == ["umt5/a.pkl"]
    run("build-csv", tmp_path / "pairs", "-d", data, "--prompt", "Two.")
    assert read_table(data / "metadata.csv")["umt5"].to_list() == [""]


def test_umt5_keeps_unknown_columns_and_the_order_of_rows(
    tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    csv = tmp_path / "metadata.csv"
    csv.write_text(
        'video,prompt,score\nb/x.mp4,"Add a hat, please",0.50\na/x.mp4,NA,1\nc.mp4,"Say ""hi""",\n',
        encoding="utf-8-sig",
    )
    result = run("umt5", "--csv_path", csv, "--model", tiny_umt5)
    assert result.code == 1
    assert "a__x" in result.stdout, "the empty-looking prompt is named"
    table = read_table(csv)
    assert table.columns == ["video", "prompt", "score", "umt5"]
    assert table["score"].to_list() == ["0.50", "1", ""]
    assert table["umt5"].to_list() == ["umt5/b__x.pkl", "", "umt5/c.pkl"]


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "empty"), (b"key,prompt\na,b,c\n", "fields"), (b"key,prompt\na,\xff\xfe\n", "utf-8"),
     (b"key,text\na,b\n", "prompt"), (b"key,prompt\na,x\na,y\n", "twice")],
)  # fmt: skip
def test_a_bad_csv_is_named_and_left_alone(
    content: bytes, part: str, tmp_path: Path, tiny_umt5: Path, run: Callable[..., Result]
) -> None:
    csv = tmp_path / "metadata.csv"
    csv.write_bytes(content)
    result = run("umt5", "--csv", csv, "--model", tiny_umt5)
    assert result.code == 2
    assert part in result.stderr
    assert "metadata.csv" in result.stderr
    assert csv.read_bytes() == content


def test_a_table_survives_a_round_trip(tmp_path: Path) -> None:
    import polars

    table = polars.DataFrame({"key": ["a"], "prompt": ['x, "y"\r\nz']})
    write_table(table, tmp_path / "[1] t.csv")
    assert read_table(tmp_path / "[1] t.csv").equals(table)


def test_a_missing_encoder_is_said_before_any_work(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    result = run("prepare", tmp_path / "pairs", "-d", tmp_path / "d", "--prompt", "X.", "--umt5")
    assert result.code == 2
    assert not (tmp_path / "d" / "labels.jsonl").exists()


def test_a_dataset_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError):
        Dataset(tmp_path / "x")


@pytest.mark.parametrize("name", ["videos", "umt5"])
def test_a_file_in_the_place_of_a_folder_is_named(
    name: str, tmp_path: Path, run: Callable[..., Result]
) -> None:
    write_pairs(tmp_path / "pairs", ["a"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).touch()
    for command in ("pair2video", "build-csv"):
        result = run(command, tmp_path / "pairs", "-d", tmp_path / "data")
        assert result.code == 1
        assert f"data/{name}: can't read the folder" in result.stderr
        assert "another --dataset" in result.stderr
    (tmp_path / "data" / name).unlink()
    with Dataset(tmp_path / "data").locked():
        """The lock was given back."""
