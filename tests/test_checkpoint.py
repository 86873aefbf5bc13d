"""Where models are and whether they fit: folders, the cache, a hub on this machine, memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from huggingface_hub import constants

from chronoprep import checkpoint, memory, vlm
from chronoprep.checkpoint import Checkpoint
from chronoprep.config import VLMSettings
from chronoprep.errors import BackendError, ConfigError
from conftest import HANGS
from odd_server import Quiet, serving

Tiny = Callable[[str], Path]


def find(model: Path | str, **settings: str) -> Checkpoint:
    return vlm.resolve(VLMSettings(model=str(model), **settings)).checkpoint


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(tiny("qwen3_vl"), tmp_path / "model"))


# Folders


def test_a_folder_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    before = find(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert find(moved).revision == before.revision
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find(moved).revision != before.revision


@pytest.mark.parametrize("where", [0, 0.3, 0.7, 1])
def test_a_large_retrained_file_is_another_revision(where: float, tmp_path: Path) -> None:
    size = 20 << 20
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(size))
    before = checkpoint.content_revision(tmp_path)
    with weights.open("r+b") as file:
        file.seek(int(where * (size - (1 << 19))))
        file.write(b"x" * (1 << 19))  # training changes every tensor: far more than this
    assert checkpoint.content_revision(tmp_path) != before


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError) as caught:
        find(folder)
    assert name in caught.value.message


def test_a_missing_folder_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model folder"):
        find(tmp_path / "nowhere")


def test_weights_cut_short_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a whole .*"):
        find(folder)


def test_a_pointer_instead_of_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a") as caught:
        find(folder)
    assert "LFS" in str(caught.value.hint)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="model-00001-of-00002"):
        find(folder)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"a": []}}'])
def test_a_broken_index_is_named(index: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigError, match=r"index\.json: not a weight index"):
        find(folder)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_text_model_is_refused(family: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    with pytest.raises(ConfigError, match=f"'{family}' is no vision-language model"):
        find(folder)


# No hub


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is ready to wait for a network, which nothing is asked of otherwise."""
    seconds: list[float] = []
    within, look_up = checkpoint._within, socket.getaddrinfo

    def noted(most: float, function: Callable[[], object]) -> object:
        seconds.append(most)
        return within(most, function)

    def looked_up(*asked: Any, **more: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return look_up(*asked, **more)

    monkeypatch.setattr(checkpoint, "_within", noted)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return seconds


def test_offline_is_said_at_once(waits: list[float]) -> None:
    for model in ("qwen3-vl-30b", "Qwen/Qwen2.5-VL-7B-Instruct"):
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE") as caught:
            find(model)
        for way in ("hf download Qwen/", "--model", "chronoprep models", "--prompt"):
            assert way in str(caught.value.hint)
    assert waits == []


def use_hub(endpoint: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.parametrize("network", ["refuses", "names nothing", "is silent"])
def test_a_hub_that_is_out_of_reach_is_given_up_within_two_seconds(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    listener = socket.socket()  # refuses connections until it listens
    listener.bind(("127.0.0.1", 0))
    use_hub(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path, monkeypatch)
    if network == "names nothing":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: Event().wait())
    elif network == "is silent":
        listener.listen()
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    with listener, pytest.raises(ConfigError, match="can't be reached") as caught:
        find("Qwen/Qwen3-VL-4B-Instruct")
    assert 0 < sum(waits) <= 2
    assert "--prompt" in str(caught.value.hint)


# A hub on this machine

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server of the routes that a download takes: a model's page, its tree and its files."""

    folder: Path
    refusal: tuple[int, str] | None = None
    seconds: float = 0
    served: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        time.sleep(self.seconds)
        path = request.path.split("?")[0]
        headers, body, status = {}, b"", 200
        files = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*.*")}
        sizes = {name: file.stat().st_size for name, file in files.items()}
        if path.startswith("/api/models/some/model/tree/"):
            tree = [{"type": "file", "path": n, "oid": n, "size": s} for n, s in sizes.items()]
            body = json.dumps(tree).encode()
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            page = {"_id": "1", "id": "some/model", "sha": COMMIT, "siblings": siblings}
            body = json.dumps(page).encode()
        elif self.refusal is None:
            name = path.split("/resolve/")[1].split("/", 1)[1]  # after the revision
            body = (self.folder / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if request.command == "GET":
                self.served.append(name)
        if self.refusal and (self.refusal[1] != "GatedRepo" or "/resolve/" in path):
            status, headers["X-Error-Code"] = self.refusal
            body = b'{"error": "refused"}'
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    use_hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(checkpoint, "CONNECT_SECONDS", HANGS)
    with serving(server):
        yield state


def test_a_model_is_found_downloaded_and_found_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for doubled in ("pytorch_model.bin", "model.onnx"):
        (hub.folder / doubled).write_bytes(b"never read")
    found = find("some/model")
    assert (found.folder, found.revision) == (None, COMMIT)
    assert found.config["model_type"] == "qwen3_vl"
    assert found.bytes == (hub.folder / "model.safetensors").stat().st_size
    assert hub.served == ["config.json"]
    assert not checkpoint.is_cached("some/model")

    here = checkpoint.ensure(found)
    assert not {"pytorch_model.bin", "model.onnx"} & set(hub.served)
    assert checkpoint.is_cached("some/model")
    again = find("some/model")
    assert (again.folder, again.revision) == (here, COMMIT)
    assert len(hub.served) == len(set(hub.served)), "nothing is downloaded twice"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find("some/model") == again


def test_weights_that_are_only_pickled_are_downloaded(hub: Hub) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    assert (checkpoint.ensure(find("some/model")) / "pytorch_model.bin").is_file()


def test_a_hub_that_takes_its_time_is_waited_for(hub: Hub) -> None:
    hub.seconds = 2
    assert find("some/model").config["model_type"] == "qwen3_vl"


def test_weights_that_lie_there_twice_count_once(hub: Hub) -> None:
    """Beside the shards, Mistral's repositories hold all weights in one file of their own form."""
    size = (hub.folder / "model.safetensors").stat().st_size
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    index = {"weight_map": {"a": first, "b": second}}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(hub.folder / "model.safetensors", hub.folder / first)
    shutil.copy(hub.folder / "model.safetensors", hub.folder / second)
    (hub.folder / "model.safetensors").rename(hub.folder / "consolidated.safetensors")
    assert find(hub.folder).bytes == 2 * size
    found = find("some/model")
    assert found.bytes == 2 * size
    assert "consolidated.safetensors" not in found.files
    assert {first, second} < set(found.files)


def test_weights_under_a_name_of_their_own_count(hub: Hub) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "weights.safetensors")
    assert "weights.safetensors" in find("some/model").files


def test_a_text_model_is_refused_before_its_download(hub: Hub) -> None:
    (hub.folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="no vision-language model"):
        find("some/model")
    assert hub.served == ["config.json"]


def test_a_download_that_was_broken_off_is_said_and_completed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = checkpoint.ensure(find("some/model"))
    hub.served.clear()
    (snapshot / "model.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match=r"in the cache, but .* no weights"):
            find("some/model")
    assert (checkpoint.ensure(find("some/model")) / "model.safetensors").is_file()
    assert set(hub.served) <= {"model.safetensors"}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "RepoNotFound"), "no such model, or a private one"),
        ((404, "RepoNotFound"), "no such model, or a private one"),
        ((404, "RevisionNotFound"), "no revision 'v9'"),
        ((403, "GatedRepo"), "licence has to be accepted"),
        ((503, ""), "HTTP 503"),
    ],
)
def test_a_refusal_says_why(refusal: tuple[int, str], words: str, hub: Hub) -> None:
    hub.refusal = refusal
    with pytest.raises(ConfigError, match=words) as caught:
        find("some/model", revision="v9")
    assert caught.value.hint


