"""Tuning for a GPU, an emulated one: what it leaves, and that its records are used."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ferplus_tvm import targets
from ferplus_tvm.compiler.options import with_precision
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.importer import load_model
from ferplus_tvm.kernels.backend import WINOGRAD, Algorithm
from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.workloads import Conv, Dense, Workload
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, layers_of
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.records.codec import Record, decode, decode_candidate, encode
from ferplus_tvm.records.find import find
from ferplus_tvm.records.log import TuningLog
from ferplus_tvm.targets import Precision
from ferplus_tvm.tuning.report import tiling
from ferplus_tvm.tuning.space import Space
from ferplus_tvm.tuning.task import LayerTask
from ferplus_tvm.tuning.trials import read_trials
from tests.chains import Chain
from tests.cuda.conftest import Run, needs_emulation
from tests.cuda.emulator import run
from tests.tuning.support import write_log

GPU = targets.GPUS["sm_90"]
FLOAT32 = CudaBackend(GPU, "float32")
CONV = Conv(2, 16, 16, 16, 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), relu=True, pool=True)
DENSE = Dense(3, 64, 32, 32, relu=True, fp16_weights=True)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with two layers to tune: a convolution with pooling, and a dense one."""
    chain = Chain().conv("first", 8).relu("r1").pool("p1", kernel=(4, 4), strides=(4, 4))
    chain = chain.conv("second", 16).relu("r2").pool("p2").flatten().dense("last")
    path = tmp_path_factory.mktemp("short") / "short.onnx"
    onnx.save(chain.model(), path)
    return path


