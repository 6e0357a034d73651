"""The same network in other sizes: square faces of 32 to 224, 1 or 3 channels, 2 to 64 classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported
from tests.models import value


def network(
    channels: int = 1,
    size: int = 64,
    classes: int = 8,
    shape: list[Any] | None = None,
    mean: Any = 127.5,
    std: Any = 127.5,
) -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.conv(net.scale("faces", mean, std), channels, 4, strides=[2, 2]))
    x = net.add("Flatten", net.pool(x))
    rows = 4 * (((size + 1) // 2) // 2) ** 2
    return net.model(net.dense(x, rows, classes), shape or ["N", channels, size, size])


@pytest.mark.parametrize(
    ("channels", "size", "classes"),
    [(1, 48, 7), (3, 64, 8), (1, 32, 2), (3, 224, 64), (1, 37, 3), (3, 112, 7)],
)
def test_sizes_channels_and_classes(channels: int, size: int, classes: int) -> None:
    imported = assert_imported(network(channels, size, classes))
    assert (imported.channels, imported.size, imported.classes) == (channels, size, classes)
    assert imported.notes == ()


def test_scaling_per_channel() -> None:
    mean = np.array([123.7, 116.3, 103.5]).reshape(3, 1, 1)
    std = np.array([58.4, 57.1, 57.4]).reshape(1, 3, 1, 1)
    imported = assert_imported(network(3, mean=mean, std=std))
    assert [node.op_type for node in imported.proto.graph.node][:3] == ["Sub", "Mul", "Conv"]
    assert [list(tensor.dims) for tensor in imported.proto.graph.initializer].count([3, 1, 1]) == 2


@pytest.mark.parametrize(
    "shape",
    [["N", 2, 64, 64], ["N", 1, 64, 48], ["N", 1, 31, 31], ["N", 1, 225, 225], ["N", 4, 64, 64]],
)
def test_other_inputs_are_refused(shape: list[Any]) -> None:
    made = network(shape=shape)
    with pytest.raises(ModelShapeError, match=r"1 or 3 channels and S from 32 to 224"):
        load_model(made.SerializeToString())


@pytest.mark.parametrize("classes", [1, 65])
def test_another_number_of_scores_is_refused(classes: int) -> None:
    with pytest.raises(ModelShapeError, match=rf"gives {classes} scores? for.*2 to 64 classes"):
        load_model(network(classes=classes).SerializeToString())


def test_metadata_is_handed_on() -> None:
    made = network()
    onnx.helper.set_model_props(made, {"labels": "happy,sad"})
    assert load_model(made.SerializeToString()).metadata == {"labels": "happy,sad"}


OPEN = [["N", 1, "H", "W"], ["N", None, None, None], None]


@pytest.mark.parametrize("shape", OPEN)
def test_the_dense_layer_tells_the_size_that_the_file_leaves_open(shape: list[Any] | None) -> None:
    made = network(size=100, classes=7)
    made.graph.input[0].CopyFrom(value("faces", shape))
    imported = load_model(made.SerializeToString())
    assert (imported.channels, imported.size) == (1, 100)
    assert len(imported.warnings) == 1
    assert "compiled for 100x100 faces of 1 channel" in imported.warnings[0]
    assert "from 99 to 102 pixels" in imported.warnings[0]


@pytest.mark.parametrize(("size", "taken"), [(46, 44), (49, 48), (50, 48), (65, 64), (113, 112)])
def test_the_size_that_halves_best_is_taken_where_several_fit(size: int, taken: int) -> None:
    made = network(size=size)
    made.graph.input[0].CopyFrom(value("faces", ["N", 1, "H", "W"]))
    assert load_model(made.SerializeToString()).size == taken


def test_one_side_tells_the_other() -> None:
    made = network(size=48)
    made.graph.input[0].CopyFrom(value("faces", ["N", 1, 48, "W"]))
    imported = load_model(made.SerializeToString())
    assert (imported.size, imported.warnings) == (48, ())


def test_64_pixels_are_assumed_and_said_where_nothing_tells() -> None:
    net = Net()
    x = net.add("GlobalAveragePool", net.conv("faces", 3, 4))
    made = net.model(net.dense(net.add("Flatten", x), 4, 7), ["N", 3, "H", "W"])
    imported = assert_imported(made)
    assert imported.size == 64
    assert "from 32 to 224 pixels" in imported.warnings[0]


def test_an_order_of_channels_that_nothing_tells_is_refused() -> None:
    net = Net()
    x = net.dense(net.add("Flatten", "faces"), 3 * 32 * 32, 7)
    made = net.model(x, ["N", None, None, None])
    with pytest.raises(ModelShapeError, match=r"3 channels as \(N, C, S, S\) and 3 channels as"):
        load_model(made.SerializeToString())


def test_a_size_that_no_layer_fits_is_the_layers_error() -> None:
    net = Net()
    made = net.model(net.dense(net.add("Flatten", net.conv("faces", 1, 2)), 77, 7),
                     ["N", 1, "H", "W"])  # fmt: skip
    with pytest.raises(ModelShapeError, match=r"Gemm node.*77 values per face and gets 8192"):
        load_model(made.SerializeToString())
