"""Pooling against its numpy reference, and the reference against onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from ferplus_tvm.kernels.cpu import pool
from ferplus_tvm.kernels.cpu.pool import Config
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO, Halo
from ferplus_tvm.kernels.workloads import Pool
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels.support import inside, run_kernel

PLAIN = Pool(1, 8, 8, 16, (2, 2), (2, 2), (0, 0, 0, 0))
WINDOWS = [
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
    ((3, 3), (1, 1), (2, 0, 1, 2)),
    ((2, 3), (1, 3), (0, 2, 1, 0)),
    ((1, 1), (2, 2), (0, 0, 0, 0)),
    ((9, 9), (1, 1), (0, 0, 0, 0)),
]


def check(w: Pool, target: ResolvedTarget, out_halo: Halo = NO_HALO) -> None:
    """Compare one pooling: a maximum rounds nothing, and an average every sum and the division.

    All values are below zero, so that a halo of zeros in place of none would be seen.
    """
    random = np.random.default_rng(0)
    x = -1 - random.random((w.batch, w.height, w.width, w.channels)).astype(np.float32)
    shape = out_halo.around(w.batch, w.out_height, w.out_width, w.channels)
    kernel = pool.define(w, Config.preset(w, target.vector_unit), out_halo)
    found = run_kernel(kernel, target, shape, x)
    expected = w.reference(x.astype(np.float64))
    roundings = w.kernel[0] * w.kernel[1] if w.kind == "average" else 0
    error = abs(inside(found, out_halo) - expected)
    assert (error <= roundings * np.finfo(np.float32).eps * abs(expected)).all()


@pytest.mark.parametrize("halo", [(1, 1, 1, 1), (0, 2, 3, 0)])
@pytest.mark.parametrize("channels", [1, 3, 32])
def test_the_map_is_written_into_the_border_that_its_reader_wants(
    target: ResolvedTarget, halo: Any, channels: int
) -> None:
    check(replace(PLAIN, batch=2, channels=channels), target, Halo(*halo))


@pytest.mark.parametrize(("vectors", "batch"), [(1, 1), (2, 3), (3, 1), (5, 3)])
def test_any_number_of_vectors_of_channels(
    target: ResolvedTarget, vectors: int, batch: int
) -> None:
    check(replace(PLAIN, batch=batch, channels=vectors * target.vector_unit.lanes), target)


@pytest.mark.parametrize("size", [2, 3, 7, 13])
def test_what_does_not_fill_a_window_is_left_out(target: ResolvedTarget, size: int) -> None:
    channels = target.vector_unit.lanes
    check(replace(PLAIN, height=size, width=size, channels=channels), target)


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_windows_strides_and_borders(
    target: ResolvedTarget, kernel: Any, stride: Any, padding: Any
) -> None:
    check(Pool(1, 9, 13, target.vector_unit.lanes, kernel, stride, padding), target)


@pytest.mark.spread
@pytest.mark.parametrize(
    ("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (2, 1)), ((9, 13), (1, 1)), ((5, 5), (4, 4))]
)
def test_averages(target: ResolvedTarget, kernel: Any, stride: Any) -> None:
    channels = 2 * target.vector_unit.lanes
    check(Pool(2, 9, 13, channels, kernel, stride, (0, 0, 0, 0), "average"), target)


def test_the_average_of_equal_values_is_that_value(target: ResolvedTarget) -> None:
    w = Pool(1, 7, 7, target.vector_unit.lanes, (7, 7), (1, 1), (0, 0, 0, 0), "average")
    x = np.full((1, 7, 7, w.channels), 3, np.float32)
    kernel = pool.define(w, Config.preset(w, target.vector_unit), NO_HALO)
    assert (run_kernel(kernel, target, (1, 1, 1, w.channels), x) == 3).all()


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_pooling(target: ResolvedTarget, data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    # Each window touches the map, as the importer sees to.
    padding = data.draw(st.tuples(*[st.integers(0, k - 1) for k in kernel * 2]))
    w = Pool(
        batch=data.draw(st.sampled_from([1, 3])),
        height=data.draw(st.integers(1, 9)),
        width=data.draw(st.integers(1, 17)),
        channels=data.draw(st.integers(1, 3)) * target.vector_unit.lanes,
        kernel=kernel,
        stride=data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=padding,
    )
    assume(w.out_height > 0 and w.out_width > 0)
    check(w, target)


@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "padding"),
    [
        *(("max", *window) for window in WINDOWS),
        *(("average", *window) for window in WINDOWS if not any(window[2])),
    ],
)
def test_the_reference_follows_onnxruntime(
    kind: Any, kernel: Any, stride: Any, padding: Any
) -> None:
    # Not onnx's own reference: 1.23 swaps the ends of asymmetric paddings.
    w = Pool(2, 9, 13, 3, kernel, stride, padding, kind)
    x = np.random.default_rng(0).standard_normal((2, 9, 13, 3), np.float32) - 3
    node = helper.make_node(
        f"{kind.title()}Pool", ["x"], ["y"], kernel_shape=kernel, strides=stride, pads=padding
    )
    x_info, y_info = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in "xy"
    )
    model = helper.make_model(
        helper.make_graph([node], "pool", [x_info], [y_info]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    found = w.reference(x.astype(np.float64))
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5 * (kind != "max"))
