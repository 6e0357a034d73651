"""Chains of separable convolutions against a reference in float64 that follows the pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferplus_tvm.host import cpu
from ferplus_tvm.kernels.cpu.separable import SIGMOIDS, Separable, output_shapes, pack
from ferplus_tvm.kernels.cpu.separable_kernel import define
from ferplus_tvm.kernels.cpu.sigmoid import sigmoid
from ferplus_tvm.kernels.cpu.tensorir import Vectors, argument, flat, function, serial
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels.support import run_kernel

TINY = 1e-5  # of the largest value

# Heights that are one run and several, widths that fill the tiles and that do not.
SINGLE = [
    Separable(5, 3, 16, 16, "map", "relu"),
    Separable(40, 20, 64, 64, "map", "relu"),
    Separable(33, 9, 16, 48, "map", "relu"),
    Separable(34, 22, 32, 16, "map", "relu", pool=True),
    Separable(32, 14, 32, 64, "map", "relu", pool=True, whole=True),
    Separable(36, 10, 64, 32, "sum", "relu"),
    Separable(16, 8, 16, 16, "sum", "relu", pool=True),
    Separable(24, 8, 16, 16, "picture", "relu"),
    Separable(48, 24, 16, 16, "picture", "relu", pool=True),
    Separable(4, 8, 32, 32, "picture", "relu"),
    Separable(19, 7, 64, 16, "map", "sigmoid"),
]
CHAINED = [
    [Separable(48, 9, 16, 32, "map", "relu"), Separable(48, 9, 32, 16, "map", "relu")],
    [
        Separable(40, 16, 16, 16, "picture", "relu", pool=True),
        Separable(20, 8, 16, 64, "map", "relu"),
        Separable(20, 8, 64, 32, "map", "relu", pool=True, whole=True),
    ],
    [Separable(36, 6, 16, 48, "sum", "relu"), Separable(36, 6, 48, 16, "map", "sigmoid")],
]


def weights_of(w: Separable, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    return {
        name: (random.standard_normal(shape) / 4).astype(np.float32)
        for name, shape in w.weights.items()
    }


def inputs_of(w: Separable, random: np.random.Generator) -> list[NDArray[Any]]:
    return [
        random.integers(0, 256, shape).astype(kind)
        if kind == "uint8"
        else random.standard_normal(shape).astype(kind)
        for shape, kind in w.inputs
    ]


def convolved(
    x: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any], stride: int
) -> NDArray[np.float64]:
    """Return a 3x3 convolution (H,W,CI) by (3,3,CI,CO), in a border of zeros."""
    height, width = x.shape[0] // stride, x.shape[1] // stride
    x = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    total = np.zeros((height, width, kernel.shape[-1])) + bias
    for ky in range(3):
        for kx in range(3):
            taken = x[ky : ky + stride * height : stride, kx : kx + stride * width : stride]
            total += taken @ kernel[ky, kx].astype(np.float64)
    return total


def reference(
    w: Separable, inputs: Sequence[NDArray[Any]], weights: dict[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return z, as the module's docstring defines it."""
    s = inputs[0][0].astype(np.float64)
    if w.source == "sum":
        s = s + inputs[1][0].repeat(2, axis=0).repeat(2, axis=1)
    elif w.source == "picture":
        kernel = weights["picture"].transpose(2, 3, 1, 0)
        s = np.maximum(convolved(s, kernel, weights["picture_bias"], stride=2), 0)
    t = s @ weights["pointwise"][:, :, 0, 0].T.astype(np.float64) + weights["pointwise_bias"]
    taps = weights["depthwise"][:, 0].transpose(1, 2, 0)
    kernel = np.einsum("yxo,op->yxop", taps, np.eye(w.out_channels))
    z = convolved(t, kernel, weights["depthwise_bias"], stride=1)
    if w.activation == "relu":
        return np.maximum(z, 0)
    z[..., :SIGMOIDS] = 1 / (1 + np.exp(-z[..., :SIGMOIDS]))
    return z


