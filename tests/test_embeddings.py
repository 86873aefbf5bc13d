"""`umt5 --csv`: nothing stale, nothing twice, and a table that stays whole."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from chronoprep.dataset import Dataset
from chronoprep.umt5 import encoder as encoder_module
from conftest import Result
from tiny_umt5 import build_umt5

Run = Callable[..., Result]


@pytest.fixture
def umt5(run: Run, tiny_umt5: Path) -> Run:
    """The command on metadata.csv, with JSON results."""

    def run_it(*options: object, csv: str = "metadata.csv", model: Path = tiny_umt5) -> Result:
        return run("umt5", "--csv", csv, "--model", model, "--json", *options)

    return run_it


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sequences of each forward of the encoder."""
    sizes: list[int] = []
    real = encoder_module.Replica._forward

    def counted(self: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        return real(self, batch)

    monkeypatch.setattr(encoder_module.Replica, "_forward", counted)
    return sizes


def write_csv(prompts: dict[str, str], **columns: str) -> Path:
    path = Path("metadata.csv")
    rows = [{"key": k, "video": f"videos/{k}.mp4", "prompt": p, **columns}
            for k, p in prompts.items()]  # fmt: skip
    pandas.DataFrame(rows).to_csv(path, index=False)
    return path


def load(cell: str) -> torch.Tensor:
    with Path(cell).open("rb") as file:
        tensor = pickle.load(file)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.sum(axis=-1).nonzero().shape[0] == len(tensor)
    return tensor


def cells(csv: str = "metadata.csv") -> list[str]:
    return pandas.read_csv(csv, keep_default_na=False)["umt5"].to_list()


def counts(result: Result) -> tuple[int, int, int]:
    (summary,) = result.json
    return summary["done"], summary["skipped"], summary["failed"]


def test_equal_prompts_run_once_and_share_a_file(umt5: Run, forwards: list[int]) -> None:
    same = {f"k{i:04}": "Remove the rendering artifacts." for i in range(999)}
    write_csv(same | {"k0999": "Remove  the rendering\nartifacts."})
    result = umt5()
    assert result.code == 0, result.stderr
    assert counts(result) == (1000, 0, 0)
    assert forwards == [1]
    assert len({Path(cell).stat().st_ino for cell in cells()}) == 1
    assert len(cells()) == len(set(cells())) == 1000
    assert counts(umt5()) == (0, 1000, 0)
    # One row changes: the others keep theirs.
    write_csv(same | {"k0002": "Go."})
    assert counts(umt5()) == (1, 998, 0)
    assert len(load("umt5/k0002.pkl")) != len(load("umt5/k0001.pkl"))
    assert Path("umt5/k0001.pkl").stat().st_ino == Path("umt5/k0998.pkl").stat().st_ino
    # A new row takes the file that its prompt has already.
    forwards.clear()
    write_csv(same | {"k0002": "Go.", "new": "Go."})
    assert counts(umt5()) == (1, 999, 0)
    assert forwards == []
    assert Path("umt5/new.pkl").stat().st_ino == Path("umt5/k0002.pkl").stat().st_ino


def test_without_hard_links_equal_prompts_are_copied(
    umt5: Run, forwards: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_csv({f"k{i}": "Remove the rendering artifacts." for i in range(5)})
    assert umt5().code == 0
    assert forwards == [1]
    assert len({Path(cell).stat().st_ino for cell in cells()}) == 5
    assert len({Path(cell).read_bytes() for cell in cells()}) == 1
    assert not list(Path().rglob("*.tmp"))


def test_only_what_changed_is_done_again(umt5: Run, forwards: list[int], tmp_path: Path) -> None:
    prompts = {"a": "Add a hat.", "b": "Paint it blue.", "c": "Remove the tree."}
    write_csv(prompts)
    assert counts(umt5()) == (3, 0, 0)
    assert counts(umt5()) == (0, 3, 0)
    write_csv(prompts | {"b": "Paint it red, please."})
    assert counts(umt5()) == (1, 2, 0)
    assert counts(umt5("--force")) == (3, 0, 0)
    # Another model, and the same one from elsewhere.
    other = build_umt5(tmp_path / "elsewhere" / "umt5", seed=1)
    before = load("umt5/a.pkl")
    assert counts(umt5(model=other)) == (3, 0, 0)
    assert not torch.equal(load("umt5/a.pkl"), before)
    moved = shutil.copytree(other, tmp_path / "moved" / "umt5")
    assert counts(umt5(model=moved)) == (0, 3, 0)
    # Another tokenizer gives other numbers, too.
    table = json.loads((moved / "tokenizer.json").read_text("utf-8"))
    table["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), "utf-8")
    assert counts(umt5("--tokenizer", tmp_path / "tokenizer.json", model=moved)) == (3, 0, 0)
    (moved / "tokenizer.json").write_text(json.dumps(table), "utf-8")
    forwards.clear()
    assert counts(umt5(model=moved)) == (3, 0, 0)
    assert forwards


def test_a_dry_run_says_what_is_stale_and_writes_nothing(umt5: Run) -> None:
    csv = write_csv({"a": "Add a hat.", "b": "Paint it blue."})
    before = csv.read_bytes()
    result = umt5("--dry-run")
    assert result.json[0]["todo"] == 2
    assert csv.read_bytes() == before
    assert not Path("umt5").exists()


def test_foreign_and_broken_files_are_found_without_running_them_and_redone(umt5: Run) -> None:
    prompts = {name: f"Add {name} hats to the people." for name in "abcdef"}
    write_csv(prompts)
    umt5()
    right = {name: Path(f"umt5/{name}.pkl").read_bytes() for name in prompts}

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("open('ran', 'w')",)

    trap = pickle.dumps(Trap())
    Path("umt5/a.pkl").write_bytes(right["a"][:-100])
    Path("umt5/b.pkl").write_bytes(trap)
    Path("umt5/c.pkl").write_bytes(trap + bytes(len(right["c"]) - len(trap)))  # of the right size
    Path("umt5/d.pkl").write_bytes(right["e"][: len(right["d"])])
    for name in "cd":  # some file systems keep no finer time
        later = Path(f"umt5/{name}.pkl").stat().st_mtime_ns + 10**9
        os.utime(f"umt5/{name}.pkl", ns=(later, later))
    Path("umt5/e.pkl").unlink()
    result = umt5()
    assert counts(result) == (5, 1, 0)
    assert not Path("ran").exists()
    for name, content in right.items():
        assert torch.equal(load(f"umt5/{name}.pkl"), pickle.loads(content))


def test_what_the_reference_script_left_is_not_trusted(umt5: Run) -> None:
    write_csv({"a": "Add a hat."}, umt5="umt5/a.pkl")
    Path("umt5").mkdir()
    Path("umt5/a.pkl").write_bytes(pickle.dumps(torch.ones(3, 32).bfloat16()))
    assert counts(umt5()) == (1, 0, 0)
    assert len(load("umt5/a.pkl")) > 3


def test_a_copied_dataset_is_compared_and_kept(umt5: Run, forwards: list[int]) -> None:
    write_csv({"a": "Add a hat.", "b": "Paint it blue."})
    umt5()
    for name in "ab":  # a copy has other times
        os.utime(f"umt5/{name}.pkl", (1, 1))
    forwards.clear()
    assert counts(umt5()) == (0, 2, 0)
    assert forwards == []
    journal = Dataset(Path()).journal
    assert {made.mtime for key in "ab" if (made := journal.state(key).embedding)} == {10**9}


def test_columns_order_and_line_ends_stay(umt5: Run) -> None:
    rows = ['"b__2","Add a hat, ""please""",0.50,"x"', '"a","Zwei\r\nZeilen, zwei Hüte",,"é"']
    for line_end, bom in (("\n", b""), ("\r\n", b"\xef\xbb\xbf")):
        text = line_end.join(["key,prompt,score,Ünique", *rows, ""])
        Path("metadata.csv").write_bytes(bom + text.encode())
        assert umt5().code == 0
        written = Path("metadata.csv").read_bytes()
        assert written.startswith(bom + b'"key"')
        head = written.removeprefix(bom).decode().split(line_end)[0]
        assert head == '"key","prompt","score","Ünique","umt5"'
        assert written.endswith(line_end.encode())
        assert written.count(b"\r") == (1 if line_end == "\n" else 4)
        table = pandas.read_csv("metadata.csv", dtype=str, keep_default_na=False)
        assert table.values.tolist() == [
            ["b__2", 'Add a hat, "please"', "0.50", "x", "umt5/b__2.pkl"],
            ["a", "Zwei\r\nZeilen, zwei Hüte", "", "é", "umt5/a.pkl"],
        ]
        before = Path("metadata.csv").stat().st_mtime_ns
        assert umt5().code == 0
        assert Path("metadata.csv").stat().st_mtime_ns == before, "nothing to change"


@pytest.mark.parametrize(
    ("prompt", "part"),
    [("", "empty"), ("  ", "empty"), ("NA", "not read"), ("nan", "not read"), ("17", "not read"),
     ("1e5", "not read"), ("True", "not read"), ("None", "not read")],
)  # fmt: skip
def test_a_prompt_that_is_no_text_is_named_and_its_cell_kept(
    prompt: str, part: str, umt5: Run
) -> None:
    Path("metadata.csv").write_text(
        f'key,prompt,umt5\na,Add a hat.,\nb,"{prompt}",umt5/old.pkl\n', encoding="utf-8"
    )
    result = umt5()
    assert result.code == 1
    assert counts(result) == (1, 0, 1)
    (failure,) = result.json[0]["failures"]
    assert failure["key"] == "b"
    assert "row 2" in failure["reason"]
    assert part in failure["reason"]
    assert cells() == ["umt5/a.pkl", "umt5/old.pkl"]


def test_a_prompt_that_the_trainer_would_misread_fails_alone(
    umt5: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoder_module.Replica._forward

    def zero(self: Any, batch: Any) -> Any:
        done = real(self, batch)
        hidden = done.hidden.clone()
        for ids, states in zip(batch, hidden, strict=True):
            if len(ids) == max(len(other) for other in batch):
                states[0] = 0
        return done._replace(hidden=hidden)

    monkeypatch.setattr(encoder_module.Replica, "_forward", zero)
    write_csv({"a": "Add a hat to the person on the left.", "b": "Go."}, umt5="old")
    result = umt5()
    assert result.code == 1
    assert counts(result) == (1, 0, 1)
    assert "sums to zero" in result.json[0]["failures"][0]["reason"]
    assert cells() == ["old", "umt5/b.pkl"]
    assert not Path("umt5/a.pkl").exists()


def test_cut_prompts_are_reported_by_key_on_every_run(umt5: Run) -> None:
    write_csv({"long": "Add a hat to everybody. " * 200, "short": "Go."})
    for _ in range(2):
        (summary,) = umt5().json
        (note,) = summary["notes"]
        assert "1 prompt(s) cut at 512 tokens: long " in note
    assert summary["skipped"] == 2
    assert len(load("umt5/long.pkl")) == 512
    made = Dataset(Path()).journal.state("long").embedding
    assert made is not None
    assert made.tokens > 600


def test_videos_of_one_name_never_share_an_embedding_of_another_prompt(umt5: Run) -> None:
    rows = [("a/x.mp4", "Add a hat."), ("b/x.mp4", "Paint it blue, please."),
            ("a__x.mp4", "Remove the tree over there."), ("a/x.mp4", "Remove everything."),
            ("a/x.mp4", "Add a hat.")]  # fmt: skip
    pandas.DataFrame(rows, columns=["video", "prompt"]).to_csv("metadata.csv", index=False)
    assert umt5().code == 0
    found = cells()
    assert len(set(found)) == 4
    assert found[0] == found[4]
    assert found[1] == "umt5/b__x.pkl"
    shapes = {prompt: load(cell).shape for (_, prompt), cell in zip(rows, found, strict=True)}
    assert len(set(shapes.values())) == 4
    table = pandas.read_csv("metadata.csv")
    table.iloc[::-1].to_csv("metadata.csv", index=False)
    assert counts(umt5())[0] == 0
    assert cells() == found[::-1]


def test_a_disk_that_is_too_small_is_refused_before_the_weights_load(
    umt5: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = {"bytes": 2_000}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free["bytes"]))

    def loaded(_: object) -> None:
        raise AssertionError("the weights were loaded")

    with monkeypatch.context() as patch:
        patch.setattr(encoder_module.Encoder, "load", loaded)
        csv = write_csv({"a": "Add a hat.", "b": "Paint it blue."})
        before = csv.read_bytes()
        result = umt5()
    assert result.code == 1
    assert "2 embeddings need" in result.stderr
    assert "are free" in result.stderr
    assert csv.read_bytes() == before
    # What is replaced gives its room back; equal prompts need it once.
    free["bytes"] = 1 << 20
    assert umt5().code == 0
    free["bytes"] = 1_000
    write_csv(
        {"a": "Add a hat!", "b": "Paint it red."} | {f"c{i}": "Add a hat!" for i in range(99)}
    )
    assert umt5("--force").code == 1
    free["bytes"] = 2_500
    assert umt5("--force").code == 0


def test_several_devices_and_small_batches_give_every_row_its_own(
    umt5: Run, forwards: list[int]
) -> None:
    words = ["hat", "tree", "car", "blue", "red", "left", "person", "background", "everything"]
    prompts = {f"k{i:03}": " ".join(words[: 1 + i % 9]) + f" number {i}" for i in range(60)}
    write_csv(prompts)
    assert counts(umt5("--device", "cpu,cpu", "--batch-tokens", 64)) == (60, 0, 0)
    assert len(forwards) >= 15
    together = {key: load(f"umt5/{key}.pkl") for key in prompts}
    shutil.rmtree("umt5")
    assert counts(umt5("--dtype", "bfloat16", "--batch-tokens", 1)) == (60, 0, 0)
    for key, tensor in together.items():
        torch.testing.assert_close(load(f"umt5/{key}.pkl"), tensor, rtol=0.05, atol=0.05)


def test_a_disk_that_fills_up_stops_the_run_and_the_next_goes_on(
    umt5: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = write_csv({f"k{i:02}": f"Add {i} hats to the people." for i in range(40)})
    before = csv.read_bytes()
    real, calls = os.fsync, iter(range(1000))

    def full(descriptor: int) -> None:
        if next(calls) > 20:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("chronoprep.dataset.journal.os.fsync", full)
        result = umt5("--batch-tokens", 16)
    assert result.code == 1
    assert "No space left" in result.stderr
    assert csv.read_bytes() == before
    assert not list(Path().rglob("*.tmp"))
    done, skipped, failed = counts(umt5())
    assert (done + skipped, failed) == (40, 0)
    assert skipped > 0
