"""The same stages on Ray: two nodes on this machine, one of which goes, and killed workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import test_remote
from chronoprep.dataset import Dataset, Label, Video
from chronoprep.workflows import write_synthetic
from conftest import HANGS, Result, text_of
from test_remote import endpoint, store  # noqa: F401 - fixtures

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]
Run = Callable[..., Result]

PAIRS = int(os.environ.get("RAY_TEST_PAIRS", "48"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "pairs"
    write_synthetic(folder, PAIRS, seed=5, size=64)
    return folder


def started(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chronoprep", *(str(arg) for arg in args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip


def labels(folder: Path) -> Counter[str]:
    """How often each pair was labelled."""
    journal = Dataset(folder).journal
    return Counter({key: len(journal.state(key).labels) for key in journal})


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + HANGS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def workers() -> list[psutil.Process]:
    """Processes of this cluster that label."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "MapWorker" in " ".join(process.cmdline())
    ]


def test_a_killed_worker_and_a_removed_node_lose_nothing(
    cluster: Any, drawn: Path, tmp_path: Path
) -> None:
    """400 pairs with RAY_TEST_PAIRS=400, as in `make test-ray`."""
    more = cluster.add_node(num_cpus=1)
    on_ray = ("--engine", "ray", "--ray-address", cluster.address)
    command = ("caption", drawn, "--generate-cot", "--model", "shapes", "-q")
    process = started(*command, "-d", "data", *on_ray)
    data = tmp_path / "data"
    wait_for(lambda: len(labels(data)) > PAIRS // 8, process)
    killed = workers()
    assert killed
    killed[0].kill()
    there = len(labels(data))
    wait_for(lambda: len(labels(data)) > there + PAIRS // 8, process)
    cluster.remove_node(more)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, (out, err)
    assert labels(data) == Counter({f"shapes-{n:04}": 1 for n in range(PAIRS)})

    local = started(*command, "-d", "local")
    assert local.wait(HANGS) == 0
    keys = list(labels(data))
    assert {key: text_of("data", key) for key in keys} == {
        key: text_of("local", key) for key in keys
    }


def test_two_devices_label_each_pair_once(cluster: Any, drawn: Path, tmp_path: Path) -> None:
    """Devices as Ray counts them, without a GPU: a worker has one of them to itself."""
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    process = started("caption", drawn, "-d", "data", "--model", "shapes", "-q", "--engine", "ray",
                      "--ray-address", cluster.address)  # fmt: skip
    wait_for(lambda: len(labels(tmp_path / "data")) > PAIRS // 4, process)
    assert len(workers()) == 2
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, (out, err)
    assert labels(tmp_path / "data") == Counter({f"shapes-{n:04}": 1 for n in range(PAIRS)})
    cluster.remove_node(node)


def test_every_stage_of_prepare(cluster: Any, tmp_path: Path, tiny_umt5: Path) -> None:
    write_synthetic(tmp_path / "few", 6, seed=1, size=64)
    command = ["prepare", "few", "--model", "shapes", "--umt5", "--umt5-model", tiny_umt5, "-q"]
    on_ray = ("--engine", "ray", "--ray-address", cluster.address)
    for where, more in (("data", on_ray), ("local", ())):
        process = started(*command, "-d", where, *more)
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, (out, err)
    data, local = Path("data"), Path("local")
    assert (data / "metadata.csv").read_bytes() == (local / "metadata.csv").read_bytes()
    for kind in ("videos", "umt5"):
        files = sorted(path.name for path in (local / kind).iterdir())
        assert sorted(path.name for path in (data / kind).iterdir()) == files
        for name in files:
            assert (data / kind / name).read_bytes() == (local / kind / name).read_bytes()
    states = [Dataset(data).journal.state(key) for key in Dataset(data).journal]
    assert all(len([e for e in s.events if isinstance(e, Label | Video)]) <= 2 for s in states)


def test_pairs_and_dataset_in_an_object_store(
    store: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """On a cluster of this machine: what workers write is put into the store with the rest."""
    write_synthetic(tmp_path / "few", 6, seed=1, size=64)
    test_remote.uploaded(store, tmp_path / "few", "pairs/set")
    command = ("prepare", "--model", "shapes", "-q")
    for more in (
        ("s3://pairs/set", "-d", "s3://pairs/data", "--engine", "ray", "--workers", 2),
        ("few", "-d", "here"),
    ):
        process = started(*command, *more)
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, (out, err)
    assert test_remote.there(store) == test_remote.here(Path("here"))


def test_a_pair_fails_alone(cluster: Any, tmp_path: Path) -> None:
    broken = tmp_path / "few/input/shapes-0002.png"
    write_synthetic(tmp_path / "few", 4, seed=1, size=64)
    broken.write_bytes(b"no picture")
    on_ray = ("--engine", "ray", "--ray-address", cluster.address)
    process = started("pair2video", "few", "-d", "data", *on_ray)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 1, (out, err)
    assert "shapes-0002.png" in out + err
    assert "Traceback" not in err
    assert len(list(Path("data/videos").iterdir())) == 3


def test_what_stops_a_run_here_stops_it_there(
    cluster: Any, tmp_path: Path, tiny_umt5: Path
) -> None:
    """A worker's error that is no pair's own: in its words, and no pair is marked for it."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_umt5, broken)
    weights = next(broken.glob("*.safetensors"))
    tensors = load_file(weights)
    for name in tensors:
        if name.endswith(("shared.weight", "embed_tokens.weight")):
            tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, weights)
    (tmp_path / "metadata.csv").write_text("key,prompt\na,A hat.\n")
    command = ("umt5", "--csv", "metadata.csv", "--model", broken)
    errors = []
    for more in ((), ("--engine", "ray", "--ray-address", cluster.address)):
        process = started(*command, *more)
        errors.append(process.communicate(timeout=HANGS)[1].splitlines()[-2:])
        assert process.returncode == 1
    assert "all zero" in str(errors[0])
    assert errors[0] == errors[1]
    assert not Path("labels.jsonl").exists() or "failure" not in Path("labels.jsonl").read_text()


@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    signalled: signal.Signals, cluster: Any, drawn: Path, tmp_path: Path
) -> None:
    command = ("caption", drawn, "-d", "data", "--model", "shapes", "--engine", "ray",
               "--ray-address", cluster.address)  # fmt: skip
    process = started(*command)
    wait_for(lambda: len(labels(tmp_path / "data")) > 2, process)
    process.send_signal(signalled)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 128 + signalled, (out, err)
    assert "run it again to go on" in err
    there = len(labels(tmp_path / "data"))
    assert 2 < there < PAIRS
    process = started(*command)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, (out, err)
    assert labels(tmp_path / "data") == Counter({f"shapes-{n:04}": 1 for n in range(PAIRS)})


@pytest.mark.parametrize("gpus", ["1.5", "-1"])
def test_gpus_are_shared_or_whole(gpus: str, run: Run) -> None:
    wrong = run("caption", "pairs", "-d", "data", "--engine", "ray", f"--gpus-per-worker={gpus}")
    assert wrong.code == 2


def test_more_gpus_than_a_node_has(cluster: Any, drawn: Path) -> None:
    process = started("caption", drawn, "-d", "data", "--model", "shapes", "--engine", "ray",
                      "--ray-address", cluster.address, "--gpus-per-worker", "2")  # fmt: skip
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert "no node of the Ray cluster has more than 0" in err


def test_a_cluster_that_is_not_there(drawn: Path) -> None:
    process = started("pair2video", drawn, "-d", "data", "--engine", "ray",
                      "--ray-address", "127.0.0.1:1")  # fmt: skip
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert "Ray at 127.0.0.1:1" in err
    assert "ray start --head" in err
