"""Servers as they are: each in its own dialect, with its own refusals, or up to no good."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronoprep.config import VLMSettings
from chronoprep.data import Completion, Likelihood, Sampling, Turn
from chronoprep.errors import BackendError, PairError
from chronoprep.vlm import openai_backend
from chronoprep.vlm.answers import named_in, read, words_of
from chronoprep.vlm.endpoint import ServedModel, list_models
from chronoprep.vlm.openai_backend import OpenAIVLM
from chronoprep.workflows.watch import _same
from conftest import Result, label_of, write_pairs
from odd_server import Answer, Handler, Server, running, said, send

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_backend, "RETRIES", 1)
    monkeypatch.setattr(openai_backend, "BACK_OFF", 0.01)


def vlm(server: Server, **settings: Any) -> OpenAIVLM:
    chosen = VLMSettings(endpoint=server.endpoint, **({"request_timeout": 20} | settings))
    return OpenAIVLM(chosen, ServedModel("painter"))


def ask(server: Server, **settings: Any) -> Completion | PairError:
    """What is made of a server's answer; a plain "Hello" it answers well."""
    with closing(vlm(server, **settings)) as model:
        return model.generate([(Turn("user", ("Name the edit.",)),)])[0]


def one(answer: object, status: int = 200, **headers: str) -> Answer:
    """An answer to everything but a plain "Hello"."""

    def answering(handler: Handler, request: dict[str, Any]) -> None:
        well = request["messages"][-1]["content"] == "Hello"
        send(handler, said("Hi"), 200) if well else send(handler, answer, status, headers)

    return answering


def chunk(delta: dict[str, Any], **fields: Any) -> str:
    return "data: " + json.dumps({"choices": [{"delta": delta, **fields}], "model": "m"})


STREAM = "\r\n\r\n".join(
    [
        ": PROCESSING",
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "Hm."}),
        chunk({"content": "Add "}),
        chunk({"content": "a hat"}),
        chunk({}, finish_reason="stop"),
        "data: [DONE]",
        "",
    ]
)
PARTS = [{"type": "text", "text": "Add "}, {"type": "text", "text": "a hat"}]
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Add a hat"}]}
OUTPUT = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}, MESSAGE]
TEXTS: dict[str, object] = {
    "plain": said("Add a hat"),
    "parts": said(PARTS),
    "thoughts among parts": said([THOUGHT, *PARTS]),
    "one part": said({"type": "text", "text": "Add a hat"}),
    "thoughts in the text": said("<think>Hm.</think>\n\nAdd a hat"),
    "thoughts beside it": {"choices": [{"message": {"content": "Add a hat", "reasoning": "Hm."}}]},
    "all of it for a thought": {
        "choices": [{"message": {"content": None, "reasoning_content": "Add a hat"},
                     "finish_reason": "stop"}]
    },
    "under two names": {
        "choices": [{"message": {"reasoning_content": "Add a hat", "reasoning": "Add a hat"},
                     "finish_reason": "stop"}]
    },
    "plain completion": {
        "object": "text_completion", "choices": [{"text": "Add a hat", "finish_reason": "stop"}]
    },
    "message is the text": {"choices": [{"message": "Add a hat", "finish_reason": "stop"}]},
    "null fields": said("Add a hat", error=None, usage=None, model=None),
    "empty error": said("Add a hat", error={}, errors=[]),
    "responses": {
        "object": "response", "status": "completed", "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low", "summary": None}, "output": OUTPUT,
    },
    "output_text": {"output_text": "Add a hat"},
    "stream": STREAM.encode(),
    "stream without an end line": STREAM.replace("data: [DONE]", "").encode(),
    "stream of responses": "\n".join(
        "data: " + json.dumps(event)
        for event in (
            {"type": "response.output_text.delta", "delta": "Add a hat"},
            {"type": "response.completed", "response": {"object": "response", "output": OUTPUT}},
        )
    ).encode(),
    "ollama": {"message": {"role": "assistant", "content": "Add a hat"}, "done_reason": "stop"},
    "ollama generate": {"model": "m", "response": "Add a hat", "done": True},
    "ollama stream": b"\n".join(
        json.dumps({"message": {"content": part}, "done": part == "a hat"}).encode()
        for part in ("Add ", "a hat")
    ),
    "anthropic": {"type": "message", "role": "assistant", "content": PARTS,
                  "stop_reason": "end_turn"},
    "gemini": {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True},
                                                     {"text": "Add a hat"}]},
                               "finishReason": "STOP"}]},
    "tgi": [{"generated_text": "Add a hat"}],
    "llama.cpp": {"content": "Add a hat", "stop": True, "tokens_predicted": 3},
    "bedrock": {"output": {"message": {"role": "assistant", "content": [{"text": "Add a hat"}]}},
                "stopReason": "end_turn"},
    "dashscope": {"output": {"choices": [{"message": {"content": [{"text": "Add a hat"}]},
                                          "finish_reason": "stop"}]}, "request_id": "r"},
    "cloudflare": {"result": {"response": "Add a hat"}, "success": True, "errors": []},
    "wrapped": {"data": said("Add a hat")},
    "cohere": {"message": {"role": "assistant", "content": PARTS}, "finish_reason": "COMPLETE"},
    "json in json": json.dumps(said("Add a hat")),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(said("Add a hat")).encode(),
    "utf-16": json.dumps(said("Add a hat")).encode("utf-16"),
    "white space before": b"\n\n  \n" + json.dumps(said("Add a hat")).encode(),
}  # fmt: skip


