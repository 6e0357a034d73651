"""The script that measures on a GPU, on an emulated one and where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferplus_tvm import gpu
from ferplus_tvm.errors import GpuError
from tests.cuda.conftest import needs_emulation
from tests.cuda.emulator import HERE

SCRIPT = HERE.parents[1] / "benchmarks" / "gpu.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the clone")


@needs_emulation
def test_it_measures_every_size_and_names_what_is_left_out(
    library: Path, model: Path, emulation: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "gpu.json"
    other = tmp_path / "other.so"
    other.write_bytes(library.read_bytes())
    command = [sys.executable, str(SCRIPT), str(library), "--model", str(model)]
    command += ["--beside", str(other)]
    done = subprocess.run(
        [*command, "--seconds", "0.2", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **emulation, "FERPLUS_EMULATED_ARCH": "90"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["gpu"] == "Emulated GPU" and report["target"] == "cuda/sm_90"
    assert report["off_float64"] < 1e-5
    ours = [row for row in report["rows"] if row["engine"].startswith("ferplus_tvm")]
    assert [row["batch"] for row in ours] == [1, 1, 4, 4]
    beside = [row for row in report["rows"] if row["engine"].startswith("other.so")]
    assert [row["batch"] for row in beside] == [1, 1, 4, 4]
    assert all(row["off_ours"] == 0 and row["over_ours"][0] > 0 for row in beside)
    for row in ours:
        assert row["off_ours"] == 0 and row["rounds"] >= 10 and row["milliseconds"] > 0
        assert row["over_ours"][0] == 1
    assert {name.partition(",")[0] for name in report["left_out"]} >= {"onnxruntime"}
    assert "off float64" in done.stdout and "left out" in done.stdout


def test_without_a_gpu_it_says_why_nothing_is_measured(tmp_path: Path) -> None:
    try:
        gpu.devices()
        pytest.skip("this machine has a GPU")
    except GpuError:
        pass
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "absent.so"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "nothing is measured" in done.stderr and "driver" in done.stderr