def test_a_download_that_fails_can_be_run_again(hub: Hub) -> None:
    found = find("some/model")
    hub.refusal = (404, "EntryNotFound")
    with pytest.raises(BackendError, match="the download failed") as caught:
        checkpoint.ensure(found)
    assert "again" in str(caught.value.hint)


# Memory


def check_fits(found: Checkpoint, **settings: str) -> None:
    vlm.Model(VLMSettings(model="qwen3-vl-30b", **settings), found, "transformers").check_fits()


def test_a_model_that_does_not_fit_says_what_would(tiny: Tiny) -> None:
    found = replace(find(tiny("qwen3_vl")), bytes=10**15)
    with pytest.raises(ConfigError, match="needs about 1200000 GB") as caught:
        check_fits(found, device="cpu")
    assert "smaller model" in str(caught.value.hint)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put an nvidia-smi that prints these lines on PATH."""

    def put(lines: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


def test_gpus_count_as_torch_will_see_them(
    gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus("GPU-a, 81559\nGPU-b, 24564")
    large, small = 81559 << 20, 24564 << 20
    assert memory.of_gpus() == [large, small]
    for visible, sizes in {"1": [small], "GPU-b,GPU-a": [small, large], "": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert memory.of_gpus() == sizes


def test_one_gpu_has_to_hold_the_model_but_auto_spreads_it(gpus: Callable[[str], None]) -> None:
    gpus("GPU-a, 24564\nGPU-b, 81559")
    memory.check(60 * 10**9, "cuda:1", "m")
    memory.check(100 * 10**9, "auto", "m")
    with pytest.raises(ConfigError, match="26 GB on cuda"):
        memory.check(60 * 10**9, "cuda", "m")
    with pytest.raises(ConfigError, match="no GPU 2"):
        memory.check(1, "cuda:2", "m")


def test_a_gpu_that_cannot_be_measured_is_not_refused(
    gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus("GPU-a, [N/A]")
    monkeypatch.setattr(memory, "GPU_DEVICES", (str(tmp_path),))
    memory.check(10**15, "cuda", "m")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no GPU"):
        memory.check(10**15, "cuda", "m")


@pytest.mark.parametrize(
    ("saved", "asked", "size"),
    [("bfloat16", "float32", 24), ("float32", "bfloat16", 6), ("bfloat16", "auto", 12)],
)
def test_the_dtype_counts(saved: str, asked: str, size: int, gpus: Callable[[str], None]) -> None:
    gpus("GPU-a, 1000")
    found = Checkpoint("m", Path(), "r", {"text_config": {"dtype": saved}}, bytes=10 * 10**9)
    with pytest.raises(ConfigError, match=f"needs about {size} GB"):
        check_fits(found, dtype=asked, device="cuda")
