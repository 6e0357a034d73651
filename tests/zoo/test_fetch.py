from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ferplus_tvm.errors import DownloadError
from ferplus_tvm.zoo import BUNDLED, transfer
from ferplus_tvm.zoo.fetch import fetch
from ferplus_tvm.zoo.registry import local_path

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c\n"
    b"size 35040571\n"
)
HALF = 150_000


def partial_of(model: Any) -> Path:
    return local_path(model).with_name("small.onnx.part")


def leave_partial(model: Any, content: bytes) -> None:
    partial_of(model).parent.mkdir(parents=True)
    partial_of(model).write_bytes(content)


def failure(model: Any) -> str:
    """Fetch in vain; return the sentence, having seen that no file got the final name."""
    with pytest.raises(DownloadError) as caught:
        fetch(model)
    assert not local_path(model).exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# ----- what goes well


def test_file_is_stored_whole_in_the_cache_folder(server, model, payload, tmp_path) -> None:
    entry = model(server.on("/a", server.file(payload)))
    path = fetch(entry)
    assert path == tmp_path / "cache" / "models" / "small.onnx"
    assert path.read_bytes() == payload
    assert not partial_of(entry).exists()


def test_file_that_is_there_is_not_downloaded_again(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload)))
    fetch(entry)
    fetch(entry)
    assert len(server.requests) == 1


def test_file_placed_by_hand_needs_no_server(model, payload, closed_port) -> None:
    entry = model(f"http://127.0.0.1:{closed_port}/a")
    local_path(entry).parent.mkdir(parents=True)
    local_path(entry).write_bytes(payload)
    assert fetch(entry).read_bytes() == payload


def test_damaged_file_is_replaced(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload)))
    local_path(entry).parent.mkdir(parents=True)
    local_path(entry).write_bytes(payload[::-1])
    assert fetch(entry).read_bytes() == payload


def test_bundled_model_needs_no_download() -> None:
    assert fetch(BUNDLED).stat().st_size == BUNDLED.size


def test_redirect_is_followed(server, model, payload, answer_with) -> None:
    server.on("/there", server.file(payload))
    entry = model(server.on("/a", answer_with(302, Location="/there")))
    assert fetch(entry).read_bytes() == payload


def test_progress_counts_from_nothing_to_the_whole_file(server, model, payload) -> None:
    seen: list[tuple[int, int]] = []
    fetch(
        model(server.on("/a", server.file(payload))),
        progress=lambda done, total: seen.append((done, total)),
    )
    done = [number for number, _ in seen]
    assert {total for _, total in seen} == {len(payload)}
    assert done[0] == 0
    assert done[-1] == len(payload)
    assert done == sorted(done)
    assert len(set(done)) > 10


# ----- addresses that do not give the file


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (POINTER, "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<title>Sign in</title>", "web page"),
        (b"\xef\xbb\xbf  <HTML lang='en'>" + b" " * 299_000, "web page"),
        (b"short", "offers 5 bytes instead of 300000"),
        (bytes(300_000), "another sha256"),
        (bytes(300_001), "offers 300001 bytes"),
    ],
    ids=["pointer", "page", "padded page", "short", "wrong hash", "long"],
)
def test_other_content_is_refused_and_the_next_address_asked(
    server, model, payload, content, why
) -> None:
    bad = server.on("/bad", server.file(content))
    sentence = failure(model(bad))
    assert why in sentence
    assert bad in sentence
    good = server.on("/good", server.file(payload))
    assert fetch(model(bad, good)).read_bytes() == payload


@pytest.mark.parametrize("code", [206, 404, 416, 500])
def test_http_error_is_refused_and_the_next_address_asked(
    server, model, payload, answer_with, code
) -> None:
    bad = server.on("/bad", answer_with(code, b"no"))
    assert f"HTTP {code}" in failure(model(bad))
    good = server.on("/good", server.file(payload))
    assert fetch(model(bad, good)).read_bytes() == payload


