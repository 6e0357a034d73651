"""Layouts: where the channels lie, how a face lies in its row, and what only moves values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around, assert_imported, layers, pixels
from tests.importer.support import run

Step = Callable[[Net, str], str]
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def network(first: Step, shape: list[Any], channels: int = 1, **options: Any) -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.conv(first(net, "faces"), channels, 4, strides=[2, 2]))
    return net.model(net.dense(net.add("Flatten", x), 4 * 16 * 16, 5), shape, **options)


def turned(net: Net, x: str) -> str:
    return net.add("Transpose", x, perm=TO_FIRST)


def reshaped(*dims: int) -> Step:
    return lambda net, x: net.add("Reshape", x, net.ints(*dims))


def last(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


INPUTS: dict[str, tuple[Step, list[Any], int, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "channels last": (turned, ["N", 32, 32, 1], 1, last),
    "channels last by Reshape": (reshaped(-1, 1, 32, 32), ["N", 32, 32, 1], 1, last),
    "RGB channels last": (turned, ["N", 32, 32, 3], 3, last),
    "scaled with channels last": (
        lambda n, x: turned(n, n.scale(x, [120.0, 110, 100], [60.0, 50, 40])),
        ["N", 32, 32, 3], 3, last,
    ),
    "no channels, Unsqueeze": (
        lambda n, x: n.add("Unsqueeze", x, n.ints(1)), ["N", 32, 32], 1, lambda x: x[:, 0]
    ),
    "no channels, Reshape": (reshaped(-1, 1, 32, 32), ["N", 32, 32], 1, lambda x: x[:, 0]),
    "rows of pixels": (reshaped(-1, 1, 32, 32), ["N", 1024], 1, lambda x: x.reshape(len(x), -1)),
    "rows of pixels, channels last": (
        lambda n, x: turned(n, reshaped(-1, 32, 32, 1)(n, x)), ["N", 1024], 1,
        lambda x: x.reshape(len(x), -1),
    ),
    "grey made RGB by Expand": (
        lambda n, x: n.add("Expand", x, n.ints(1, 3, 1, 1)), ["N", 1, 32, 32], 3, lambda x: x
    ),
    "grey made RGB by Concat": (
        lambda n, x: n.add("Concat", x, x, x, axis=1), ["N", 1, 32, 32], 3, lambda x: x
    ),
    "grey made RGB by Tile": (
        lambda n, x: n.add("Tile", x, n.ints(1, 3, 1, 1)), ["N", 1, 32, 32], 3, lambda x: x
    ),
    "BGR by Gather": (
        lambda n, x: n.add("Gather", x, n.ints(2, 1, 0), axis=1), ["N", 3, 32, 32], 3, lambda x: x
    ),
    "BGR by Slice": (
        lambda n, x: n.add("Slice", x, n.ints(-1), n.ints(-(1 << 62)), n.ints(1), n.ints(-1)),
        ["N", 3, 32, 32], 3, lambda x: x,
    ),
    "one channel of three": (
        lambda n, x: n.add("Slice", x, n.ints(1), n.ints(2), n.ints(1)), ["N", 3, 32, 32], 1,
        lambda x: x,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    first, shape, channels, as_file = INPUTS[name]
    model = network(first, shape, channels)
    count = 3 if 3 in shape else 1
    imported = assert_imported(model, as_file(pixels(2, count, 32)))
    assert (imported.channels, imported.size) == (count, 32)
    assert imported.notes == ()
    operators = [op for op in layers(imported) if op != "Sub"]
    assert operators == ["Conv", "Relu", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("first", "shape"),
    [(turned, [None, None, None, 3]), (turned, [None] * 4), (lambda n, x: x, None)],
)
def test_the_graph_tells_layout_and_channels_where_the_file_leaves_them_open(
    first: Step, shape: list[Any] | None
) -> None:
    model = network(first, shape, 3)  # type: ignore[arg-type]
    x = pixels(2, 3, 32)
    imported = assert_imported(model, last(x) if shape else x)
    # 4x16x16 rows come of 32x32 faces, and of 31x31 ones.
    assert (imported.channels, imported.size) == (3, 32) or imported.size == 31


NOTHING: dict[str, Step] = {
    "two Transposes": lambda n, x: turned(n, n.add("Transpose", x, perm=TO_LAST)),
    "Transpose in order": lambda n, x: n.add("Transpose", x, perm=[0, 1, 2, 3]),
    "Reshape there and back": lambda n, x: reshaped(0, 0, 16, 16)(n, reshaped(0, 4, -1)(n, x)),
    "Unsqueeze and Squeeze": lambda n, x: n.add(
        "Squeeze", n.add("Unsqueeze", x, n.ints(-1)), n.ints(4)
    ),
    "Slice of everything": lambda n, x: n.add("Slice", x, n.ints(0), n.ints(1 << 62), n.ints(2)),
    "Slice of all faces": lambda n, x: n.add("Slice", x, n.ints(0), n.ints(1 << 62), n.ints(0)),
    "Expand by 1": lambda n, x: n.add("Expand", x, n.ints(1, 1, 1, 1)),
    "Tile by 1": lambda n, x: n.add("Tile", x, n.ints(1, 1, 1, 1)),
    "Pad of nothing": lambda n, x: n.add("Pad", x, n.ints(0, 0, 0, 0, 0, 0, 0, 0)),
    "pooling of 1x1": lambda n, x: n.pool(x, kernel_shape=[1, 1], strides=[1, 1]),
    "Mul by 1": lambda n, x: n.add("Mul", x, n.store(1.0)),
    "Add of 0": lambda n, x: n.add("Add", n.store(np.zeros((4, 1, 1))), x),
    "Clip without bounds": lambda n, x: n.add("Clip", x),
    "Clip of infinite bounds": lambda n, x: n.add("Clip", x, n.store(-np.inf), n.store(np.inf)),
    "Max with minus infinity": lambda n, x: n.add("Max", x, n.store(-np.inf)),
    "slope of 1": lambda n, x: n.add("LeakyRelu", x, alpha=1.0),
    "Dropout": lambda n, x: n.add("Dropout", x, outputs=2),
    "Dropout of nothing in training": lambda n, x: n.add(
        "Dropout", x, n.store(0.0), n.store(True, bool)
    ),
    "Identity": lambda n, x: n.add("Identity", x),
    "Cast to float32": lambda n, x: n.add("Cast", x, to=TensorProto.FLOAT),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_goes(name: str) -> None:
    imported = assert_imported(around(lambda n, x: n.add("Relu", NOTHING[name](n, x))))
    assert layers(imported) == ["Conv", "Relu", "Flatten", "Gemm"]


def channels_last_norm(net: Net, x: str) -> str:
    """Write a batch normalisation on the last axis, as converters from TensorFlow do."""
    x = net.add("Transpose", x, perm=TO_LAST)
    x = net.add("Mul", x, net.store(net.random.uniform(0.5, 1.5, (1, 1, 1, 4))))
    return turned(net, net.add("Add", x, net.store(net.draw(4))))


def dense_on_maps(net: Net, x: str) -> str:
    x = net.add("Transpose", x, perm=TO_LAST)
    return turned(net, net.add("MatMul", x, net.store(net.draw(4, 4))))


def pad_on_last(net: Net, x: str) -> str:
    x = net.add("Transpose", x, perm=TO_LAST)
    x = turned(net, net.add("Pad", x, net.ints(0, 1, 2, 0, 0, 2, 1, 0)))
    return net.conv(x, 4, 4, pads=[0, 0, 0, 0], strides=[1, 1])


BETWEEN: dict[str, tuple[Step, list[str], int]] = {
    "scale and shift of the last axis": (channels_last_norm, ["Conv", "Flatten", "Gemm"], 1024),
    "dense layer on the last axis": (dense_on_maps, ["Conv", "Conv", "Flatten", "Gemm"], 1024),
    "border with channels last": (pad_on_last, ["Conv", "Conv", "Flatten", "Gemm"], 4 * 17 * 17),
    "rows with channels last": (
        lambda n, x: n.add("Transpose", x, perm=TO_LAST), ["Conv", "Flatten", "Gemm"], 1024
    ),
    "rows with columns first": (
        lambda n, x: n.add("Transpose", x, perm=[0, 3, 1, 2]), ["Conv", "Flatten", "Gemm"], 1024
    ),
    "rows of a part of the map": (
        lambda n, x: n.add("Slice", x, n.ints(1, 2), n.ints(-1, 9), n.ints(2, 3)),
        ["Conv", "Flatten", "Gemm"], 4 * 14 * 7,
    ),
    "one pixel by Gather": (
        lambda n, x: n.add("Gather", n.add("Gather", x, n.store(3, np.int64), axis=2),
                           n.store(-1, np.int64), axis=2), ["Conv", "Flatten", "Gemm"], 4,
    ),
    "channels in another order": (
        lambda n, x: n.conv(n.add("Gather", n.pool(x), n.ints(3, 1, 0, 1), axis=1), 4, 4),
        ["Conv", "MaxPool", "Conv", "Flatten", "Gemm"], 256,
    ),
    "channels shuffled between groups": (
        lambda n, x: n.conv(
            reshaped(0, 4, 16, 16)(n, n.add("Transpose", reshaped(0, 2, 2, 16, 16)(n, x),
                                            perm=[0, 2, 1, 3, 4])), 4, 4, group=2),
        ["Conv", "Conv", "Flatten", "Gemm"], 1024,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_layouts_between_layers(name: str) -> None:
    middle, expected, rows = BETWEEN[name]
    imported = assert_imported(around(middle, rows))
    assert layers(imported) == expected


@pytest.mark.parametrize(
    "dims", [(0, -1), (-1, 1024), (0, 1024), (0, 4, -1), (0, 0, 16, 16), (-1, 256, 4)]
)
def test_reshape_to_rows(dims: tuple[int, ...]) -> None:
    assert_imported(around(reshaped(*dims)))


@pytest.mark.parametrize("dims", [(1, -1), (1, 1024)])
def test_reshape_of_one_face_serves_more(dims: tuple[int, ...]) -> None:
    # The file says N and means 1: onnxruntime runs it on one face at a time.
    model = around(reshaped(*dims))
    x = pixels(3, 1, 32)
    expected = np.concatenate([run(model, x[i : i + 1]) for i in range(3)])
    found = run(load_model(model.SerializeToString()).proto, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_batch_that_the_file_fixed() -> None:
    model = around(reshaped(8, -1))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    assert_imported(model, batch=8)


def by_shape(net: Net, x: str) -> str:
    """Reshape as PyTorch writes x.view(x.size(0), -1)."""
    first = net.add("Shape", x, start=0, end=1)
    return net.add("Reshape", x, net.add("Concat", first, net.ints(-1), axis=0))


def by_shape_of_channels_last(net: Net, x: str) -> str:
    """Reshape as converters from Keras write Flatten, in 32-bit integers."""
    x = net.add("Transpose", x, perm=TO_LAST)
    sizes = net.add("Cast", net.add("Shape", x), to=TensorProto.INT32)
    first = net.add("Slice", sizes, net.ints(0), net.ints(1), net.ints(0))
    target = net.add("Concat", first, net.store([1024], np.int32), axis=0)
    return net.add("Reshape", x, net.add("Cast", target, to=TensorProto.INT64))


@pytest.mark.parametrize("middle", [by_shape, by_shape_of_channels_last])
def test_reshape_to_a_computed_shape(middle: Step) -> None:
    assert layers(assert_imported(around(middle), batch=3)) == ["Conv", "Flatten", "Gemm"]


@pytest.mark.parametrize("axis", [1, -3])
def test_flatten_along_another_axis_of_the_same_meaning(axis: int) -> None:
    assert_imported(around(lambda n, x: n.add("Flatten", x, axis=axis)))


MIXING: dict[str, Step] = {
    "Reshape of all faces": reshaped(-1, 64),
    "Reshape to one row": reshaped(-1),
    "another batch": reshaped(4, 1024),
    "Transpose of faces": lambda n, x: n.add("Transpose", x, perm=[1, 0, 2, 3]),
    "Flatten at 2": lambda n, x: n.add("Flatten", x, axis=2),
    "some faces": lambda n, x: n.add("Slice", x, n.ints(0), n.ints(1), n.ints(0)),
    "every other face": lambda n, x: n.add(
        "Slice", x, n.ints(0), n.ints(1 << 62), n.ints(0), n.ints(2)
    ),
    "Expand to more faces": lambda n, x: n.add("Expand", x, n.ints(4, 1, 1, 1)),
    "Tile to more faces": lambda n, x: n.add("Tile", x, n.ints(2, 1, 1, 1)),
    "one face": lambda n, x: n.add("Gather", x, n.store(0, np.int64), axis=0),
    "mean of the faces": lambda n, x: n.add("ReduceMean", x, axes=[0]),
    "mean of everything": lambda n, x: n.add("ReduceMean", x),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_faces_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"node .* not supported here .*faces?"):
        load_model(around(MIXING[name]).SerializeToString())


def test_a_part_of_the_batch_that_the_file_fixed_is_refused() -> None:
    model = around(lambda n, x: n.add("Slice", x, n.ints(0), n.ints(7), n.ints(0)))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    with pytest.raises(UnsupportedModelError, match=r"Slice node .*each face stays apart"):
        load_model(model.SerializeToString())


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (lambda n, x: n.conv(n.add("Transpose", x, perm=[0, 1, 3, 2]), 4, 4), "rows and columns"),
        (lambda n, x: n.conv(n.add("Slice", x, n.ints(0), n.ints(8), n.ints(2)), 4, 4), "columns"),
        (lambda n, x: n.add("Resize", x, "", n.store([1.0, 1, 2, 2])), "Resize node"),
    ],
)
def test_maps_in_another_order_are_refused(middle: Step, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(around(middle).SerializeToString())


def test_a_convolution_on_rows_is_refused() -> None:
    with pytest.raises(ModelShapeError, match="needs feature maps, and gets"):
        load_model(around(lambda n, x: n.conv(n.add("Flatten", x), 4, 4)).SerializeToString())


@pytest.mark.parametrize("repeats", [1 << 20, 1 << 40])
def test_a_file_cannot_ask_for_much_memory(repeats: int) -> None:
    tile: Step = lambda n, x: n.add("Tile", x, n.ints(1, repeats, 1, 1))  # noqa: E731
    expand: Step = lambda n, x: n.add("Expand", x, n.ints(1, repeats, 4, 16, 16))  # noqa: E731

    def concat(net: Net, x: str) -> str:
        for _ in range(24):
            x = net.add("Concat", x, x, axis=1)
        return x

    for middle in (tile, expand, concat):
        with pytest.raises(UnsupportedModelError):
            load_model(around(middle).SerializeToString())
