"""Which files ``predict`` reads, and that its messages can be followed on the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.cli.pictures import Pictures, pictures, said
from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.faces.preprocess import preprocess
from tests.cli.test_verbs import assert_one_sentence, run

GREY = np.asarray(Image.open(SAMPLE_FACE).convert("L").resize((64, 64)))


def names(folder: Path, *, recursive: bool = False) -> tuple[list[str], str]:
    """Return what a folder stands for, relative to it, and what is said of the rest."""
    found = pictures([str(folder)], recursive)
    assert not found.problems
    relative = [Path(os.path.relpath(name, folder)).as_posix() for name in found.names]
    return relative, said(found.passed_over) if found.passed_over else ""


def touch(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


# Folders


def test_a_folder_stands_for_its_pictures_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "c.heic", "d.webp")
    assert names(tmp_path) == (["a.png", "b.JPG", "c.heic", "d.webp"], "")


def test_what_file_managers_leave_is_skipped_without_a_word(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini")
    assert names(tmp_path) == (["a.png"], "")


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "notes.txt", "noext", "report.pdf", "more/b.png", "other/c.png")
    found, told = names(tmp_path)
    assert found == ["a.png"]
    assert "3 files" in told and "2 folders" in told and "--recursive" in told


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_broken_links_are_counted_and_good_ones_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "broken.png").symlink_to("missing.png")
    (tmp_path / "self.png").symlink_to("self.png")
    found, told = names(tmp_path)
    assert found == ["a.png", "link.png"] and told.endswith("2 broken links")


def test_recursive_reads_a_folders_own_pictures_first_then_its_folders(tmp_path: Path) -> None:
    touch(tmp_path, "z.png", "happy/2.png", "happy/1.png", "happy/far/0.png", "sad/1.png")
    touch(tmp_path, ".cache/x.png", "__MACOSX/._z.png")
    found, told = names(tmp_path, recursive=True)
    assert found == ["z.png", "happy/1.png", "happy/2.png", "happy/far/0.png", "sad/1.png"]
    assert told == "passed over 2 hidden folders"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_recursive_follows_links_and_enters_no_folder_twice(tmp_path: Path) -> None:
    faces = touch(tmp_path / "faces", "a.png")
    touch(tmp_path / "elsewhere", "b.png")
    (faces / "linked").symlink_to(tmp_path / "elsewhere")
    (faces / "loop").symlink_to(faces)
    (tmp_path / "elsewhere" / "back").symlink_to(faces)
    assert names(faces, recursive=True) == (["a.png", "linked/b.png"], "")


def test_a_folder_of_folders_says_recursive(tmp_path: Path) -> None:
    touch(tmp_path, "happy/a.png")
    (problem,) = pictures([str(tmp_path)], recursive=False).problems.values()
    assert "holds no images: add --recursive" in problem


def test_files_and_standard_input_stay_as_they_are(tmp_path: Path) -> None:
    given = ["-", str(tmp_path / "missing.png"), str(touch(tmp_path, ".DS_Store") / ".DS_Store")]
    assert pictures(given, recursive=False) == Pictures(names=given)


def test_passed_over_files_are_told_on_stderr_and_the_others_answered(
    library: Path, tmp_path: Path
) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    touch(tmp_path, "notes.txt", "._a.png")
    done = run("predict", library, tmp_path, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert done.returncode == 0 and [row["label"] for row in rows] == ["happiness"]
    assert b"passed over 1 file" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(touch(tmp_path, "a.png") / "pipe.png")
    assert names(tmp_path) == (["a.png"], "passed over 1 pipe or device")


def test_a_folder_without_pictures_is_reported_and_the_others_answered(
    library: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = run("predict", library, tmp_path / "empty", SAMPLE_FACE, "--json")
    assert done.returncode == 1 and b"holds no images" in done.stderr
    empty, face = json.loads(done.stdout)
    assert "holds no images" in empty["error"] and face["label"] == "happiness"


def test_each_face_of_a_tensor_is_answered_under_its_number(library: Path, tmp_path: Path) -> None:
    faces = preprocess([GREY, GREY[::-1]])
    tensor = tmp_path / "input_0.pb"
    tensor.write_bytes(numpy_helper.from_array(faces).SerializeToString())
    done = run("predict", library, tensor, SAMPLE_FACE, "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["source"] for answer in answers] == [
        f"{tensor} (face 1 of 2)",
        f"{tensor} (face 2 of 2)",
        str(SAMPLE_FACE),
    ]
    with fer.load(library) as engine:
        expected = [each.label for each in engine.predict_batch([faces, SAMPLE_FACE])]
    assert [answer["label"] for answer in answers] == expected
    tensor.write_bytes(numpy_helper.from_array(faces[:0]).SerializeToString())
    assert "holds no faces" in assert_one_sentence(run("predict", library, tensor))


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    library: Path, tmp_path: Path
) -> None:
    for name in ("line\nbreak.png", "red\x1b[31m.png"):
        try:
            Image.fromarray(GREY).save(tmp_path / name)
        except OSError:
            pytest.skip("this system allows no such names")
    done = run("predict", library, tmp_path)
    assert done.stdout.count(b"\n") == 2 and b"\x1b" not in done.stdout
    assert b"line\\nbreak.png: happiness" in done.stdout


def test_an_empty_standard_input_is_named(library: Path) -> None:
    assert assert_one_sentence(run("predict", library, "-", stdin=b"")).startswith(
        "error: standard input is empty"
    )


# What a message advises


def twelve_bits(path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) << 4).save(path)


def normalised(path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / GREY.max()).save(path)


def signed(path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32) / 127.5 - 1).save(path)


@pytest.mark.parametrize("write", [twelve_bits, normalised, signed])
def test_the_range_that_a_message_advises_is_taken(
    library: Path, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "face.tif")
    refused = assert_one_sentence(run("predict", library, tmp_path / "face.tif"))
    assert "value_range" not in refused
    advised = re.search(r"--value-range \S+\d", refused)
    assert advised is not None
    done = run("predict", library, tmp_path / "face.tif", "--json", *shlex.split(advised[0]))
    assert [answer["label"] for answer in json.loads(done.stdout)] == ["happiness"]


def test_the_background_is_taken(library: Path, tmp_path: Path) -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:32] = 0
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    shown = [
        json.loads(run("predict", library, tmp_path / "a.png", "--json", *more).stdout)[0]["scores"]
        for more in ([], ["--background", "255"], ["--background", "0"])
    ]
    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--value-range", "0"],
        ["--value-range", "1,0"],
        ["--value-range", "a,b"],
        ["--channel-order", "rgb"],
        ["--background", "256"],
        ["-", "-"],
    ],
)
def test_wrong_options_end_with_status_2(tmp_path: Path, arguments: list[str]) -> None:
    assert run("predict", tmp_path / "any.so", SAMPLE_FACE, *arguments).returncode == 2