def test_redirect_without_end_is_refused(server, model, answer_with) -> None:
    assert "redirect" in failure(model(server.on("/a", answer_with(302, Location="/a"))))


def test_address_that_is_none_is_refused(model) -> None:
    assert "not a web address" in failure(model("http://[::1"))


def test_silent_server_is_given_up(server, model, payload, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT", httpx.Timeout(0.3))
    silent = server.on("/silent", server.file(payload, stop_after=0, hold=True))
    assert "timed out" in failure(model(silent))
    good = server.on("/good", server.file(payload))
    assert fetch(model(silent, good)).read_bytes() == payload


@pytest.mark.parametrize("start", [0, HALF])
def test_body_without_end_is_cut_at_the_promised_size(server, model, payload, start) -> None:
    entry = model(server.on("/a", server.endless(payload[start:], start)))
    leave_partial(entry, payload[:start])
    largest = 0

    def watch(done: int, total: int) -> None:
        nonlocal largest
        largest = max(largest, partial_of(entry).stat().st_size)

    with pytest.raises(DownloadError, match="more than the 300000 bytes"):
        fetch(entry, progress=watch)
    assert start < largest <= len(payload)
    assert partial_of(entry).read_bytes() == payload[:start]
    assert not local_path(entry).exists()


def test_refused_connection_reads_as_no_network_and_says_what_to_do(model, closed_port) -> None:
    addresses = [f"http://127.0.0.1:{closed_port}/{name}" for name in "ab"]
    entry = model(*addresses)
    sentence = failure(entry)
    assert "no network" in sentence
    assert all(address in sentence for address in addresses)
    assert str(local_path(entry)) in sentence
    assert entry.sha256 in sentence


def test_answering_server_does_not_read_as_no_network(
    server, model, answer_with, closed_port
) -> None:
    addresses = f"http://127.0.0.1:{closed_port}/a", server.on("/b", answer_with(404))
    assert "no network" not in failure(model(*addresses))


def test_failed_tls_handshake_is_not_called_no_network(server, model, payload) -> None:
    address = server.on("/a", server.file(payload)).replace("http:", "https:")
    sentence = failure(model(address))
    assert "SSL" in sentence
    assert "no network" not in sentence


def test_unusable_proxy_setting_is_our_error(model, monkeypatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    assert "proxy" in failure(model("http://127.0.0.1:9/a"))


def test_cache_that_cannot_be_a_folder_is_our_error(model, tmp_path) -> None:
    (tmp_path / "cache").write_text("a file")
    sentence = failure(model("http://127.0.0.1:9/a"))
    assert "cannot be stored" in sentence
    assert "FERPLUS_TVM_CACHE" in sentence


@pytest.mark.parametrize("package", ["filelock", "httpx"])
def test_missing_package_is_answered_with_the_pip_command(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from ferplus_tvm.zoo import MODELS; from ferplus_tvm.zoo.fetch import fetch\n"
        "from ferplus_tvm.errors import MissingExtraError\n"
        "try: fetch(MODELS[1])\n"
        "except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'ferplus_tvm[cli]'" in run.stdout


# ----- resuming


def test_cut_connection_is_resumed_in_the_same_call(server, model, payload) -> None:
    cut = server.file(payload, etag='"v1"', stop_after=HALF)
    whole = server.file(payload, etag='"v1"')
    assert fetch(model(server.on("/a", cut, whole))).read_bytes() == payload
    start = int(server.headers("Range")[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= HALF
    assert server.headers("If-Range") == [None, '"v1"']
    # What the cut lost on the way is at most one chunk; nothing else is sent twice.
    assert server.sent == HALF + len(payload) - start
    assert HALF - start < 16384


def test_weak_etag_is_not_used_for_resuming(server, model, payload) -> None:
    cut = server.file(payload, etag='W/"v1"', stop_after=HALF)
    whole = server.file(payload, etag='W/"v1"')
    assert fetch(model(server.on("/a", cut, whole))).read_bytes() == payload
    assert server.headers("If-Range") == [None, None]
    assert server.headers("Range")[1] is not None


def test_file_that_changed_on_the_server_is_read_from_the_start(server, model, payload) -> None:
    cut = server.file(bytes(300_000), etag='"old"', stop_after=HALF)
    whole = server.file(payload, etag='"new"')
    assert fetch(model(server.on("/a", cut, whole))).read_bytes() == payload
    assert len(server.requests) == 2


def test_partial_of_an_earlier_call_is_continued(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload)))
    leave_partial(entry, payload[:HALF])
    seen: list[int] = []
    assert fetch(entry, progress=lambda done, _: seen.append(done)).read_bytes() == payload
    assert server.headers("Range") == [f"bytes={HALF}-"]
    assert server.sent == len(payload) - HALF
    assert seen[0] == HALF


def test_partial_survives_a_failure_and_is_continued_at_another_address(
    server, model, payload, answer_with
) -> None:
    cut = server.file(payload, stop_after=HALF)
    dead = model(server.on("/dead", cut, answer_with(503)))
    assert "HTTP 503" in failure(dead)
    kept = partial_of(dead).stat().st_size
    assert 0 < kept <= HALF
    server.requests.clear()
    fetch(model(server.on("/good", server.file(payload))))
    assert server.headers("Range") == [f"bytes={kept}-"]


def test_partial_survives_a_pointer_that_has_no_such_range(server, model, payload) -> None:
    entry = model(server.on("/pointer", server.file(POINTER)))
    leave_partial(entry, payload[:HALF])
    assert "Git LFS pointer" in failure(entry)
    assert server.headers("Range") == [f"bytes={HALF}-", None]
    assert partial_of(entry).read_bytes() == payload[:HALF]


def test_partial_is_not_overwritten_by_a_page_or_a_pointer(
    server, model, payload, answer_with
) -> None:
    entry = model(
        server.on("/page", answer_with(200, b"<html>busy</html>")),
        server.on("/pointer", answer_with(200, POINTER)),
        server.on("/good", server.file(payload)),
    )
    leave_partial(entry, payload[:HALF])
    assert fetch(entry).read_bytes() == payload
    assert server.sent == len(payload) - HALF


def test_server_without_ranges_sends_all_again(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload, ranges=False)))
    leave_partial(entry, b"?" * HALF)
    assert fetch(entry).read_bytes() == payload
    assert server.sent == len(payload)


@pytest.mark.parametrize("length", [HALF, 300_000, 400_000])
def test_partial_that_turns_out_wrong_is_discarded(server, model, payload, length) -> None:
    entry = model(server.on("/a", server.file(payload)))
    leave_partial(entry, b"?" * length)
    assert fetch(entry).read_bytes() == payload
    assert server.headers("Range")[-1] is None


def test_complete_partial_needs_no_request(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload)))
    leave_partial(entry, payload)
    assert fetch(entry).read_bytes() == payload
    assert server.requests == []


