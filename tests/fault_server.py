"""A small OpenAI-compatible server that misbehaves: `python fault_server.py --faults 0.2`.

It prints its port and answers by what it sees: a caption that names the pair's pixels, then a CoT
that names them, too. So a label that landed at another pair gives itself away. A chat without
images is answered by the request; where it is JSON, by the status and the value that it names.
Which requests fail depends on their content and on how often they came, not on timing; four times
in a row at most.

GET /v1/counts tells how many requests were refused for a word.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import itertools
import json
import os
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from PIL import Image

FAULTS = ("429", "500", "slow", "cut", "closed", "other JSON", "no JSON")
REFUSED, FILTERED, DECLINED, FATAL, LONG = 31, 33, 35, 37, 39  # by the width of the source


def fingerprint(*images: Image.Image) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for image in images:
        digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def caption_of(pixels: str) -> str:
    return f"Paint the door with the number {pixels} red"


def cot_of(pixels: str) -> str:
    return (
        f"The user wants to paint the door with the number {pixels} red. The change touches the "
        "painted wood alone, from the frame at the left to the hinges at the right, in one even "
        "and slightly glossy coat. The brass handle, the letter box and the small window keep "
        "their colours, and so do the brick wall, the steps and the plants beside them. Light "
        "falls from the upper left as before, with the same soft shadows under the sill, and the "
        "camera stays where it was, so that position, size and perspective are those of the source."
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()
    number = itertools.count(1)
    share = 0.0
    die_after = 0
    key = refuses = ""
    models: ClassVar[list[str]] = []
    counts: ClassVar[Counter[str]] = Counter()

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.key and self.headers["Authorization"] != f"Bearer {self.key}":
            said = f"no such key: {self.headers['Authorization']}"
            return self.send(401, {"error": {"message": said}})
        if self.path == "/v1/counts":
            return self.send(200, self.counts)
        fields = {"object": "model", "created": 0, "owned_by": "me"}
        return self.send(
            200, {"object": "list", "data": [{"id": m, **fields} for m in self.models]}
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        if request["model"] not in self.models:
            return self.send(404, {"error": {"message": f"no model {request['model']}"}})
        if self.refuses in request:
            said = f"Unsupported parameter: '{self.refuses}' is not supported with this model."
            said += " Use 'max_completion_tokens' instead."
            self.counts["refused"] += 1
            return self.send(400, {"error": {"message": said}})
        with self.lock:
            if self.die_after and next(self.number) > self.die_after:
                os._exit(1)
            digest = hashlib.blake2b(body, digest_size=8).hexdigest()
            attempt = self.seen[digest]
            self.seen[digest] += 1
        draw = int(hashlib.blake2b(f"{digest} {attempt}".encode(), digest_size=4).hexdigest(), 16)
        if attempt < 4 and draw % 1000 < 1000 * self.share:
            return self.fail(FAULTS[draw // 1000 % len(FAULTS)])
        return self.answer(request)

    def fail(self, fault: str) -> None:
        if fault == "429":
            self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})
        elif fault == "500":
            self.send(500, {"error": {"message": "engine failure"}})
        elif fault == "slow":
            self.rfile.read(1)  # until the client has had enough, and goes
            self.close_connection = True
        elif fault == "cut":
            self.send(200, {"choices": []}, {"Content-Length": "1000"})
            self.close_connection = True
        elif fault == "closed":
            self.close_connection = True
        elif fault == "other JSON":
            self.send(200, {"status": "ok", "choices": [{"text": "of another protocol"}]})
        else:
            self.send(200, None)

    def answer(self, request: dict[str, Any]) -> None:
        parts = [p for m in request["messages"] for p in m["content"] if isinstance(p, dict)]
        urls = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
        text = "\n".join(p["text"] for p in parts if p["type"] == "text")
        images = [Image.open(io.BytesIO(base64.b64decode(u.split(",", 1)[1]))) for u in urls]
        width = images[0].width if images else 0
        pixels = fingerprint(*images)
        message: dict[str, Any] = {"role": "assistant", "content": caption_of(pixels)}
        if not images:
            told = request["messages"][-1]["content"]
            if told.startswith("["):
                return self.send(*json.loads(told))
            message["content"] = json.dumps(request)
        if caption_of(pixels) in text:
            message["content"] = cot_of(pixels)
        reason = "stop"
        if width == REFUSED:
            said = f"the picture is too odd \ud83d {self.headers['Authorization']}"
            return self.send(400, {"error": {"message": said}})
        if width == FATAL:
            return self.send(500, {"error": {"message": "this picture breaks the engine"}})
        if width == FILTERED:
            message["content"], reason = None, "content_filter"
        if width == DECLINED:
            message["content"], message["refusal"] = None, "I can't help with that. \ud83d"
        if width == LONG:
            message["content"], reason = "Paint the", "length"
        return self.send(
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": 2000, "completion_tokens": 7, "total_tokens": 2007},
            },
        )

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = b"<html>busy</html>" if value is None else json.dumps(value).encode()
        self.send_response(status)
        fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, text in (fields | (headers or {})).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None: ...  # clients that went away


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=float, default=0.0, help="share of the requests")
    parser.add_argument("--die-after", type=int, default=0, help="requests, then the process ends")
    parser.add_argument("--key", default="", help="that a client must send")
    parser.add_argument("--refuses", default="", help="a word of a request")
    parser.add_argument("--models", nargs="+", default=["/srv/models/painter"], help="their ids")
    options = parser.parse_args()
    Handler.share, Handler.die_after, Handler.key = options.faults, options.die_after, options.key
    Handler.refuses, Handler.models = options.refuses, options.models
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
