"""Operators that move values, or the batch, and leave the network what it is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, pixels
from tests.importer.support import run
from tests.importer.test_channels import network


def turned(net: Net, x: str) -> str:
    """Select channels as PyTorch's exporter writes x[:, [2, 1, 0]]."""
    x = net.add("Gather", net.add("Transpose", x, perm=[1, 0, 2, 3]), net.ints(2, 1, 0), axis=0)
    return net.add("Transpose", x, perm=[1, 0, 2, 3])


@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_a_batch_that_is_turned_away_and_back(batch: int | str) -> None:
    made = network(turned, 3, (batch, 3, 32, 32))
    assert_imported(made, batch=1 if batch == 1 else 2)


def test_faces_in_another_order_are_refused() -> None:
    def swap(net: Net, x: str) -> str:
        x = net.add("Transpose", x, perm=[1, 0, 2, 3])
        x = net.add("Slice", x, *(net.ints(number) for number in (-1, -(1 << 31), 1, -1)))
        return net.add("Transpose", x, perm=[1, 0, 2, 3])

    with pytest.raises(UnsupportedModelError, match=r"Transpose node.*stays apart"):
        load_model(network(swap, 1).SerializeToString())


def test_one_before_the_batch() -> None:
    """So tf2onnx turns channels-last faces of an open size."""

    def before(net: Net, x: str) -> str:
        return net.add("Reshape", net.add("Unsqueeze", x, net.ints(0)), net.ints(-1, 1, 0, 0))

    faces = pixels(2, 1, 32).reshape(2, 32, 32, 1)
    assert_imported(network(before, 1, ("N", 32, 32, 1)), faces)


def test_softmax_over_the_faces_behind_a_one_before_the_batch_is_refused() -> None:
    net = Net()
    x = net.dense(net.add("Flatten", net.conv("faces", 1, 2, strides=[2, 2])), 2 * 16 * 16, 5)
    x = net.add("Softmax", net.add("Unsqueeze", x, net.ints(0)), axis=1)
    with pytest.raises(
        UnsupportedModelError, match=r"Softmax node.*not a softmax over the classes"
    ):
        load_model(net.model(x, ("N", 1, 32, 32)).SerializeToString())


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_tensordot(batch: int | str, op: str) -> None:
    """So Keras, TensorFlow and onnxslim write a dense layer on the channels of maps."""

    def middle(net: Net, x: str) -> str:
        x = net.add("Transpose", x, perm=[0, 2, 3, 1])
        weight, bias = net.store(net.draw(4, 3)), net.store(net.draw(3))
        rows = net.ints(256, 4) if batch == 1 else net.ints(-1, 4)
        x = net.add("Reshape", x, rows)
        if op == "Gemm":
            x = net.add("Gemm", x, weight, bias)
        else:
            x = net.add("Add", net.add("MatMul", x, weight), bias)
        return net.add("Relu", net.add("Reshape", x, net.ints(-1, 16, 16, 3)))

    made = around(middle, 3 * 16 * 16)
    dim = made.graph.input[0].type.tensor_type.shape.dim[0]
    if batch == 1:
        dim.dim_value = 1
    assert_imported(made, batch=1 if batch == 1 else 2)


@pytest.mark.parametrize("opset", [17, 19])
@pytest.mark.parametrize("how", ["sizes", "scales", "axes"])
def test_a_resize_that_changes_no_size(opset: int, how: str) -> None:
    def before(net: Net, x: str) -> str:
        if how == "scales":
            return net.add("Resize", x, "", net.store([1, 1, 1, 1]), mode="linear")
        if how == "axes" and opset > 17:
            return net.add("Resize", x, "", "", net.ints(32, 32), mode="linear", axes=[2, 3])
        return net.add("Resize", x, "", "", net.ints(1, 1, 32, 32), mode="linear")

    made = network(before, 1, (1, 1, 32, 32))
    made.opset_import[0].version = opset
    assert_imported(made, batch=1)


def test_bytes_that_are_moved_before_they_become_numbers() -> None:
    def before(net: Net, x: str) -> str:
        x = net.add("Slice", x, *(net.ints(number) for number in (-1, -(1 << 31), 1, -1)))
        return net.add("Cast", net.add("Resize", x, "", net.store([1] * 4), mode="nearest"), to=1)

    net = Net()
    x = net.add("Relu", net.conv(before(net, "faces"), 3, 4, strides=[2, 2]))
    made = net.model(net.dense(net.add("Flatten", x), 1024, 5), ("N", 3, 32, 32), TensorProto.UINT8)
    faces = np.round(pixels(2, 3, 32))
    found = run(load_model(made.SerializeToString()).proto, faces)
    expected = run(made, faces.astype(np.uint8))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_another_resize_is_refused_with_its_sizes() -> None:
    made = network(
        lambda n, x: n.add("Resize", x, "", n.store([1, 1, 0.5, 0.5]), mode="nearest"),
        1,
        ("N", 1, 64, 64),
    )
    with pytest.raises(UnsupportedModelError, match=r"32, 32\] of \[1, 1, 64, 64\]"):
        load_model(made.SerializeToString())


def test_an_open_input_that_is_resized_has_that_size() -> None:
    made = network(
        lambda n, x: n.add("Resize", x, "", "", n.ints(1, 1, 32, 32), mode="linear"),
        1,
        (1, 1, "H", "W"),
    )
    assert load_model(made.SerializeToString()).size == 32


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_one_face_whose_batch_is_squeezed_away_before_the_dense_layers(op: str) -> None:
    """So PyTorch's x.squeeze() is exported with a batch of one."""
    net = Net()
    x = net.add("GlobalAveragePool", net.conv("faces", 1, 6, strides=[2, 2]))
    x = net.add("Squeeze", x)
    if op == "Gemm":
        x = net.dense(net.add("Unsqueeze", x, net.ints(0)), 6, 5)
    else:
        x = net.add("Add", net.add("MatMul", x, net.store(net.draw(6, 5))), net.store(net.draw(5)))
    assert_imported(net.model(x, (1, 1, 32, 32)), batch=1)


def test_the_operator_that_moves_rows_and_columns_is_named() -> None:
    crop = network(
        lambda n, x: n.add("Slice", x, n.ints(4, 4), n.ints(36, 36), n.ints(2, 3)),
        1,
        ("N", 1, 40, 40),
    )
    with pytest.raises(UnsupportedModelError, match=r"Conv node.*Slice node .* changes them"):
        load_model(crop.SerializeToString())
    swapped = network(lambda n, x: n.add("Transpose", x, perm=[0, 1, 3, 2]), 1)
    with pytest.raises(UnsupportedModelError, match=r"Conv node.*Transpose node .* changes them"):
        load_model(swapped.SerializeToString())


def test_a_shape_that_is_read_behind_a_cast() -> None:
    """So float16 converters leave x.view(x.size(0), -1)."""

    def middle(net: Net, x: str) -> str:
        shape = net.add("Shape", net.add("Cast", x, to=1))
        batch = net.add("Gather", shape, net.ints(0), axis=0)
        return net.add("Reshape", x, net.add("Concat", batch, net.ints(-1), axis=0))

    assert_imported(around(middle))


def test_a_graph_without_a_name() -> None:
    made = around(lambda n, x: x)
    made.graph.name = ""
    assert np.isfinite(load_model(made.SerializeToString()).classes)