def test_refused_range_starts_again(server, model, payload, answer_with) -> None:
    entry = model(server.on("/a", answer_with(416), server.file(payload)))
    leave_partial(entry, payload[:HALF])
    assert fetch(entry).read_bytes() == payload
    assert server.headers("Range") == [f"bytes={HALF}-", None]


def test_answer_with_another_range_is_not_mixed_in(server, model, payload, answer_with) -> None:
    other = answer_with(206, payload[:HALF], **{"Content-Range": f"bytes 0-{HALF - 1}/300000"})
    entry = model(server.on("/a", other, answer_with(503), server.file(payload)))
    leave_partial(entry, payload[:HALF])
    failure(entry)
    assert server.headers("Range") == [f"bytes={HALF}-", None]
    assert partial_of(entry).read_bytes() == payload[:HALF]
    assert fetch(entry).read_bytes() == payload


def test_server_that_always_cuts_is_given_up(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload, stop_after=20_000)))
    failure(entry)
    assert len(server.requests) < 10
    assert partial_of(entry).read_bytes() == payload[: partial_of(entry).stat().st_size]


# ----- several at once

CHILD = """
import json, sys
from ferplus_tvm.zoo import ZooModel
from ferplus_tvm.zoo.fetch import fetch
values = json.loads(sys.argv[1])
fetch(ZooModel(**{**values, "addresses": tuple(values["addresses"])}))
"""


