"""The OpenAI-compatible backend against a server process that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoprep import vlm
from chronoprep.config import ImageSettings, VLMSettings
from chronoprep.data import GREEDY, Completion, Pair, Picture, Sampling, Turn
from chronoprep.dataset import Dataset
from chronoprep.errors import BackendError, ConfigError, PairError
from chronoprep.images.load import load_pair, pictures
from chronoprep.vlm import openai_backend
from chronoprep.vlm.endpoint import ServedModel, base_url, choose, url
from chronoprep.vlm.openai_backend import IMAGE_BYTES, OpenAIVLM, data_url
from conftest import HANGS, Result, label_of, photo, write_pairs
from fault_server import DECLINED, FATAL, FILTERED, LONG, REFUSED, caption_of, cot_of, fingerprint

LIMIT = {"finish_reason": "length"}
Run = Callable[..., Result]
Start = Callable[..., str]


def small_pairs(folder: Path, count: int) -> Path:
    return write_pairs(folder, [f"p{i:03}" for i in range(count)], (24, 18))


def pixels(pairs: Path, key: str) -> str:
    sides = (Image.open(pairs / side / f"{key}.png") for side in ("input", "output"))
    return fingerprint(*sides)


def check_labels(pairs: Path, data: Path, count: int) -> None:
    """Every pair has its own label, once."""
    records = [json.loads(line) for line in (data / "labels.jsonl").read_text().splitlines()]
    finished = Counter(record["key"] for record in records if record["kind"] == "label")
    assert len(finished) == count
    assert set(finished.values()) == {1}, "labelled twice"
    for key in finished:
        label = label_of(data, key)
        own = pixels(pairs, label.key)
        assert label.caption == caption_of(own)
        assert label.caption_cot == cot_of(own)
        assert (label.model, label.revision) == (
            "painter",
            ServedModel("/srv/models/painter").revision,
        )


def counts(text: str) -> tuple[int, int, int]:
    summary = json.loads(text)[1]
    return summary["done"], summary["skipped"], summary["failed"]


def chronoprep(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chronoprep", *(str(arg) for arg in args)],
        capture_output=True, text=True, check=False, timeout=HANGS, env=os.environ | environment,
    )  # fmt: skip


def test_faults_and_a_server_that_dies_cost_no_pair(tmp_path: Path, fault_server: Start) -> None:
    pairs, data = small_pairs(tmp_path / "pairs", 300), tmp_path / "data"
    ask = ("caption", pairs, "-d", data, "--generate-cot", "--request-timeout", 5, "--endpoint")
    stopped = chronoprep(*ask, fault_server("--faults", 0.2, "--die-after", 300))
    assert stopped.returncode == 1
    assert "the server fails" in stopped.stderr
    assert "run it again" in stopped.stderr
    done = len(Dataset(data).journal)
    assert 0 < done < 300
    again = chronoprep(*ask, fault_server("--faults", 0.2), "--json")
    assert again.returncode == 0, again.stderr
    assert counts(again.stdout) == (300 - done, done, 0)
    check_labels(pairs, data, 300)


def sent(path: Path) -> bytes:
    """What a server is sent of an image file."""
    loaded = load_pair(Pair("a", str(path), str(path)), ImageSettings())
    return base64.b64decode(data_url(pictures(loaded, ImageSettings())[0]).split(",")[1])


def test_a_jpeg_file_travels_as_it_is(tmp_path: Path) -> None:
    plain, progressive, large = (tmp_path / f"{n}.jpg" for n in ("plain", "progressive", "large"))
    photo(1).save(plain, quality=80)
    photo(1).save(progressive, quality=80, progressive=True)
    photo(1, (2400, 1800)).save(large, quality=80)
    assert sent(plain) == plain.read_bytes()
    assert sent(progressive) == progressive.read_bytes()
    assert Image.open(io.BytesIO(sent(large))).size == (1440, 1080)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("where", ["exif", "comment", "profile", "thumbnail", "scans"])
def test_what_a_jpeg_file_says_beside_its_pixels_stays_here(
    where: str, progressive: bool, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret"
    told: dict[str, Any] = {
        "exif": {"exif": exif},
        "comment": {"comment": "secret"},
        "profile": {"icc_profile": b"secret"},
    }.get(where, {})
    path = tmp_path / "a.jpg"
    photo(1).save(path, quality=80, progressive=progressive, **told)
    data = path.read_bytes()
    if where == "thumbnail":
        data = data[:2] + b"\xff\xe0\x00\x0dJFXX\0secret" + data[2:]
    if where == "scans":  # a decoder reads on past it
        data = data[:-2] + b"\xff\xfe\x00\x08secret" + data[-2:]
    path.write_bytes(data)
    assert b"secret" in data
    assert b"secret" not in sent(path)


def test_what_is_appended_to_a_jpeg_file_stays_here(tmp_path: Path) -> None:
    """As in a motion photo: a film, which is longer than the picture."""
    image, both = tmp_path / "a.jpg", tmp_path / "both.jpg"
    photo(1).save(image, quality=80)
    both.write_bytes(image.read_bytes() + b"\0\0\0\x18ftypmp42" + image.read_bytes())
    assert sent(both) == image.read_bytes()


def test_a_pair_that_the_server_refuses_fails_alone(
    run: Run, tmp_path: Path, fault_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no record holds what a file can't take, nor the key that a server echoes."""
    monkeypatch.setattr(openai_backend, "RETRIES", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    pairs = small_pairs(tmp_path / "pairs", 4)
    reasons = {
        REFUSED: "HTTP 400: the picture is too odd ? Bearer ***",
        FILTERED: "content filter",
        DECLINED: "I can't help with that. ?",
        FATAL: "HTTP 500: this picture breaks the engine",
        LONG: "token",
    }
    for width in reasons:
        write_pairs(pairs, [f"w{width}"], (width, 18))
    result = run(
        "caption", pairs, "-d", "data", "--generate-cot", "--endpoint", fault_server(), "--json"
    )
    assert result.code == 1
    assert counts(result.stdout) == (4, 0, 5)
    failures = {f["key"]: f["reason"] for f in result.json[1]["failures"]}
    for width, reason in reasons.items():
        assert reason in failures[f"w{width}"]


def test_one_pair_needs_no_dataset(run: Run, tmp_path: Path, fault_server: Start) -> None:
    pairs = small_pairs(tmp_path / "pairs", 1)
    source, target = (pairs / side / "p000.png" for side in ("input", "output"))
    result = run(
        "caption", "--input-image", source, "--output-image", target, "--generate-cot",
        "--endpoint", fault_server(), "--output-file", "-",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    own = pixels(pairs, "p000")
    assert result.json == {
        "caption": caption_of(own),
        "caption_cot": cot_of(own),
    }


def test_the_key_comes_from_the_environment(
    run: Run, tmp_path: Path, fault_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, endpoint = small_pairs(tmp_path / "pairs", 1), fault_server("--key", "sesame")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    refused = run("caption", pairs, "-d", "data", "--endpoint", endpoint)
    assert refused.code == 1
    assert "no such key: Bearer ***" in refused.stderr
    assert "OPENAI_API_KEY" in refused.stderr
    assert "sk-wrong" not in refused.stderr
    monkeypatch.setenv("OPENAI_API_KEY", "sk-é")
    wrong = run("caption", pairs, "-d", "data", "--endpoint", endpoint)
    assert wrong.code == 2
    assert "OPENAI_API_KEY holds a character" in wrong.stderr
    monkeypatch.setenv("OPENAI_API_KEY", "sesame\n")  # as read from a file
    assert run("caption", pairs, "-d", "data", "--endpoint", endpoint).code == 0
    assert "sesame" not in Path("data/labels.jsonl").read_text()


def test_a_model_that_the_server_lacks_is_a_usage_error(
    run: Run, tmp_path: Path, fault_server: Start
) -> None:
    pairs = small_pairs(tmp_path / "pairs", 1)
    result = run(
        "caption", pairs, "-d", "data", "--endpoint", fault_server(), "--model", "sculptor"
    )
    assert result.code == 2
    assert "does not serve sculptor" in result.stderr
    assert "/srv/models/painter" in result.stderr


def test_models_in_folders_of_one_name_are_told_apart(
    run: Run, tmp_path: Path, fault_server: Start
) -> None:
    first, second = "/srv/run1/final", "/srv/run2/final"
    pairs = small_pairs(tmp_path / "pairs", 2)

    def done(server: str, *options: str) -> tuple[int, int, int]:
        result = run("caption", pairs, "-d", "data", "--json", "--endpoint", server, *options)
        assert result.code == 0, result.stderr
        return counts(result.stdout)

    server, other = fault_server("--models", first), fault_server("--models", second)
    assert done(server) == (2, 0, 0)
    assert done(server, "--model", "final") == (0, 2, 0)
    assert done(server, "--model", first) == (0, 2, 0)
    assert done(other, "--model", "final") == (2, 0, 0)
    both = fault_server("--models", first, second)
    assert done(both, "--model", second) == (0, 2, 0)
    unclear = run("caption", pairs, "-d", "data", "--endpoint", both, "--model", "final")
    assert unclear.code == 2
    assert "several models called final" in unclear.stderr
    assert f"{first}, {second}" in unclear.stderr


def test_no_server_stops_the_run_before_it_begins(run: Run, tmp_path: Path) -> None:
    pairs = small_pairs(tmp_path / "pairs", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}"
        result = run("caption", pairs, "-d", "data", "--endpoint", endpoint)
    assert result.code == 1
    assert "does not answer" in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "openai"], "needs the address of a server"),
        (["--endpoint", "ftp://localhost:8000"], "is no http(s) address"),
        (["--endpoint", "http://[::1/v1"], "is no http(s) address"),
        (["--endpoint", "http://localhost:abc/v1"], "is no http(s) address"),
        (["--endpoint", "http://user:pass/word@localhost/v1"], "'http://localhost/v1' is no"),
        (["--endpoint", "http://h", "--concurrency", "0"], "concurrency"),
        (["--endpoint", "http://h", "--backend", "transformers"], "asks no server"),
        (["--endpoint", "http://h", "--backend", "vllm"], "asks no server"),
    ],
)
def test_wrong_options_are_usage_errors(
    options: list[str], said: str, run: Run, tmp_path: Path
) -> None:
    pairs = small_pairs(tmp_path / "pairs", 1)
    result = run("caption", pairs, "-d", "data", "--model", "x", *options)
    assert result.code == 2
    assert said in result.stderr


