"""Pooling, means and maxima over the map, and borders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, layers
from tests.importer.test_layers import attributes

Step = Callable[[Net, str], str]
MAX, MEAN = ["Conv", "MaxPool", "Flatten", "Gemm"], ["Conv", "AveragePool", "Flatten", "Gemm"]


def pool(op: str = "MaxPool", **options: Any) -> Step:
    return lambda net, x: net.add(op, x, **{"kernel_shape": [3, 3], **options})


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_defaults_and_strides(op: str, stride: int) -> None:
    size = 13 // stride + 1
    imported = assert_imported(around(pool(op, strides=[stride, stride]), 4 * size * size))
    assert layers(imported) == (MAX if op == "MaxPool" else MEAN)
    assert attributes(imported.proto, op)["pads"] == [0] * 4


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad(auto_pad: str) -> None:
    imported = assert_imported(around(pool(strides=[2, 2], auto_pad=auto_pad), 256))
    assert layers(imported) == MAX


def test_an_average_that_needs_no_border() -> None:
    even = pool("AveragePool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    assert layers(assert_imported(around(even, 256))) == MEAN


def test_an_average_that_counts_its_border() -> None:
    counted = pool("AveragePool", pads=[1, 1, 1, 1], count_include_pad=1)
    imported = assert_imported(around(counted))
    assert layers(imported) == ["Conv", "Conv", "Flatten", "Gemm"]
    assert attributes(imported.proto, "Conv", 1)["group"] == 4


@pytest.mark.parametrize("size", [32, 38])
def test_rounding_up(size: int) -> None:
    """For 19x19 maps the last window of 2x2 has one column of the map, which pads make too."""
    net = Net()
    x = net.conv(net.scale("faces"), 1, 2, strides=[2, 2])
    x = net.pool(x, ceil_mode=1)
    half = -(-(size // 2) // 2)
    model = net.model(net.dense(net.add("Flatten", x), 2 * half * half, 5), ["N", 1, size, size])
    imported = assert_imported(model)
    assert attributes(imported.proto, "MaxPool")["ceil_mode"] == 0


def test_indices_that_nobody_reads() -> None:
    model = around(lambda n, x: n.add("MaxPool", x, outputs=2, kernel_shape=[3, 3],
                                      storage_order=1), 4 * 14 * 14)  # fmt: skip
    imported = assert_imported(model)
    assert [len(node.output) for node in imported.proto.graph.node] == [1] * 6


REDUCTIONS: dict[str, tuple[Step, list[str], int]] = {
    "GlobalAveragePool": (lambda n, x: n.add("GlobalAveragePool", x), MEAN, 17),
    "GlobalMaxPool": (lambda n, x: n.add("GlobalMaxPool", x), MAX, 17),
    "ReduceMean": (lambda n, x: n.add("ReduceMean", x, axes=[2, 3]), MEAN, 17),
    "ReduceMean of negative axes": (
        lambda n, x: n.add("ReduceMean", x, axes=[-1, -2], keepdims=0), MEAN, 17
    ),
    "ReduceMean with axes as input": (
        lambda n, x: n.add("ReduceMean", x, n.ints(2, 3), keepdims=0), MEAN, 18
    ),
    "ReduceMax with axes as input": (lambda n, x: n.add("ReduceMax", x, n.ints(2, 3)), MAX, 18),
    "ReduceSum": (lambda n, x: n.add("ReduceSum", x, n.ints(2, 3), keepdims=0), MEAN, 17),
    "ReduceMax with channels last": (
        lambda n, x: n.add("ReduceMax", n.add("Transpose", x, perm=[0, 2, 3, 1]), axes=[1, 2]),
        MAX, 17,
    ),
    "ReduceMean of rows of maps": (
        lambda n, x: n.add("ReduceMean", n.add("Reshape", x, n.ints(0, 4, -1)), axes=[2],
                           keepdims=0), MEAN, 17,
    ),
    "one axis after the other": (
        lambda n, x: n.add("ReduceMean", n.add("ReduceMean", x, axes=[3]), axes=[2]),
        ["Conv", "AveragePool", "AveragePool", "Flatten", "Gemm"], 17,
    ),
    "AveragePool over the map": (
        pool("AveragePool", kernel_shape=[16, 16], strides=[16, 16]), MEAN, 17
    ),
    "mean of the mean": (
        lambda n, x: n.add("GlobalAveragePool", n.add("GlobalAveragePool", x)), MEAN, 17
    ),
    "pooling of one pixel": (
        lambda n, x: pool(pads=[1] * 4)(n, n.add("GlobalAveragePool", x)), MEAN, 17
    ),
    "mean of one pixel and its border": (
        lambda n, x: pool("AveragePool", pads=[1] * 4, count_include_pad=1)(
            n, n.add("GlobalAveragePool", x)), MEAN, 17,
    ),
    "no axes": (lambda n, x: n.add("GlobalMaxPool", n.add("ReduceSum", x, n.ints(),
                                                        noop_with_empty_axes=1)), MAX, 17),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
def test_over_the_map(name: str) -> None:
    middle, expected, opset = REDUCTIONS[name]
    assert layers(assert_imported(around(middle, 4, opset=opset))) == expected


def pad(*pads: int, value: float | None = None, **options: Any) -> Step:
    """Write a border of (top, left, bottom, right)."""

    def write(net: Net, x: str) -> str:
        top, left, bottom, right = pads
        given = [] if value is None else [net.store(value)]
        return net.add("Pad", x, net.ints(0, 0, top, left, 0, 0, bottom, right), *given, **options)

    return write


PADS: dict[str, tuple[Step, list[str], int]] = {
    "before a convolution": (
        lambda n, x: n.conv(pad(1, 0, 0, 2)(n, x), 4, 4, pads=[0, 1, 1, 0]),
        ["Conv", "Conv"], 4 * 16 * 17,
    ),
    "twice before a convolution": (
        lambda n, x: n.conv(pad(0, 1, 0, 1)(n, pad(1, 0, 1, 0)(n, x)), 4, 4, pads=[0] * 4),
        ["Conv", "Conv"], 1024,
    ),
    "behind a ReLU before a MaxPool": (
        lambda n, x: pool()(n, pad(1, 1, 1, 1)(n, n.add("Relu", x))),
        ["Conv", "Relu", "MaxPool"], 1024,
    ),
    "behind a ReLU and a MaxPool": (
        lambda n, x: pool()(n, pad(1, 1, 1, 1)(n, pool()(n, n.add("Relu", x)))),
        ["Conv", "Relu", "MaxPool", "MaxPool"], 4 * 14 * 14,
    ),
    "before a MaxPool and its ReLU": (
        lambda n, x: n.add("Relu", pool()(n, pad(1, 1, 1, 1)(n, x))),
        ["Conv", "Relu", "MaxPool"], 1024,
    ),
    "of minus infinity before a MaxPool": (
        lambda n, x: pool()(n, pad(1, 1, 1, 1, value=-np.inf)(n, x)), ["Conv", "MaxPool"], 1024
    ),
    "before an AveragePool": (
        lambda n, x: pool("AveragePool")(n, pad(1, 1, 1, 1)(n, x)), ["Conv", "Conv"], 1024
    ),
    "behind a scale": (
        lambda n, x: n.conv(pad(1, 1, 1, 1)(n, n.norm(n.add("Relu", x), 4)), 4, 4, pads=[0] * 4),
        ["Conv", "Max", "Min", "Conv"], 1024,
    ),
    "before a scale": (
        lambda n, x: n.conv(n.add("Mul", pad(1, 1, 1, 1)(n, x), n.store(-0.5)), 4, 4,
                            pads=[0] * 4), ["Conv", "Conv"], 1024,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PADS)
def test_borders(name: str) -> None:
    middle, expected, rows = PADS[name]
    found = [op for op in layers(assert_imported(around(middle, rows))) if op != "Min"]
    assert found == [*(op for op in expected if op != "Min"), "Flatten", "Gemm"]


REFUSED: dict[str, tuple[Step, str]] = {
    "dilations": (pool(dilations=[2, 2]), "MaxPool node.*without dilations"),
    "a mean that leaves its border out": (
        pool("AveragePool", pads=[1] * 4), "AveragePool node.*borders that the mean leaves out"
    ),
    "a mean rounded up": (
        lambda n, x: pool("AveragePool", strides=[2, 2], ceil_mode=1)(n, x), "AveragePool node"
    ),
    "indices in use": (
        lambda n, x: n.add("Add", n.add("MaxPool", x, outputs=2, kernel_shape=[1, 1],
                                        strides=[2, 2]),
                           n.add("Cast", f"maxpool_{len(n.nodes) - 1}_out_1", to=1)), "MaxPool"
    ),
    "a maximum over channels": (lambda n, x: n.add("ReduceMax", x, axes=[1]), "ReduceMax node"),
    "a mean over half of the map": (
        lambda n, x: n.add("ReduceMean", n.add("Reshape", x, n.ints(0, 4, 2, -1)), axes=[3]),
        "ReduceMean node.*whole maps",
    ),
    "another border": (pad(1, 1, 1, 1, mode="reflect"), "Pad node.*mode='reflect'"),
    "a negative border": (pad(-1, 0, 0, 0), "Pad node.*-1"),
    "a border of ones": (
        lambda n, x: n.conv(pad(1, 1, 1, 1, value=1.0)(n, x), 4, 4), "node 'pad_.*border of 1 "
    ),
    "a border of 0 among negative numbers": (
        lambda n, x: pool()(n, pad(1, 1, 1, 1)(n, x)), "node 'pad_.*border of 0 "
    ),
    "a border wider than the window": (
        lambda n, x: n.conv(pad(3, 3, 3, 3)(n, x), 4, 4), "node 'pad_.*window is wider"
    ),
    "a border around channels": (
        lambda n, x: n.add("Pad", x, n.ints(0, 1, 0, 0, 0, 1, 0, 0)), "Pad node.*of more channels"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    middle, message = REFUSED[name]

    def to_one_pixel(net: Net, x: str) -> str:
        return net.add("GlobalAveragePool", middle(net, x))

    with pytest.raises(UnsupportedModelError, match=message):
        load_model(around(to_one_pixel, 4).SerializeToString())


def test_a_huge_border_takes_no_memory() -> None:
    wide: Step = lambda n, x: n.conv(pad(1 << 40, 1, 1, 1)(n, x), 4, 4)  # noqa: E731
    with pytest.raises(UnsupportedModelError):
        load_model(around(wide).SerializeToString())
