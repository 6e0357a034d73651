"""What a user sees of ``video``."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import ferplus_tvm as fer
from ferplus_tvm.cli import app
from tests.cli.test_verbs import assert_one_sentence, run
from tests.videos.clips import read, write_clip
from tests.vision.support import FACE, HOPPER, overlap

SIZE = (240, 240)
TIMES = [0, 0.04, 0.1, 0.12, 0.2, 0.31, 0.32, 0.4, 0.5, 0.52]
SEEN = 8  # frames in which she is


@functools.cache
def hopper(number: int) -> NDArray[np.uint8]:
    """Return a frame with her in it, who goes to the right; the last ones without her."""
    image = Image.new("RGB", SIZE, (90, 110, 130))
    if number < SEEN:
        image.paste(Image.open(HOPPER).resize((171, 200)), (3 * number, 20))
    return np.asarray(image)


def grain(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return a picture with noise, so that each frame takes as many bytes."""
    noise = np.random.default_rng(seed).integers(-15, 16, (*SIZE, 1))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def box_of(number: int) -> tuple[float, ...]:
    scale = 200 / 600
    x, y, width, height = (each * scale for each in FACE)
    return x + 3 * number, y + 20, width, height


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, TIMES, SIZE, draw=hopper)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds, which takes longer than a test waits for."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_clip(path, [n / 25 for n in range(500)], SIZE, draw=lambda n: hopper(n % SEEN))


def test_everything_is_written_in_one_run(
    detector_library: Path, clip: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    outputs = [tmp_path / name for name in ("out.mp4", "out.parquet", "out.png", "out.html")]
    flags = ["--draw", outputs[0], "--parquet", outputs[1], "--plot", outputs[2]]

    done = run("video", detector_library, clip, "--csv", *flags, "--plot", outputs[3])

    assert (done.returncode, done.stderr) == (0, b"")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [int(row["frame"]) for row in rows] == list(range(len(TIMES)))
    assert [float(row["time"]) for row in rows] == TIMES
    for number, row in enumerate(rows):
        assert row["source"] == str(clip) and row["error"] == ""
        if number >= SEEN:
            assert row["face"] == row["label"] == ""
            continue
        assert row["track"] == rows[0]["track"] and row["smoothed_label"] in fer.EMOTIONS
        found = tuple(float(row[name]) for name in ("x", "y", "w", "h"))
        assert overlap(found, box_of(number)) > 0.6
    written, source = read(outputs[0]), read(clip)
    assert (written.times, written.packets) == (source.times, source.packets)
    table = parquet.read_table(outputs[1]).to_pylist()
    assert [each["time"] for each in table] == TIMES
    assert Image.open(outputs[2]).format == "PNG"
    assert "clip.mp4" in outputs[3].read_text() and "<script" not in outputs[3].read_text()
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_text_is_a_summary_of_the_part_that_is_looked_at(
    detector_library: Path, clip: Path
) -> None:
    done = run("video", detector_library, clip, "--start", "0:00.1", "--end", "0.35")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert lines[0] == f"{clip}: 1 person in 0.2 s"
    assert lines[1].split()[1:4] == ["0.2", "s", "mostly"] and len(lines) == 2


def test_lines_of_json_of_some_frames(detector_library: Path, clip: Path) -> None:
    done = run("video", detector_library, clip, "--jsonl", "--every", "3", "--smooth", "0")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["index"], each["time"]) for each in answers] == [
        (number, TIMES[number]) for number in range(0, len(TIMES), 3)
    ]
    for face in answers[0]["faces"]:
        assert face["smoothed"] == face["prediction"]
    assert [len(each["faces"]) for each in answers] == [1, 1, 1, 0]


@pytest.mark.parametrize("every", [1, 4])
def test_of_a_broken_video_what_can_be_read_is_kept(
    detector_library: Path, tmp_path: Path, every: int
) -> None:
    whole, broken = tmp_path / "whole.mkv", tmp_path / "broken.mkv"
    times = [n / 10 for n in range(40)]
    write_clip(whole, times, SIZE, sound=None, draw=lambda n: grain(hopper(n % SEEN), n))
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    output, flags = tmp_path / "out.mp4", ["--every", str(every)]

    done = run("video", detector_library, broken, "--csv", "--draw", output, *flags)

    assert done.returncode == 1
    (error,) = done.stderr.decode().splitlines()
    assert error.startswith("error: ") and "broken.mkv" in error
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert rows[-1]["error"] in error and rows[-1]["face"] == ""
    frames = [row for row in rows if not row["error"]]
    assert 15 <= len(frames) * every < 40
    ended = re.search(r"up to (\d+\.\d+) s of (3\.\d+) s", error)
    assert ended is not None
    written = read(output).times
    assert 0 <= float(ended[1]) - float(written[-1]) < 0.11
    assert [float(row["time"]) for row in frames] == [float(each) for each in written[::every]]


