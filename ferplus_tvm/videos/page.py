"""A web page that shows what a camera sees and what is found in it, to this machine alone."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ferplus_tvm.errors import InputError, MissingExtraError
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.vision.draw import colour_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HOST = "127.0.0.1"
_NAMES = [_HOST, "localhost"]  # by which a browser here may know the page
_WAIT = 10.0  # seconds that a request waits for a picture
_VIEWERS = 64
_SIDE, _QUALITY = 1280, 80  # of the JPEG
_RATE_OF = 30  # frames
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Shown:
    """A frame as viewers get it: made for the first who asks, once for all."""

    def __init__(self, number: int, frame: Frame, facts: dict[str, Any]) -> None:
        self.number = number
        self._frame = frame
        self._facts = facts
        self._lock = threading.Lock()
        self._body: bytes | None = None

    def body(self, boundary: str) -> bytes:
        """Return the frame as multipart/form-data: ``frame``, JSON, and ``picture``, JPEG."""
        with self._lock:
            if self._body is None:
                parts = [
                    ('name="frame"; filename="frame.json"', "application/json", self._json()),
                    ('name="picture"; filename="picture.jpg"', "image/jpeg", self._jpeg()),
                ]
                self._body = b"".join(
                    f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\n"
                    f"Content-Type: {kind}\r\n\r\n".encode()
                    + content
                    + b"\r\n"
                    for name, kind, content in parts
                )
                self._body += f"--{boundary}--\r\n".encode()
            return self._body

    def _json(self) -> bytes:
        answer = {**self._frame.to_dict(), **self._facts, "number": self.number}
        for face in answer["faces"]:
            said = face["smoothed"] or face["prediction"]
            face["colour"] = colour_of(said["label"], tuple(said["probabilities"]))
        return json.dumps(answer).encode()

    def _jpeg(self) -> bytes:
        from PIL import Image

        image = Image.fromarray(self._frame.picture)
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


class LivePage:
    """A page on this machine that shows the newest frame to any number of viewers.

    It is served at a loopback address, by a thread of its own.  Only the newest frame is kept: who
    is slow to ask misses some, and holds nobody up.  Web pages of other sites cannot read it: names
    of other hosts, by which they would pretend to be this one, are refused, and no permission is
    given to other origins.

    Parameters
    ----------
    port
        That of the address; 0 for any that is free.

    Attributes
    ----------
    address
        The page's URL.

    Raises
    ------
    InputError
        If the port is taken, or may not be used.
    MissingExtraError
        If Starlette or uvicorn is not installed.
    """

    def __init__(self, port: int) -> None:
        try:
            import uvicorn

            app = _app(self)
        except ModuleNotFoundError:
            raise MissingExtraError.of("the camera's page", "camera") from None
        bound = _bound(port)
        self.address = f"http://{_HOST}:{bound.getsockname()[1]}/"
        self.boundary = secrets.token_hex(16)
        self._newest: _Shown | None = None
        self._times: deque[float] = deque(maxlen=_RATE_OF)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._closing = False
        config = uvicorn.Config(
            app,
            access_log=False,
            lifespan="off",
            limit_concurrency=_VIEWERS,
            log_config=None,
            log_level="error",  # not a line for each request that is none
            server_header=False,
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([bound],), name="camera page", daemon=True
        )
        self._thread.start()

    def show(self, frame: Frame, latency: float, dropped: int) -> None:
        """Show a frame in place of the last one, which costs next to nothing if nobody looks.

        Parameters
        ----------
        frame
            The newest.
        latency
            Seconds from its picture to its answer.
        dropped
            How many frames were dropped until now.
        """
        self._times.append(time.monotonic())
        passed = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / passed if passed else None
        number = self._newest.number + 1 if self._newest else 0
        facts = {"latency": latency, "dropped": dropped, "fps": rate}
        self._newest = _Shown(number, frame, facts)
        self._wake()

    async def newer_than(self, number: int) -> _Shown | None:
        """Return a frame that is newer than a number, or None if none comes in some seconds."""
        self._loop = asyncio.get_running_loop()
        end = self._loop.time() + _WAIT
        while not self._closing:
            changed, newest = self._changed, self._newest
            if newest is not None and newest.number > number:
                return newest
            try:
                await asyncio.wait_for(changed.wait(), end - self._loop.time())
            except TimeoutError:
                return None
        return None

    def close(self) -> None:
        """End the page; again is harmless."""
        self._closing = self._server.should_exit = True
        self._wake()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the page has just ended
                self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _bound(port: int) -> socket.socket:
    """Return a socket that listens, so that the page can be opened at once."""
    made = socket.socket()
    try:
        if sys.platform != "win32":  # where it would let two programs have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_HOST, port))
        made.listen()
    except OSError as error:
        made.close()
        raise InputError(
            f"port {port} of {_HOST} cannot be had ({error.strerror}): name another port, or 0 for "
            "any that is free"
        ) from error
    return made


def _app(page: LivePage) -> Starlette:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    async def whole(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {**_HEADERS, "Content-Security-Policy": policy, "X-Frame-Options": "DENY"}
        return HTMLResponse(html.replace("NONCE", nonce), headers=headers)

    async def frame(request: Request) -> Response:
        if _from_elsewhere(request):
            return PlainTextResponse("this page's own requests alone are answered", 403)
        try:
            after = int(request.query_params.get("after", -1))
        except ValueError:
            return PlainTextResponse("after: expected a frame's number", 400)
        shown = await page.newer_than(after)
        if shown is None:
            return Response(status_code=204, headers=_HEADERS)
        body = await run_in_threadpool(shown.body, page.boundary)
        kind = f"multipart/form-data; boundary={page.boundary}"
        return Response(body, media_type=kind, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", whole), Route("/frame", frame)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)],
    )


def _from_elsewhere(request: Request) -> bool:
    """Whether a page of another origin asks, as far as browsers say so."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    own = f"http://{request.headers['host']}"
    return site not in ("same-origin", "none") or origin not in (None, own)
