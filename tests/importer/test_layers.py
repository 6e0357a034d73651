"""Convolutions and dense layers in every form that exporters give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, layers

Step = Callable[[Net, str], str]


def attributes(model: onnx.ModelProto, op: str, index: int = 0) -> dict[str, Any]:
    node = [node for node in model.graph.node if node.op_type == op][index]
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(auto_pad: str, stride: int, kernel: int) -> None:
    size = -(-16 // stride) if auto_pad != "VALID" else (16 - kernel) // stride + 1
    model = around(
        lambda n, x: n.conv(x, 4, 2, (kernel, kernel), auto_pad=auto_pad, strides=[stride] * 2),
        2 * size * size,
    )
    found = attributes(assert_imported(model).proto, "Conv", 1)
    assert set(found) == {"kernel_shape", "strides", "pads", "dilations", "group"}


def bare(net: Net, x: str) -> str:
    return net.add("Conv", x, net.store(net.draw(4, 4, 3, 3)))


@pytest.mark.parametrize(
    ("middle", "rows"),
    [
        (bare, 4 * 14 * 14),
        (lambda n, x: n.conv(x, 4, 4, group=4), 1024),
        (lambda n, x: n.conv(x, 4, 6, group=2, dilations=[2, 2], pads=[2, 2, 2, 2]), 6 * 256),
        (lambda n, x: n.conv(n.conv(x, 4, 4, (1, 3)), 4, 4, (3, 1)), 1024),
        (lambda n, x: n.conv(x, 4, 4, pads=[0, 1, 2, 1]), 1024),
    ],
)
def test_convolutions(middle: Step, rows: int) -> None:
    imported = assert_imported(around(middle, rows))
    assert set(layers(imported)) == {"Conv", "Flatten", "Gemm"}


def gemm(net: Net, x: str, *, bias: Any = None, **options: Any) -> str:
    matrix = net.draw(1024, 6, scale=0.1)
    matrix = matrix.T if options.get("transB") else matrix
    extra = [] if bias is None else [net.store(np.resize(net.draw(6), bias))]
    return net.add("Gemm", net.add("Flatten", x), net.store(matrix), *extra, **options)


@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"transB": 1}, {"alpha": 0.3, "beta": -2.0}])
def test_gemm(options: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    imported = assert_imported(around(lambda n, x: gemm(n, x, bias=bias, **options), 6))
    assert layers(imported) == ["Conv", "Flatten", "Gemm", "Gemm"]


MATMUL: dict[str, Step] = {
    "rows": lambda n, x: n.add("MatMul", n.add("Flatten", x), n.store(n.draw(1024, 6))),
    "rank 3": lambda n, x: n.add(
        "MatMul", n.add("Reshape", x, n.ints(-1, 1, 1024)), n.store(n.draw(1024, 6))
    ),
    "rank 4 with channels last": lambda n, x: n.add(
        "MatMul", n.add("Reshape", x, n.ints(-1, 1, 1, 1024)), n.store(n.draw(1, 1024, 6))
    ),
}


@pytest.mark.parametrize("name", MATMUL)
@pytest.mark.parametrize("first", [False, True])
def test_matmul_and_add(name: str, first: bool) -> None:
    def middle(net: Net, x: str) -> str:
        pair = (MATMUL[name](net, x), net.store(net.draw(6)))
        return net.add("Relu", net.add("Add", *(pair[::-1] if first else pair)))

    imported = assert_imported(around(middle, 6))
    assert layers(imported) == ["Conv", "Flatten", "Gemm", "Relu", "Gemm"]


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_any_number_of_dense_layers(count: int) -> None:
    def middle(net: Net, x: str) -> str:
        x, rows = net.add("Flatten", x), 1024
        for width in range(3, 3 + count):
            x, rows = net.add("Relu", net.dense(x, rows, width)), width
        return x

    imported = assert_imported(around(middle, 2 + count if count else 1024), tolerance=1e-4)
    assert layers(imported).count("Gemm") == count + 1


def test_only_dense_layers() -> None:
    net = Net()
    x = net.add("Relu", net.dense(net.add("Flatten", net.scale("faces")), 1024, 16))
    imported = assert_imported(net.model(net.dense(x, 16, 5), ["N", 1, 32, 32]))
    # A convolution does the scaling of the input while it reads the faces.
    assert layers(imported) == ["Conv", "Flatten", "Gemm", "Relu", "Gemm"]


HEADS: dict[str, tuple[Step, list[str]]] = {
    "convolution over the map": (
        lambda n, x: n.conv(x, 4, 5, (16, 16), pads=[0] * 4), ["Conv", "Flatten", "Gemm"]
    ),
    "strided convolution to one pixel": (
        lambda n, x: n.conv(x, 4, 5, (3, 3), pads=[1] * 4, strides=[16, 16]),
        ["Conv", "Flatten", "Gemm"],
    ),
    "grouped convolution over the map": (
        lambda n, x: n.conv(n.conv(x, 4, 6, (16, 16), pads=[0] * 4, group=2), 6, 5, (1, 1)),
        ["Conv", "Flatten", "Gemm", "Gemm"],
    ),
    "convolutions of one pixel": (
        lambda n, x: n.conv(n.add("Relu", n.conv(x, 4, 8, (16, 16), pads=[0] * 4)), 8, 5),
        ["Conv", "Flatten", "Gemm", "Relu", "Gemm"],
    ),
    "1x1 convolution and mean": (
        lambda n, x: n.add("GlobalAveragePool", n.conv(x, 4, 5, (1, 1))),
        ["Conv", "AveragePool", "Flatten", "Gemm"],
    ),
    "1x1 convolution in groups and mean": (
        lambda n, x: n.add("GlobalAveragePool", n.conv(x, 4, 6, (1, 1), group=2)),
        ["Conv", "AveragePool", "Flatten", "Gemm"],
    ),
    "1x1 convolution, mean, and bounds": (
        lambda n, x: n.add("Relu", n.add("GlobalAveragePool", n.conv(x, 4, 5, (1, 1)))),
        ["Conv", "AveragePool", "Flatten", "Gemm", "Relu", "Gemm"],
    ),
    "1x1 convolution with ReLU and mean": (
        lambda n, x: n.add("GlobalAveragePool", n.add("Relu", n.conv(x, 4, 5, (1, 1)))),
        ["Conv", "Conv", "Relu", "AveragePool", "Flatten", "Gemm"],
    ),
    "3x3 convolution and maximum": (
        lambda n, x: n.add("GlobalMaxPool", n.conv(x, 4, 5)),
        ["Conv", "Conv", "MaxPool", "Flatten", "Gemm"],
    ),
    "convolution, mean, and a norm": (
        lambda n, x: n.norm(n.add("GlobalAveragePool", n.conv(x, 4, 5)), 5),
        ["Conv", "Conv", "AveragePool", "Flatten", "Gemm"],
    ),
    "mean and classes in another order": (
        lambda n, x: n.add("Gather", n.add("GlobalAveragePool", n.conv(x, 4, 5)),
                           n.ints(3, 1, 0, 2), axis=1),
        ["Conv", "Conv", "AveragePool", "Flatten", "Gemm"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_are_no_dense_layer(name: str) -> None:
    middle, expected = HEADS[name]
    net = Net()
    x = net.conv(net.scale("faces"), 1, 4, strides=[2, 2])
    imported = assert_imported(net.model(middle(net, x), ["N", 1, 32, 32]), tolerance=2e-5)
    assert layers(imported) == expected


def test_names_are_those_of_the_file() -> None:
    net = Net()
    x = net.norm(net.add("Relu", net.conv(net.scale("faces"), 1, 4, strides=[8, 8])), 4)
    x = net.add("Add", net.add("MatMul", net.add("Flatten", x), net.store(net.draw(64, 5))),
                net.store(net.draw(5)))  # fmt: skip
    names = [node.name for node in assert_imported(net.model(x, ["N", 1, 32, 32])).proto.graph.node]
    assert names == [
        "sub_0", "div_1", "conv_2", "relu_3", "relu_3_high", "flatten_5", "matmul_6",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("middle", "error", "message"),
    [
        (lambda n, x: n.add("Conv", x, x), UnsupportedModelError, "Conv node.*stored weights"),
        (lambda n, x: n.conv(x, 5, 4), ModelShapeError, r"weights of shape \(4, 5, 3, 3\)"),
        (lambda n, x: n.conv(x, 4, 4, (17, 17), pads=[0] * 4), ModelShapeError, "larger than the"),
        (lambda n, x: n.dense(n.add("Flatten", x), 9, 4), ModelShapeError, "for 9 values per face"),
        (
            lambda n, x: n.add("MatMul", n.store(n.draw(16, 16)), x),
            UnsupportedModelError, "MatMul node.*second place",
        ),
        (
            lambda n, x: n.add("MatMul", x, n.store(n.draw(16, 16))),
            UnsupportedModelError, r"MatMul node.*\(4, 16, 16\) per face",
        ),
        (
            lambda n, x: n.add("Gemm", n.add("Flatten", x), n.store(n.draw(1024, 6)),
                               n.store(n.draw(2, 6))), UnsupportedModelError, r"\(2, 6\)",
        ),
    ],
)  # fmt: skip
def test_refused(middle: Step, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(around(middle).SerializeToString())
