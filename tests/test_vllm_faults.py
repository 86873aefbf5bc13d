"""The vLLM backend over an engine that fails; vLLM itself is not needed."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chronoprep.checkpoint import Checkpoint
from chronoprep.config import VLMSettings
from chronoprep.data import Completion, Likelihood, Turn
from chronoprep.errors import BackendError
from chronoprep.vlm import Model

BACKEND = "chronoprep.vlm.vllm_backend"


class ClientError(Exception): ...


class EngineDeadError(Exception): ...


class Fake:
    """An engine whose requests end with the next step, in the way that they ask for."""

    def __init__(self, *_: object, **__: object) -> None:
        self.llm_engine = self.engine_core = self
        self.asked: list[str] = []
        self.told: list[tuple[int, object]] = []
        self.count = 0

    def enqueue_chat(
        self,
        chats: list[Any],
        params: SimpleNamespace,
        *,
        chat_template_kwargs: object,
        **_: object,
    ) -> list[str]:
        (chat,) = chats
        self.told.append((params.max_tokens, chat_template_kwargs))
        if chat[0]["content"] == "die":
            raise EngineDeadError("EngineCore encountered an issue.")
        self.count += 1
        self.asked.append(chat[0]["content"])
        return [str(self.count)]

    def step(self) -> list[SimpleNamespace]:
        first = self.count - len(self.asked) + 1
        outputs = [
            SimpleNamespace(
                request_id=f"{number}-x",
                finished=True,
                outputs=[
                    SimpleNamespace(
                        text="Paint it",
                        token_ids=[1, 2, 9],
                        finish_reason=reason,
                        logprobs=[
                            {number: SimpleNamespace(decoded_token=token, logprob=-number / 4)}
                            for number, token in ((1, "Paint"), (2, " it"), (9, "<|im_end|>"))
                        ],
                    )
                ],
            )
            for number, reason in enumerate(self.asked, first)
        ]
        self.asked = []
        return outputs

    def shutdown(self) -> None:
        raise RuntimeError("it is dead already")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The backend; a parameter is how many tokens it may think."""
    fakes: dict[str, dict[str, object]] = {
        "vllm": {"LLM": Fake, "SamplingParams": SimpleNamespace, "CompletionOutput": object},
        "vllm.exceptions": {"VLLMClientError": ClientError},
    }
    for name, content in fakes.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = find_spec(BACKEND)
    assert spec is not None
    assert spec.loader is not None
    backend = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, BACKEND, backend)
    spec.loader.exec_module(backend)
    thinking = getattr(request, "param", None)
    settings = VLMSettings(
        backend="vllm", max_new_tokens=5, concurrency=4, thinking_tokens=thinking
    )
    found = Model(settings, Checkpoint("x", Path("x"), "r", {}), "vllm")
    return backend.VLLMVLM(found, Path("x"))


def test_an_answer_that_the_model_did_not_end_is_cut(engine: Any) -> None:
    chats = [(Turn("user", (reason,)),) for reason in ("stop", "length", "abort", "error")]
    answers = engine.generate(chats)
    assert answers == [Completion("Paint it", 3, cut) for cut in (False, True, True, True)]
    assert getattr(answers[0], "likelihood", None) == Likelihood(-0.375, -0.5, " it")
    engine.close()


@pytest.mark.parametrize(("engine", "limit"), [(None, 5), (0, 5), (7, 12)], indirect=["engine"])
def test_a_template_is_told_whether_to_think(engine: Any, limit: int) -> None:
    whole, cut = engine.generate([(Turn("user", (reason,)),) for reason in ("stop", "length")])
    assert engine.llm.told == [(limit, {"enable_thinking": limit > 5})] * 2
    assert whole.text == "Paint it"
    assert cut.text == ("" if limit > 5 else "Paint it"), "a thought that has no end is no answer"
    engine.close()


def test_all_that_wait_hear_of_an_engine_that_dies_while_it_takes_a_request(engine: Any) -> None:
    said: list[str] = []

    def ask(text: str) -> None:
        with pytest.raises(BackendError) as caught:
            engine.generate([(Turn("user", (part,)),) for part in ("die", text)])
        said.append(caught.value.message)

    threads = [Thread(target=ask, args=("fine",), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(said) == 4, "one waits for ever"
    assert "vLLM failed: EngineCore encountered an issue." in said
    engine.close()
