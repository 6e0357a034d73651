"""The camera's page, as HTTP clients and a browser see it."""

from __future__ import annotations

import email
import gc
import http.server
import io
import json
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError, MissingExtraError
from ferplus_tvm.videos.page import LivePage
from tests.videos import browser
from tests.videos.cameras import BOX, PHOTO


def prediction(label: str, share: float) -> fer.Prediction:
    scores = np.log([share if name == label else (1 - share) / 7 for name in fer.EMOTIONS])
    return fer.postprocess(scores[None].astype(np.float32))[0]


def frame(index: int, *labels: str) -> fer.Frame:
    """A frame in which each person has had another emotion until now."""
    faces = tuple(
        fer.Face(
            BOX,
            (),
            0.9,
            None,
            prediction("anger", 0.9),
            track=number,
            smoothed=prediction(label, 0.8),
        )
        for number, label in enumerate(labels, 1)
    )
    return fer.Frame(index, index / 10, 320, 240, faces, np.asarray(PHOTO), "the <camera>")


@pytest.fixture
def page() -> Iterator[LivePage]:
    with LivePage(0) as page:
        yield page


def asked(page: LivePage, after: int = -1, **headers: str) -> tuple[dict[str, Any], Image.Image]:
    answer = httpx.get(page.address + "frame", params={"after": after}, headers=headers)
    assert answer.status_code == 200, answer.text
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    told, picture = email.message_from_bytes(head + answer.content).get_payload()
    content: Any = picture.get_payload(decode=True)
    return json.loads(told.get_payload()), Image.open(io.BytesIO(content))


def test_a_viewer_gets_the_newest_frame_or_waits_for_the_next(page: LivePage) -> None:
    page.show(frame(0, "sadness"), 0.05, 0)
    page.show(frame(7, "happiness"), 0.025, 6)
    told, picture = asked(page)

    assert (told["index"], told["latency"], told["dropped"]) == (7, 0.025, 6)
    (face,) = told["faces"]
    assert face["smoothed"]["label"] == "happiness" and tuple(face["box"]) == BOX
    assert picture.format == "JPEG" and picture.size == (320, 240)
    difference = np.asarray(picture).astype(int) - np.asarray(PHOTO)
    assert np.abs(difference).mean() < 5

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(asked, page, told["number"]) for _ in range(8)]
        time.sleep(0.3)
        assert not any(each.done() for each in waiting)
        page.show(frame(9), 0.01, 7)
        assert {each.result()[0]["index"] for each in waiting} == {9}