def test_a_proxy_that_nothing_here_speaks_is_a_usage_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://localhost:1")
    pairs = small_pairs(tmp_path / "pairs", 1)
    result = run("caption", pairs, "-d", "data", "--endpoint", "http://me:secret@h.example/v1")
    assert result.code == 2
    assert "http://h.example/v1: no connection can be set up" in result.stderr
    assert "ALL_PROXY" in result.stderr
    assert "secret" not in result.stderr


def test_a_missing_extra_names_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        vlm.resolve(VLMSettings(backend="vllm", model="x"))
    assert "pip install 'chronoprep[vllm]'" in str(caught.value.hint)


def asked(model: OpenAIVLM, sampling: Sampling) -> dict[str, Any]:
    (answer,) = model.generate([(Turn("user", ("Hello",)),)], sampling)
    assert isinstance(answer, Completion)
    request: dict[str, Any] = json.loads(answer.text)
    assert request.pop("messages") == [{"role": "user", "content": "Hello"}]
    assert request.pop("model") == "/srv/models/painter"
    assert request.pop("logprobs") is True
    return request


def test_labels_are_greedy_and_retries_sample(fault_server: Start) -> None:
    endpoint, drawn = fault_server(), Sampling(0.7, 0.9, 3)
    sampled = {"max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "seed": 3}
    with closing(painter(endpoint)) as model:
        assert asked(model, GREEDY) == {"max_tokens": 9, "temperature": 0.0}
        assert asked(model, drawn) == sampled
    # A checkpoint's own penalties would change greedy text, too; hosted services refuse the word.
    with closing(painter(endpoint, server="vllm")) as model:
        assert asked(model, drawn) == sampled | {"repetition_penalty": 1.0, "top_k": -1}


def test_a_model_that_refuses_one_word_for_the_limit_gets_the_other(fault_server: Start) -> None:
    endpoint = fault_server("--refuses", "max_tokens")
    with closing(painter(endpoint)) as model:
        for _ in range(3):
            assert asked(model, GREEDY) == {"max_completion_tokens": 9, "temperature": 0.0}
    with urllib.request.urlopen(f"{endpoint}/counts") as answer:
        assert json.load(answer) == {"refused": 1}


def painter(endpoint: str, server: str = "") -> OpenAIVLM:
    model = ServedModel("/srv/models/painter", server)
    settings = VLMSettings(endpoint=endpoint, max_new_tokens=9, request_timeout=60)
    return OpenAIVLM(settings, model)


def replies(endpoint: str, *values: tuple[int, object]) -> list[Completion | PairError]:
    """What is made of a server's statuses and answers."""
    with closing(painter(endpoint)) as model:
        return model.generate([(Turn("user", (json.dumps(value),)),) for value in values])


def choice(content: str | None, **fields: object) -> tuple[int, object]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}, **fields}]}


