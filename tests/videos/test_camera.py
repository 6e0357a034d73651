"""Cameras: the newest picture, and one right sentence for what is wrong with one."""

from __future__ import annotations

import errno
import grp
import http.server
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError
from ferplus_tvm.videos.devices import Device, cannot_open
from tests.videos.cameras import BOX, PHOTO, Cameras
from tests.vision.support import overlap

RunPython = Callable[..., str]


def test_the_newest_picture_is_given_and_what_was_missed_is_counted(
    cameras: Cameras, run_python: RunPython
) -> None:
    cameras.plug(0, "pictures 100")
    code = """
import json, time
import numpy as np
import ferplus_tvm as fer
with fer.Camera(0) as camera:
    for index, seconds, picture in camera:
        digits = np.rint(picture[0, :4, 0] * (219 / 255) / 6).astype(int)
        told = int(digits @ 32 ** np.arange(4))
        print(json.dumps([index, seconds, told, camera.dropped, picture.shape, camera.size]))
        time.sleep(0.1)
        if index > 30:
            break
assert next(camera, None) is None  # it is closed
"""
    lines = run_python(code, **cameras.environment).splitlines()
    answers = [json.loads(line) for line in lines]
    first = answers[0][2] - answers[0][0]  # pictures that FFmpeg looked at to know the format

    for number, (index, seconds, told, dropped, shape, size) in enumerate(answers, 1):
        assert told - first == index  # nothing older than it says
        assert dropped >= index + 1 - number  # and one more may have come since
        assert seconds == pytest.approx(index / 100, abs=1e-3)  # the camera's own clock
        assert (shape, size) == ([240, 320, 3], [320, 240])
    assert answers[-1][0] >= 3 * len(answers)  # a queue would give one after the other


def test_a_camera_that_offers_jpeg_is_asked_for_it(cameras: Cameras, run_python: RunPython) -> None:
    cameras.plug(0, "pictures 50")
    cameras.offer_jpeg(Image.new("RGB", (320, 240), (200, 40, 90)))
    code = """
import ferplus_tvm as fer
with fer.Camera("/dev/video0") as camera:
    print(*next(camera)[2].mean((0, 1)))
"""
    mean = [float(word) for word in run_python(code, **cameras.environment).split()]
    assert np.allclose(mean, (200, 40, 90), atol=3)


def test_each_camera_that_cannot_be_had_is_one_sentence_that_names_the_others(
    cameras: Cameras, run_python: RunPython
) -> None:
    code = """
import sys
import ferplus_tvm as fer
for device in sys.argv[1:]:
    try:
        fer.Camera(device)
    except fer.errors.InputError as error:
        print(error)
"""
    nothing = run_python(code, 0, "logitech", **cameras.environment).splitlines()
    assert all("there is no camera" in line and "none was found" in line for line in nothing)

    cameras.plug(1, "denied")
    (forbidden,) = run_python(code, "logitech", **cameras.environment).splitlines()
    assert "no camera 'logitech'" in forbidden and "/dev/video1 may not be read" in forbidden

    for number, does in enumerate(["busy", "denied", "metadata", "pictures 100"]):
        cameras.plug(number, does)
    lines = run_python(code, 0, 1, 2, 7, "logitech", "", **cameras.environment).splitlines()

    busy, denied, metadata, absent, unnamed, empty = lines
    assert "/dev/video0 is used by another program" in busy
    assert "/dev/video1 may not be read by this user" in denied
    assert "/dev/video2 gives no pictures" in metadata and "3 (Fake Camera: pictures)" in metadata
    assert "no camera /dev/video7" in absent and "3 (Fake Camera: pictures)" in absent
    assert "no camera 'logitech'" in unnamed and "3 (Fake Camera: pictures)" in unnamed
    assert "no camera ''" in empty


