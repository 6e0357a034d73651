"""Activations: bounds, slopes, and those that are written as branches of one value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, layers

Step = Callable[[Net, str], str]
LARGEST = float(np.finfo(np.float32).max)


def clip(low: float | None, high: float | None) -> Step:
    def write(net: Net, x: str) -> str:
        bounds = ["" if bound is None else net.store(bound) for bound in (low, high)]
        return net.add("Clip", x, *bounds)

    return write


def compared(op: str, *, swapped: bool = False) -> Step:
    """Choose between x and 0 by a comparison with 0."""

    def write(net: Net, x: str) -> str:
        zero = net.store(0.0)
        mask = net.add(op, *((zero, x) if swapped else (x, zero)))
        choices = (x, zero) if op.startswith("Greater") != swapped else (zero, x)
        return net.add("Where", mask, *choices)

    return write


def masked(net: Net, x: str) -> str:
    """Multiply x with whether it is positive."""
    return net.add("Mul", x, net.add("Cast", net.add("Greater", x, net.store(0.0)),
                                     to=TensorProto.FLOAT))  # fmt: skip


def keras_prelu(net: Net, x: str, slopes: object = 0.25) -> str:
    """Write PReLU as converters do for Keras."""
    negative = net.add("Mul", net.add("Relu", net.add("Neg", x)), net.store(-np.array(slopes)))
    return net.add("Add", net.add("Relu", x), negative)


FORMS: dict[str, tuple[Step, list[str]]] = {
    "Relu": (lambda n, x: n.add("Relu", x), ["Relu"]),
    "Clip from 0": (clip(0.0, None), ["Relu"]),
    "Clip from 0 to the largest number": (clip(0.0, LARGEST), ["Relu"]),
    "Clip from 0 to infinity": (clip(0.0, np.inf), ["Relu"]),
    "Clip from 0 to 6": (clip(0.0, 6.0), ["Max", "Min"]),
    "Clip from -1": (clip(-1.0, None), ["Max"]),
    "Clip to 1": (clip(None, 1.0), ["Min"]),
    "Clip from 0 to 0.5, twice": (lambda n, x: clip(0.0, 0.5)(n, clip(0.1, 1.0)(n, x)),
                                  ["Max", "Min"]),
    "Max with 0": (lambda n, x: n.add("Max", x, n.store(0.0)), ["Relu"]),
    "Max with two numbers": (lambda n, x: n.add("Max", n.store([0.0]), x, n.store(-1.0)), ["Relu"]),
    "Max per channel": (lambda n, x: n.add("Max", x, n.store(n.draw(1, 4, 1, 1))), ["Max"]),
    "Min per channel": (lambda n, x: n.add("Min", n.store(n.draw(4, 1, 1)), x), ["Min"]),
    "Max and Min": (
        lambda n, x: n.add("Min", n.add("Max", x, n.store(0.0)), n.store(1.0)), ["Max", "Min"]
    ),
    "LeakyRelu": (lambda n, x: n.add("LeakyRelu", x), ["LeakyRelu"]),
    "LeakyRelu of slope 0": (lambda n, x: n.add("LeakyRelu", x, alpha=0.0), ["Relu"]),
    "LeakyRelu above 1": (lambda n, x: n.add("LeakyRelu", x, alpha=1.5), ["LeakyRelu"]),
    "LeakyRelu twice": (
        lambda n, x: n.add("LeakyRelu", n.add("LeakyRelu", x, alpha=0.5), alpha=0.2), ["LeakyRelu"]
    ),
    "Relu and LeakyRelu": (lambda n, x: n.add("LeakyRelu", n.add("Relu", x)), ["Relu"]),
    "LeakyRelu and Relu": (lambda n, x: n.add("Relu", n.add("LeakyRelu", x)), ["Relu"]),
    "LeakyRelu and Clip below 0": (
        lambda n, x: clip(-0.01, 1.0)(n, n.add("LeakyRelu", x, alpha=0.1)),
        ["LeakyRelu", "Conv", "Max", "Min"],
    ),
    "PRelu of one slope": (lambda n, x: n.add("PRelu", x, n.store([0.2])), ["LeakyRelu"]),
    "PRelu of equal slopes": (
        lambda n, x: n.add("PRelu", x, n.store(np.full((4, 1, 1), 0.2))), ["LeakyRelu"]
    ),
    "PRelu of different slopes": (
        lambda n, x: n.add("PRelu", x, n.store(n.draw(4, 1, 1))), ["Relu", "Conv"]
    ),
    "Where greater": (compared("Greater"), ["Relu"]),
    "Where not less": (compared("GreaterOrEqual"), ["Relu"]),
    "Where less": (compared("Less"), ["Relu"]),
    "Where 0 is less": (compared("Less", swapped=True), ["Relu"]),
    "times whether positive": (masked, ["Relu"]),
    "Max of x and a part of it": (
        lambda n, x: n.add("Max", x, n.add("Mul", x, n.store(0.1))), ["LeakyRelu"]
    ),
    "PReLU of Keras": (keras_prelu, ["LeakyRelu"]),
    "PReLU of Keras per channel": (
        lambda n, x: keras_prelu(n, x, n.draw(4, 1, 1)), ["Relu", "Conv"]
    ),
    "half of x and its size": (
        lambda n, x: n.add("Mul", n.add("Add", x, n.add("Abs", x)), n.store(0.5)), ["Relu"]
    ),
    "x and its ReLU": (lambda n, x: n.add("Add", n.add("Relu", x), x), ["LeakyRelu"]),
    "size": (lambda n, x: n.add("Max", x, n.add("Neg", x)), ["Relu", "Conv"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_behind_a_convolution(name: str) -> None:
    middle, expected = FORMS[name]
    imported = assert_imported(around(middle))
    assert layers(imported) == ["Conv", *expected, "Flatten", "Gemm"]


@pytest.mark.parametrize("name", ["Clip from 0 to 6", "LeakyRelu", "PReLU of Keras"])
def test_behind_a_dense_layer(name: str) -> None:
    middle, expected = FORMS[name]
    model = around(lambda n, x: middle(n, n.dense(n.add("Flatten", x), 1024, 6)), 6)
    assert layers(assert_imported(model)) == ["Conv", "Flatten", "Gemm", *expected, "Gemm"]


def test_slopes_of_a_dense_layer() -> None:
    model = around(
        lambda n, x: n.add("PRelu", n.dense(n.add("Flatten", x), 1024, 6), n.store(n.draw(6))), 6
    )
    assert layers(assert_imported(model)) == ["Conv", "Flatten", "Gemm", "Relu", "Gemm", "Gemm"]


PLACES: dict[str, tuple[Step, list[str], int]] = {
    "behind a MaxPool": (
        lambda n, x: n.add("Relu", n.pool(n.pool(x))), ["Conv", "Relu", "MaxPool", "MaxPool"], 64
    ),
    "behind an AveragePool": (
        lambda n, x: n.add("Relu", n.pool(x, "AveragePool")),
        ["Conv", "AveragePool", "Conv", "Relu"], 256,
    ),
    "behind a Flatten": (lambda n, x: n.add("Relu", n.add("Flatten", x)), ["Conv", "Relu"], 1024),
    "bounds for each value behind a Flatten": (
        lambda n, x: n.add("Max", n.add("Flatten", n.pool(x, kernel_shape=[8, 8], strides=[8, 8])),
                           n.store(n.draw(16))), ["Conv", "MaxPool", "Flatten", "Gemm", "Max"], 16,
    ),
    "behind a border": (
        lambda n, x: n.conv(n.add("Relu", n.add("Pad", x, n.ints(0, 0, 1, 1, 0, 0, 1, 1))), 4, 4,
                            pads=[0] * 4), ["Conv", "Relu", "Conv"], 1024,
    ),
    "a negative slope behind a MaxPool": (
        lambda n, x: n.add("LeakyRelu", n.pool(x), alpha=-0.5),
        ["Conv", "MaxPool", "Conv", "Relu", "Conv"], 256,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str) -> None:
    middle, expected, rows = PLACES[name]
    found = layers(assert_imported(around(middle, rows)))
    assert found == [*expected, *(["Flatten"] if "Flatten" not in expected else []), "Gemm"]


def test_on_the_scaled_input() -> None:
    net = Net()
    x = net.add("Clip", net.scale("faces"), net.store(-0.5), net.store(0.5))
    x = net.conv(x, 1, 2, strides=[8, 8])
    model = net.model(net.dense(net.add("Flatten", x), 32, 5), ["N", 1, 32, 32])
    assert layers(assert_imported(model))[:4] == ["Conv", "Max", "Min", "Conv"]


def test_on_the_scores() -> None:
    net = Net()
    x = net.dense(net.add("Flatten", net.conv("faces", 1, 2, strides=[8, 8])), 32, 5)
    imported = assert_imported(net.model(net.add("Relu", x), ["N", 1, 32, 32]))
    assert layers(imported) == ["Conv", "Flatten", "Gemm", "Relu", "Gemm"]


def test_bounds_and_slope_are_those_of_the_file() -> None:
    imported = assert_imported(around(clip(0.0, 6.0)))
    graph = imported.proto.graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    bounds = {n.op_type: stored[n.input[1]] for n in graph.node if n.op_type in ("Max", "Min")}
    assert bounds["Max"].shape == bounds["Min"].shape == (4, 1, 1)
    assert bounds["Max"].ravel().tolist() == [0.0] * 4
    assert bounds["Min"].ravel().tolist() == [6.0] * 4
    leaky = assert_imported(around(lambda n, x: n.add("LeakyRelu", x, alpha=0.125)))
    (node,) = (n for n in leaky.proto.graph.node if n.op_type == "LeakyRelu")
    assert node.attribute[0].f == 0.125


REFUSED: dict[str, tuple[Step, str]] = {
    "Elu": (lambda n, x: n.add("Elu", x), "Relu, LeakyRelu, PRelu with a slope per channel, and"),
    "Tanh": (lambda n, x: n.add("Tanh", x), "Relu, LeakyRelu"),
    "Swish": (
        lambda n, x: n.add("Mul", x, n.add("Sigmoid", x)),
        "Sigmoid, Mul behind .*Relu, LeakyRelu",
    ),
    "HardSwish": (lambda n, x: n.add("HardSwish", x), "HardSwish node"),
    "a slope for each pixel": (
        lambda n, x: n.add("PRelu", x, n.store(n.draw(1, 16, 16))),
        r"PRelu node.*\(1, 16, 16\)",
    ),
    "computed bounds": (
        lambda n, x: n.add("Clip", x, n.add("ReduceMin", x, keepdims=0)),
        "ReduceMin node",
    ),
    "a number for what is not positive": (
        lambda n, x: n.add("Where", n.add("Greater", x, n.store(0.0)), x, n.store(1.0)),
        "Greater",
    ),
    "another threshold": (
        lambda n, x: n.add("Where", n.add("Greater", x, n.store(1.0)), x, n.store(0.0)),
        "Greater",
    ),
    "a skip": (lambda n, x: n.add("Add", n.conv(x, 4, 4), x), "without branches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    middle, message = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(around(middle).SerializeToString())