def test_an_answer_that_the_model_did_not_end_is_cut(fault_server: Start) -> None:
    whole = ["stop", "eos", "STOP", None]
    broken = ["length", "abort", "error", "model_length"]
    answers = [choice("Paint the", finish_reason=reason) for reason in whole + broken]
    made = replies(fault_server(), *answers, choice("Paint the"), choice(None, **LIMIT))
    assert [getattr(x, "truncated", None) for x in made] == [False] * 4 + [True] * 4 + [False, True]
    assert made[-1] == Completion("", 9, True), "the limit went into the thoughts"


def test_closing_ends_what_is_under_way(fault_server: Start) -> None:
    model = painter(fault_server("--faults", 1.0))  # each first answer is a fault: retries wait
    chats = [(Turn("user", (f"Hello {i}",)),) for i in range(20)]
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(model.generate, [chat]) for chat in chats]
        model.close()
        for future in futures:
            with pytest.raises(BackendError, match="closed"):
                future.result(timeout=HANGS)
    model.close()


def test_small_images_arrive_exact_and_large_ones_bounded() -> None:
    small = photo(1, (64, 48))
    assert np.array_equal(np.asarray(opened(data_url(Picture(small)))), np.asarray(small))
    large = photo(2, (800, 600))
    error = np.asarray(opened(data_url(Picture(large)))).astype(int) - np.asarray(large)
    assert np.abs(error).max() < 12
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    url = data_url(Picture(Image.fromarray(noise)))
    assert url.startswith("data:image/jpeg")
    assert len(url) < IMAGE_BYTES * 1.4
    assert opened(url).size == (1500, 1500)


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_the_model_to_ask() -> None:
    offered = [ServedModel("/srv/models/painter", "vllm"), ServedModel("Qwen/Qwen3-VL-8B-Instruct")]
    assert choose(offered, "e", ["painter"]) is offered[0]
    assert choose(offered, "e", ["qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct"]) is offered[1]
    assert choose(offered[:1], "e", []) is offered[0]
    assert choose(None, "e", ["llava"]) == ServedModel("llava")
    with pytest.raises(ConfigError, match="several"):
        choose(offered, "e", [])
    with pytest.raises(ConfigError, match="does not list"):
        choose(None, "e", [])


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://api.example.org/v1/", "https://api.example.org/v1"),
        ("https://example.org/openai/v2", "https://example.org/openai/v2"),
        ("localhost:8000", "http://localhost:8000/v1"),
        ("localhost", "http://localhost/v1"),
        ("gpu-box.lan", "http://gpu-box.lan/v1"),
        ("192.168.0.7:8000/v1", "http://192.168.0.7:8000/v1"),
        ("api.example.org/v1", "https://api.example.org/v1"),
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
        ("http://me:word@0.0.0.0:8000", "http://me:word@127.0.0.1:8000/v1"),
        ("http://[::]:8000/v1", "http://[::1]:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
        ("::1", "http://[::1]/v1"),
        (" 'http://h:1/v1/chat/completions/' ", "http://h:1/v1"),
        ("http://h:1/v1/completions", "http://h:1/v1"),
        ("http://h:1/v1/models", "http://h:1/v1"),
        ("http://h:11434/api/chat", "http://h:11434/v1"),
        ("http://h/api/chat/completions", "http://h/api"),
        ("HTTP://h:1/v1#x", "http://h:1/v1"),
        (
            "https://me.openai.azure.com/openai/deployments/d/chat/completions?api-version=1",
            "https://me.openai.azure.com/openai/deployments/d",
        ),
    ],
)
def test_an_address_may_be_spelled_in_any_usual_way(endpoint: str, base: str) -> None:
    assert base_url(endpoint) == base


def test_an_address_keeps_its_query() -> None:
    azure = "https://me.openai.azure.com/openai/deployments/d/chat/completions?api-version=1"
    assert url(azure, "chat/completions") == azure
    assert url("h:1", "models") == "http://h:1/v1/models"