def test_a_camera_that_is_unplugged_or_silent_says_so(
    cameras: Cameras, run_python: RunPython
) -> None:
    cameras.plug(0, "pictures 100")
    cameras.plug(1, "silent")
    code = """
import os, sys
import ferplus_tvm as fer
for device in ("pictures", 1):
    try:
        for index, _, _ in fer.Camera(device):
            if index > 3 and os.path.exists(sys.argv[1]):
                os.unlink(sys.argv[1])
                print("unplugged")
    except fer.errors.InputError as error:
        print(error)
    sys.modules["ferplus_tvm.videos.camera"]._PATIENCE = 0.3
"""
    file = Path(cameras.environment["FAKE_CAMERAS"]) / "video0"
    unplugged, gone, silent = run_python(code, file, **cameras.environment).splitlines()
    assert unplugged == "unplugged" and "camera 0 (Fake Camera: pictures) is gone" in gone
    assert silent.startswith("/dev/video1 gave no picture for 0 seconds")


def test_who_may_not_use_a_camera_is_told_the_group_that_may(tmp_path: Path) -> None:
    file = tmp_path / "video0"
    file.touch()
    device = Device(str(file), "v4l2", str(file), ({},))
    sentence = str(cannot_open(device, PermissionError(errno.EACCES, "Permission denied")))
    assert f"group {grp.getgrgid(file.stat().st_gid).gr_name}" in sentence


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"film")
    with pytest.raises(InputError, match=r"clip\.mp4 is a file, and no camera.*fer\.video"):
        fer.Camera(str(file))


def test_video_takes_a_camera_and_analyses_its_newest_picture(
    cameras: Cameras, run_python: RunPython, narrow_library: Path
) -> None:
    cameras.plug(0, "pictures 100")
    code = """
import json, sys, time
import ferplus_tvm as fer
def slow(picture):
    time.sleep(0.1)
    return [json.loads(sys.argv[2])]
with fer.load(sys.argv[1]) as engine:
    for source in (0, fer.Camera(0)):
        with fer.video(source, engine, detector=slow) as video:
            assert video.live and video.duration is None and video.size == (320, 240)
            for number, frame in enumerate(video):
                print(json.dumps(frame.to_dict()))
                if number == 3:
                    break
"""
    lines = run_python(code, narrow_library, json.dumps(BOX), **cameras.environment).splitlines()
    frames = [json.loads(line) for line in lines]

    for run in (frames[:4], frames[4:]):
        steps = np.diff([frame["index"] for frame in run])
        assert min(steps) >= 5  # of ten that came while each was looked at
        assert [frame["time"] for frame in run] == pytest.approx(
            [frame["index"] / 100 for frame in run], abs=1e-3
        )
        for frame in run:
            (face,) = frame["faces"]
            assert overlap(tuple(face["box"]), BOX) > 0.99 and face["track"] == 1


@contextmanager
def served(jpeg: bytes, count: int) -> Iterator[str]:
    """Serve a live stream as network cameras do: JPEG after JPEG, 100 a second."""

    class Stream(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            for _ in range(count):
                self.wfile.write(head + jpeg + b"\r\n")
                time.sleep(0.01)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/stream"
        server.shutdown()
        thread.join()


def test_a_live_stream_stands_in_for_a_camera() -> None:
    file = io.BytesIO()
    PHOTO.save(file, "JPEG")
    indices = []
    with (
        served(file.getvalue(), 60) as address,
        fer.Camera(address) as camera,
        pytest.raises(InputError, match=r"stream .* stopped"),
    ):
        for index, _, picture in camera:
            indices.append(index)
            assert np.abs(picture.astype(int) - np.asarray(PHOTO)).mean() < 5
            time.sleep(0.1)
    assert indices == sorted(indices) and len(indices) < 20
    assert len(indices) + camera.dropped == indices[-1] + 1  # to the end
    assert indices[-1] >= 58  # FFmpeg gives one when the next one begins


def test_a_stream_that_cannot_be_had_is_one_sentence() -> None:
    with served(b"", 0) as address:
        pass  # it is gone
    with pytest.raises(InputError, match=r"stream http://127.*cannot be opened \(Connection"):
        fer.Camera(address)
    assert not [each for each in threading.enumerate() if each.name == "camera"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"no pictures at all" * 1000))
    writer.start()
    with pytest.raises(InputError, match=r"stream .*pipe cannot be opened"):
        fer.Camera(str(pipe))
    writer.join()
