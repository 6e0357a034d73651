"""The suites under benchmarks/ run, each once and without measuring."""

from __future__ import annotations

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
