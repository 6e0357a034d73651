"""The script that measures on a GPU, on an emulated one and where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferplus_tvm.errors import GpuError
from ferplus_tvm.host import gpu
from tests.artifacts import assert_sentence
from tests.cuda.conftest import Run, needs_emulation
from tests.cuda.emulator import HERE

SCRIPT = HERE.parents[1] / "benchmarks" / "gpu.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the clone")


# As much of PyTorch as its tensors on a GPU are.
TORCH = """
import ctypes
import numpy as np
import tvm_ffi

class Tensor:
    def __init__(self, array=None, tensor=None):
        self.array, self.tensor = array, tensor

    def to(self, device):
        allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        shape, dtype = tvm_ffi.Shape(self.array.shape), tvm_ffi.dtype("float32")
        copy = Tensor(tensor=allocate(shape, dtype, tvm_ffi.device(device), None))
        copy.numpy()[:] = self.array
        return copy

    def numpy(self):
        count = int(np.prod(self.tensor.shape))
        memory = (ctypes.c_float * count).from_address(self.tensor.data_ptr())
        return np.ctypeslib.as_array(memory).reshape(tuple(self.tensor.shape))

    def cpu(self):
        return self

    def __dlpack__(self, stream=None, **options):
        return self.tensor.__dlpack__()

    def __dlpack_device__(self):
        return (2, 0)

def from_numpy(array):
    return Tensor(array)

def from_dlpack(tensor):
    return Tensor(tensor=tensor)

def device(kind, number):
    return f"{kind}:{number}"
"""


def measure(
    emulation: dict[str, str], *arguments: object, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script on the emulated GPU, with modules of a folder if one is given."""
    environment = {**os.environ, **emulation, "FERPLUS_EMULATED_ARCH": "90"}
    if path is not None:
        environment["PYTHONPATH"] = f"{path}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, str(SCRIPT), *map(str, arguments), "--seconds", "0.2"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@needs_emulation
def test_it_measures_every_engine_and_names_what_is_left_out(
    library: Path, model: Path, emulation: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "gpu.json"
    other = tmp_path / "other.so"
    other.write_bytes(library.read_bytes())
    (tmp_path / "torch.py").write_text(TORCH)
    options = ["--model", model, "--batch", 1, "--beside", other, "--out", out]
    done = measure(emulation, library, *options, path=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["gpu"] == "Emulated GPU" and report["target"] == "cuda/sm_90"
    assert report["off_float64"] < 1e-5
    assert [each["engine"] for each in report["libraries"]] == ["ferplus_tvm", "other"]
    names = ["ferplus_tvm", "ferplus_tvm, on the GPU", "other", "other, on the GPU"]
    names.append("ferplus_tvm, PyTorch's tensors on the GPU")
    rows = {row["engine"]: row for row in report["rows"]}
    assert set(rows) == set(names) and len(report["rows"]) == len(names)
    for row in rows.values():
        assert row["batch"] == 1 and row["off_ours"] == 0
        assert row["rounds"] >= 10 and row["milliseconds"] > 0 and row["over_ours"][0] > 0
    assert rows["ferplus_tvm"]["over_ours"][0] == 1
    assert {name.partition(",")[0] for name in report["left_out"]} >= {"onnxruntime"}
    assert "off float64" in done.stdout and "left out" in done.stdout


@needs_emulation
def test_libraries_that_cannot_stand_beside_each_other_are_refused(
    library: Path, model: Path, run_on: Run, emulation: dict[str, str], tmp_path: Path
) -> None:
    same = tmp_path / "same.so"
    same.write_bytes(library.read_bytes())
    done = measure(emulation, library, "--beside", same, "--beside", same)
    assert done.returncode == 1
    assert_sentence(done.stderr.strip(), "two libraries have the same name", "same", "rename")
    half = tmp_path / "half.so"
    command = ["compile", str(model), "--target", "cuda/sm_90", "--precision", "float16"]
    assert run_on([*command, "--batch", "1,4", "-o", str(half)]).returncode == 0
    done = measure(emulation, library, "--beside", half)
    assert done.returncode == 1
    assert_sentence(done.stderr.strip(), "half.so", "float16", "float32", "compile both alike")


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
