"""metadata.csv may be edited by hand, or by a spreadsheet: nobody's words vanish."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from chronoprep.dataset import Dataset
from conftest import Model, text_of, write_pairs
from test_cli import Run, counts
from trainer import read_dataset

CSV = Path("data/metadata.csv")


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(CSV.read_text("utf-8"))))


def save(rows: list[dict[str, str]], encoding: str = "utf-8", **dialect: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **dialect)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    CSV.write_bytes(text.getvalue().encode(encoding))


@pytest.fixture
def edited(run: Run, tmp_path: Path, model: Model) -> list[dict[str, str]]:
    """The rows of a finished dataset of three pairs."""
    assert model.calls["caption"] == 0
    assert run("prepare", write_pairs(tmp_path / "pairs", ["a", "b", "c"]), "-d", "data").code == 0
    return rows()


def prompts() -> dict[str, str]:
    return {sample.key: sample.prompt for sample in read_dataset(Path("data"))}


def test_what_a_human_changed_is_taken_over_and_outlives_runs(
    edited: list[dict[str, str]], run: Run, tmp_path: Path
) -> None:
    edited[0]["prompt"] = "My own words, with a comma."
    del edited[1]
    for row in edited:
        row["score"] = f"0.{len(row['key'])}"
    save(edited)
    for arguments in (
        ("build-csv", "--dataset", "data"),
        ("prepare", tmp_path / "pairs", "-d", "data"),
        ("prepare", "data", "--preset", "detail"),
    ):
        result = run(*arguments)
        assert result.code == 0, result.stderr
        assert set(prompts()) == {"a", "c"}
        assert prompts()["a"] == "My own words, with a comma."
        assert [row["score"] for row in rows()] == ["0.1", "0.1"]
        taken = [line for line in result.stdout.splitlines() if "taken over" in line]
        assert len(taken) == (2 if arguments[0] == "build-csv" else 0), "it is said once"
    state = Dataset(Path("data")).journal.state("b")
    assert (state.status, state.verdict) == ("rejected", "reject")
    assert "left out: 1 rejected" in run("build-csv", "--dataset", "data").stdout


def test_a_row_that_comes_back_is_no_rejection_any_more(
    edited: list[dict[str, str]], run: Run
) -> None:
    save(edited[1:])
    run("build-csv", "--dataset", "data")
    assert set(prompts()) == {"b", "c"}
    save([edited[0] | {"prompt": "Back again."}, *edited[1:]])
    run("build-csv", "--dataset", "data")
    assert prompts()["a"] == "Back again."


@pytest.mark.parametrize(
    ("encoding", "dialect"),
    [("utf-8-sig", {}), ("utf-8", {"delimiter": ";"}), ("utf-16", {"delimiter": "\t"}),
     ("cp1252", {"delimiter": ";"}), ("utf-8", {"lineterminator": "\r\n"})],
)  # fmt: skip
def test_a_spreadsheet_saves_it_in_its_own_way(
    encoding: str, dialect: dict[str, str], edited: list[dict[str, str]], run: Run
) -> None:
    edited[0]["prompt"] = "Füge „einen Hut“ hinzu; rot, bitte"
    save(edited, encoding, **dialect)
    result = run("build-csv", "--dataset", "data")
    assert result.code == 0, result.stderr
    assert "taken over: 1 edited prompt(s) (a)" in result.stdout
    assert ("saved by a spreadsheet" in result.stdout) == (encoding in ("cp1252", "utf-16") or
                                                          "delimiter" in dialect)  # fmt: skip
    assert prompts()["a"] == "Füge „einen Hut“ hinzu; rot, bitte"
    assert CSV.read_bytes().startswith(b'"key","video","prompt","umt5"\n')


@pytest.mark.parametrize(
    ("content", "part"),
    [("\x81\x8d".encode("latin-1"), "neither UTF-8 nor"), (b"", "empty"),
     (b"video,text\na,b\n", "needs the columns"), (b"key,prompt\na,x\na,y\n", "twice"),
     (b"key,prompt,prompt\na,x,y\n", "two columns are called 'prompt'"),
     (b"key,video,prompt,umt5\n", "all rows are gone"),
     (b"key,prompt\nstranger,x\n", "'stranger'")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_left_alone(
    content: bytes, part: str, edited: list[dict[str, str]], run: Run
) -> None:
    CSV.write_bytes(content)
    before = Path("data/labels.jsonl").read_bytes()
    for command in ("build-csv", "prepare"):
        result = run(command, "--dataset", "data")
        assert result.code == 2, result.stdout
        assert part in result.stderr
        assert CSV.read_bytes() == content
    assert Path("data/labels.jsonl").read_bytes() == before
    CSV.unlink()  # removed, it is written anew
    assert run("build-csv", "--dataset", "data").code == 0
    assert len(edited) == len(rows())


@pytest.mark.usefixtures("edited")
def test_a_table_that_a_crash_kept_from_its_place_is_no_edit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = CSV.read_bytes()
    run("caption", tmp_path / "pairs", "-d", "data", "--generate-cot", "--preset", "detail")
    real = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if Path(target).name == "metadata.csv":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    assert run("build-csv", "--dataset", "data").code == 130
    assert CSV.read_bytes() == before
    monkeypatch.setattr(Path, "replace", real)
    result = run("build-csv", "--dataset", "data")
    assert "taken over" not in result.stdout
    assert len(prompts()) == 3


@pytest.mark.usefixtures("edited")
def test_an_edited_prompt_is_embedded_anew(run: Run, tiny_umt5: Path) -> None:
    assert run("umt5", "data", "--model", tiny_umt5).code == 0
    changed = rows()
    changed[1]["prompt"] = "Something else."
    save(changed)
    result = run("umt5", "data", "--model", tiny_umt5, "--json")
    assert counts(result, "embeddings") == (1, 2, 0)
    assert text_of("data", "b")[1] == "Something else."
    assert all(row["umt5"] for row in rows())


@pytest.mark.parametrize(
    ("content", "code", "part"),
    [("video,prompt\nvideos/a.mp4,Do it.\n,Do that.\n", 1, "row 2: neither a key nor a video"),
     ("key,video,prompt\n,videos/a.mp4,Do it.\nb,,Do that.\n", 1, "row 1: neither a key"),
     ("key,prompt,prompt\na,Do it.,Do that.\n", 2, "two columns are called 'prompt'")],
)  # fmt: skip
def test_a_foreign_table_with_holes_is_told_by_row(
    content: str, code: int, part: str, run: Run, tmp_path: Path, tiny_umt5: Path
) -> None:
    table = tmp_path / "foreign.csv"
    table.write_text(content)
    result = run("umt5", "--csv", table, "--model", tiny_umt5)
    assert result.code == code
    assert part in result.stdout + result.stderr
    if code == 2:
        assert table.read_text() == content
    else:
        assert len(list((tmp_path / "umt5").glob("*.pkl"))) == 1


def test_a_lost_journal_costs_no_prompt(edited: list[dict[str, str]], run: Run) -> None:
    before = prompts()
    Path("data/labels.jsonl").unlink()
    run("build-csv", "--dataset", "data")
    assert run("pair2video", "data").code == 0
    assert run("build-csv", "--dataset", "data").code == 0
    assert prompts() == before
    assert len(edited) == 3
