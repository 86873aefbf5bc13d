"""What a server's answer says, in whatever dialect.

The protocol is OpenAI's, and every server speaks it in its own way: text as a list of parts, an
error with status 200, the answer where thoughts belong, a stream that nobody asked for, the native
form of Ollama, Anthropic, Gemini, TGI or the Responses API, numbers as strings. All are read by one
walk from the outside in, to where the text is; what stands beside the way is taken along.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chronoprep.vlm.thoughts import broken_off, without_thoughts

_DEEPEST = 12  # levels; answers have six
# Where an answer's text is, one inside the other.
_WAY = (
    *("choices", "candidates", "output", "outputs", "result", "response", "message", "delta"),
    *("content", "parts", "text", "output_text", "generated_text", "completion", "data", "value"),
)
_FIRST_ONLY = ("choices", "candidates")  # several drafts of one answer
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_text")
_ENDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_COUNTS = ("usage", "usageMetadata", "usage_metadata", "meta", "details")
_PROMPT = (
    *("prompt_tokens", "input_tokens", "inputTokens", "promptTokenCount", "prompt_eval_count"),
    "tokens_evaluated",
)
_ANSWER = (
    *("completion_tokens", "output_tokens", "outputTokens", "candidatesTokenCount", "eval_count"),
    *("tokens_predicted", "generated_tokens"),
)
_MODEL = ("model", "modelVersion", "model_name")
_WORDS = ("error", "errors", "message", "msg", "detail", "error_message", "reason", "title")
_FILTERS = {
    *("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "blocked"),
    *("guardrail_intervened", "content_filtered", "spii", "image_safety"),
}


@dataclass
class Reply:
    """What was read.

    Attributes:
        text: The answer without its thoughts; None where none is.
        finish: Why it ended, as the server calls it.
        refusal: Why the model does not answer.
        filtered: Whether the server kept its answer back.
        thought: Whether it thought before it answered.
        error: The server's own words for an error that stands in the place of an answer.
        status: Of HTTP, that such an error names or comes to.
        model: Which the server says has answered.
        tokens, prompt_tokens: As the server counts them.
        steps: The answer's tokens and the logarithm of each one's probability.
    """

    text: str | None = None
    finish: str = ""
    refusal: str = ""
    filtered: bool = False
    thought: bool = False
    error: str = ""
    status: int = 500
    model: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    steps: list[tuple[str, float]] = field(default_factory=list)

    @property
    def truncated(self) -> bool:
        return broken_off(self.finish)


def read(body: bytes) -> Reply:
    """Read an answer; what can't be read leaves `text` and `error` empty."""
    values, streamed = _values(body)
    whole = [v["response"] for v in values if _type(v) in ("response.completed", "response.done")]
    reader = _Reader(Reply())
    for value in whole or values:
        reader.take(value)
    reply = reader.reply
    if reader.found:
        thoughts, said = "".join(reader.thoughts), "".join(reader.said)
        reply.thought = bool(thoughts.strip())
        if not said.strip() and not reply.truncated:
            said = thoughts  # of a server that takes all of an answer for thinking
        reply.text = without_thoughts(said)
        if streamed and not (whole or reply.finish or b"[DONE]" in body):
            reply.finish = "cut"
    return reply


def words_of(body: bytes) -> str:
    """What a server says of an error: its message, or the text of a page."""
    values, _ = _values(body)
    words = " ".join(filter(None, (_words(value) for value in values)))
    if not words:
        page = body[:20_000].decode("utf-8", "replace")
        words = re.sub(r"<(script|style)\b.*?</\1>|<[^<>]{0,500}>", " ", page, flags=re.DOTALL)
    return " ".join(words.split())


def named_in(body: bytes) -> set[str]:
    """The parameters that an error names in a field of its own."""
    names: set[str] = set()
    for value in _values(body)[0]:
        error = value.get("error") if isinstance(value, dict) else None
        names |= {str(part.get("param")) for part in (value, error) if isinstance(part, dict)}
    return names


