"""The desk as a page in the browser, for the people of this machine only.

Whoever can reach a port of this machine is not yet a reviewer: another user's process, a page that
another site shows in the same browser, a name that another site's DNS points here (rebinding). So
each run draws a token, which the printed address carries and a cookie keeps; `Host` has to be this
machine and a request to come from this very page; the page may load nothing but its own files, and
shows texts as text. Pictures are asked for by key and side, never by path.

A leaf: imports Starlette and uvicorn at its top.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from functools import cached_property
from importlib.resources import files
from typing import Any, get_args

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chronoprep.errors import ChronoprepError, PairError
from chronoprep.review.columns import Order, Query, Show
from chronoprep.review.desk import Decision, Desk, Refused
from chronoprep.review.pictures import Pictures

_HERE = {"127.0.0.1", "localhost", "[::1]"}
_MOST_BYTES = 1_000_000  # of a decision
_MOST_ROWS = 200  # of a page of the list
_PARTS = {
    "page.css": ("chronoprep.review", "page"),
    "theme.css": ("chronoprep.gallery", "parts"),
    "compare.css": ("chronoprep.gallery", "parts"),
    "compare.js": ("chronoprep.gallery", "parts"),
    "app.js": ("chronoprep.review", "page"),
    "dom.js": ("chronoprep.review", "page"),
    "list.js": ("chronoprep.review", "page"),
    "pictures.js": ("chronoprep.review", "page"),
    "texts.js": ("chronoprep.review", "page"),
}
"""The page's files, and where they lie: nothing else is ever served as a file."""
_TYPES = {"css": "text/css", "js": "text/javascript"}
_GUARDS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Site:
    """The pages of a desk, as a Starlette application.

    Args:
        token: Of this run; by default drawn anew.
    """

    def __init__(self, desk: Desk, pictures: Pictures, token: str | None = None) -> None:
        self.desk, self.pictures = desk, pictures
        self.token = token or secrets.token_urlsafe(24)

    @cached_property
    def app(self) -> Starlette:
        routes = [
            Route("/", self._page),
            Route("/parts/{name}", self._part),
            Route("/api/overview", self._overview),
            Route("/api/list", self._list),
            Route("/api/news", self._news),
            Route("/api/pair/{key}", self._pair),
            Route("/api/pair/{key}", self._decide, methods=["POST"]),
            Route("/api/pair/{key}/difference", self._difference),
            Route("/api/tokens", self._tokens, methods=["POST"]),
            Route("/api/table", self._table, methods=["POST"]),
            Route("/api/scores", self._scores, methods=["POST"]),
            Route("/picture/{key}/{side}/{view}", self._picture),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
            exception_handlers={
                HTTPException: _as_json,
                ChronoprepError: _as_json,
                Refused: _as_json,
                KeyError: _as_json,
            },
        )

    def serve(self, listening: socket.socket, ready: Callable[[str], None]) -> None:
        """Answer until a signal comes.

        Args:
            ready: Told the page's address once it answers.
        """
        host, port = listening.getsockname()
        address = f"http://{host}:{port}/?token={self.token}"
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, timeout_graceful_shutdown=2, lifespan="off"
        )
        _Server(config, lambda: ready(address)).run([listening])

    async def _guard(
        self, request: Request, go_on: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        refused = self._refusal(request)
        if refused is not None:
            answer: Response = JSONResponse({"error": refused}, 403)
        else:
            answer = await go_on(request)
        for name, value in _GUARDS.items():
            answer.headers[name] = value
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    def _refusal(self, request: Request) -> str | None:
        """Why a request is not answered, if so."""
        host = request.headers.get("host", "")
        if host.rpartition(":")[0] not in _HERE and host not in _HERE:
            return "this server answers on 127.0.0.1 and localhost only"
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "this request comes from another site"
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "this request comes from another site"
        if request.method not in ("GET", "HEAD") and (
            request.headers.get("content-type") != "application/json"
        ):
            return "this request does not come from the page"
        shown = request.cookies.get(self._cookie(request), "")
        if request.url.path == "/":
            shown = request.query_params.get("token", shown)
        if not hmac.compare_digest(shown.encode(), self.token.encode()):
            return "open the address that chronoprep printed when it began, with its token"
        return None

    def _cookie(self, request: Request) -> str:
        """The name of the cookie: browsers share them between the ports of a machine."""
        return f"chronoprep-{request.url.port or 80}"

    async def _page(self, request: Request) -> Response:
        page = (files("chronoprep.review") / "page" / "index.html").read_bytes()
        answer = Response(page, media_type="text/html")
        answer.set_cookie(
            self._cookie(request), self.token, httponly=True, samesite="strict", path="/"
        )
        return answer

    async def _part(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _PARTS:
            raise HTTPException(404, "no such file")
        package, folder = _PARTS[name]
        content = (files(package) / folder / name).read_bytes()
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]])

    async def _overview(self, request: Request) -> Response:
        above = _number(request, "above")
        return JSONResponse(await run_in_threadpool(self.desk.overview, above))

    async def _list(self, request: Request) -> Response:
        asked = request.query_params
        known = asked.get("show", "all") in get_args(Show)
        if not known or asked.get("order", "worst") not in get_args(Order):
            raise HTTPException(400, "no such list")
        try:
            query = Query(
                show=asked.get("show", "all"),  # type: ignore[arg-type]
                order=asked.get("order", "worst"),  # type: ignore[arg-type]
                kind=asked.get("kind") or None,
                finding=asked.get("finding") or None,
                text=asked.get("text", ""),
                above=_number(request, "above"),
            )
            offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 60))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        limit = max(1, min(limit, _MOST_ROWS))
        found = await run_in_threadpool(
            self.desk.page, query, max(0, offset), limit, asked.get("around")
        )
        return JSONResponse(found)

    async def _news(self, request: Request) -> Response:
        version = int(_number(request, "version") or 0)
        return JSONResponse(await run_in_threadpool(self.desk.news, version))

    async def _pair(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.desk.pair, request.path_params["key"]))

    async def _decide(self, request: Request) -> Response:
        key = request.path_params["key"]
        try:
            decision = Decision.model_validate(await _body(request))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            named = ".".join(map(str, fault["loc"]))
            raise HTTPException(400, f"no decision: {named}: {fault['msg']}") from None
        try:
            pair = await run_in_threadpool(self.desk.decide, key, decision)
        except Refused as refused:
            if not refused.stale:
                raise
            now = await run_in_threadpool(self.desk.pair, key)
            since = await run_in_threadpool(self.desk.since, key, decision.seen)
            return JSONResponse({"error": str(refused), "pair": now, "since": since}, 409)
        return JSONResponse(pair)

    async def _difference(self, request: Request) -> Response:
        entry = self.desk.entry(request.path_params["key"])
        return JSONResponse(await run_in_threadpool(self.pictures.difference, entry))

    async def _tokens(self, request: Request) -> Response:
        text = await _body(request)
        if not isinstance(text, str):
            raise HTTPException(400, "no text")
        return JSONResponse({"tokens": await run_in_threadpool(self.desk.tokens, text)})

    async def _table(self, _request: Request) -> Response:
        return JSONResponse({"notes": await run_in_threadpool(self.desk.build_csv)})

    async def _scores(self, _request: Request) -> Response:
        await run_in_threadpool(self.desk.rescore)
        return JSONResponse({})

    async def _picture(self, request: Request) -> Response:
        asked = request.path_params
        if asked["side"] not in ("source", "target") or asked["view"] not in (
            "frame", "file", "video", "thumb",
        ):  # fmt: skip
            raise HTTPException(404, "no such picture")
        entry = self.desk.entry(asked["key"])
        written = self.desk.dataset.video(asked["key"])
        data, kind = await run_in_threadpool(
            self.pictures.of, entry, asked["side"], asked["view"], written
        )
        # An address with a stamp of the files always shows the same picture.
        kept = {"Cache-Control": "private, max-age=86400"} if "v" in request.query_params else {}
        return Response(data, media_type=kind, headers=kept)


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _as_json(_request: Request, error: Exception) -> Response:
    """What went wrong, for the page to show."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, KeyError):
        return JSONResponse({"error": "the dataset has no pair of this key"}, 404)
    if isinstance(error, Refused):
        return JSONResponse({"error": str(error)}, 400)
    if isinstance(error, ChronoprepError):
        status = 422 if isinstance(error, PairError) else 503
        return JSONResponse({"error": error.message, "hint": error.hint}, status)
    raise error


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    try:
        return None if text in (None, "") else float(text)
    except ValueError:
        raise HTTPException(400, f"{name} is a number") from None


async def _body(request: Request) -> Any:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MOST_BYTES:
            raise HTTPException(413, "too long")
    try:
        return json.loads(bytes(data))
    except ValueError:
        raise HTTPException(400, "no JSON") from None