def test_only_the_newest_frame_is_kept_whoever_watches(page: LivePage) -> None:
    port = httpx.URL(page.address).port
    assert port is not None
    large = np.zeros((1200, 1600, 3), np.uint8)
    with socket.create_connection(("127.0.0.1", port)) as stuck:  # asks, and never reads
        page.show(fer.Frame(0, 0.0, 1600, 1200, (), large, "camera"), 0, 0)
        stuck.sendall(b"GET /frame HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        kept = []
        for index in range(1, 50):
            old = fer.Frame(index, index / 10, 1600, 1200, (), large.copy(), "camera")
            kept.append(weakref.ref(old.picture))
            page.show(old, 0, 0)
        del old
        told, picture = asked(page)
        gc.collect()
    assert told["index"] == 49 and max(picture.size) == 1280
    assert sum(each() is not None for each in kept) <= 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_cannot_read_the_picture(page: LivePage, headers: dict[str, str]) -> None:
    page.show(frame(0), 0, 0)
    answer = httpx.get(page.address + "frame", headers=headers)
    assert answer.status_code in (400, 403) and len(answer.content) < 100
    assert "access-control-allow-origin" not in answer.headers
    asked(page, Origin=page.address.rstrip("/"), Host=page.address[7:-1])  # its own may
    asked(page, Host="localhost:8000")  # as through a tunnel


def test_nothing_is_stored_by_the_browser_and_wrong_requests_are_refused(
    page: LivePage, caplog: pytest.LogCaptureFixture
) -> None:
    page.show(frame(0), 0, 0)
    for path in ("", "frame"):
        assert httpx.get(page.address + path).headers["cache-control"] == "no-store"
    policy = httpx.get(page.address).headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert httpx.get(page.address + "frame?after=x").status_code == 400
    assert httpx.post(page.address + "frame").status_code == 405
    assert httpx.get(page.address + "secrets").status_code == 404
    with socket.create_connection(("127.0.0.1", httpx.URL(page.address).port or 0)) as junk:
        junk.sendall(b"\x16\x03\x01\r\n\r\n")  # as https:// begins
        assert junk.recv(100).startswith(b"HTTP/1.1 400")
    assert not [each for each in caplog.records if each.name.startswith("uvicorn")]


def test_it_is_open_to_this_machine_alone_and_a_taken_port_is_one_sentence(page: LivePage) -> None:
    port = httpx.URL(page.address).port
    assert port is not None
    with pytest.raises(InputError, match=rf"port {port} .*name another port"):
        LivePage(port)
    listening = [each.laddr for each in psutil.Process().net_connections("tcp") if not each.raddr]
    assert [each.ip for each in listening if each.port == port] == ["127.0.0.1"]


def test_it_ends_while_viewers_wait() -> None:
    with ThreadPoolExecutor() as pool:
        with LivePage(0) as page:
            waiting = pool.submit(httpx.get, page.address + "frame")
            time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            httpx.get(page.address)
        assert waiting.exception() is not None or waiting.result().status_code == 204
    assert not [each for each in threading.enumerate() if each.name == "camera page"]


def test_without_the_extra_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ferplus_tvm\[camera\]'"):
        LivePage(0)


needs_browser = pytest.mark.skipif(browser.PROGRAM is None, reason="Chromium is not installed")


@needs_browser
def test_a_browser_shows_people_bars_and_figures(page: LivePage, tmp_path: Path) -> None:
    page.show(frame(0, "happiness", "fear"), 0.042, 3)
    with browser.tab(tmp_path) as tab:
        tab.open(page.address)
        tab.wait("document.querySelectorAll('article').length == 2")
        text = tab.run("document.body.innerText")
        assert "Person 1: happiness 80 %" in text and "Person 2: fear 80 %" in text
        assert "latency 42 ms" in text and "3 frames dropped" in text and "the <camera>" in text
        assert "AI Act" in text and "Nothing is stored" in text
        meters = tab.run("[...document.querySelectorAll('meter')].map(m => [m.ariaLabel, m.value])")
        assert dict(meters[:8])["happiness"] == pytest.approx(0.8, abs=1e-3) and len(meters) == 16
        pixel = "[...context.getImageData(160, 230, 1, 1).data].slice(0, 3)"
        assert np.allclose(tab.run(pixel), np.asarray(PHOTO)[230, 160], atol=8)

        tab.run("byId('pause').click()")
        page.show(frame(1, "anger"), 0.01, 4)
        time.sleep(0.5)
        assert "Person 2: fear" in tab.run("document.body.innerText")
        tab.run("byId('pause').click()")
        page.show(frame(2, "anger"), 0.01, 4)
        tab.wait("document.body.innerText.includes('Person 1: anger')")
        assert "Person 2" not in tab.run("document.body.innerText")

        page.close()
        tab.wait("byId('trouble').innerText.includes('No pictures come')")


@needs_browser
def test_a_page_of_another_site_gets_nothing_in_a_browser(page: LivePage, tmp_path: Path) -> None:
    page.show(frame(0, "happiness"), 0, 0)
    (tmp_path / "evil.html").write_text("<!doctype html><title>Evil</title>")
    code = f"""
(async () => {{
  const target = "{page.address}";
  const read = await fetch(target + "frame").then(r => r.text(), () => "refused");
  const seen = await new Promise(resolve => {{
    const image = new Image();
    image.onload = () => resolve("seen");
    image.onerror = () => resolve("refused");
    image.src = target + "frame";
  }});
  return [read, seen];
}})()"""

    class Evil(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with browser.tab(tmp_path / "profile") as tab:
            tab.open(f"http://localhost:{server.server_port}/evil.html")
            tab.wait("document.title == 'Evil'")
            assert tab.run(code) == ["refused", "refused"]
        server.shutdown()
        thread.join()