def _values(body: bytes) -> tuple[list[Any], bool]:
    """The JSON values of a body: one, or those of a stream's lines; and whether it is a stream."""
    value = json_of(body)
    if isinstance(value, str) and isinstance(inner := json_of(value.encode()), dict | list):
        value = inner
    if value is not None:
        return value if isinstance(value, list) else [value], False
    lines = (line.strip() for line in body.decode("utf-8", "replace").split("\n"))
    parsed = (json_of(line.removeprefix("data:").encode()) for line in lines if line[:1] in "d{")
    values = [value for value in parsed if isinstance(value, dict)]
    return values, bool(values)


def json_of(text: bytes) -> Any:
    """What JSON says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, too deep
        return None


class _Reader:
    """Walks from the outside of an answer to its text."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.said: list[str] = []
        self.thoughts: list[str] = []
        self.found = False

    def take(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        before = self.found
        # A text that says nothing of itself is of another protocol.
        bare = not {"object", "model", "usage", "id", "created"} & set(value)
        choices = value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if bare and isinstance(first, dict) and set(first) == {"text"}:
            return
        self.walk(value, 0)
        failed = value.get("success") is False or value.get("object") == "error"
        failed = failed or value.get("type") == "error" or value.get("status") == "failed"
        if not self.reply.error and (failed or not (self.found or before)):
            self._fail(value)

    def walk(self, node: Any, depth: int, name: str = "") -> None:
        if isinstance(node, str):
            if depth > 1 or name != "data":
                self.said.append(node)
                self.found = True
        elif isinstance(node, list):
            for item in node[: 1 if name in _FIRST_ONLY else None]:
                self.walk(item, depth + 1, name)
        elif isinstance(node, dict) and depth < _DEEPEST:
            self._into(node, depth)

    def _into(self, node: dict[str, Any], depth: int) -> None:
        kind = _type(node)
        if "reason" in kind or "think" in kind or "thought" in kind or node.get("thought") is True:
            self.thoughts += _strings(node)
            return
        if kind == "refusal":
            self._refuse(" ".join(_strings(node)))
        self._note(node)
        if any(key in node for key in ("role", "finish_reason", "content", "delta")):
            self.found = True
        if self.reply.error:
            return
        for key in _WAY:
            if node.get(key) not in (None, "", [], {}) and not (depth == 0 and _aside(node, key)):
                self.walk(node[key], depth + 1, key)
                return

    def _note(self, node: dict[str, Any]) -> None:
        """Take along what stands beside the way."""
        reply = self.reply
        thoughts = (_strings(node.get(key)) for key in _THOUGHTS)
        self.thoughts += next(filter(None, thoughts), [])  # some say them under two names
        if isinstance(node.get("refusal"), str):
            self._refuse(node["refusal"])
        ends = ["done" if node.get("done") is True else None, *(node.get(key) for key in _ENDS)]
        if node.get("object") == "response" or node.get("status") == "incomplete":
            ends += [node.get("status"), _within(node, "incomplete_details", "reason")]
        ends += [_within(node, "promptFeedback", "blockReason"), _within(node, "details", _ENDS[0])]
        ends += ["length" if node.get("stopped_limit") is True else None]
        for end in filter(None, ends):
            reply.finish = str(end).lower().removeprefix("finishreason.")
        reply.filtered = reply.filtered or reply.finish in _FILTERS
        for key in _MODEL:
            if isinstance(node.get(key), str):
                reply.model = reply.model or node[key]
        for counts in (node, *(node.get(key) for key in _COUNTS)):
            if isinstance(counts, dict):
                reply.tokens = _first(counts, _ANSWER, reply.tokens)
                reply.prompt_tokens = _first(counts, _PROMPT, reply.prompt_tokens)
        reply.steps += _steps(node.get("logprobs"))
        if node.get("error") or node.get("errors"):
            self._fail(node)
        if node.get("tool_calls") or node.get("function_call") or _type(node) == "tool_use":
            reply.refusal = reply.refusal or "the model calls a tool in the place of an answer"

    def _refuse(self, words: str) -> None:
        self.reply.refusal = self.reply.refusal or (words and f"the model refuses it: {words}")

    def _fail(self, node: dict[str, Any]) -> None:
        self.reply.error = _words(node)
        self.reply.status = _status(node)


def _aside(node: dict[str, Any], key: str) -> bool:
    """Whether a top-level field of this name is not the way: a text setting, an error's words."""
    return (key == "message" and isinstance(node[key], str)) or (
        key == "text" and node.get("object") == "response"
    )


def _type(node: Any) -> str:
    kind = node.get("type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def _within(node: dict[str, Any], outer: str, inner: str) -> Any:
    return found.get(inner) if isinstance(found := node.get(outer), dict) else None


def _strings(value: Any, depth: int = 0) -> list[str]:
    """The texts of thoughts, however they are wrapped."""
    if isinstance(value, str):
        return [value]
    if depth > _DEEPEST or not isinstance(value, list | dict):
        return []
    if isinstance(value, dict):
        names = ("text", "content", "thinking", "summary", "refusal", "reasoning")
        value = [value.get(name) for name in names]
    return [text for item in value for text in _strings(item, depth + 1)]


def _count(value: Any) -> int | None:
    """A number of tokens, as a number or as a string."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number is not None and 0 <= number < 1e9 else None


def _first(counts: dict[str, Any], names: tuple[str, ...], known: int | None) -> int | None:
    found = (_count(counts.get(name)) for name in names)
    return next((count for count in found if count is not None), known)


def _steps(value: Any) -> Iterator[tuple[str, float]]:
    """Tokens and their log-probabilities, in the form of chats or of plain completions."""
    if isinstance(value, dict) and isinstance(value.get("tokens"), list):
        chances = value.get("token_logprobs")
        pairs = zip(value["tokens"], chances if isinstance(chances, list) else (), strict=False)
    else:
        entries = value.get("content") if isinstance(value, dict) else value
        entries = entries if isinstance(entries, list) else []
        named = [entry for entry in entries if isinstance(entry, dict)]
        pairs = zip(*([e.get(key) for e in named] for key in ("token", "logprob")), strict=True)
    for token, chance in pairs:
        if isinstance(token, str) and isinstance(chance, int | float) and math.isfinite(chance):
            yield token, float(chance)


def _words(value: Any, depth: int = 0) -> str:
    """The words of an error."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth < _DEEPEST:
        return "; ".join(filter(None, (_words(item, depth + 1) for item in value[:3])))
    if not isinstance(value, dict) or depth >= _DEEPEST:
        return ""
    found = [_words(value.get(name), depth + 1) for name in _WORDS]
    words = next(filter(None, found), "")
    if isinstance(value.get("error"), str) and isinstance(value.get("message"), str):
        words = f"{value['error']}: {value['message']}"
    where = value.get("loc")  # of a field that a server of FastAPI does not take
    if words and isinstance(where, list):
        words = f"{'.'.join(map(str, where))}: {words}"
    behind = _within(value, "metadata", "raw")  # of the service behind a router
    if isinstance(behind, str):
        words = f"{words}: {behind}"
    return words or (json.dumps(value)[:500] if depth else "")


def _status(node: dict[str, Any]) -> int:
    """The status that an error's own fields come to."""
    error = node.get("error")
    parts = [part for part in (error, node) if isinstance(part, dict)]
    for part in parts:
        for name in ("code", "status", "status_code", "http_code"):
            code = _count(part.get(name))
            if code is not None and 400 <= code < 600:
                return code
    kinds = " ".join(str(part.get(name)) for part in parts for name in ("type", "code", "status"))
    for pattern, status in (("invalid", 400), ("rate|quota", 429), ("auth|permission", 401)):
        if re.search(pattern, kinds, re.IGNORECASE):
            return status
    return 500
