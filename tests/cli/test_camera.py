"""What a user sees of ``camera``."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ferplus_tvm.cli import app
from tests.videos.cameras import BOX, Cameras
from tests.vision.support import overlap


@contextmanager
def started(cameras: Cameras, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the verb with cameras plugged in, and see that it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ferplus_tvm", "camera", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **cameras.environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_lines_of_json_come_until_ctrl_c(cameras: Cameras, detector_library: Path) -> None:
    cameras.plug(0, "pictures 200")
    with started(cameras, detector_library, "--jsonl") as process:
        assert process.stdout is not None
        frames = [json.loads(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=60)

    frames += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 0
    assert (
        told == f"{len(frames)} frames, and {frames[-1]['dropped']} dropped\n"
        or int(told.split()[-2]) >= frames[-1]["dropped"]
    )
    for frame in frames:
        assert frame["source"] == "/dev/video0" and 0 < frame["latency"] < 60
        (face,) = frame["faces"]
        assert overlap(tuple(face["box"]), BOX) > 0.7 and face["track"] == 1
    for before, after in itertools.pairwise(frames):
        assert after["index"] > before["index"] and after["dropped"] >= before["dropped"]
    assert frames[-1]["dropped"] >= frames[-1]["index"] + 1 - len(frames)


def test_a_reader_that_has_enough_ends_it_quietly(cameras: Cameras, detector_library: Path) -> None:
    cameras.plug(0, "pictures 100")
    with started(cameras, detector_library, "--device", "fake") as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=60)
        assert re.fullmatch(r" +0\.00 s +\d+ ms  1: \w+ +\d+\.\d %\n", first)
        assert process.stderr.read() == ""


def test_the_page_is_served_until_the_camera_is_unplugged(
    cameras: Cameras, detector_library: Path
) -> None:
    cameras.plug(3, "pictures 50")
    options = ["--device", "3", "--http", "0", "--size", "1280x720"]
    with started(cameras, detector_library, *options) as process:
        assert process.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+/) shows /dev/video3", process.stdout.readline())
        assert found is not None
        assert "<canvas" in httpx.get(found[1]).text
        answer = httpx.get(found[1] + "frame")
        assert answer.status_code == 200 and b'"source": "/dev/video3"' in answer.content
        cameras.unplug(3)
        rest, told = process.communicate(timeout=60)

    assert process.returncode == 1 and rest == ""
    warning, error = told.splitlines()
    assert warning == "warning: /dev/video3 gives 320x240 in place of 1280x720"
    assert error.startswith("error: /dev/video3 is gone")


def test_a_camera_or_port_that_is_taken_is_one_sentence(
    cameras: Cameras, narrow_library: Path
) -> None:
    cameras.plug(0, "busy")
    with started(cameras, narrow_library) as process:
        rest, told = process.communicate(timeout=60)
    assert (process.returncode, rest) == (1, "")
    assert (
        told.startswith("error: /dev/video0 is used by another program") and told.count("\n") == 1
    )

    cameras.plug(0, "pictures 100")
    with started(cameras, narrow_library) as process:
        rest, told = process.communicate(timeout=60)
    assert (process.returncode, rest) == (1, "") and "--detector" in told


@pytest.mark.parametrize(
    "wrong",
    [
        ["--jsonl", "--http", "0"],
        ["--size", "640"],
        ["--size", "0x480"],
        ["--http", "70000"],
        ["--min-score", "2"],
        ["--smooth", "-1"],
        ["--smooth", "inf"],
    ],
)
def test_wrong_calls_end_with_status_2(tmp_path: Path, wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["camera", str(tmp_path / "any.so"), *wrong]).exit_code == 2
