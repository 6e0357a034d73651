"""A web server on loopback that can misbehave in the ways that a test asks for."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ferplus_tvm.zoo import ZooModel

Answer = Callable[[BaseHTTPRequestHandler], None]


class Loopback:
    """Serves what ``answers`` says per path, the last answer again and again.

    ``requests`` records (path, headers) and ``sent`` the bytes of all bodies.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                queue = outer.answers[self.path]
                (queue.pop(0) if len(queue) > 1 else queue[0])(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, path: str, *answers: Answer) -> str:
        """Answer requests for ``path`` one after the other; return its address."""
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def headers(self, name: str) -> list[str | None]:
        """Return that header of every request so far."""
        return [headers.get(name) for _, headers in self.requests]

    def body(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        self.sent += len(data)  # before the client can know that it has everything
        handler.wfile.write(data)
        handler.wfile.flush()

    def file(
        self,
        data: bytes,
        *,
        etag: str | None = None,
        ranges: bool = True,
        stop_after: int | None = None,
        hold: bool = False,
    ) -> Answer:
        """Serve a file, with ranges; end the body early, by a cut or after ``release``."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
            condition = handler.headers.get("If-Range")
            if asked and ranges and condition in (None, etag):
                start = int(asked[1])
                if start >= len(data):
                    status(416)(handler)
                    return
                handler.send_response(206)
                handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                handler.send_response(200)
            if etag:
                handler.send_header("ETag", etag)
            handler.send_header("Content-Length", str(len(data) - start))
            handler.end_headers()
            stop = len(data) if stop_after is None else start + stop_after
            self.body(handler, data[start:stop])
            if hold:
                self.release.wait()
                try:
                    self.body(handler, data[stop:])
                except OSError:
                    handler.close_connection = True  # the client was killed meanwhile
            elif stop < len(data):
                handler.close_connection = True

        return answer

    def endless(self, first: bytes, start: int) -> Answer:
        """Serve from ``start`` a body without a length that ends when the client hangs up."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(206 if start else 200)
            if start:
                handler.send_header("Content-Range", f"bytes {start}-999999/*")
            handler.end_headers()
            handler.close_connection = True
            try:
                self.body(handler, first)
                while not self.release.is_set():
                    self.body(handler, bytes(65536))
            except OSError:
                pass

        return answer


def status(code: int, data: bytes = b"", **headers: str) -> Answer:
    """Answer with a status, a body and its length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.fixture
def answer_with() -> Callable[..., Answer]:
    return status


@pytest.fixture
def server() -> Iterator[Loopback]:
    loopback = Loopback()
    yield loopback
    loopback.stop()


@pytest.fixture
def payload() -> bytes:
    return random.Random(20).randbytes(300_000)


@pytest.fixture
def model(payload: bytes) -> Callable[..., ZooModel]:
    """Make a zoo entry for the payload, with the addresses given."""

    def make(*addresses: str) -> ZooModel:
        digest = hashlib.sha256(payload).hexdigest()
        return ZooModel(
            "small.onnx", len(payload), digest, addresses, "small", 8, "a test file", "none"
        )

    return make


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Keep the user's cache and proxies out of the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("FERPLUS_TVM_CACHE", str(tmp_path / "cache"))