@pytest.mark.parametrize("dialect", TEXTS)
def test_an_answer_is_read_in_any_dialect(dialect: str, server: Server) -> None:
    server.answer = one(TEXTS[dialect])
    answer = ask(server)
    assert answer == Completion("Add a hat", getattr(answer, "tokens", 0), False)


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


BUSY = "the GPU is on fire"
QUOTED: dict[str, tuple[object, int]] = {
    "error for an answer": (error(BUSY), 200),
    "with its code": (error(BUSY, code=400), 200),
    "with its code as a word": (error(BUSY, type="invalid_request_error"), 200),
    "a text": ({"error": BUSY}, 200),
    "null choices": ({"choices": None, "error": {"message": BUSY}}, 200),
    "in the choice": ({"choices": [{"message": {"content": ""}, "error": {"message": BUSY}}]}, 200),
    "old vLLM": ({"object": "error", "message": BUSY, "code": 400}, 200),
    "success is false": ({"success": False, "errors": [{"code": 7, "message": BUSY}]}, 200),
    "failed response": ({"object": "response", "status": "failed",
                         "error": {"message": BUSY}}, 200),
    "stream": (b'data: {"error": {"message": "the GPU is on fire"}}\n\n', 200),
    "FastAPI": ({"detail": BUSY}, 400),
    "FastAPI's list": ({"detail": [{"loc": ["body", "x"], "msg": BUSY}]}, 422),
    "behind a router": (error("Provider error", metadata={"raw": BUSY}), 400),
    "a page": (b"<html><style>p{}</style><body><h1>the GPU is on fire</h1></body>", 500),
    "other JSON": ({"status": "ok", "note": BUSY}, 200),
    "no JSON": (b"<html>the GPU is on fire</html>", 200),
}  # fmt: skip


@pytest.mark.parametrize("dialect", QUOTED)
def test_what_is_no_answer_is_quoted(dialect: str, server: Server) -> None:
    server.answer = one(*QUOTED[dialect])
    answer = ask(server)
    assert isinstance(answer, PairError)
    assert BUSY in answer.message


NAMES = st.sampled_from(
    [
        *("choices", "message", "delta", "content", "text", "error", "errors", "output", "usage"),
        *("response", "logprobs", "finish_reason", "reasoning_content", "type", "object", "data"),
        *("model", "detail", "code", "param", "refusal"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NAMES
SHAPES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300)
@given(SHAPES | st.binary(max_size=60))
def test_whatever_comes_is_read(shape: object) -> None:
    body = shape if isinstance(shape, bytes) else json.dumps(shape).encode()
    for content in (body, b"data: " + body + b"\n\n" + body[:-1]):
        reply = read(content)
        assert reply.text is None or isinstance(reply.text, str)
        assert isinstance(words_of(content), str)
        assert isinstance(named_in(content), set)
        assert reply.tokens is None or reply.tokens >= 0


def test_what_keeps_an_answer_back_is_named(server: Server) -> None:
    for value, reason in (
        (said(None, "content_filter"), "content filter"),
        ({"candidates": [{"finishReason": "SAFETY", "content": {}}]}, "content filter"),
        (said([{"type": "refusal", "refusal": "I won't."}]), "refuses it: I won't."),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"id": "x"}]}}]}, "a tool"),
    ):
        server.answer = one(value)
        answer = ask(server)
        assert isinstance(answer, PairError)
        assert reason in answer.message