@pytest.mark.skipif(os.name == "nt", reason="interrupts by signal")
def test_ctrl_c_keeps_what_is_done(detector_library: Path, long_clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    video, table, plot = (tmp_path / name for name in ("out.mp4", "out.parquet", "out.html"))
    command = ["video", detector_library, long_clip, "--csv", "--draw", video]
    command += ["--parquet", table, "--plot", plot]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "ferplus_tvm", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert errors.decode().splitlines() == ["stopped: what is done is kept"]
    rows = list(csv.DictReader(io.StringIO((b"".join(lines) + rest).decode())))
    assert 19 <= len(rows) < 500
    assert rows[-1]["frame"] == str(len(rows) - 1) and rows[-1]["source"] == str(long_clip)
    assert read(video).times == read(long_clip).times[: len(rows)]
    assert parquet.read_table(table).num_rows == len(rows)
    assert "long.mp4" in plot.read_text()
    assert sorted(tmp_path.iterdir()) == sorted([video, table, plot])


@pytest.mark.skipif(os.name == "nt", reason="a terminal by pty")
def test_a_terminal_shows_progress(detector_library: Path, clip: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ferplus_tvm", "video", str(detector_library), str(clip)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux, where nobody writes any more
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert b"frames/s" in shown and b"left" in shown


def test_what_is_missing_is_said_before_anything_is_written(
    narrow_library: Path, detector_library: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    flags = ["--csv", "--draw", output]
    done = run("video", narrow_library, clip, *flags)
    assert "--detector" in assert_one_sentence(done)
    assert done.stdout == b"" and not output.exists()

    sentence = assert_one_sentence(run("video", detector_library, tmp_path / "no.mp4", *flags))
    assert "no.mp4" in sentence and "does not exist" in sentence
    assert "is the video that is read" in assert_one_sentence(
        run("video", detector_library, clip, "--draw", clip)
    )
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_read_and_that_its_sound_is_missing_is_said(
    detector_library: Path, clip: Path, tmp_path: Path
) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=clip.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/{clip.name}"
        given = address.replace("//", "//user:secret@")
        output = tmp_path / "out.mp4"
        done = run("video", detector_library, given, "--every", "2", "--draw", output)
        server.shutdown()

    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        "warning: no sound is written of an address or a pipe"
    ]
    assert done.stdout.decode().startswith(f"{address}: 1 person in ")  # without the password
    written = read(output)
    assert [float(time) for time in written.times] == TIMES[::2]
    assert written.codecs == ["h264"]


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no name for standard input")
def test_a_pipe_is_drawn_though_it_can_be_read_once(
    detector_library: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    done = run("video", detector_library, "/dev/stdin", "--draw", output, stdin=clip.read_bytes())
    assert done.returncode == 0, done.stderr
    assert [float(time) for time in read(output).times] == TIMES


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are no text")
def test_a_file_may_have_any_name(detector_library: Path, clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    odd = tmp_path / os.fsdecode(b"a $\\x$ \xe6\x97\xa5 \xff.mp4")
    odd.write_bytes(clip.read_bytes())
    table, png, html = (tmp_path / name for name in ("a.parquet", "a.png", "a.html"))
    flags = ["--every", "9", "--parquet", table, "--plot", png, "--plot", html]

    done = run("video", detector_library, odd, *flags)

    assert (done.returncode, done.stderr) == (0, b"")
    assert os.fsencode(odd) in done.stdout
    assert Image.open(png).format == "PNG"
    assert r"Emotions in a $\x$ 日 ?.mp4" in html.read_text(encoding="utf-8")
    assert parquet.read_table(table)["source"][0].as_py().endswith(r"a $\x$ 日 \udcff.mp4")


def test_without_pyav_the_extra_is_named(
    detector_library: Path, clip: Path, tmp_path: Path
) -> None:
    code = "import sys; sys.modules['av'] = None; from ferplus_tvm.cli import run; run()"
    arguments = ["video", detector_library, clip, "--csv", "--draw", tmp_path / "out.mp4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=False
    )
    assert "pip install 'ferplus_tvm[video]'" in assert_one_sentence(done)
    assert done.stdout == b"" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["--csv", "--jsonl"],
        ["--every", "2", "--fps", "3"],
        ["--start", "soon"],
        ["--smooth", "nan"],
    ],
)
def test_wrong_calls_end_with_status_2(tmp_path: Path, clip: Path, wrong: list[str]) -> None:
    arguments = ["video", str(tmp_path / "any.so"), str(clip), *wrong]
    assert CliRunner().invoke(app, arguments).exit_code == 2
