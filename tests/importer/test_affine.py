"""Scales and shifts per channel fold into a layer, wherever they stand, or become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, layers

Step = Callable[[Net, str], str]
FOLDED = ["Conv", "Relu", "Flatten", "Gemm"]


def signs(net: Net, count: int = 4) -> Any:
    """Draw factors, some of which are negative, and one of which is 0."""
    return net.random.uniform(0.5, 1.5, count) * np.array([1, -1, 0, 1, -1, 1])[:count]


def channels(net: Net) -> Any:
    return signs(net).reshape(4, 1, 1)


BEFORE_RELU: dict[str, Step] = {
    "Add": lambda n, x: n.add("Add", x, n.store(channels(n))),
    "Add of four dimensions": lambda n, x: n.add("Add", x, n.store(channels(n)[None])),
    "Add of a number": lambda n, x: n.add("Add", n.store(0.3), x),
    "Sub": lambda n, x: n.add("Sub", x, n.store(channels(n))),
    "Sub from a constant": lambda n, x: n.add("Sub", n.store(channels(n)), x),
    "Mul": lambda n, x: n.add("Mul", n.store(channels(n)), x),
    "Mul by a number of rank 4": lambda n, x: n.add("Mul", x, n.store([[[[-0.7]]]])),
    "Div": lambda n, x: n.add("Div", x, n.store(channels(n) + 0.2)),
    "Neg": lambda n, x: n.add("Neg", x),
    "norm": lambda n, x: n.norm(x, 4, epsilon=0.01),
    "norm after norm": lambda n, x: n.norm(n.norm(x, 4), 4),
    "Mul and Add": lambda n, x: n.add(
        "Add", n.add("Mul", x, n.store(channels(n))), n.store(channels(n))
    ),
}


@pytest.mark.parametrize("name", BEFORE_RELU)
def test_behind_a_convolution(name: str) -> None:
    middle: Step = lambda n, x: n.add("Relu", BEFORE_RELU[name](n, x))  # noqa: E731
    assert layers(assert_imported(around(middle))) == FOLDED


@pytest.mark.parametrize("name", ["Add", "Mul", "norm", "Neg", "Sub from a constant"])
@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_behind_an_activation(name: str, op: str) -> None:
    """Behind bounds it goes into the convolution, and into the bounds, which may change places."""
    bounds: Step = lambda n, x: n.add(  # noqa: E731
        op, x, *([n.store(-0.3), n.store(1.2)] if op == "Clip" else [])
    )
    imported = assert_imported(
        around(lambda n, x: n.conv(BEFORE_RELU[name](n, bounds(n, x)), 4, 4))
    )
    found = [op for op in layers(imported) if op not in ("Max", "Min")]
    assert found == ["Conv", "Conv", "Flatten", "Gemm"]


def test_behind_an_activation_before_a_border() -> None:
    """The border of the next convolution is of zeros, which a shift must not touch."""
    shift: Step = lambda n, x: n.add("Add", n.add("Relu", x), n.store(5.0))  # noqa: E731
    imported = assert_imported(around(lambda n, x: n.conv(shift(n, x), 4, 4, pads=[1, 1, 1, 1])))
    assert layers(imported) == ["Conv", "Max", "Conv", "Flatten", "Gemm"]


POOLED: dict[str, tuple[Step, list[str]]] = {
    # What is not negative keeps the order of values, and goes back through a MaxPool.
    "positive behind a MaxPool": (
        lambda n, x: n.add("Mul", n.pool(n.add("Relu", x)), n.store(0.5)),
        ["Conv", "Relu", "MaxPool", "Conv", "Flatten", "Gemm"],
    ),
    # The next convolution has no border, and takes in the rest.
    "negative behind a MaxPool": (
        lambda n, x: n.norm(n.pool(n.add("Relu", x)), 4),
        ["Conv", "Relu", "MaxPool", "Conv", "Flatten", "Gemm"],
    ),
    "behind an AveragePool": (
        lambda n, x: n.norm(n.pool(n.add("Relu", x), "AveragePool"), 4),
        ["Conv", "Max", "Min", "AveragePool", "Conv", "Flatten", "Gemm"],
    ),
    "behind LeakyReLU": (
        lambda n, x: n.norm(n.pool(n.add("LeakyRelu", x, alpha=0.1)), 4),
        ["Conv", "LeakyRelu", "MaxPool", "Conv", "Flatten", "Gemm"],
    ),
    "a scale behind LeakyReLU": (
        lambda n, x: n.add("Mul", n.pool(n.add("LeakyRelu", x, alpha=0.1)), n.store(0.5)),
        ["Conv", "LeakyRelu", "MaxPool", "Conv", "Flatten", "Gemm"],
    ),
}


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("group", [1, 2])
def test_behind_pooling(name: str, group: int) -> None:
    middle, expected = POOLED[name]
    bare: Step = lambda n, x: n.conv(middle(n, x), 4, 4, pads=[0] * 4, group=group)  # noqa: E731
    assert layers(assert_imported(around(bare, 4 * 6 * 6))) == expected


@pytest.mark.parametrize("op", ["LeakyRelu", "MaxPool"])
def test_before_a_border_it_becomes_a_layer(op: str) -> None:
    first: Step = lambda n, x: n.norm(n.add(op, x) if op != "MaxPool" else n.pool(x), 4)  # noqa: E731
    rows = 4 * (16 if op == "LeakyRelu" else 8) ** 2
    imported = assert_imported(around(lambda n, x: n.conv(first(n, x), 4, 4), rows))
    assert layers(imported) == ["Conv", op, "Conv", "Conv", "Flatten", "Gemm"]
    node = [node for node in imported.proto.graph.node if node.op_type == "Conv"][1]
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert (attributes["group"], attributes["kernel_shape"]) == (4, [1, 1])
    assert node.name.startswith("batchnormalization_")


def test_a_scale_alone_passes_a_border() -> None:
    middle: Step = lambda n, x: n.add("Mul", n.pool(x), n.store(channels(n)))  # noqa: E731
    imported = assert_imported(around(lambda n, x: n.conv(middle(n, x), 4, 4), 256))
    assert layers(imported) == ["Conv", "MaxPool", "Conv", "Flatten", "Gemm"]


def test_before_the_convolution() -> None:
    net = Net()
    x = net.norm(net.scale("faces"), 1)
    x = net.add("Relu", net.norm(net.conv(net.norm(x, 1), 1, 4), 4))
    x = net.conv(net.norm(x, 4), 4, 4, strides=[2, 2])
    model = net.model(net.dense(net.add("Flatten", x), 1024, 5), ["N", 1, 32, 32])
    imported = assert_imported(model)
    assert [node.op_type for node in imported.proto.graph.node][:3] == ["Sub", "Mul", "Conv"]
    assert layers(imported)[-3:] == ["Conv", "Flatten", "Gemm"]


ROWS: dict[str, tuple[Step, list[str]]] = {
    "norm behind Flatten": (
        lambda n, x: n.norm(n.add("Flatten", x), 1024), ["Conv", "Flatten", "Gemm"]
    ),
    "norm behind Flatten with channels last": (
        lambda n, x: n.norm(n.add("Flatten", n.add("Transpose", x, perm=[0, 2, 3, 1])), 1024),
        ["Conv", "Flatten", "Gemm"],
    ),
    "vector behind Flatten": (
        lambda n, x: n.add("Sub", n.add("Flatten", x), n.store(n.draw(1, 1024))),
        ["Conv", "Flatten", "Gemm"],
    ),
    "norm behind a dense layer": (
        lambda n, x: n.norm(n.dense(n.add("Flatten", x), 1024, 6), 6),
        ["Conv", "Flatten", "Gemm", "Gemm"],
    ),
    "norm behind the ReLU of a dense layer": (
        lambda n, x: n.norm(n.add("Relu", n.dense(n.add("Flatten", x), 1024, 6)), 6),
        ["Conv", "Flatten", "Gemm", "Max", "Min", "Gemm"],
    ),
    "norm behind the LeakyReLU of a dense layer": (
        lambda n, x: n.norm(n.add("LeakyRelu", n.dense(n.add("Flatten", x), 1024, 6)), 6),
        ["Conv", "Flatten", "Gemm", "LeakyRelu", "Gemm"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    middle, expected = ROWS[name]
    imported = assert_imported(around(middle, 1024 if len(expected) == 3 else 6))
    assert layers(imported) == expected


def test_behind_the_scores() -> None:
    net = Net()
    x = net.dense(net.add("Flatten", net.conv("faces", 1, 2, strides=[8, 8])), 32, 5)
    x = net.add("Mul", net.add("Add", x, net.store(net.draw(5))), net.store(2.0))
    imported = assert_imported(net.model(x, ["N", 1, 32, 32]))
    assert layers(imported) == ["Conv", "Flatten", "Gemm"]


class TestInput:
    """The scaling of the input stays there, as (x - offset) * factor."""

    @pytest.mark.parametrize(
        ("steps", "offset", "factor"),
        [
            ([("Sub", 127.5), ("Mul", 0.3)], 127.5, 0.3),
            ([("Sub", 127.3), ("Div", 127.5)], 127.3, 1 / 127.5),
            ([("Div", 255.0), ("Sub", 0.5), ("Div", 0.5)], 127.5, 1 / 127.5),
            ([("Mul", 2.0), ("Add", -1.0)], 0.5, 2.0),
            ([("Add", 3.0)], -3.0, 1.0),
            ([("RSub", 255.0)], 255.0, -1.0),
        ],
    )
    def test_a_chain_of_numbers(
        self, steps: list[tuple[str, float]], offset: float, factor: float
    ) -> None:
        net = Net()
        x = "faces"
        for op, number in steps:
            stored = net.store(np.full((1, 1, 1, 1), number))
            x = net.add(op.removeprefix("R"), *((stored, x) if op == "RSub" else (x, stored)))
        x = net.conv(x, 1, 2, strides=[8, 8])
        imported = assert_imported(net.model(net.dense(net.add("Flatten", x), 32, 5),
                                             ["N", 1, 32, 32]))  # fmt: skip
        found = {
            node.op_type: self.stored(imported.proto, node.input[1])
            for node in imported.proto.graph.node[:2] if node.op_type != "Conv"
        }  # fmt: skip
        assert found["Sub"] == np.float32(offset) and found["Sub"].shape == ()
        assert ("Mul" in found) == (factor != 1)
        if factor != 1:
            np.testing.assert_allclose(found["Mul"], np.float32(factor), rtol=1e-7)

    def stored(self, model: onnx.ModelProto, name: str) -> Any:
        return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)

    @pytest.mark.parametrize(
        ("first", "message"),
        [
            (lambda n, x: n.add("Div", n.store(1.0), x), "Div node 'div_0'"),
            (lambda n, x: n.add("Sub", x, n.store(n.draw(32, 32))), r"Sub node.*\(32, 32\)"),
            (lambda n, x: n.add("Sub", x, n.store(n.draw(32))), r"one for each channel.*\(32,\)"),
            (lambda n, x: n.add("Mul", x, n.store(n.draw(2, 1, 1, 1))), r"\(2, 1, 1, 1\)"),
            (lambda n, x: n.add("Add", x, n.store(np.ones((1,) * 5))), r"\(1, 1, 1, 1, 1\)"),
            (lambda n, x: n.add("Add", x, n.store(1, np.int32)), "is int32"),
        ],
    )  # fmt: skip
    def test_what_is_no_scale_or_shift_per_channel_is_refused(
        self, first: Step, message: str
    ) -> None:
        net = Net()
        x = net.conv(first(net, "faces"), 1, 2, strides=[8, 8])
        model = net.model(net.dense(net.add("Flatten", x), 32, 5), ["N", 1, 32, 32])
        with pytest.raises(Exception, match=message) as caught:
            load_model(model.SerializeToString())
        assert type(caught.value).__module__ == "ferplus_tvm.errors"


@pytest.mark.parametrize("place", ["maps", "training", "computed"])
def test_batch_normalisations_that_are_refused(place: str) -> None:
    def middle(net: Net, x: str) -> str:
        if place == "maps":
            return net.norm(x, 5)
        if place == "training":
            return net.norm(x, 4, training_mode=1)
        mean = net.add("ReduceMean", x, axes=[0, 2, 3], keepdims=0)
        ones = net.store(np.ones(4))
        return net.add("BatchNormalization", x, ones, ones, mean, ones)

    with pytest.raises(UnsupportedModelError, match=r"BatchNormalization|is read by"):
        load_model(around(middle).SerializeToString())
