"""What a user sees of the verbs, in processes of their own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.targets import GPUS, NAMED
from tests import artifacts


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ferplus_tvm", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=300,
        check=False,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[bytes]) -> str:
    """The command failed with status 1 and a single line on stderr, and answered nothing."""
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in done.stderr.decode()
    return lines[-1]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    face = Image.open(SAMPLE_FACE)
    face.save(folder / "b.png")
    face.convert("L").save(folder / "a.jpg")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_predict_draws_bars_for_one_image(library: Path) -> None:
    done = run("predict", library, SAMPLE_FACE)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert lines[0].startswith("happiness")
    assert {line.split()[0] for line in lines} == set(EMOTIONS)


def test_predict_json_of_a_folder(library: Path, faces: Path) -> None:
    done = run("predict", library, faces, "--json", "--top", "2")
    answers = json.loads(done.stdout)
    assert [Path(answer["source"]).name for answer in answers] == ["a.jpg", "b.png"]
    for answer in answers:
        assert answer["label"] == "happiness"
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert len(answer["ranking"]) == 2


def test_predict_csv(library: Path, faces: Path) -> None:
    done = run("predict", library, faces, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["label"] for row in rows] == ["happiness", "happiness"]
    for row in rows:
        assert sum(float(row[emotion]) for emotion in EMOTIONS) == pytest.approx(1)


def test_predict_from_standard_input(library: Path) -> None:
    done = run("predict", library, "-", "--json", stdin=SAMPLE_FACE.read_bytes())
    assert [answer["label"] for answer in json.loads(done.stdout)] == ["happiness"]


def test_predict_answers_the_good_and_reports_the_bad(library: Path, faces: Path) -> None:
    broken = faces / "broken.png"
    broken.write_bytes((faces / "b.png").read_bytes()[:200])
    done = run("predict", library, faces, "--json")
    answers = {Path(answer["source"]).name: answer for answer in json.loads(done.stdout)}
    assert answers["a.jpg"]["label"] == answers["b.png"]["label"] == "happiness"
    assert "broken.png" in answers["broken.png"]["error"]
    assert "broken.png" in assert_one_sentence(done)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
@pytest.mark.parametrize("how", ["--csv", "--json", "--top=1"])
def test_predict_answers_for_names_that_are_no_text(library: Path, faces: Path, how: str) -> None:
    name = os.fsencode(faces) + b"/caf\xe9.png"
    Path(os.fsdecode(name)).write_bytes((faces / "b.png").read_bytes())
    done = run("predict", library, faces, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"happiness") >= 3


def test_predict_takes_from_a_folder_only_what_pillow_reads(library: Path, faces: Path) -> None:
    Image.open(faces / "b.png").save(faces / "report.pdf")
    answers = json.loads(run("predict", library, faces, "--json").stdout)
    assert [Path(answer["source"]).name for answer in answers] == ["a.jpg", "b.png"]


def test_predict_of_an_empty_folder_says_so(library: Path, tmp_path: Path) -> None:
    assert "holds no images" in assert_one_sentence(run("predict", library, tmp_path))


@pytest.mark.parametrize("arguments", [["--top", "9"], ["--json", "--csv"], ["--nonsense"]])
def test_wrong_calls_end_with_status_2(library: Path, arguments: list[str]) -> None:
    assert run("predict", library, SAMPLE_FACE, *arguments).returncode == 2


@pytest.mark.parametrize("batch", ["0", "1,x", "", "9999"])
def test_wrong_batch_sizes_end_with_status_2(batch: str) -> None:
    assert run("compile", "--batch", batch).returncode == 2


def test_info_shows_the_manifest_and_that_it_runs_here(library: Path) -> None:
    answer = json.loads(run("info", library, "--json").stdout)
    assert answer["runs_here"] is True and answer["reason"] is None
    assert answer["manifest"]["labels"] == list(EMOTIONS)
    text = run("info", library).stdout.decode()
    assert "runs here" in text and answer["manifest"]["model_sha256"] in text


def test_info_says_why_the_runtime_would_refuse(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    artifacts.rewrite(library, other, tvm_ffi_version="0.9.9")
    answer = json.loads(run("info", other, "--json").stdout)
    assert answer["runs_here"] is False
    assert "0.9.9" in answer["reason"]


def test_info_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_text("<!DOCTYPE html><html></html>")
    assert "web page" in assert_one_sentence(run("info", tmp_path / "x.so"))
    assert "missing.so" in assert_one_sentence(run("info", tmp_path / "missing.so"))


def test_verify_measures_every_batch_size(library: Path) -> None:
    answer = json.loads(run("verify", library, "--json").stdout)
    manifest = json.loads(run("info", library, "--json").stdout)["manifest"]
    assert set(answer["errors"]) == set(manifest["functions"])
    assert max(answer["errors"].values()) <= answer["tolerance"]


def test_compile_writes_a_library_that_predicts_and_names_untuned_kernels(tmp_path: Path) -> None:
    done = run("compile", "-o", tmp_path / "f.so", "--batch", "2")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "tuned" in text and "conv3x3_64x64_1to64_batch2" in text
    assert json.loads(run("predict", tmp_path / "f.so", SAMPLE_FACE, "--json").stdout)


def test_compile_explains_every_layer(tmp_path: Path) -> None:
    done = run("compile", "-o", tmp_path / "f.so", "--batch", "1", "--explain")
    assert done.returncode == 0, done.stderr
    _, explained = done.stdout.decode().split("Estimates")
    for layer in ("Convolution362", "Convolution380 + Pooling398", "Times622"):
        assert layer in explained
    assert "direct" in explained and " ms" in explained


def test_compile_failures_are_one_sentence_and_leave_nothing(tmp_path: Path) -> None:
    output = tmp_path / "f.so"
    missing = run("compile", tmp_path / "missing.onnx", "-o", output)
    assert "missing.onnx" in assert_one_sentence(missing)
    assert "znver5" in assert_one_sentence(run("compile", "-o", output, "--target", "znver9"))
    assert list(tmp_path.iterdir()) == []


def test_debug_brings_the_traceback() -> None:
    done = run("--debug", "info", "missing.so")
    assert b"Traceback" in done.stderr


def test_doctor_tells_what_a_bug_report_needs() -> None:
    facts = json.loads(run("doctor", "--json").stdout)
    for fact in ("python", "apache-tvm", "apache-tvm-ffi", "CPU", "features", "compiler"):
        assert facts[fact]
    assert str(Path.home()) + os.sep not in run("doctor").stdout.decode()


def test_a_compiler_variable_that_is_no_command_line_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", 'gcc "x')
    assert run("doctor").returncode == 0
    assert "CC" in assert_one_sentence(run("compile", "-o", tmp_path / "f.so", "--batch", "1"))


def test_targets_lists_every_name() -> None:
    entries = {entry["name"]: entry for entry in json.loads(run("targets", "--json").stdout)}
    assert set(entries) - {"cuda"} == {"native", *NAMED, *(f"cuda/{arch}" for arch in GPUS)}
    assert entries["native"]["runs_here"] is True
    assert entries["x86-64-v3"]["float32_lanes"] == 8
    table = run("targets").stdout.decode()
    assert all(name in table for name in entries)


def test_without_the_command_line_extra_the_pip_command_is_told() -> None:
    program = (
        "import sys; sys.modules['typer'] = None\nfrom ferplus_tvm.__main__ import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert "pip install 'ferplus_tvm[cli]'" in assert_one_sentence(done)
