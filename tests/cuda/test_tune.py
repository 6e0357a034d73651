"""Tuning for a GPU, an emulated one: what it leaves, and that its records are used."""

from __future__ import annotations

import json
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
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.lowering import cuda
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, match
from ferplus_tvm.records.log import TuningLog, find
from ferplus_tvm.targets import Precision
from ferplus_tvm.tuning.gpu import GpuSpace, GpuTask, config_of, record_of
from ferplus_tvm.tuning.report import tiling
from ferplus_tvm.tuning.space import CpuSpace, Layer
from tests.chains import Chain
from tests.cuda.conftest import Run, needs_emulation
from tests.cuda.emulator import run
from tests.tuning.support import write_log

GPU = targets.GPUS["sm_90"]
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
    trials = log.trials()
    assert len(trials) > 2 and all(trial.seconds is not None for trial in trials)


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
    product, *winograd = GpuSpace(CONV, GPU, "float32").presets()
    assert tiling(product).startswith("product rows=")
    assert [tiling(config).partition(" rows=")[0] for config in winograd] == [
        "F(2,3)", "F(4,3)", "F(6,3)"
    ]  # fmt: skip
    assert tiling(CpuSpace(CONV, targets.VectorUnit(8, 16)).presets()[0]).startswith("direct ")


def test_a_log_serves_its_generation_and_precision(tmp_path: Path) -> None:
    def found(name: str, precision: Precision = "float32") -> str | None:
        log = find([tmp_path], with_precision(targets.resolve(name), precision))
        return None if log is None else log.target

    assert found("cuda/sm_86") is None
    write_log(tmp_path, "cuda/sm_80", [(CONV, GpuSpace(CONV, GPU, "float32").presets()[0])])
    assert found("cuda/sm_80") == found("cuda/sm_86") == "cuda/sm_80"
    assert found("cuda/sm_90") is None
    assert found("cuda/sm_80", "tf32") is None
    assert found("x86-64-v2") is None


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
@pytest.mark.parametrize("layer", [CONV, DENSE], ids=["conv", "dense"])
def test_a_space_holds_what_it_gives(layer: Layer, precision: Precision) -> None:
    space = GpuSpace(layer, GPU, precision)
    presets = space.presets()
    preset = presets[0]
    algorithms = [0, *ALGORITHMS] if layer is CONV and precision == "float32" else [0]
    assert [config.get("tile", 0) for config in presets] == algorithms
    for algorithm in algorithms:
        sampled = [space.sample(seed, [algorithm]) for seed in range(1, 20)]
        assert all(config.get("tile", 0) == algorithm for config in sampled)
        assert len({tuple(config.items()) for config in sampled}) > 2
        assert all(space.holds(config) for config in sampled)
        for config in sampled:
            assert record_of(layer, config_of(config)) == config
    for own in presets:
        neighbours = list(space.neighbours(own))
        assert neighbours and own not in neighbours
        for config in (own, *neighbours):
            assert space.holds(config)
            assert record_of(layer, config_of(config)) == config
    assert not space.holds(preset | {"split": 5, "faces": 3})


@needs_emulation
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
@pytest.mark.parametrize("layer", [CONV, DENSE], ids=["conv", "dense"])
def test_a_task_knows_the_answer_of_its_kernels(
    layer: Layer, precision: Precision, tmp_path: Path
) -> None:
    task = GpuTask(layer, GPU, precision)
    expected = task.expected()
    winograd = layer is CONV and precision == "float32"
    for seed, algorithms in ((1, [0]), (5, list(ALGORITHMS) if winograd else [0])):
        config = task.space.sample(seed, algorithms)
        given: dict[str, NDArray[Any]] = {}
        for kernel, operands in zip(task.kernels(config), task.operands(config), strict=True):
            for array, operand in zip(kernel.arguments, operands, strict=True):
                given.setdefault(array.name, operand)
        folder = tmp_path / str(seed)
        folder.mkdir()
        arrays = {name: given[name] for name in ("x", "weight", "bias")}
        answer = run(task.kernels(config), folder, **arrays)
        off = np.abs(answer.reshape(expected.shape) - expected).max()
        assert off <= task.tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("layer", "preset", "changes"),
    [
        (ConvLayer, 0, {"rows": 48}),
        (ConvLayer, 0, {"tile": 4}),  # a product's fields for Winograd's algorithm
        (ConvLayer, 0, {"breadth": 1}),
        (ConvLayer, 1, {"tile": 3}),
        (ConvLayer, 1, {"rows": 48}),
        (DenseLayer, 0, {"warps": 3}),
        (DenseLayer, 0, {"warps": 0, "rows": 32}),
    ],
)
def test_a_record_that_does_not_fit_its_layer_is_refused(
    short: Path, layer: type, preset: int, changes: dict[str, int]
) -> None:
    layers = match(to_relax(load_model(short).proto))

    def record(workload: Layer) -> dict[str, int] | None:
        if isinstance(workload, Conv) != (layer is ConvLayer):
            return None
        return GpuSpace(workload, GPU, "float32").presets()[preset] | changes

    with pytest.raises(TuningLogError, match=r"does not fit it \(.*tune again"):
        cuda.plan(layers, 1, GPU, "float32", record)