def test_what_a_server_counts_is_read_as_it_comes() -> None:
    for usage in (
        {"prompt_tokens": "180", "completion_tokens": "7"},
        {"prompt_tokens": 180.0, "completion_tokens": 7.0},
        {"input_tokens": 180, "output_tokens": 7},
    ):
        reply = read(json.dumps(said("Add", usage=usage, model="painter-2")).encode())
        assert (reply.prompt_tokens, reply.tokens, reply.model) == (180, 7, "painter-2")
    odd = {"prompt_tokens": True, "completion_tokens": "many"}
    reply = read(json.dumps(said("Add", usage=odd)).encode())
    assert (reply.prompt_tokens, reply.tokens) == (None, None)


def test_a_full_context_is_told_from_the_limit(server: Server) -> None:
    usage = {"prompt_tokens": 2000, "completion_tokens": 48}
    server.answer = one(said("Add a", "length", usage=usage))
    full = ask(server, max_new_tokens=512)
    assert isinstance(full, PairError)
    assert "after 48 of 512 new tokens and a prompt of 2000: its context is full" in full.message
    assert "--max-model-len" in (full.hint or "")
    limit = ask(server, max_new_tokens=48)
    assert limit == Completion("Add a", 48, True)


def test_log_probabilities_are_of_the_answer_alone(server: Server) -> None:
    steps = [("<think>", -9.0), ("Hm", -8.0), ("</think>", -7.0), ("\n\n", -6.0),
             ("Add", -0.25), (" a", -0.5), (" hat", -1.25), ("<|im_end|>", -5.0)]  # fmt: skip
    content = [{"token": token, "logprob": chance, "top_logprobs": []} for token, chance in steps]
    answer = said("<think>Hm</think>\n\nAdd a hat")
    answer["choices"][0]["logprobs"] = {"content": content}
    server.answer = one(answer)
    completion = ask(server)
    assert isinstance(completion, Completion)
    assert server.asked[0]["logprobs"] is True
    assert completion.likelihood == Likelihood(-0.6667, -1.25, " hat")
    answer["choices"][0]["logprobs"] = {
        "tokens": ["Add", " a", " hat"], "token_logprobs": [None, -0.5, -1.0]
    }  # fmt: skip
    completion = ask(server)
    assert isinstance(completion, Completion)
    assert completion.likelihood is None, "some are missing"


REFUSALS = {
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
    "seed": "Unrecognized request argument supplied: seed",
    "logprobs": "`logprobs` is not supported with this model",
    "top_p": "got an unexpected keyword argument 'top_p'",
}


@pytest.mark.parametrize("name", [*REFUSALS, "in a field", "FastAPI", "max_tokens", "both limits"])
def test_a_parameter_that_is_refused_is_left_out_once_for_all(name: str, server: Server) -> None:
    gone = {"in a field": ["temperature"], "FastAPI": ["seed"],
            "both limits": ["max_tokens", "max_completion_tokens"]}.get(name, [name])  # fmt: skip

    def answer(handler: Handler, request: dict[str, Any]) -> None:
        left = next((name for name in gone if name in request), None)
        if left is None:
            return send(handler, said("Add a hat"))
        if name == "in a field":
            return send(handler, error("Not supported here.", param=left), 400)
        if name == "FastAPI":
            told = {"loc": ["body", left], "msg": "Extra inputs are not permitted"}
            return send(handler, {"detail": [told]}, 422)
        return send(handler, error(REFUSALS.get(left, f"Unsupported parameter: {left}")), 400)

    server.answer = answer
    chats = [(Turn("user", (f"Pair {i}.",)),) for i in range(12)]
    with closing(vlm(server)) as model:
        answers = model.generate(chats, Sampling(0.5, 0.9, 1))
    assert [getattr(a, "text", a) for a in answers] == ["Add a hat"] * 12
    assert len(server.asked) == 12 + len(gone)
    assert not set(gone) & set(server.asked[-1])
    limits = {"max_tokens", "max_completion_tokens"} & set(server.asked[-1])
    assert len(limits) == (0 if name == "both limits" else 1)
    served = answers[0].served if isinstance(answers[0], Completion) else None
    assert served is not None
    assert set(served.without) == set(gone)


