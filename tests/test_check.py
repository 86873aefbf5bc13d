"""`check`: every kind of fault under its own code, none on what is clean, nothing executed."""

from __future__ import annotations

import collections
import io
import os
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chronoprep.dataset import read_table, write_table
from chronoprep.umt5.inspection import flaws_of_embedding
from chronoprep.workflows.check import Checks, check_dataset
from chronoprep.workflows.faults import FAULTS
from planted import NAMES, PLANTED, Plant, T, cells, clean_dataset, same_source
from test_cli import Run
from trainer import is_refused, read_dataset


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_dataset(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of a clean dataset."""
    return Path(shutil.copytree(made.parent, tmp_path / "copy") / "data")


def codes(data: Path, checks: Checks | None = None) -> dict[str, set[str | None]]:
    """What is found, and for which keys."""
    found: dict[str, set[str | None]] = {}
    for finding in check_dataset(data, (), checks).findings:
        found.setdefault(finding.code, set()).add(finding.key)
    return found


def test_nothing_is_found_on_a_clean_set(data: Path, run: Run) -> None:
    assert len(read_dataset(data)) == len(NAMES)
    before = sorted((p, p.stat().st_mtime_ns) for p in data.rglob("*"))
    for options in ([], ["--quick"], ["--trainer", "lora"], ["--world-size", 8]):
        result = run("check", data, "--json", *options)
        assert (result.code, result.json) == (0, []), options
    assert sorted((p, p.stat().st_mtime_ns) for p in data.rglob("*")) == before, "only looked at"
    assert "8 samples for the full-model trainer" in run("check", data).stdout


@pytest.mark.parametrize(
    ("code", "key", "plant"), PLANTED, ids=[f"{n}-{code}" for n, (code, *_) in enumerate(PLANTED)]
)
def test_a_planted_fault_is_found(code: str, key: str | None, plant: Plant, data: Path) -> None:
    plant(data)
    found = codes(data)
    assert key in found.get(code, set()), found
    assert FAULTS[code][1], "there is a remedy"
    blamed = {k for c, keys in found.items() if FAULTS[c][0] == "error" for k in keys}
    if code not in ("columns-shifted", "prompt-number", "prompt-bool"):
        assert blamed <= {key, None, "p9"}, "no other sample is blamed"
    if FAULTS[code][0] == "warning" and "prompt" not in code:
        assert not blamed, found


# What the trainer reads without a word, and should not: it would learn wrongly from it.
READ_ALL_THE_SAME = {
    "file-unreadable", "extra-frames", "frame-sizes", "hidden-frames", "video-timing",
    "video-damaged", "other-images", "video-changed", "embedding-stale", "embedding-changed",
    "embedding-zero",
}  # fmt: skip
OF_FILES = ("path", "file", "lfs", "video", "no-", "one-", "extra-", "frame-", "hidden", "codec")
OF_FILES += ("too-small", "rotation", "pixel", "audio", "several", "other", "embedding", "pickle")
SAMPLES = {
    code: plant
    for code, key, plant in reversed(PLANTED)
    if key == "p1" and code.startswith(OF_FILES)
}


@pytest.mark.parametrize("code", SAMPLES)
def test_the_verdict_is_the_trainers_own(code: str, data: Path) -> None:
    """It is asked by its own way of reading, on the sample that the fault was planted in."""
    SAMPLES[code](data)
    of_text = code.startswith(("embedding", "pickle"))
    refused = is_refused(data, "p1", video=not of_text)
    wrong = any(f.severity == "error" and f.key == "p1" for f in check_dataset(data).findings)
    assert wrong or refused is None, refused
    if code not in READ_ALL_THE_SAME:
        assert wrong == (refused is not None), refused


RAN = "ran.txt"
_SHELL = f"touch {RAN}"


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Module:
    """Pickles to an object with a state."""

    def __reduce__(self) -> Any:
        return (collections.OrderedDict, (), {"x": 1})


def storage_of(value: object) -> bytes:
    """A tensor whose storage, a pickle within the pickle, is another's."""
    inner = io.BytesIO()
    torch.save(value, inner, _use_new_zipfile_serialization=False)
    return pickle.dumps([Calls(torch.storage._load_from_bytes, inner.getvalue())])


_TOUCH = f"S'{_SHELL}'\n".encode()
MALICIOUS = {
    "os.system": (pickle.dumps(Calls(os.system, _SHELL)), "posix.system"),
    "builtins.eval": (pickle.dumps(Calls(eval, f"open({RAN!r}, 'w')")), "builtins.eval"),
    "builtins.exec": (pickle.dumps([T, Calls(exec, f"open({RAN!r}, 'w')")]), "builtins.exec"),
    "subprocess": (pickle.dumps({"a": Calls(subprocess.run, ["touch", RAN])}), "subprocess.run"),
    "protocol 0": (pickle.dumps(Calls(os.system, _SHELL), protocol=0), "posix.system"),
    "nested in a storage": (storage_of(Calls(os.system, _SHELL)), "posix.system"),
    "after a tensor": (pickle.dumps((T, Calls(os.system, _SHELL))), "posix.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
    "INST": (b"(" + _TOUCH + b"iposix\nsystem\n.", "INST"),
    "OBJ": (b"(cposix\nsystem\n" + _TOUCH + b"o.", "posix.system"),
    "OBJ of what is allowed": (b"(ccollections\nOrderedDict\n" + _TOUCH + b"o.", "OBJ"),
    "EXT": (b"\x80\x02\x82\x01)R.", "EXT1"),
    "PERSID": (b"Pstorage\n.", "PERSID"),
    "BINPERSID": (b"\x80\x04\x8c\x07storage\x85Q.", "BINPERSID"),
    "BUILD": (pickle.dumps(Module()), "BUILD"),
    "NEWOBJ": (b"\x80\x04ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "getattr": (pickle.dumps(Calls(getattr, T, "numpy")), "builtins.getattr"),
    "attribute of a module": (b"\x80\x04\x8c\x05torch\x8c\x08hub.load\x93.", "torch.hub.load"),
    "a huge allocation": (pickle.dumps(Calls(bytearray, 1 << 40)), "builtins.bytearray"),
    "calls a value": (b"\x80\x04\x8c\x01x)R.", "call"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_is_named_and_not_executed(name: str, data: Path) -> None:
    content, named = MALICIOUS[name]
    (data / "umt5/p1.pkl").write_bytes(content)
    (found,) = [f for f in check_dataset(data).findings if f.key == "p1"]
    assert (found.code, found.severity) == ("pickle-unsafe", "error")
    assert named in found.message
    assert not Path(RAN).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"x",
        b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"x",
        b"\x80\x04\x8b" + (1 << 30).to_bytes(4, "little") + b"x",
        b"\x80\x04" + b"(" * 100_000,
        b"\x80\x04)" + b"\x85" * 100_000 + b".",
        b"\x80\x04]\x94" + b"h\x00a" * 10_000 + b".",
        b"\x80\x04h\x07.",
        b"\x80\x04R.",
        b"\xff" * 99,
    ],
)
def test_bytes_of_any_kind_are_judged(content: bytes, data: Path) -> None:
    (data / "umt5/p1.pkl").write_bytes(content)
    (found,) = [f for f in check_dataset(data).findings if f.key == "p1"]
    assert found.code in ("pickle-damaged", "pickle-unsafe", "embedding-type")


@settings(max_examples=150)
@given(st.data())
def test_a_disturbed_embedding_raises_nothing(draw: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(torch.ones(1, 4096).bfloat16(), protocol=4))
    for _ in range(draw.draw(st.integers(1, 4))):
        whole[draw.draw(st.integers(0, 480))] = draw.draw(st.integers(0, 255))
    path = Path("disturbed.pkl")
    path.write_bytes(whole[: draw.draw(st.integers(0, len(whole)))])
    flaws_of_embedding(path)


def test_every_protocol_of_a_tensor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(T, protocol=protocol))
        assert flaws_of_embedding(path) == []


def test_a_set_of_others_is_checked(data: Path, run: Run, tmp_path: Path) -> None:
    """With no index and no journal; then without keys, which the LoRA trainer does not read."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("videos", "umt5", "metadata.csv"):
        (data / name).rename(other / name)
    assert run("check", other, "--json").json == []
    table = other / "metadata.csv"
    table.write_text(table.read_text().replace("key", "name", 1))
    assert [f["code"] for f in run("check", other, "--json").json] == ["column-missing"]
    assert run("check", "--csv", table, "--trainer", "lora").code == 0
    (other / "videos/p1.mp4").write_bytes(b"")
    result = run("check", other, "--trainer", "lora", "--fix")
    assert result.code == 1
    assert "p1: " in result.stdout
    assert "the file is empty" in result.stdout


def test_tables_are_splits_of_one_set(data: Path, run: Run) -> None:
    same_source(data)
    table = read_table(data / "metadata.csv").drop("split")
    for name, part in (("train", table[:4]), ("test", table[4:])):
        write_table(part, data / f"{name}.csv")
    both = ("--csv", data / "train.csv", "--csv", data / "test.csv")
    codes = {f["code"]: f["key"] for f in run("check", *both, "--json").json}
    assert codes["split-leak"] == "p5"
    assert run("check", "--csv", data / "train.csv", "--json").json == []


def test_fewer_samples_than_ranks(data: Path, run: Run) -> None:
    result = run("check", data, "--world-size", 9, "--json")
    assert result.code == 1
    assert [f["code"] for f in result.json] == ["too-few"]


def test_tokens_are_counted_by_a_tokenizer_that_is_there(
    data: Path, run: Run, tiny_umt5: Path
) -> None:
    cells(data, prompt=" ".join(["The user wants to", *(f"word{n}" for n in range(300))]))
    found = run("check", data, "--tokenizer", tiny_umt5, "--json", "--trainer", "lora").json
    (tokens,) = [f for f in found if f["code"] == "prompt-tokens"]
    assert tokens["key"] == "p1"


def test_what_is_mechanical_is_mended(data: Path, run: Run) -> None:
    whole = {p.name: p.read_bytes() for p in (data / "videos").iterdir()}
    (data / "videos/p1.mp4").write_bytes(whole["p1.mp4"][:300])
    (data / "videos/p2.mp4").unlink()
    (data / "videos/stray.mp4").write_bytes(whole["p3.mp4"])
    (data / "umt5/p4.pkl").write_bytes(b"x")
    table = (data / "metadata.csv").read_text()
    (data / "metadata.csv").write_text(table.replace('","', '";"'))
    result = run("check", data, "--fix", "--json")
    found = {(f["code"], f["key"]) for f in result.json}
    assert {code for code, _ in found} == {"mended", "embedding-missing"}
    assert {key for code, key in found if code == "embedding-missing"} == {"p4"}
    assert {key for code, key in found if code == "mended"} == {None, "p1", "p2", "p4"}
    assert {p.name: p.read_bytes() for p in (data / "videos").iterdir()} == whole
    assert (data / "metadata.csv").read_text() == table.replace("umt5/p4.pkl", "")
    kept = {str(p.relative_to(data / "quarantine")) for p in (data / "quarantine").rglob("*.*")}
    assert kept == {"videos/p1.mp4", "videos/stray.mp4", "umt5/p4.pkl", "metadata.csv"}
    assert (data / "quarantine/metadata.csv").read_text() == table.replace('","', '";"')
    looked = run("pairs", data)
    assert (looked.code, "stray" in looked.stdout) == (2, False), "what lies there is no pair"
    again = run("check", data, "--trainer", "lora", "--json", "--fix")
    assert (again.code, again.json) == (0, [])
    assert len(read_dataset(data)) == len(NAMES)


@pytest.mark.parametrize("options", [(), ("x", "-d", "y"), ("x", "--csv", "y"), ("nowhere",)])
def test_wrong_usage(options: tuple[str, ...], run: Run) -> None:
    assert run("check", *options).code == 2


@pytest.mark.slow
def test_nothing_is_found_on_a_clean_set_of_a_thousand(tmp_path: Path) -> None:
    data = clean_dataset(tmp_path, 1000, embeddings=False)
    report = check_dataset(data)
    assert (report.samples, report.findings) == (1000, [])


def test_more_than_thirty_kinds_are_planted() -> None:
    assert len({code for code, *_ in PLANTED}) >= 60
