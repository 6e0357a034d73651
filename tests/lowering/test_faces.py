"""Faces of any size and channels, and what reads them; bounds beside the bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.workloads import Conv, Pool
from ferplus_tvm.lowering.layers import Layer, LayeredModel, PoolLayer
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.targets import GPUS, VectorUnit
from tests.lowering.test_lower import AVX2, AVX512, HALVES, NEON, conv, dense, untuned


@pytest.mark.parametrize("unit", [NEON, AVX2, AVX512])
def test_bounds_lie_with_the_bias_and_what_no_channel_has_stays_zero(unit: VectorUnit) -> None:
    bounds = np.array([[-1, 0, -np.inf, -2, -3], [1, np.inf, 6, 2, 3]], np.float32)
    layers = [replace(conv("a", 1, 5), relu=False, bounds=bounds), dense("c", 5 * 4096, 8)]
    found = untuned(layers, [1], unit).weights["a.bias"]
    assert found.shape == (3, -(-5 // unit.lanes) * unit.lanes)
    np.testing.assert_array_equal(found[1:, :5], bounds)
    assert not found[:, 5:].any()


@pytest.mark.parametrize(("channels", "faces"), [(1, (2, 1, 45, 45)), (3, (2, 45, 45, 3))])
def test_faces_come_channels_last(channels: int, faces: tuple[int, ...]) -> None:
    layers = (conv("a", channels, 5), dense("c", 5 * 45 * 45, 7))
    model = LayeredModel((channels, 45, 45), layers)
    lowered = lower(model, [2], CpuBackend(AVX2), lambda workload: None)
    function = lowered.module["main_batch2"]
    assert [int(size) for size in list(function.params[0].ty.shape)] == list(faces)
    assert [int(size) for size in list(function.ret_ty.shape)] == [2, 7]


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), None], ids=["fused", "pool", "dense"])
def test_a_gpu_reads_faces_with_a_convolution(kernel: tuple[int, int] | None) -> None:
    layers: tuple[Layer, ...] = (dense("last", 3 * 45 * 45, 8),)
    if kernel is not None:
        side = 45 // kernel[0]
        layers = (replace(HALVES, kernel=kernel, stride=kernel), dense("last", 3 * side**2, 8))
    model = LayeredModel((3, 45, 45), layers)
    gpu = plan(model, 1, CudaBackend(GPUS["sm_90"], "float16"), lambda workload: None)
    cpu = plan(model, 1, CpuBackend(AVX2), lambda workload: None)
    assert [each.layer.name for each in cpu] == [each.name for each in layers]
    fused = kernel == (2, 2)
    assert [each.layer.name for each in gpu[1:]] == [each.name for each in layers[fused:]]
    first = Conv(1, 45, 45, 3, 8, (1, 1), (1, 1), (0,) * 4, (1, 1), False, pool=fused)
    assert gpu[0].workload == first


@pytest.mark.parametrize("size", [32, 45, 48, 64, 96, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_of_face_has_kernels_for_every_layer(size: int, channels: int) -> None:
    last = size // 8
    layers = (
        replace(conv("a", channels, 32), affine=(127.5, 1 / 127.5)), HALVES,
        conv("b", 32, 64), replace(HALVES, name="p"), conv("c", 64, 64), replace(HALVES, name="q"),
        PoolLayer("mean", (last, last), (1, 1), (0, 0, 0, 0), "average"), dense("d", 64, 7),
    )  # fmt: skip
    model = LayeredModel((channels, size, size), layers)
    for backend in (CpuBackend(AVX2), CudaBackend(GPUS["sm_90"], "float16")):
        for batch in (1, 32):
            planned = plan(model, batch, backend, lambda workload: None)
            assert planned[-2].config.algorithm == "average pool"
            assert planned[-1].calls[-1].output.shape == (batch, 7)
            for each in planned:
                if not isinstance(each.key, Pool):
                    assert set(backend.presets(each.key)) <= set(backend.candidates(each.key))