def start_child(model: Any) -> subprocess.Popen[bytes]:
    values = {name: getattr(model, name) for name in model.__dataclass_fields__}
    return subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(values)])


def wait_until_downloading(model: Any, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not (partial_of(model).exists() and partial_of(model).stat().st_size):
        assert child.poll() is None, "the child ended before it downloaded anything"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_fetch_a_file_once(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload, stop_after=HALF, hold=True)))
    child = start_child(entry)
    try:
        wait_until_downloading(entry, child)
        # The second one reports progress while it waits: only then may the first one go on.
        path = fetch(entry, progress=lambda done, total: server.release.set())
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
    assert path.read_bytes() == payload
    assert len(server.requests) == 1


def test_threads_fetch_a_file_once(server, model, payload) -> None:
    entry = model(server.on("/a", server.file(payload)))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(entry).read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [payload] * 4
    assert len(server.requests) == 1


def test_killed_download_leaves_a_partial_that_a_waiting_process_continues(
    server, model, payload
) -> None:
    held = server.file(payload, stop_after=HALF, hold=True)
    entry = model(server.on("/a", held, server.file(payload)))
    child = start_child(entry)
    kept = 0

    def kill(done: int, total: int) -> None:
        nonlocal kept
        if child.poll() is None:
            assert not local_path(entry).exists()
            child.kill()
            child.wait()
            kept = partial_of(entry).stat().st_size

    try:
        wait_until_downloading(entry, child)
        path = fetch(entry, progress=kill)
    finally:
        child.kill()
        child.wait()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    assert 0 < kept <= HALF
    assert server.headers("Range") == [None, f"bytes={kept}-"]
    assert sorted(os.listdir(path.parent)) == ["small.onnx", "small.onnx.lock"]


def dripping(server: Any, payload: bytes) -> Any:
    """Serve a file in chunks that take half a second together, with ranges."""

    def answer(handler: Any) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        handler.send_response(206 if start else 200)
        if start:
            total = len(payload)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.send_header("Content-Length", str(len(payload) - start))
        handler.end_headers()
        with contextlib.suppress(OSError):  # the client is killed
            for at in range(start, len(payload), 1 + len(payload) // 50):
                server.body(handler, payload[at : min(len(payload), at + 1 + len(payload) // 50)])
                time.sleep(0.01)
        handler.close_connection = True

    return answer


def kill_fetches(server: Any, model: Any, payload: bytes, times: int) -> None:
    entry = model(server.on("/a", dripping(server, payload)))
    delays = random.Random(5)
    for _ in range(times):
        child = start_child(entry)
        time.sleep(delays.uniform(0, 1.5))  # from its start to its end
        child.kill()
        child.wait()
        path = local_path(entry)
        assert not path.exists() or path.read_bytes() == payload
        if path.exists():  # the next one begins again
            path.unlink()
    path = fetch(entry)
    assert path.read_bytes() == payload
    assert sorted(os.listdir(path.parent)) == ["small.onnx", "small.onnx.lock"]


def test_kills_at_any_moment_leave_nothing_half_fetched(server, model, payload) -> None:
    kill_fetches(server, model, payload, 3)


@pytest.mark.long
def test_a_hundred_kills_leave_nothing_half_fetched(server, model, payload) -> None:
    kill_fetches(server, model, payload, 100)