@pytest.fixture(scope="module")
def logs(short: Path, run_on: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tuning for the GPU leaves; a busy machine may need several runs for all layers."""
    folder = tmp_path_factory.mktemp("logs")
    command = ["tune", str(short), "--target", "cuda", "--batch", "1", "--time", "10"]
    for _ in range(6):
        done = run_on([*command, "--log-dir", str(folder), "--json"])
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["target"] == "cuda/sm_90" and result["failed"] == 0
        log = TuningLog(folder, "cuda/sm_90")
        if log.layers and all(layer.kept is not None for layer in log.layers):
            break
    return folder


@needs_emulation
def test_every_layer_is_tuned_and_says_where(logs: Path) -> None:
    log = TuningLog(logs, "cuda/sm_90")
    state = log.provenance
    assert state is not None
    assert state.cpu == "Emulated GPU" and state.threads == (1,)
    assert len(log.layers) == 2  # the first one's kernel has nothing to tune
    trials = list(read_trials(log.folder))
    assert len(trials) > 2 and all(trial["seconds"] is not None for trial in trials)


@needs_emulation
def test_a_compilation_takes_every_kernel_from_the_log(
    short: Path, logs: Path, run_on: Run, tmp_path: Path
) -> None:
    output = tmp_path / "m.so"
    command = ["compile", str(short), "--target", "cuda", "--batch", "1", "-o", str(output)]
    done = run_on([*command, "--tuning-logs", str(logs), "--require-tuned", "--json"])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (manifest,) = result["manifests"]
    assert result["verified"] and manifest["tuning_logs"] == "cuda/sm_90"
    tuned = {kernel["layer"] for kernel in manifest["kernels"] if kernel["tuned"]}
    assert tuned == {"second", "last"}


@needs_emulation
def test_the_report_is_drawn(logs: Path, run_on: Run, tmp_path: Path) -> None:
    command = ["tune", "--report", "--target", "cuda/sm_90", "--log-dir", str(logs)]
    done = run_on([*command, "--plot", str(tmp_path / "plot.png")])
    assert done.returncode == 0, done.stderr
    assert "Emulated GPU" in done.stdout and (tmp_path / "plot.png").stat().st_size > 1000


def test_a_configuration_is_told_in_words() -> None:
    gemm, *winograd = map(encode, FLOAT32.presets(CONV))
    assert tiling(gemm).startswith("implicit GEMM rows=")
    assert [tiling(config).partition(" rows=")[0] for config in winograd] == [
        "Winograd F(2,3)", "Winograd F(4,3)", "Winograd F(6,3)"
    ]  # fmt: skip
    direct = CpuBackend(targets.VectorUnit(8, 16)).presets(CONV)[0]
    assert tiling(encode(direct)).startswith("direct convolution vectors=")
    assert tiling(gemm, gemm) == "the preset"
    assert tiling({**gemm, "stages": 9}, gemm) == "stages=9"


def test_a_log_serves_its_generation_and_precision(tmp_path: Path) -> None:
    def found(name: str, precision: Precision = "float32") -> str | None:
        log = find([tmp_path], with_precision(targets.resolve(name), precision))
        return None if log is None else log.target

    assert found("cuda/sm_86") is None
    write_log(tmp_path, "cuda/sm_80", [(CONV, FLOAT32.choose(CONV).config)])
    assert found("cuda/sm_80") == found("cuda/sm_86") == "cuda/sm_80"
    assert found("cuda/sm_90") is None
    assert found("cuda/sm_80", "tf32") is None
    assert found("x86-64-v2") is None


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
@pytest.mark.parametrize("workload", [CONV, DENSE], ids=["conv", "dense"])
def test_a_space_holds_what_it_gives(workload: Conv | Dense, precision: Precision) -> None:
    backend = CudaBackend(GPU, precision)
    space, rng = Space(workload, backend), random.Random(0)
    expected = {Algorithm.GEMM, Algorithm.GEMV} if workload is DENSE else {Algorithm.IMPLICIT_GEMM}
    if workload is CONV and precision == "float32":
        expected |= set(WINOGRAD)
    assert {config.algorithm for config in backend.candidates(workload)} == expected
    assert {config.algorithm for config in space.presets} <= expected
    for algorithm in expected:
        sampled = [space.sample(rng, [algorithm]) for _ in range(20)]
        assert all(config.algorithm is algorithm for config in sampled)
        assert len(set(sampled)) > 2
        assert all(config in space for config in sampled)
        for config in sampled:
            assert decode(encode(config), workload, backend) == config
    for preset in space.presets:
        neighbours = list(space.neighbours(preset))
        assert neighbours and preset not in neighbours
        assert all(config in space for config in (preset, *neighbours))


@needs_emulation
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
@pytest.mark.parametrize("workload", [CONV, DENSE], ids=["conv", "dense"])
def test_a_task_knows_the_answer_of_its_kernels(
    workload: Conv | Dense, precision: Precision, tmp_path: Path
) -> None:
    backend = CudaBackend(GPU, precision)
    task, space = LayerTask(workload, backend), Space(workload, backend)
    expected = task.expected()
    algorithms = sorted({config.algorithm for config in backend.candidates(workload)})
    for at, algorithm in enumerate((algorithms[0], algorithms[-1])):
        config = space.sample(random.Random(at), [algorithm])
        launches = backend.launches(workload, config)
        given: dict[str, NDArray[Any]] = {}
        for launch, operands in zip(launches, task.operands(config), strict=True):
            for name, operand in zip(launch.inputs, operands, strict=False):
                given.setdefault(name, operand)
        folder = tmp_path / str(at)
        folder.mkdir()
        answer = run(launches, folder, **{name: given[name] for name in ("x", "weight", "bias")})
        off = np.abs(answer.reshape(expected.shape) - expected).max()
        assert off <= backend.tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("layer", "preset", "changes"),
    [
        (ConvLayer, 0, {"rows": 48}),
        (ConvLayer, 0, {"algorithm": "Winograd F(4,3)"}),  # with the fields of a GEMM
        (ConvLayer, 0, {"algorithm": "GEMM"}),  # a dense layer's
        (ConvLayer, 0, {"breadth": 1}),
        (ConvLayer, 1, {"tile": 3}),
        (ConvLayer, 1, {"rows": 48}),
        (DenseLayer, 0, {"warps": 3}),
        (DenseLayer, 0, {"algorithm": "GEMM"}),
    ],
)
def test_a_record_that_does_not_fit_its_layer_is_refused(
    short: Path, layer: type, preset: int, changes: Record
) -> None:
    def lookup(workload: Workload) -> Any:
        assert isinstance(workload, Conv | Dense)
        if isinstance(workload, Conv) != (layer is ConvLayer):
            return None
        record = encode(FLOAT32.presets(workload)[preset]) | changes
        return decode_candidate(record, workload, FLOAT32)

    with pytest.raises(TuningLogError, match=r"does not fit it \(.*tune again"):
        plan(layers_of(load_model(short).proto), 1, FLOAT32, lookup)
