"""The direct convolution against its numpy reference, and the reference against onnx's own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ferplus_tvm import targets
from ferplus_tvm.kernels.cpu import direct
from ferplus_tvm.kernels.cpu.direct import Config
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO, Halo
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels.support import ACTIVATIONS, UNITS, compile_kernel, inside, run_kernel, with_halos

PLAIN = Conv(1, 8, 8, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), True)


def draw(w: Conv, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
    """Draw x (N,H,W,CI), weight (CO,CI,KH,KW) and bias (CO)."""
    random = np.random.default_rng(seed)
    shapes = (
        (w.batch, w.height, w.width, w.in_channels),
        (w.out_channels, w.in_channels, *w.kernel),
        w.bias_shape(w.out_channels),
    )
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)


def check(
    w: Conv,
    target: ResolvedTarget,
    config: Config | None = None,
    in_halo: Halo | None = None,
    out_halo: Halo = NO_HALO,
) -> None:
    """Compare one convolution, element by element, by default with x in the halo it wants.

    A float32 sum of n products in any order is off by at most n * eps of the sum of the products'
    magnitudes; three more roundings are the affine's two and the bias's.
    """
    x, weight, bias = draw(w)
    if w.bounded:
        bias[1:].sort(axis=0)
    config = config or Config.preset(w, target.vector_unit)
    in_halo = direct.halo(w) if in_halo is None else in_halo
    found = run_kernel(
        direct.define(w, config, in_halo, out_halo),
        target,
        out_halo.around(w.batch, w.out_height, w.out_width, w.out_channels),
        with_halos(x, in_halo),
        direct.pack_weight(weight, config),
        bias,
    )
    found = inside(found, out_halo)

    scaled = x.astype(np.float64)
    if w.affine is not None:
        subtract, multiply = map(np.asarray, w.affine)
        scaled = (scaled - subtract) * multiply
    positive = replace(w, affine=None, relu=False, bounded=False)
    magnitude = positive.reference(abs(scaled), abs(weight), abs(bias[0] if w.bounded else bias))
    magnitude *= max(1, w.slope)
    terms = w.in_channels * w.kernel[0] * w.kernel[1] + 3
    error = abs(found - w.reference(x, weight, bias))
    assert (error <= terms * np.finfo(np.float32).eps * magnitude).all()


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (2, 3), (3, 2), (5, 1), (1, 5)])
def test_any_number_of_vectors_of_channels(
    target: ResolvedTarget, inputs: int, outputs: int
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, height=3, in_channels=inputs * lanes, out_channels=outputs * lanes)
    check(w, target)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 13])
def test_any_width_of_map_around_the_tile(target: ResolvedTarget, size: int) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, width=size, height=2, in_channels=lanes, out_channels=2 * lanes)
    check(w, target)


@pytest.mark.parametrize(
    ("batch", "relu", "affine"),
    [(1, True, (127.5, 1 / 127.5)), (3, False, (127.5, 1 / 127.5)), (3, True, None)],
)
def test_the_first_layer_scales_a_map_of_one_channel(
    target: ResolvedTarget, batch: int, relu: bool, affine: tuple[float, float] | None
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, batch=batch, in_channels=1, out_channels=3 * lanes, relu=relu, affine=affine)
    check(w, target)


@pytest.mark.spread
@pytest.mark.parametrize("kernel", [(3, 3), (5, 4)])
@pytest.mark.parametrize(
    "affine",
    [None, (127.5, 1 / 127.5), ((123.7, 116.3, 103.5), (1 / 58.4, 1 / 57.1, 1 / 57.4))],
    ids=["none", "one", "each"],
)
def test_the_first_layer_scales_a_map_of_three_channels(
    target: ResolvedTarget, kernel: tuple[int, int], affine: Any
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, in_channels=3, out_channels=2 * lanes, kernel=kernel, affine=affine)
    check(w, target)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(target: ResolvedTarget, activation: dict[str, Any]) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, height=3, in_channels=lanes, out_channels=2 * lanes, **activation)
    check(w, target)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
        ((1, 7), (1, 1), (0, 3, 0, 3), (1, 1)),
        ((3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
        ((3, 3), (1, 3), (1, 1, 1, 1), (1, 1)),
        ((2, 2), (1, 1), (1, 1, 0, 0), (1, 1)),
        ((3, 3), (1, 1), (2, 0, 1, 2), (1, 1)),
        ((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        ((3, 2), (2, 1), (3, 0, 1, 2), (3, 2)),
        ((9, 9), (1, 1), (0, 0, 0, 0), (1, 1)),
    ],
)
def test_windows_strides_borders_and_dilations(
    target: ResolvedTarget,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> None:
    lanes = target.vector_unit.lanes
    w = Conv(1, 9, 13, lanes, 2 * lanes, kernel, stride, padding, dilation, False)
    check(w, target)


@pytest.mark.parametrize("in_halo", [NO_HALO, Halo(1, 1, 1, 1)])
@pytest.mark.parametrize("out_halo", [Halo(1, 1, 1, 1), Halo(0, 2, 3, 0), Halo(2, 0, 0, 1)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_maps_come_with_and_without_a_border_and_go_into_any(
    target: ResolvedTarget, in_halo: Halo, out_halo: Halo, in_channels: int
) -> None:
    lanes = target.vector_unit.lanes
    channels = in_channels if in_channels == 1 else lanes
    w = replace(PLAIN, batch=2, height=5, in_channels=channels, out_channels=2 * lanes)
    check(w, target, in_halo=in_halo, out_halo=out_halo)


@pytest.mark.parametrize(("vectors", "width"), [(1, 1), (2, 5), (3, 13)])
def test_any_tiling_gives_the_same_answer(target: ResolvedTarget, vectors: int, width: int) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, width=13, height=3, in_channels=lanes, out_channels=12 * lanes)
    check(w, target, Config(lanes, vectors, width))


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_convolution(target: ResolvedTarget, data: st.DataObject) -> None:
    lanes = target.vector_unit.lanes
    few, pair = st.integers(1, 4), st.tuples(st.integers(1, 3), st.integers(1, 3))
    w = Conv(
        batch=data.draw(st.sampled_from([1, 3])),
        height=data.draw(st.integers(1, 9)),
        width=data.draw(st.integers(1, 17)),
        in_channels=data.draw(st.sampled_from([1, lanes, 3 * lanes])),
        out_channels=data.draw(few) * lanes,
        kernel=data.draw(pair),
        stride=data.draw(pair),
        padding=data.draw(st.tuples(*[st.integers(0, 2)] * 4)),
        dilation=data.draw(pair),
        relu=data.draw(st.booleans()),
        affine=data.draw(st.sampled_from([None, (127.5, 0.01)])),
    )
    assume(w.out_height > 0 and w.out_width > 0)
    check(w, target)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        ((2, 3), (2, 1), (0, 2, 1, 0), (1, 1)),
        ((3, 2), (1, 3), (2, 0, 1, 2), (2, 3)),
    ],
)
def test_the_reference_follows_onnx(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> None:
    w = Conv(2, 7, 9, 3, 5, kernel, stride, padding, dilation, False)
    x, weight, bias = (array.astype(np.float64) for array in draw(w))
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        kernel_shape=kernel,
        strides=stride,
        pads=padding,
        dilations=dilation,
    )
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, None) for n in "xwby"]
    model = helper.make_model(
        helper.make_graph([node], "conv", values[:3], values[3:]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    feeds = {"x": x.transpose(0, 3, 1, 2), "w": weight, "b": bias}
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    found = w.reference(x, weight, bias)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-12, atol=1e-12)


def test_the_reference_scales_before_it_pads() -> None:
    # One pixel of 5 in a halo of zeros: (5 - 1) * 2 = 8, and the halo stays 0.
    w = Conv(1, 1, 1, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), False, affine=(1.0, 2.0))
    y = w.reference(np.full((1, 1, 1, 1), 5.0), np.ones((1, 1, 3, 3)), np.zeros(1))
    assert y.item() == 8


def test_the_preset_fits_the_registers() -> None:
    shapes = itertools.product((1, 2, 3, 4, 7, 16), (1, 2, 7, 8, 13, 64))
    for (channels, width), unit in itertools.product(shapes, UNITS):
        w = replace(PLAIN, width=width, out_channels=channels * unit.lanes)
        config = Config.preset(w, unit)
        assert w.out_channels % config.panel == 0, (w, unit)
        # accumulators, weights, and one broadcast input value
        assert config.width * config.vectors + config.vectors + 1 <= unit.registers, (w, unit)


@pytest.mark.parametrize(
    ("name", "instruction", "register"),
    [("x86-64-v3", "vfmadd", "%ymm"), ("x86-64-v4", "vfmadd", "%zmm"), ("aarch64", "fmla", ".4s")],
)
def test_sums_are_fused_multiply_adds_of_whole_vectors(
    name: str, instruction: str, register: str
) -> None:
    target = targets.resolve(name)
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, in_channels=2 * lanes, out_channels=2 * lanes)
    config = Config.preset(w, target.vector_unit)
    kernel = direct.define(w, config, direct.halo(w), NO_HALO)
    assembly = compile_kernel(kernel, target).mod.inspect_source("asm").splitlines()
    fused = [line for line in assembly if instruction in line and register in line]
    assert len(fused) >= config.vectors * config.width  # one for each accumulator of the tile
