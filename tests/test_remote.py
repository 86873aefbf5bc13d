"""Pairs in an object store: a real server of its interface, on this machine."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from chronoprep.config import PairSettings
from chronoprep.dataset import Dataset, mirror
from chronoprep.dataset.journal import append_lines
from chronoprep.errors import BackendError
from chronoprep.images import remote
from chronoprep.pairs import discover
from chronoprep.workflows import stage
from conftest import Model, Result, photo, text_of, write_pairs

pytestmark = pytest.mark.filterwarnings("default")
pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket called `pairs`, empty."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    remote._of_protocol.cache_clear()
    remote._looks.clear()
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("pairs")
    yield system
    system.rm("pairs", recursive=True)


def uploaded(store: Any, folder: Path, to: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{to}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.mark.usefixtures("model")
def test_pairs_in_a_bucket_are_as_good_as_on_disk(store: Any, tmp_path: Path, run: Run) -> None:
    local = write_pairs(tmp_path / "local", ["a#1", "b ü", "c"], (32, 24))
    (local / "input" / "stray.png").write_bytes((local / "input" / "c.png").read_bytes())
    (local / "output" / "c.txt").write_text("Remove the hat.")
    uploaded(store, local, "pairs/set")
    there = discover(Path("s3://pairs/set"), PairSettings())
    here = discover(local, PairSettings())
    assert [(p.key, p.caption) for p in there.pairs] == [(p.key, p.caption) for p in here.pairs]
    assert [str(path) for path in there.unmatched] == ["s3:/pairs/set/input/stray.png"]

    for where, data in (("s3://pairs/set", "there"), (local, "here")):
        done = run("prepare", where, "-d", data)
        assert done.code == 0, done.stderr
    assert Path("there/metadata.csv").read_bytes() == Path("here/metadata.csv").read_bytes()
    for video in Path("here/videos").iterdir():
        assert (Path("there/videos") / video.name).read_bytes() == video.read_bytes()
    assert {key: text_of("there", key) for key in ("a#1", "c")} == {
        key: text_of("here", key) for key in ("a#1", "c")
    }


def test_only_what_changed_is_done_again(
    store: Any, tmp_path: Path, run: Run, model: Model
) -> None:
    local = write_pairs(tmp_path / "local", ["a", "b", "c"], (32, 24))
    uploaded(store, local, "pairs/set")
    assert run("prepare", "s3://pairs/set", "-d", "data").code == 0
    calls = dict(model.calls)
    read, reads = remote.read, []
    remote.read = lambda address, *more: reads.append(address) or read(address, *more)  # type: ignore[func-returns-value]
    try:
        remote._looks.clear()
        assert run("prepare", "data").code == 0
        assert not reads, "how an object looks tells that it is the same"
    finally:
        remote.read = read
    assert model.calls == calls

    photo(77, (32, 24)).save(tmp_path / "new.png")
    store.pipe_file("pairs/set/output/b.png", (tmp_path / "new.png").read_bytes())
    remote._looks.clear()
    assert run("prepare", "data").code == 0
    assert model.calls == {stage: count + 1 for stage, count in calls.items()}


@pytest.mark.usefixtures("model")
def test_a_table_may_name_objects(store: Any, tmp_path: Path, run: Run) -> None:
    uploaded(store, write_pairs(tmp_path / "local", ["a", "b"], (32, 24)), "pairs")
    with Path("pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "source", "target"])
        for name in ("a", "b", "gone"):
            rows.writerow([name, f"s3://pairs/input/{name}.png", f"s3://pairs/output/{name}.png"])
    refused = run("prepare", "pairs.csv", "-d", "data")
    assert refused.code != 0
    assert "--allow-urls" in refused.stderr + refused.stdout
    done = run("prepare", "pairs.csv", "-d", "data", "--allow-urls")
    assert done.code == 1
    assert "s3://pairs/input/gone.png: no such object" in done.stdout
    assert sorted(path.name for path in Path("data/videos").iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "zip"])
def test_a_table_or_an_archive_in_a_bucket(kind: str, store: Any, tmp_path: Path, run: Run) -> None:
    """Its paths start at its place there; images in it come with it."""
    local = write_pairs(tmp_path / "local", ["a", "b"], (32, 24))
    table = tmp_path / f"set.{kind}"
    rows = [{"key": name, "source": f"input/{name}.png", "target": f"output/{name}.png"}
            for name in ("a", "b")]  # fmt: skip
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "set"), "zip", local)
    elif kind == "parquet":
        bytes_of = {"source": [], "target": []}  # type: ignore[var-annotated]
        for row in rows:
            for role, found in bytes_of.items():
                found.append({"bytes": (local / row[role]).read_bytes(), "path": None})
        polars.DataFrame({"key": ["a", "b"], **bytes_of}).write_parquet(table)
    else:
        frame = polars.DataFrame(
            [*rows, {"key": "c", "source": "input/gone.png", "target": "x.png"}]
        )
        (frame.write_csv if kind == "csv" else frame.write_ndjson)(table)
    uploaded(store, local, "pairs/deep")
    store.put(str(table), f"pairs/deep/{table.name}")
    done = run("prepare", f"s3://pairs/deep/{table.name}", "-d", "data")
    assert done.code == (kind in ("csv", "jsonl")), done.stderr
    assert ("s3://pairs/deep/input/gone.png: no such object" in done.stdout) == done.code
    assert run("prepare", local, "-d", "whole").code == 0
    assert here(Path("data")) == here(Path("whole"))
    gone = run("prepare", "s3://pairs/deep/none.csv", "-d", "data")
    assert gone.code == 2
    assert "s3://pairs/deep/none.csv: no such object" in gone.stderr


@pytest.mark.usefixtures("model")
def test_shards_of_a_bucket(store: Any, tmp_path: Path, run: Run) -> None:
    names = [f"n{n}" for n in range(6)]
    uploaded(store, write_pairs(tmp_path / "local", names, (32, 24)), "pairs")
    for i in (0, 1):
        assert run("prepare", "s3://pairs", "-d", "data", "--shard", f"{i}/2").code == 0
    assert run("merge", "data").code == 0
    assert Dataset(Path("data")).index.keys() == names


@pytest.mark.usefixtures("store")
def test_what_is_not_there_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = run("pairs", "s3://no-such-bucket/set")
    assert gone.code == 2
    assert "s3://no-such-bucket/set" in gone.stderr
    unknown = run("pairs", "gs://bucket/set")
    assert unknown.code == 2
    assert "gcsfs" in unknown.stderr
    other = run("pairs", "nonsense://bucket")
    assert other.code == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be on another machine, which has a cache of its own."""

    def be(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machines" / name))
        remote._looks.clear()

    return be


def there(store: Any, top: str = "pairs/data") -> dict[str, bytes]:
    """What a trainer gets of a dataset in the store."""
    names = [name for name in store.find(top) if "/shards/" not in name and "/labels/" not in name]
    kept = [name for name in names if not name.endswith((".json", ".parquet"))]
    return {name.removeprefix(f"{top}/"): store.cat_file(name) for name in kept}


def here(folder: Path) -> dict[str, bytes]:
    found = [folder / "metadata.csv", *(folder / "videos").iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_dataset_in_a_bucket_goes_on_on_any_machine(
    store: Any, tmp_path: Path, run: Run, model: Model, machine: Callable[[str], None]
) -> None:
    names = [f"n{n}" for n in range(6)]
    uploaded(store, write_pairs(tmp_path / "local", names, (32, 24)), "pairs/set")
    assert run("prepare", "s3://pairs/set", "-d", "whole").code == 0
    calls = dict(model.calls)

    machine("one")
    assert run("caption", "s3://pairs/set", "-d", "s3://pairs/data", "--limit", "4").code == 0
    machine("two")
    done = run("prepare", "s3://pairs/set", "-d", "s3://pairs/data")
    assert done.code == 0, done.stderr
    assert model.calls["caption"] == calls["caption"] + 6, "the labels of the other one are kept"
    assert there(store) == here(Path("whole"))
    parts = store.ls("pairs/data/labels", detail=False)
    assert len(parts) > 1, "each writer has parts of its own"

    # The table is edited in the store; a third machine takes it over.
    table = store.cat_file("pairs/data/metadata.csv").decode()
    prompt = text_of("whole", "n3")[1]
    assert prompt is not None
    lines = [line.replace(prompt, "My words.") if "n3" in line else line
             for line in table.splitlines()]  # fmt: skip
    store.pipe_file("pairs/data/metadata.csv", "\n".join(lines).encode() + b"\n")
    machine("three")
    assert run("build-csv", "-d", "s3://pairs/data").code == 0
    assert "My words." in store.cat_file("pairs/data/metadata.csv").decode()
    machine("one")
    assert run("prepare", "-d", "s3://pairs/data").code == 0
    assert "My words." in store.cat_file("pairs/data/metadata.csv").decode()
    assert model.calls["caption"] == calls["caption"] + 6


def test_shards_in_a_bucket_put_together(
    store: Any, tmp_path: Path, run: Run, model: Model, machine: Callable[[str], None]
) -> None:
    names = [f"n{n}" for n in range(6)]
    uploaded(store, write_pairs(tmp_path / "local", names, (32, 24)), "pairs/set")
    assert run("prepare", "s3://pairs/set", "-d", "whole").code == 0
    calls = dict(model.calls)
    for i in (1, 0):
        machine(f"node {i}")
        assert (
            run("prepare", "s3://pairs/set", "-d", "s3://pairs/data", "--shard", f"{i}/2").code == 0
        )
    machine("head")
    assert run("merge", "s3://pairs/data").code == 0
    assert there(store) == here(Path("whole"))
    assert model.calls == {stage: 2 * count for stage, count in calls.items()}


def test_what_a_run_has_done_is_put_there_while_it_is_on(
    store: Any, tmp_path: Path, run: Run, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write_pairs(tmp_path / "local", ["a", "b", "c"], (32, 24))
    monkeypatch.setattr(mirror, "_SECONDS", 0)
    monkeypatch.setattr(stage, "_SECONDS", 0)
    put: list[int] = []

    def answer(_: str) -> str:
        put.append(len(store.glob("pairs/data/labels/*.jsonl")))
        store.invalidate_cache()
        return "Add a hat"

    model.answer = answer
    done = run("caption", local, "-d", "s3://pairs/data", "--batch-size", 1)
    assert done.code == 0, done.stderr
    assert len(put) == 3
    assert put[-1] > put[0]


@pytest.mark.usefixtures("model")
def test_what_is_removed_in_the_store_is_put_there_again(
    store: Any, tmp_path: Path, run: Run, machine: Callable[[str], None]
) -> None:
    pairs = write_pairs(tmp_path / "local", ["a", "b"], (32, 24))
    machine("one")
    assert run("prepare", pairs, "-d", "s3://pairs/data").code == 0
    whole = there(store)
    for removed in ("pairs/data/videos/a.mp4", "pairs/data"):
        store.rm(removed, recursive=True)
        remote._looks.clear()
        assert run("prepare", pairs, "-d", "s3://pairs/data").code == 0
        assert there(store) == whole
    machine("two")
    assert run("prepare", "-d", "s3://pairs/data", "--dry-run", "--json").json[1]["todo"] == 0


def test_a_kill_while_parts_are_fetched_doubles_nothing(
    store: Any, tmp_path: Path, run: Run, model: Model, machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pairs = write_pairs(tmp_path / "local", ["a", "b", "c"], (32, 24))
    machine("one")
    assert run("caption", pairs, "-d", "s3://pairs/data", "--limit", "2").code == 0
    assert run("caption", pairs, "-d", "s3://pairs/data").code == 0
    parts = store.ls("pairs/data/labels", detail=False)
    machine("two")
    fetched: list[Any] = []
    with monkeypatch.context() as dying:

        def killed(*given: Any) -> None:
            append_lines(*given)
            fetched.append(given)
            if len(fetched) == 2:
                raise KeyboardInterrupt

        dying.setattr(mirror, "append_lines", killed)
        assert run("caption", pairs, "-d", "s3://pairs/data").code != 0
    calls = dict(model.calls)
    assert run("caption", pairs, "-d", "s3://pairs/data").code == 0
    assert model.calls == calls
    store.invalidate_cache()
    assert store.ls("pairs/data/labels", detail=False) == parts
    (copy,) = (tmp_path / "machines" / "two").rglob("labels.jsonl")
    assert copy.read_bytes() == b"".join(store.cat_file(part) for part in sorted(parts))


def test_a_second_run_on_one_machine_is_told(
    store: Any, tmp_path: Path, run: Run, machine: Callable[[str], None]
) -> None:
    machine("one")
    assert not store.exists("pairs/data")
    with mirror.Mirror("s3://pairs/data").held():
        second = run("caption", write_pairs(tmp_path / "l", ["a"]), "-d", "s3://pairs/data")
    assert second.code == 1
    assert "another chronoprep run on this machine" in second.stderr


def test_a_store_that_goes_away_loses_nothing(
    store: Any, tmp_path: Path, run: Run, model: Model, machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pairs = write_pairs(tmp_path / "local", ["a", "b"], (32, 24))
    machine("one")
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise BackendError("s3://pairs: can't write it: gone.", hint="Run it again.")

        broken.setattr("chronoprep.dataset.mirror.put", refuse)
        stopped = run("prepare", pairs, "-d", "s3://pairs/data")
        assert stopped.code == 1
        assert "can't write it" in stopped.stderr
    calls = dict(model.calls)
    assert run("prepare", pairs, "-d", "s3://pairs/data").code == 0
    assert model.calls == calls
    assert len(there(store)) == 3


@pytest.mark.slow
def test_twenty_thousand_pairs(store: Any, tmp_path: Path, run: Run) -> None:
    """The same dataset as from the disk."""
    count = int(os.environ.get("REMOTE_TEST_PAIRS", "20000"))
    local = tmp_path / "local"
    for side in ("input", "output"):
        (local / side).mkdir(parents=True)
    for n in range(count):
        for side in (0, 1):
            path = local / ("input", "output")[side] / f"n{n:05}.png"
            photo(2 * n + side, (16, 16)).save(path)
    store.put(str(local), "pairs/set", recursive=True)
    for where, data in (("s3://pairs/set", "s3://pairs/data"), (local, "here")):
        prepared = run("build-csv", where, "-d", data, "--prompt", "Remove the noise.", "-q")
        assert prepared.code == 0, prepared.stderr
    made = here(Path("here"))
    assert len(made) == count + 1
    assert there(store) == made
