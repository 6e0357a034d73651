"""The suites under benchmarks/ run, each once and without measuring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs a checkout")
def test_every_suite_runs_with_a_library_of_ones_own(
    narrow_library: Path, narrow_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(BENCHMARKS), "--benchmark-disable", "-q"),
            *("--basetemp", str(tmp_path / "nested")),
            *("--library", str(narrow_library), "--model", str(narrow_model)),
            *("-k", "ferplus_tvm or onnxruntime"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and "passed" in done.stdout


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs a checkout")
def test_whole_photos_are_measured_beside_those_that_are_there(
    detector_library: Path, narrow_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("skimage", reason="the picture is scikit-image's")
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "photos.py"), str(detector_library)),
            *("--model", str(narrow_model), "--sizes", "640", "--threads", "1"),
            *("--seconds", "0", "--clip", "0", "--json", str(tmp_path / "photos.json")),
            *("--peers", "opencv,onnxruntime,emotiefflib"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "emotiefflib is left out: ModuleNotFoundError" in done.stdout
    report = json.loads((tmp_path / "photos.json").read_text())
    assert list(report["left_out"]) == ["emotiefflib"]
    for row, count in zip(report["rows"], (2, 8), strict=True):
        assert [each["name"] for each in row["peers"]] == ["ferplus_tvm", "opencv", "onnxruntime"]
        for peer in row["peers"]:  # the same detector in the same photo
            assert peer["faces"] == peer["as_ours"] == count
        assert [each["peer"] for each in row["ratios"]] == ["opencv", "onnxruntime"]
