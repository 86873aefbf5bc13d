"""The vLLM backend over an engine that fails; vLLM itself is not needed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chronoprep.config import VLMSettings
from chronoprep.data import Completion, Likelihood, Turn
from chronoprep.errors import BackendError
from chronoprep.vlm.choice import Spread
from conftest import HANGS

BACKEND = "chronoprep.vlm.vllm_backend"


class ClientError(Exception): ...


class EngineDeadError(Exception): ...


class Renderer:
    """Renders a chat as its text, and notes what templates are told."""

    tokenizer = None

    def __init__(self) -> None:
        self.default_chat_tok_params = self
        self.told: list[object] = []

    def with_kwargs(self, **_: object) -> Renderer:
        return self

    def render_chat(self, chats: list[Any], params: SimpleNamespace, _: object) -> Any:
        self.told.append(params.chat_template_kwargs["enable_thinking"])
        return None, [chat[0]["content"] for chat in chats]


class Fake:
    """An engine whose requests end in the way that they ask for; one of them kills it."""

    log_stats = False

    def __init__(self) -> None:
        self.renderer, self.vllm_config = Renderer(), None
        self.limits: list[int] = []
        self.dead = asyncio.Event()

    @classmethod
    def from_engine_args(cls, *_: object, **__: object) -> Fake:
        return cls()

    async def generate(
        self, prompt: str, params: SimpleNamespace, _: str
    ) -> AsyncIterator[SimpleNamespace]:
        self.limits.append(params.max_tokens)
        if prompt == "die":
            self.dead.set()
        if prompt in ("die", "wait"):
            await self.dead.wait()
            raise EngineDeadError("EngineCore encountered an issue.")
        steps = ((1, "Paint"), (2, " it"), (9, "<|im_end|>"))
        answer = SimpleNamespace(
            text="Paint it",
            token_ids=[1, 2, 9],
            finish_reason=prompt,
            logprobs=[
                {number: SimpleNamespace(decoded_token=token, logprob=-number / 4)}
                for number, token in steps
            ],
        )
        yield SimpleNamespace(outputs=[answer])

    def shutdown(self, **_: object) -> None:
        raise RuntimeError("it is dead already")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The backend; a parameter is how many tokens it may think."""
    fakes: dict[str, dict[str, object]] = {
        "vllm": {
            "AsyncEngineArgs": lambda *_, **__: None,
            "SamplingParams": SimpleNamespace,
            "CompletionOutput": object,
        },
        "vllm.exceptions": {"VLLMClientError": ClientError},
        "vllm.renderers": {"ChatParams": SimpleNamespace},
        "vllm.renderers.registry": {"renderer_from_config": Renderer},
        "vllm.sampling_params": {
            "RequestOutputKind": SimpleNamespace(FINAL_ONLY=2),
            "StructuredOutputsParams": SimpleNamespace,
        },
        "vllm.usage.usage_lib": {"UsageContext": SimpleNamespace(LLM_CLASS="")},
        "vllm.utils.mistral": {"is_mistral_tokenizer": lambda _: False},
        "vllm.v1.engine.async_llm": {"AsyncLLM": Fake},
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
    return backend.VLLMVLM(settings, Path("x"), "auto", Spread(0, 1, 1), 4)


def test_an_answer_that_the_model_did_not_end_is_cut(engine: Any) -> None:
    chats = [(Turn("user", (reason,)),) for reason in ("stop", "length", "abort", "error")]
    answers = engine.generate(chats)
    assert answers == [Completion("Paint it", 3, cut) for cut in (False, True, True, True)]
    assert getattr(answers[0], "likelihood", None) == Likelihood(-0.375, -0.5, " it")
    engine.close()


@pytest.mark.parametrize(("engine", "limit"), [(None, 5), (0, 5), (7, 12)], indirect=["engine"])
def test_a_template_is_told_whether_to_think(engine: Any, limit: int) -> None:
    whole, cut = engine.generate([(Turn("user", (reason,)),) for reason in ("stop", "length")])
    assert engine.engine.limits == [limit] * 2
    assert engine.engine.renderer.told == [limit > 5] * 2
    assert whole.text == "Paint it"
    assert cut.text == ("" if limit > 5 else "Paint it"), "a thought that has no end is no answer"
    engine.close()


def test_all_that_wait_hear_of_an_engine_that_dies(engine: Any) -> None:
    said: list[str] = []

    def ask(text: str) -> None:
        with pytest.raises(BackendError) as caught:
            engine.generate([(Turn("user", (text,)),)])
        said.append(caught.value.message)

    threads = [Thread(target=ask, args=("wait",), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    ask("die")
    for thread in threads:
        thread.join(HANGS)
    assert said == 5 * ["vLLM failed: EngineCore encountered an issue."], "one waits for ever"
    ask("stop")  # no later one is asked
    engine.close()
    ask("stop")


def test_closing_ends_what_waits(engine: Any) -> None:
    said: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(BackendError, match="closed") as caught:
            engine.generate([(Turn("user", ("wait",)),)])
        said.append(caught.value)

    threads = [Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(engine.engine.limits) < 4:
        time.sleep(0.01)
    for _ in range(2):
        engine.close()
    for thread in threads:
        thread.join(HANGS)
    assert len(said) == 4
