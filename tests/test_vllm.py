"""The vLLM backend, and vLLM's own server behind the OpenAI one: `make test-vllm`.

Real vLLM on the CPU, in float32: it writes what transformers writes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from chronoprep.config import LabelSettings, VLMSettings
from chronoprep.data import Completion, Picture, Turn
from chronoprep.dataset import Dataset
from chronoprep.errors import BackendError, PairError
from chronoprep.labels.captioning import View, label
from chronoprep.labels.prompts import load_prompts
from conftest import HANGS, label_of, photo, write_pairs
from tiny_checkpoints import build_vlm

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("default"),  # vLLM's own
]

NAMES = [f"p{i:02}" for i in range(16)]
OPTIONS = {"enforce_eager": True, "skip_mm_profiling": True, "block_size": 32}
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}
Label = tuple[str | None, str | None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models that write ASCII, by family; vLLM's kernels want heads of 32 numbers or more.

    An answer that the limit cuts within a character ends in U+FFFD in transformers alone.
    """

    @cache
    def build(family: str) -> Path:
        folder = build_vlm(tmp_path_factory.mktemp(family) / "tiny", family, head_dim=32)
        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        weights = load_file(folder / "model.safetensors")
        for token, number in tokens.items():
            if not token.replace("Ġ", " ").isascii():
                weights["lm_head.weight"][number] = 0.0
        for name, weight in weights.items():
            if ".mlp.experts." in name:  # as in the published checkpoints
                weights[name] = weight.transpose(1, 2).contiguous()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return build


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Path:
    return tiny("qwen3_vl")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Pictures by family, of whole patches: vLLM resizes by torchvision, whose pixels are a step
    or two of 255 from Pillow's."""

    @cache
    def write(family: str) -> Path:
        size = (168, 112) if family == "qwen2_5_vl" else (160, 128)
        folder = write_pairs(tmp_path_factory.mktemp("pairs"), NAMES, size)
        for side in ("input", "output"):
            photo(7, (2400, 8)).save(folder / side / "strip.png")  # over the families' ratio of 200
        return folder

    return write


def labels(pairs: Path, data: Path, *options: object) -> dict[str, Label]:
    """Run the command; every pair but the strip has a label."""
    command = [
        *(sys.executable, "-m", "chronoprep", "caption", pairs, "-d", data, "--generate-cot"),
        *("--no-guard", "--max-new-tokens", 24, "--json", *options),
    ]
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False,
        env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    summary = json.loads(result.stdout)[1]
    assert [failure["key"] for failure in summary["failures"]] == ["strip"], result.stdout
    assert summary["done"] + summary["no_change"] == len(NAMES)
    journal = Dataset(data).journal
    return {key: tuple(journal.state(key).text) for key in journal if journal.state(key).label}


@pytest.fixture(scope="module")
def expected(
    pairs: Callable[[str], Path],
    tiny: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], dict[str, Label]]:
    """What transformers writes, by family."""

    @cache
    def write(family: str) -> dict[str, Label]:
        data = tmp_path_factory.mktemp("transformers")
        texts = labels(pairs(family), data, "--model", tiny(family))
        assert len(set(texts.values())) > len(NAMES) // 2
        return texts

    return write


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_it_writes_what_transformers_writes(
    family: str,
    pairs: Callable[[str], Path],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    expected: Callable[[str], dict[str, Label]],
) -> None:
    tables = [f"{key} = {json.dumps(value)}" for key, value in OPTIONS.items()]
    Path("chronoprep.toml").write_text("\n".join(["[vlm.vllm]", *tables]))
    options = ("--model", tiny(family), "--backend", "vllm", "--concurrency", 16)
    assert labels(pairs(family), tmp_path / "d", *options) == expected(family)


def test_so_does_its_server(
    pairs: Callable[[str], Path],
    model: Path,
    tmp_path: Path,
    expected: Callable[[str], dict[str, Label]],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--port", str(port), "--dtype", "float32", "--max-num-seqs", "8", "--enforce-eager"),
        *("--skip-mm-profiling", "--block-size", "32", "--max-model-len", "2048"),
    ]
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | ENVIRONMENT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        endpoint = f"http://127.0.0.1:{port}/v1"
        options = ("--endpoint", endpoint, "--concurrency", 16)
        ours = labels(pairs("qwen3_vl"), tmp_path / "d", *options)
        assert label_of(tmp_path / "d", "p00").model == "tiny"
    finally:
        server.terminate()
        server.wait()
    assert ours == expected("qwen3_vl")
    answers = Counter(re.findall(r'"POST /v1/chat/completions HTTP/1.1" (\d+)', log.read_text()))
    assert answers == {"200": 2 * len(NAMES), "400": 1}


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(2 * HANGS):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(log.read_text()[-3000:])


def test_an_option_that_vllm_lacks_stops_the_run(pairs: Callable[[str], Path], model: Path) -> None:
    Path("chronoprep.toml").write_text("[vlm.vllm]\nno_such_option = 1\n")
    command = [sys.executable, "-m", "chronoprep", "caption", str(pairs("qwen3_vl")), "-d", "d"]
    result = subprocess.run(
        [*command, "--backend", "vllm", "--model", str(model)],
        capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    assert result.returncode == 1
    assert "no_such_option" in result.stderr
    assert "[vlm.vllm]" in result.stderr


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Any]:
    """An engine in this process's care, that keeps count."""
    with started(model) as engine:
        yield engine


