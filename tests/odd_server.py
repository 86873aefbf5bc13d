"""A server in a thread of the test, which answers as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = BaseHTTPRequestHandler
Answer = Callable[[Handler, dict[str, Any]], None]


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that went away: another test would hear it."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None: ...


class Server(Quiet):
    """A server that answers as a test says.

    Attributes:
        asked: The requests that came, in their order.
        answer: Answers one.
        models: What its list of models is.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer = lambda handler, _: send(handler, said("Add a hat"))
        self.models: Answer = lambda handler, _: send(handler, {"data": [{"id": "painter"}]})
        server = self

        class Asked(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None: ...

            def do_GET(self) -> None:
                server.models(self, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                with suppress(OSError):  # of a client that went away
                    server.answer(self, body)

        super().__init__(("127.0.0.1", 0), Asked)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving(server: Quiet) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    with serving(server):
        yield server


def send(
    handler: Handler, value: object, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    fields = {"Content-Length": str(len(content)), "Content-Type": "application/json"}
    for name, text in (fields | (headers or {})).items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(content)


def said(text: object, finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": finish}], **more}
