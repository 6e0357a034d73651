"""What a user sees of ``photo``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ferplus_tvm as fer
from tests.cli.test_verbs import assert_one_sentence, run
from tests.vision.support import HOPPER, group_photo, overlap

GROUP, BOXES = group_photo()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a group, nobody, and what is no photo."""
    folder = tmp_path / "photos"
    folder.mkdir()
    GROUP.save(folder / "group.png")
    Image.new("RGB", (90, 60), "teal").save(folder / "nobody.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_a_folder_is_answered_though_one_file_is_broken(
    detector_library: Path, photos: Path, tmp_path: Path
) -> None:
    drawn, crops = tmp_path / "out" / "drawn", photos  # crops may lie beside the photos
    before = {path: path.read_bytes() for path in photos.iterdir()}

    done = run("photo", detector_library, photos, "--csv", "--draw", drawn, "--crops", crops)

    assert done.returncode == 1
    (error,) = done.stderr.decode().splitlines()
    assert error.startswith("error: ") and "broken.jpg" in error
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [Path(row["source"]).name for row in rows] == [
        "broken.jpg",
        *["group.png"] * 3,
        "nobody.png",
    ]
    assert rows[0]["error"] in error and rows[4]["face"] == rows[4]["error"] == ""
    for number, (row, box) in enumerate(zip(rows[1:4], BOXES, strict=True), 1):
        assert row["face"] == str(number) and row["label"] in fer.EMOTIONS
        found = tuple(float(row[name]) for name in ("x", "y", "w", "h"))
        assert overlap(found, box) > 0.7
    assert sorted(path.name for path in drawn.iterdir()) == ["group-faces.jpg", "nobody-faces.jpg"]
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in set(photos.iterdir()) - set(before)} == {
        "group-1.png",
        "group-2.png",
        "group-3.png",
    }


def test_json_and_lines_of_json_hold_the_same(detector_library: Path, photos: Path) -> None:
    (photos / "broken.jpg").unlink()
    done = run("photo", detector_library, photos, "--json")
    lines = run("photo", detector_library, photos, "--jsonl").stdout.splitlines()

    answers = json.loads(done.stdout)
    assert done.returncode == 0
    assert [len(answer["faces"]) for answer in answers] == [3, 0]
    assert [json.loads(line) for line in lines] == answers


def test_text_says_what_was_found_and_options_are_taken(
    detector_library: Path, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.png"
    Image.fromarray(np.rot90(np.asarray(Image.open(HOPPER)))).save(turned)
    nobody = tmp_path / "nobody.png"
    Image.new("RGB", (90, 60), "teal").save(nobody)
    options = ["--any-rotation", "--min-face", "100", "--min-score", "0.8", "--views", "mirror"]

    done = run("photo", detector_library, turned, nobody, *options)

    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"{turned}: 1 face" and lines[2] == f"{nobody}: no face found"
    assert lines[1].split()[0] == "1" and lines[1].split()[1] in fer.EMOTIONS


def test_standard_input_is_read(detector_library: Path) -> None:
    done = run("photo", detector_library, "-", "--jsonl", stdin=HOPPER.read_bytes())
    answer = json.loads(done.stdout)
    assert answer["source"] == "-" and len(answer["faces"]) == 1


def test_a_library_without_a_detector_says_so_and_writes_nothing(
    narrow_library: Path, tmp_path: Path
) -> None:
    done = run("photo", narrow_library, HOPPER, "--csv", "--draw", tmp_path / "drawn")
    assert "--detector" in assert_one_sentence(done)
    assert done.stdout == b"" and not (tmp_path / "drawn").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--json", "--csv"],
        ["--min-score", "2"],
        ["--max-side", "3"],
        ["--views", "both"],
        ["-", "-"],
    ],
)
def test_wrong_calls_end_with_status_2(tmp_path: Path, wrong: list[str]) -> None:
    assert run("photo", tmp_path / "any.so", HOPPER, *wrong).returncode == 2


def test_predict_warns_once_of_whole_photos(narrow_library: Path, tmp_path: Path) -> None:
    GROUP.save(tmp_path / "group.png")
    done = run("predict", narrow_library, tmp_path / "group.png", tmp_path / "group.png")
    (warning,) = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert warning.startswith("warning: ") and "900 x 640 pixels" in warning and "photo" in warning