def maxima(z: NDArray[Any]) -> NDArray[Any]:
    height, width, channels = z.shape
    return z.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))


def check(chains: Sequence[Sequence[Separable]], target: ResolvedTarget) -> None:
    """Run the kernel of some chains, and compare its outputs."""
    random = np.random.default_rng(7)
    unit = target.vector_unit
    arrays: list[NDArray[Any]] = []
    wanted: list[NDArray[np.float64]] = []
    for chain in chains:
        read = inputs_of(chain[0], random)
        arrays += read
        for w in chain:
            weights = weights_of(w, random)
            arrays.append(pack(w, weights))
            z = reference(w, read, weights)
            read = [(maxima(z) if w.pool else z)[np.newaxis]]
        wanted.append(read[0][0])
    shapes = output_shapes(chains)
    if len(chains) > 1:
        joined = [each.reshape(-1, each.shape[-1]) for each in wanted]
        wanted = [np.concatenate(joined)]
    elif len(shapes) > 1:
        wanted.append(z)

    *others, last = [np.zeros(shape, np.float32) for shape in shapes]
    last = run_kernel(define(chains, unit), target, last.shape, *arrays, *others)
    found = [*others, last]
    if target.arch != cpu.architecture():  # an emulated kernel gives its last output alone
        found, wanted = found[-1:], wanted[-1:]
    for values, expected in zip(found, wanted, strict=True):
        tolerance = TINY * np.abs(expected).max()
        np.testing.assert_allclose(values[0], expected, rtol=0, atol=tolerance)


@pytest.mark.spread
@pytest.mark.parametrize("w", SINGLE, ids=str)
def test_each_source_activation_and_result(target: ResolvedTarget, w: Separable) -> None:
    check([[w]], target)


@pytest.mark.spread
@pytest.mark.parametrize("chain", CHAINED, ids=len)
def test_a_chain_is_its_workloads_one_after_the_other(
    target: ResolvedTarget, chain: list[Separable]
) -> None:
    check([chain], target)


def test_several_chains_write_one_output(target: ResolvedTarget) -> None:
    heads = [Separable(size, size, 64, 16, "map", "sigmoid") for size in (8, 4, 2)]
    before = Separable(16, 16, 32, 64, "map", "relu", pool=True)
    check([[before, heads[0]], [heads[1]], [heads[2]]], target)


@pytest.mark.spread
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_chain(target: ResolvedTarget, data: st.DataObject) -> None:
    channels = st.sampled_from([16, 32, 48, 64])
    source = data.draw(st.sampled_from(["map", "sum", "picture"]))
    height = 2 * data.draw(st.integers(1, 20))
    width = 8 * data.draw(st.integers(1, 4))
    chain, before = [], data.draw(channels)
    for at in range(data.draw(st.integers(1, 3))):
        after = data.draw(channels)
        pool = height % 2 == width % 2 == 0 and data.draw(st.booleans())
        kind = source if at == 0 else "map"
        chain.append(Separable(height, width, before, after, kind, "relu", pool=pool))
        if pool:
            height, width = height // 2, width // 2
        before = after
    check([chain], target)


def test_the_sigmoid_of_every_size_of_number(target: ResolvedTarget) -> None:
    lanes = target.vector_unit.lanes
    unit = Vectors(lanes)
    x = np.concatenate([np.linspace(-120, 120, 4001), [-np.inf, np.inf, 0, -1e30, 1e-30]])
    x = np.resize(x, -(-x.size // 64) * 64).astype(np.float32)
    with function() as builder:
        buffers = [argument("x", x.shape), argument("y", x.shape)]
        given_x, y = (flat(buffer) for buffer in buffers)
        with serial(x.size // lanes) as vector:
            at = vector * lanes
            unit.store(y, sigmoid(unit, unit.load(given_x, at)), at)

    found = run_kernel(builder.get(), target, x.shape, x)

    with np.errstate(over="ignore"):
        wanted = 1 / (1 + np.exp(-x.astype(np.float64)))
    # Below 1e-37, which the kernel takes for the least value, no probability matters.
    np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(np.float32).eps, atol=1e-37)
