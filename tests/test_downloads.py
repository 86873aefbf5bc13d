"""Images at web addresses: what servers answer, and what is kept of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoprep.config import ImageSettings
from chronoprep.data import Remote
from chronoprep.errors import BackendError, PairError
from chronoprep.images.load import load_image
from conftest import photo
from odd_server import Quiet, serving
from test_cli import Run


def png() -> bytes:
    buffer = io.BytesIO()
    photo(0).save(buffer, "png")
    return buffer.getvalue()


class Web:
    """A server whose answers, (Content-Length, body), come in turn; the last one is repeated."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: list[tuple[int, bytes]] = [(len(png()), png())]
        self.asked: list[str] = []
        self.moved: dict[str, str] = {}
        self.closed = threading.Event()


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            if self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.end_headers()
                return
            if self.path == "/slow.png":
                with suppress(OSError):
                    while not site.closed.wait(0.01):
                        self.wfile.write(b"H")
                return
            length, body = site.answers.pop(0) if len(site.answers) > 1 else site.answers[0]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    http = Quiet(("127.0.0.1", 0), Handler)
    site = Web(f"http://127.0.0.1:{http.server_port}")
    with serving(http):
        yield site
        site.closed.set()


def load(url: str) -> Image.Image:
    return load_image(Remote(url), ImageSettings())[0]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/a b.png", "/a%20b.png"),
        ("/é/日.png?name=ü x&n=1", "/%C3%A9/%E6%97%A5.png?name=%C3%BC%20x&n=1"),
        ("/a%20b+c.png?x=%2F#part", "/a%20b+c.png?x=%2F"),
    ],
)
def test_an_address_travels_percent_encoded(web: Web, path: str, sent: str) -> None:
    assert load(web.address + path).size == photo(0).size
    assert web.asked == [sent]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:port/a.png", "http://[::1/a.png", "http://é..invalid/a.png"]
)
def test_an_address_that_is_none_fails_alone(address: str) -> None:
    with pytest.raises(PairError) as caught:
        load(address)
    assert f"{address}: can't download it" in str(caught.value)
    assert "Check the address" in str(caught.value.hint)


def test_one_bad_address_does_not_end_the_run(web: Web, run: Run, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "target.png")
    lines = ["source,target,key", "http://127.0.0.1:x y/a.png,target.png,bad",
             f"{web.address}/a.png,target.png,good"]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(lines))
    result = run("pair2video", "t.csv", "-d", "data", "--allow-urls")
    assert result.code == 1
    assert "127.0.0.1:x y/a.png: can't download it" in result.stdout
    assert (tmp_path / "data/videos/good.mp4").exists()


@pytest.mark.parametrize(
    ("length", "body", "reason"),
    [
        (200, b"<!DOCTYPE html>".ljust(200), "a web page, not an image"),
        (len(png()), png()[: len(png()) // 2], r"can't download it: .*received \d+ bytes"),
        (20, png()[:20], "an image whose header is damaged or cut off"),
    ],
)
def test_a_bad_download_is_not_kept(web: Web, length: int, body: bytes, reason: str) -> None:
    web.answers.insert(0, (length, body))
    with pytest.raises(PairError, match=rf"/a\.png: {reason}") as caught:
        load(f"{web.address}/a.png")
    assert caught.value.hint
    for _ in range(2):
        assert load(f"{web.address}/a.png").size == photo(0).size
    assert len(web.asked) == 2, "the good one is kept"


def test_a_cache_that_cannot_be_written_is_named(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"file/chronoprep/urls/.*can't keep") as caught:
        load(f"{web.address}/a.png")
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


def test_an_address_that_moved_is_followed_on_the_web_only(web: Web, tmp_path: Path) -> None:
    photo(0).save(tmp_path / "own.png")
    web.moved = {"/a.png": "/b.png", "/c.png": f"file://{tmp_path}/own.png", "/d.png": "/d.png"}
    assert load(f"{web.address}/a.png").size == photo(0).size
    for name in ("c", "d"):
        with pytest.raises(PairError, match=rf"/{name}\.png: can't download it: ") as caught:
            load(f"{web.address}/{name}.png")
        assert caught.value.hint


def test_a_download_has_an_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as soon:
        soon.setattr("chronoprep.images.downloads._DEADLINE", 0.2)
        with pytest.raises(PairError, match=r"slow\.png: can't download it: not done after"):
            load(f"{web.address}/slow.png")
    monkeypatch.setattr("chronoprep.images.downloads._MOST", len(png()) - 1)
    with pytest.raises(PairError, match=r"big\.png: larger than"):
        load(f"{web.address}/big.png")


def test_an_address_that_is_gone_says_so(web: Web) -> None:
    web.moved = {"/a.png": "http://127.0.0.1:1/a.png"}
    with pytest.raises(PairError, match=r"/a\.png: can't download it: .*connect") as caught:
        load(f"{web.address}/a.png")
    assert "\n" not in str(caught.value)
