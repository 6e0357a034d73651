"""``ferplus-tvm compile``: the resolved options come first, and a dump on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.targets import resolve
from tests.cli.test_verbs import assert_one_sentence, run


def facts(text: str) -> dict[str, str]:
    """Read lines of a name and a value; the last of a name wins."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {name: value.strip() for name, value in pairs}


def test_the_options_are_shown_before_the_work_even_where_that_fails(tmp_path: Path) -> None:
    missing, output = tmp_path / "missing.onnx", tmp_path / "m.so"
    done = run("compile", missing, "-o", output, "--batch", "8,1", "--tuning-logs", tmp_path)
    assert "missing.onnx" in assert_one_sentence(done)
    shown = facts(done.stdout.decode())
    assert shown["model"] == str(missing) and shown["output"] == str(output)
    assert shown["batch sizes"] == "1, 8" and shown["precision"] == "float32"
    native = resolve("native")
    assert shown["target"].startswith(f"{native.name} ({native.triple}")
    assert all(f" {feature}" in shown["target"] for feature in native.features)
    assert str(tmp_path) in done.stdout.decode().split("tuning logs")[1]


def test_the_options_name_the_gpu(tmp_path: Path) -> None:
    arguments = ("--target", "cuda/sm_90", "--precision", "tf32", "--dump", tmp_path / "dump")
    done = run("compile", tmp_path / "missing.onnx", "-o", tmp_path / "m.so", *arguments)
    shown = facts(done.stdout.decode())
    assert shown["target"].startswith("cuda/sm_90 (NVIDIA H100")
    assert shown["precision"] == "tf32" and shown["dump"] == str(tmp_path / "dump")


def test_json_stays_json_and_the_options_go_to_stderr(short_model: Path, tmp_path: Path) -> None:
    output, dump = tmp_path / "m.so", tmp_path / "dump"
    done = run("compile", short_model, "-o", output, "--batch", "1", "--json", "--dump", dump)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["path"] == str(output) and answer["verified"] is True
    shown = done.stderr.decode()
    assert len(answer["warnings"]) == 2  # of the scaling and the labels
    assert [f"warning: {each}" in shown.splitlines() for each in answer["warnings"]] == [True] * 2
    assert facts(shown)["output"] == str(output)
    assert shown.index("output") < shown.index("import ...")
    assert (dump / "05-assembly.s").is_file()


def test_tuned_counts_the_kernels_that_can_be_tuned(short_model: Path, tmp_path: Path) -> None:
    done = run("compile", short_model, "-o", tmp_path / "m.so", "--batch", "1")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "m.so")
    tuned = [kernel for kernel in manifest.tunable if kernel.tuned]
    assert len(manifest.tunable) < len(manifest.kernels)  # a pooling has nothing to tune
    shown = facts(done.stdout.decode())
    assert shown["tuned"].startswith(f"{len(tuned)} of {len(manifest.tunable)} kernels")


def test_an_unusable_dump_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("compile", "-o", tmp_path / "m.so", "--dump", tmp_path / "file")
    assert "is not a folder" in assert_one_sentence(done)
    assert done.stdout == b""


def test_what_the_model_expects_is_stated_and_shown(short_model: Path, tmp_path: Path) -> None:
    arguments = ("--input-range", "-1,1", "--labels", "affectnet8", "--channels", "1", "--json")
    output = tmp_path / "m.so"
    done = run("compile", short_model, "-o", output, "--batch", "1", "--strict", *arguments)
    assert done.returncode == 0, done.stderr
    answer, shown = json.loads(done.stdout), facts(done.stderr.decode())
    assert (answer["warnings"], answer["notes"]) == ([], [])
    assert shown["scaling"] == "-1..1" and shown["labels"].startswith("neutral, happiness, sadness")
    manifest = read_manifest(output)
    assert manifest.scaling.input_range == (-1, 1) and manifest.labels[-1] == "contempt"


def test_strict_makes_a_warning_an_error(short_model: Path, tmp_path: Path) -> None:
    done = run("compile", short_model, "-o", tmp_path / "m.so", "--strict", "--labels", "ferplus")
    assert "does not scale its input" in assert_one_sentence(done)
    assert not (tmp_path / "m.so").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mean", "0.5", "--std", "0.5"), "in 0..1 or in 0..255"),
        (("--input-range", "0-1"), "not a list of numbers"),
        (("--labels", "fer2014"), "ferplus, fer2013"),
        (("--channels", "2"), "1 for grey faces or 3"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_a_wrong_call(arguments: tuple[str, ...], says: str) -> None:
    done = run("compile", "missing.onnx", *arguments)
    assert done.returncode == 2 and says in " ".join(done.stderr.decode().split())