@contextmanager
def started(model: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from chronoprep import vlm

        settings = VLMSettings(
            model=str(model),
            backend="vllm",
            concurrency=16,
            max_new_tokens=8,
            vllm=OPTIONS | {"disable_log_stats": False},
        )
        engine = vlm.resolve(settings).load()
        yield engine
        engine.close()


def counters(engine: Any) -> dict[str, float]:
    from vllm.v1.metrics.reader import get_metrics_snapshot

    assert engine.engine.log_stats
    return {m.name.removeprefix("vllm:"): m.value for m in get_metrics_snapshot()
            if hasattr(m, "value")}  # fmt: skip


def test_stage_2_finds_the_images_in_the_caches(engine: Any) -> None:
    # These templates have no system prompt: what two requests share is the pair's images.
    prompts = load_prompts(LabelSettings(), "compact")
    pictures = [Picture(photo(i, (192, 192))) for i in range(48)]
    views = [View(*pictures[i : i + 2]) for i in range(0, 48, 2)]
    before = counters(engine)
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(
            lambda view: label(engine, prompts, [view], with_cot=True, guard=False), views
        ):
            assert answers[0].error is None
    spent = {name: value - before.get(name, 0) for name, value in counters(engine).items()}
    images = len(views) * 2
    assert spent["mm_cache_queries"] == 2 * images
    assert spent["mm_cache_hits"] == images, "the processor sees each image once"
    # Two images of 36 tokens and what stands around them: 79 tokens, or two whole blocks of 32.
    assert spent["prefix_cache_hits"] == len(views) * 64, "the model sees each image once"


def test_a_chat_that_is_too_long_fails_alone(engine: Any) -> None:
    short, long = "Hello", "Hello " * 20_000
    chats = [(Turn("user", (text,)),) for text in (short, long, short)]
    first, second, third = engine.generate(chats)
    assert isinstance(first, Completion)
    assert first == third
    assert isinstance(second, PairError)
    assert "maximum" in second.message


def test_closing_ends_what_is_under_way(engine: Any) -> None:
    chats = [(Turn("user", (f"Hello {i}",)),) for i in range(64)]
    with ThreadPoolExecutor(64) as pool:
        futures = [pool.submit(engine.generate, [chat]) for chat in chats]
        engine.close()
        ends = [future.exception() for future in futures]
    assert any(ends)
    assert all(end is None or isinstance(end, BackendError) for end in ends)
    with pytest.raises(BackendError, match="closed"):
        engine.generate(chats)
    engine.close()


def test_several_renderers_share_the_pictures(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a GPU, beside which the cores of this machine are free.
    from chronoprep.vlm import registry, vllm_backend
    from chronoprep.vlm.choice import Spread

    monkeypatch.setattr(registry, "spread", lambda *_: Spread(1, 1, 1))
    monkeypatch.setattr(vllm_backend, "_RENDERERS", 2)
    prompts = load_prompts(LabelSettings(), "compact")
    pictures = [Picture(photo(i, (192, 192))) for i in range(32)]
    views = [View(*pictures[i : i + 2]) for i in range(0, 32, 2)]

    def ask(view: View) -> Label:
        (answer,) = label(engine, prompts, [view], with_cot=True, guard=False)
        return answer.caption, answer.cot

    with started(model) as engine, ThreadPoolExecutor(16) as pool:
        assert len(engine._renderers) == 2
        before = counters(engine)
        together = list(pool.map(ask, views))
        hits = counters(engine)["prefix_cache_hits"] - before.get("prefix_cache_hits", 0)
        assert hits == len(views) * 64, "the model sees each image once"
        assert [ask(view) for view in views] == together
    assert len(set(together)) > len(views) // 2


def test_an_engine_that_is_killed_ends_the_run(model: Path) -> None:
    with started(model) as engine, ThreadPoolExecutor(32) as pool:
        chats = [(Turn("user", (f"Hello {i}",)),) for i in range(32)]
        engine.generate(chats[:1])
        futures = [pool.submit(engine.generate, [chat] * 8) for chat in chats]
        for child in psutil.Process().children(recursive=True):
            if "EngineCore" in child.name():
                child.kill()
        began = time.monotonic()
        ends = [future.exception(timeout=30) for future in futures]
        assert all(isinstance(end, BackendError) for end in ends if end is not None)
        assert any(ends)
        with pytest.raises(BackendError):
            engine.generate(chats)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, 1)])
def test_an_engine_that_ends_while_it_starts(
    number: signal.Signals, code: int, model: Path, tmp_path: Path
) -> None:
    """A scheduler's signal reaches all processes; a kill for memory the engine alone."""
    write_pairs(tmp_path / "pairs", ["a", "b"])
    words = ["caption", tmp_path / "pairs", "-d", tmp_path / "data", "--model", model]
    run = subprocess.Popen(
        [sys.executable, "-m", "chronoprep", *map(str, words), "--backend", "vllm", "--no-guard"],
        stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT, start_new_session=True,
    )  # fmt: skip

    def engines() -> list[psutil.Process]:
        children = psutil.Process(run.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    while not engines():
        assert run.poll() is None
        time.sleep(0.1)
    (engine,) = engines()
    os.killpg(run.pid, number) if number == signal.SIGTERM else engine.kill()
    began = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert run.returncode == code, said
    assert ("vLLM does not start" in said) == (code == 1)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_it_enhances_a_wish_as_transformers_does(model: Path, tmp_path: Path) -> None:
    photo(1, (160, 128)).save(tmp_path / "a.png")
    words = ["enhance", "--input-image", str(tmp_path / "a.png"), "--prompt", "Add a hat"]
    words += ["--model", str(model), "--no-guard", "--max-new-tokens", "24", "-q"]
    said = [
        subprocess.run(
            [sys.executable, "-m", "chronoprep", *words, *backend],
            capture_output=True, text=True, check=True, env=os.environ | ENVIRONMENT,
        ).stdout
        for backend in (["--backend", "transformers"], ["--backend", "vllm"])
    ]  # fmt: skip
    assert said[0] == said[1] != "\n"
