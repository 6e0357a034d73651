"""The benchmark on an emulated GPU, and where there is none.

The emulation computes what the kernels say; it tells nothing of time.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferplus_tvm.bench.report import data, text
from ferplus_tvm.errors import GpuError
from ferplus_tvm.host import gpu
from tests.artifacts import assert_sentence, read_manifests
from tests.cuda.conftest import Run, needs_emulation

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
    """Run the command on the emulated GPU, with modules of a folder if one is given."""
    environment = {**os.environ, **emulation, "FERPLUS_EMULATED_ARCH": "90"}
    if path is not None:
        environment["PYTHONPATH"] = f"{path}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, "-m", "ferplus_tvm", "bench", *map(str, arguments)]
    return subprocess.run(
        [*command, "--seconds", "0.2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


@needs_emulation
def test_it_measures_every_engine_and_names_what_is_left_out(
    library: Path, model: Path, emulation: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    other = tmp_path / "other.so"
    other.write_bytes(library.read_bytes())
    (tmp_path / "torch.py").write_text(TORCH)
    peers = f"{other},torch-tensors,onnxruntime,onnxruntime-graph"
    options = ["--model", model, "--batch", 1, "--peers", peers, "--out", out]
    done = measure(emulation, library, *options, path=tmp_path)
    assert done.returncode == 0, done.stderr
    report = data.read(out / "bench.json")
    assert report.environment["gpu"]["name"] == "Emulated GPU"
    assert report.library["target"] == "cuda/sm_90"
    assert report.library["off_float64"] < 1e-5
    assert report.peer_libraries["other.so"]["off_float64"] < 1e-5
    names = {
        "scores": ["ferplus_tvm", "other.so"],
        "on_gpu": ["ferplus_tvm", "other.so", "ferplus_tvm, PyTorch's tensors"],
    }
    rows = {row.way: row for row in report.rows}
    assert set(rows) == set(names) and len(report.rows) == 2
    for way, row in rows.items():
        assert (row.batch, row.threads) == (1, 0) and row.rounds >= 6
        assert [each.engine for each in row.engines] == names[way]
        assert [each.peer for each in row.ratios] == names[way][1:]
        for each in row.engines:
            assert each.difference == 0 and each.p50 > 0 and each.precision == "float32"
            assert each.share_of_peak is not None and each.share_of_peak > 0
        assert all(0 < each.low <= each.ratio <= each.high for each in row.ratios)
    assert set(report.left_out) == {"onnxruntime, batch 1", "onnxruntime-graph, batch 1"}
    for reason in report.left_out.values():
        assert_sentence(reason, "onnxruntime")
    assert "left out: onnxruntime, batch 1" in done.stdout
    assert "Emulated GPU" in text.headline(report)
    ways = {call["way"] for call in csv.DictReader((out / "calls.csv").open())}
    assert ways == set(names)
    page = (out / "index.html").read_text()
    assert "batch 1, GPU memory" in page and "at every batch size: onnxruntime" in page


@needs_emulation
def test_the_share_of_the_peak_is_that_of_the_layers_computed_directly(
    library: Path, model: Path, emulation: dict[str, str], tmp_path: Path
) -> None:
    """The emulated card has a clock and a number of SMs, as the driver tells them."""
    out = tmp_path / "report"
    done = measure(emulation, library, "--batch", "1,3", "--peers", "", "--out", out)
    assert done.returncode == 0, done.stderr
    report = data.read(out / "bench.json")
    assert [row.batch for row in report.rows] == [1, 1, 3, 3]
    shares = [row.engines[0].share_of_peak or 0 for row in report.rows]
    rates = [row.engines[0].faces_per_second for row in report.rows]
    peaks = [rate / share for rate, share in zip(rates, shares, strict=True)]
    assert peaks == pytest.approx([peaks[0]] * 4)
    (manifest,) = (each for each in read_manifests(library) if each.gpu_arch == "sm_90")
    own = [kernel for kernel in manifest.kernels if kernel.batch == 1]
    flops = sum(kernel.flops for kernel in own if not kernel.kernel.startswith("maxpool"))
    sms, hertz, multiply_adds = 4, 1.5e9, 128  # the last by the architecture
    assert peaks[0] == pytest.approx(2 * multiply_adds * sms * hertz / flops)
    assert "holds no batch size 3" in " ".join(map(str, report.warnings))


@needs_emulation
def test_a_library_of_another_precision_is_labelled_with_it(
    library: Path, model: Path, run_on: Run, emulation: dict[str, str], tmp_path: Path
) -> None:
    half = tmp_path / "half.so"
    command = ["compile", str(model), "--target", "cuda/sm_90", "--precision", "float16"]
    assert run_on([*command, "--batch", "1,4", "-o", str(half)]).returncode == 0
    out = tmp_path / "report"
    done = measure(emulation, library, "--batch", 1, "--peers", half, "--out", out)
    assert done.returncode == 0, done.stderr
    report = data.read(out / "bench.json")
    assert [each.peer for each in report.rows[0].ratios] == ["half.so (float16)"]
    assert report.peer_libraries["half.so"]["precision"] == "float16"
    assert report.rows[0].engines[1].difference > 0


@needs_emulation
def test_a_model_is_compiled_for_the_gpu_that_is_named(
    model: Path, emulation: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    options = ["--model", model, "--device", "cuda:0", "--batch", 2, "--peers", "", "--out", out]
    done = measure(emulation, *options, "--end-to-end")
    assert done.returncode == 0, done.stderr
    report = data.read(out / "bench.json")
    assert report.library["target"] == "cuda/sm_90" and report.library["batch_sizes"] == [1, 2]
    rows = [(row.way, row.batch) for row in report.rows]
    assert rows == [("scores", 2), ("on_gpu", 2), ("jpeg", 1)]


def test_without_a_gpu_it_says_why_nothing_is_measured(tmp_path: Path) -> None:
    try:
        gpu.devices()
        pytest.skip("this machine has a GPU")
    except GpuError:
        pass
    from tests import artifacts

    path = artifacts.write(tmp_path / "gpu.so", target="cuda/sm_90", gpu_arch="sm_90")
    command = [sys.executable, "-m", "ferplus_tvm", "bench", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert_sentence(done.stderr.splitlines()[-1], "driver")