def test_a_limit_that_is_too_large_is_not_left_out(server: Server) -> None:
    server.answer = one(error("max_tokens is too large: 512. At most 256 are supported."), 400)
    answer = ask(server)
    assert isinstance(answer, PairError)
    assert "At most 256 are supported" in answer.message
    assert "--max-new-tokens" in (answer.hint or "")
    assert len(server.asked) == 1


def test_thinking_has_its_own_budget(server: Server) -> None:
    ask(server, thinking_tokens=1000, reasoning_effort="low")
    ask(server, thinking_tokens=0)
    first, second = server.asked
    assert (first["max_tokens"], first["reasoning_effort"]) == (1512, "low")
    assert (second["max_tokens"], second["chat_template_kwargs"]) == (
        512, {"enable_thinking": False},
    )  # fmt: skip


def large(handler: Handler, _: object) -> None:
    """A body of a gigabyte."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 30))
    handler.end_headers()
    for _ in range(1 << 10):
        handler.wfile.write(b"x" * (1 << 20))


BOMB = gzip.compress(b"[" * (1 << 25), 1)


def bomb(handler: Handler, _: object) -> None:
    """Two hundred times what it says."""
    send(handler, BOMB, headers={"Content-Encoding": "gzip"})


def endless(handler: Handler, _: object) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"1\r\nx\r\n")
        time.sleep(0.02)


def slow_header(handler: Handler, _: object) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: 1\r\n")
        time.sleep(0.05)


def slow_body(handler: Handler, _: object) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.02)


def deep(handler: Handler, _: object) -> None:
    send(handler, b'{"choices":' + b"[" * 200_000)


def deep_and_whole(handler: Handler, _: object) -> None:
    send(handler, b'{"choices":' + b"[" * 900 + b"]" * 900 + b"}")


EVIL = (large, bomb, endless, slow_header, slow_body, deep, deep_and_whole)


@pytest.mark.parametrize("evil", EVIL)
def test_no_answer_takes_more_than_its_time_and_room(evil: Answer, server: Server) -> None:
    server.answer = evil
    with pytest.raises(BackendError, match="the server fails"):  # and it comes to an end
        ask(server, request_timeout=0.3)


@pytest.mark.parametrize("evil", EVIL)
def test_no_list_of_models_takes_more_either(
    evil: Answer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.models = evil
    if evil in (endless, slow_header, slow_body):
        monkeypatch.setattr("chronoprep.vlm.endpoint.PROBE_SECONDS", 0.3)
        with pytest.raises(BackendError, match="no whole answer within"):
            list_models(server.endpoint)
    else:
        assert list_models(server.endpoint) is None


@pytest.mark.parametrize(
    "listed",
    [
        {"object": "list", "data": [{"id": "a", "owned_by": "vllm"}]},
        {"models": [{"name": "a"}]},
        [{"id": "a"}],
        ["a"],
    ],
)
def test_a_list_of_models_is_read_in_any_dialect(listed: object, server: Server) -> None:
    server.models = lambda handler, _: send(handler, listed)
    models = list_models(server.endpoint)
    assert models is not None
    assert [model.id for model in models] == ["a"]


def test_a_redirect_takes_images_to_no_other_server(server: Server) -> None:
    with running() as other:
        place = f"{other.endpoint}/chat/completions?key=secret"
        server.answer = one(b"", 307, Location=place)
        with pytest.raises(BackendError, match="sends on to http://127") as caught:
            ask(server)
        assert "secret" not in str(caught.value)
        assert not other.asked

    def moved(handler: Handler, _: object) -> None:
        if handler.path.endswith("/"):
            return send(handler, said("Add a hat"))
        return send(handler, b"", 307, {"Location": f"{handler.path}/"})

    server.answer = moved
    assert ask(server) == Completion("Add a hat", 0, False), "its own slash is followed"


def seen(handler: Handler, request: dict[str, Any], text: str = "", **more: Any) -> None:
    caption = text or f"Add hat number {crc32(json.dumps(request['messages']).encode()) % 10_000}"
    send(handler, said(caption, **more))


def test_who_answers_is_on_record_and_told(run: Run, tmp_path: Path, server: Server) -> None:
    usage = {"prompt_tokens": 180, "completion_tokens": 4}
    server.answer = lambda h, r: seen(h, r, "Add a hat", model="other-7b", usage=usage)
    pairs = write_pairs(tmp_path / "pairs", [f"p{i}" for i in range(6)], (24, 18))
    result = run("caption", pairs, "-d", "data", "--endpoint", server.endpoint, "--json")
    assert result.code == 0, result.stderr
    told = {finding["code"]: finding["message"] for finding in result.json[1]["findings"]}
    assert set(told) == {"other-model", "images-unread", "one-answer"}
    assert told["other-model"] == "painter was asked, and other-7b has answered."
    assert "180 tokens" in told["images-unread"]
    assert label_of("data", "p0").answered_by == "other-7b"


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("Qwen/Qwen3-VL-8B-Instruct", "/models/Qwen3-VL-8B-Instruct-Q4_K_M.gguf", True),
        ("Qwen/Qwen3-VL-8B-Instruct", "llama3:latest", False),
        ("qwen2.5vl", "qwen2.5vl:7b", True),
    ],
)
def test_a_model_has_more_than_one_name(asked: str, answered: str, same: bool) -> None:
    assert _same(answered, asked) is same


def test_what_a_request_went_without_is_on_record(run: Run, tmp_path: Path, server: Server) -> None:
    def answer(handler: Handler, request: dict[str, Any]) -> None:
        if "temperature" in request:
            return send(handler, error(REFUSALS["temperature"]), 400)
        usage = {"prompt_tokens": 2180, "completion_tokens": 4}
        return seen(handler, request, model="painter-2026-01-01", usage=usage)

    server.answer = answer
    pairs = write_pairs(tmp_path / "pairs", ["a", "b"], (24, 18))
    result = run("caption", pairs, "-d", "data", "--endpoint", server.endpoint, "--json")
    assert result.code == 0, result.stderr
    assert [finding["code"] for finding in result.json[1]["findings"]] == ["without"]
    assert label_of("data", "b").generation["without"] == ["temperature"]


@pytest.mark.parametrize(
    ("answer", "words", "remedy"),
    [
        (one(error("At most 1 image(s) may be provided in one prompt."), 400),
         "At most 1 image(s)", "--limit-mm-per-prompt"),
        (one(error("image input is not supported - you may need to provide the mmproj"), 500),
         "image input is not supported", "--mmproj"),
        (one(error("This model's maximum context length is 2048 tokens, you sent 2501."), 400),
         "maximum context length", "--max-model-len"),
        (one({"error": {"message": "no chat template for request 7f3a-0123"}}, 422),
         "no chat template", "chat template"),
        (one({"status": "ok"}), "no chat completion", ""),
    ],
)  # fmt: skip
def test_a_server_that_refuses_all_stops_the_run(
    answer: Answer, words: str, remedy: str, run: Run, tmp_path: Path, server: Server
) -> None:
    """Many pairs, 32 in flight: few requests, no pair to blame.

    More than the 8 may be answered before the run looks, by as many as are in flight, twice.
    """
    server.answer = answer
    pairs = write_pairs(tmp_path / "pairs", [f"p{i:03}" for i in range(150)], (24, 18))
    result = run("caption", pairs, "-d", "data", "--endpoint", server.endpoint, "--concurrency", 32)
    assert result.code == 1
    assert "The first 8 pairs fail for one cause" in result.stderr
    assert words in result.stderr
    assert remedy in result.stderr
    assert len(server.asked) <= 8 + 2 * 32
    journal = Path("data/labels.jsonl")
    assert not journal.exists() or "failure" not in journal.read_text()


def test_a_server_that_begins_to_refuse_stops_the_run_later(
    run: Run, tmp_path: Path, server: Server
) -> None:
    numbers = itertools.count(1)

    def answer(handler: Handler, request: dict[str, Any]) -> None:
        if next(numbers) > 20:
            return send(handler, error("the licence has ended"), 400)
        return seen(handler, request)

    server.answer = answer
    pairs = write_pairs(tmp_path / "pairs", [f"p{i:03}" for i in range(100)], (24, 18))
    ask = ("caption", pairs, "-d", "data", "--endpoint", server.endpoint, "--concurrency", 4)
    result = run(*ask)
    assert result.code == 1
    assert "32 pairs in a row fail for one cause" in result.stderr
    assert "the licence has ended" in result.stderr
    assert len(server.asked) < 90
    journal = Path("data/labels.jsonl").read_text()
    assert "failure" not in journal
    kept = journal.count('"kind":"label"')
    assert 20 - 3 <= kept <= 20, "but for what is in flight when the run stops"
    server.answer = seen
    again = run(*ask, "--json")
    assert again.code == 0
    counts = again.json[1]["done"], again.json[1]["skipped"]
    assert counts == (100 - kept, kept), "nothing is lost"
