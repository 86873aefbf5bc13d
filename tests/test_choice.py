"""Which backend a run takes where none is named, on machines with and without GPUs and vLLM."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chronoprep import vlm
from chronoprep.config import VLMSettings
from chronoprep.dataset import Dataset
from chronoprep.vlm import choice
from chronoprep.vlm.choice import spread
from conftest import Result, write_pairs

CARDS = {"uuid,memory.total": "GPU-a, 81559\nGPU-b, 81559", "compute_cap": "9.0\n9.0"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a driver with these answers on PATH, and an installed vLLM of a version."""

    def put(cards: dict[str, str] = CARDS, version: str | None = None) -> None:
        tool = tmp_path / "nvidia-smi"
        cases = "\n".join(f"--query-gpu={k}) echo '{said}' ;;" for k, said in cards.items())
        tool.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        if version is not None:
            listed = tmp_path / "packages/vllm" / choice._LISTED
            listed.parent.mkdir(parents=True)
            listed.write_text('    "Qwen3VLForConditionalGeneration": (\n')
            (tmp_path / "packages/vllm/__init__.py").touch()
            told = tmp_path / f"packages/vllm-{version}.dist-info/METADATA"
            told.parent.mkdir()
            told.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
            monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    choice._vllm.cache_clear()
    yield put
    choice._vllm.cache_clear()


def found(model: Path, **settings: Any) -> vlm.Model:
    return vlm.resolve(VLMSettings(model=str(model), **settings))


def test_vllm_runs_what_it_knows_on_gpus_that_it_works_with(
    machine: Callable[..., None], tiny: Callable[[str], Path]
) -> None:
    machine(version="0.32.0")
    model = found(tiny("qwen3_vl"))
    assert (model.backend, model.how) == ("vllm", "by vLLM on 2 GPUs")
    # A copy on each GPU, with as much to do as one alone; whoever plans it all is heeded.
    planned = found(tiny("qwen3_vl"), vllm={"tensor_parallel_size": 2})
    assert model.in_flight == 2 * planned.in_flight
    large = spread(100 * 10**9, {})
    assert (large.tensor, large.data) == (2, 1), "which one GPU does not hold"
    # A family that this vLLM does not list, and a device that it would not heed.
    assert "does not know Qwen2_5_VL" in found(tiny("qwen2_5_vl")).how
    for other in (found(tiny("qwen2_5_vl")), found(tiny("qwen3_vl"), device="cpu")):
        assert other.backend == "transformers"
    assert found(tiny("qwen3_vl"), backend="transformers").backend == "transformers"
    # So small that starting vLLM would take longer than all labels.
    assert vlm.resolve(VLMSettings(model="shapes")).backend == "transformers"


@pytest.mark.parametrize(
    ("cards", "version", "words"),
    [
        ({}, "0.32.0", "without an NVIDIA GPU"),
        (CARDS, None, "pip install 'chronoprep[vllm]'"),
        (CARDS, None, "by --engine ray, each of the 2 GPUs has a copy"),
        (CARDS, "0.32.0+cpu", "pip install 'chronoprep[vllm]'"),
        (CARDS | {"compute_cap": "9.0\n6.1"}, "0.32.0", "a GPU here has 6.1"),
        (CARDS | {"uuid,memory.total": "GPU-a, 1"}, "0.32.0", "more than the GPUs hold"),
    ],
)
def test_transformers_says_why_it_is_not_vllm(
    cards: dict[str, str],
    version: str | None,
    words: str,
    machine: Callable[..., None],
    tiny: Callable[[str], Path],
) -> None:
    machine(cards, version)
    model = found(tiny("qwen3_vl"))
    assert model.backend == "transformers"
    assert words in model.how
    assert ("--engine ray" in model.how) == (cards.get("uuid,memory.total", "").endswith("81559"))


def test_a_run_says_in_one_line_what_it_took_and_another_backend_has_nothing_to_do(
    machine: Callable[..., None],
    run: Callable[..., Result],
    tmp_path: Path,
    tiny: Callable[[str], Path],
) -> None:
    machine({})
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"])
    options = ("--model", tiny("qwen3_vl"), "--max-new-tokens", 8, "--no-guard")
    result = run("caption", pairs, "-d", "data", *options)
    assert "Loading qwen3_vl by transformers, without an NVIDIA GPU …" in result.stderr
    journal = Dataset(Path("data")).journal
    assert all(journal.state(key).label for key in ("a", "b"))
    machine(version="0.32.0")
    again = run("caption", "-d", "data", *options, "--json")
    assert json.loads(again.stdout)[1]["skipped"] == 2
    assert "Loading" not in again.stderr
