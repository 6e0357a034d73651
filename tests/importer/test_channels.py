"""Channels that the graph copies, mixes, splits or scales one by one, as models do with pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported, layers, pixels

Before = Callable[[Net, str], str]
MEAN = np.array([90.0, 110, 130]).reshape(3, 1, 1)
STD = np.array([50.0, 60, 70]).reshape(3, 1, 1)
GREY = np.array([0.299, 0.587, 0.114])


def network(
    before: Before, channels: int, shape: Sequence[int | str] = ("N", 1, 32, 32)
) -> onnx.ModelProto:
    """Make a network whose first convolution gets so many channels from ``before``."""
    net = Net()
    x = net.add("Relu", net.conv(before(net, "faces"), channels, 4, strides=[2, 2]))
    return net.model(net.dense(net.add("Flatten", x), 4 * 16 * 16, 5), shape)


def normalize(net: Net, x: str) -> str:
    return net.add("Div", net.add("Sub", x, net.store(MEAN)), net.store(STD))


def channel(net: Net, x: str, at: int, axis: int = 1) -> str:
    return net.add("Slice", x, net.ints(at), net.ints(at + 1), net.ints(axis))


def weighted(net: Net, x: str, axis: int = 1) -> str:
    """Write grey as torchvision's rgb_to_grayscale does: one product for each channel."""
    red, green, blue = (
        net.add("Mul", channel(net, x, at, axis), net.store(part)) for at, part in enumerate(GREY)
    )
    return net.add("Add", net.add("Add", red, green), blue)


def one_by_one(net: Net, x: str) -> str:
    """Write numbers for each channel as torchvision's transform_input does."""
    parts = []
    for at in range(3):
        one = net.add("Gather", x, net.store(at, np.int64), axis=1)
        one = net.add("Mul", net.add("Unsqueeze", one, net.ints(1)), net.store(0.01 + at / 200))
        parts.append(net.add("Add", one, net.store(at / 3)))
    return net.add("Concat", *parts, axis=1)


COPIED: dict[str, Before] = {
    "Tile": lambda n, x: normalize(n, n.add("Tile", x, n.ints(1, 3, 1, 1))),
    "Expand": lambda n, x: normalize(n, n.add("Expand", x, n.ints(1, 3, 1, 1))),
    "Concat": lambda n, x: normalize(n, n.add("Concat", x, x, x, axis=1)),
    "batch normalization": lambda n, x: n.norm(n.add("Concat", x, x, x, axis=1), 3),
    "broadcasting": normalize,
    "Concat of shifted copies": lambda n, x: n.add(
        "Concat", *(n.add("Sub", x, n.store(number)) for number in (9.0, 5.0, 90.0)), axis=1
    ),
}


@pytest.mark.parametrize("name", COPIED)
def test_grey_faces_made_rgb(name: str) -> None:
    imported = assert_imported(network(COPIED[name], 3))
    assert imported.channels == 1


MIXED: dict[str, Before] = {
    "mean": lambda n, x: n.add("ReduceMean", x, axes=[1]),
    "weighted sum": lambda n, x: n.add(
        "ReduceSum", n.add("Mul", x, n.store(GREY.reshape(3, 1, 1))), n.ints(1)
    ),
    "sum without its axis": lambda n, x: n.add(
        "Unsqueeze", n.add("ReduceSum", x, n.ints(1), keepdims=0), n.ints(1)
    ),
    "one product for each channel": weighted,
}


@pytest.mark.parametrize("name", MIXED)
def test_grey_from_rgb(name: str) -> None:
    imported = assert_imported(network(MIXED[name], 1, ("N", 3, 32, 32)))
    assert imported.channels == 3


@pytest.mark.parametrize("reversed_first", [False, True])
def test_grey_from_rgb_in_channels_last(reversed_first: bool) -> None:
    def before(net: Net, x: str) -> str:
        if reversed_first:
            x = net.add("Slice", x, *(net.ints(number) for number in (-1, -(1 << 31), 3, -1)))
            x = net.add("MatMul", x, net.store(GREY[:, None]))
        else:
            x = weighted(net, x, 3)
        return net.add("Transpose", x, perm=[0, 3, 1, 2])

    faces = pixels(2, 3, 32).transpose(0, 2, 3, 1)
    assert_imported(network(before, 1, ("N", 32, 32, 3)), np.ascontiguousarray(faces))


def test_numbers_for_each_channel_one_by_one() -> None:
    assert_imported(network(one_by_one, 3, ("N", 3, 32, 32)))


def test_split_and_joined_channels_need_no_layer_of_their_own() -> None:
    def swap(net: Net, x: str) -> str:
        first = net.add("Relu", net.conv(x, 1, 4))
        half = net.add("Split", first, outputs=2, axis=1)
        return net.add("Concat", f"{half}_1", half, axis=1)

    assert layers(assert_imported(network(swap, 4)))[0] == "Conv"


def test_branches_that_move_pixels_are_refused() -> None:
    def halves(net: Net, x: str) -> str:
        half = net.add("Split", x, outputs=2, axis=2)
        return net.add("Concat", f"{half}_1", half, axis=2)

    with pytest.raises(UnsupportedModelError, match="Split node"):
        load_model(network(halves, 1).SerializeToString())


def test_numbers_for_three_channels_say_how_many_an_open_input_has() -> None:
    made = network(normalize, 3, ("N", "C", 32, 32))
    assert assert_imported(made).channels == 3


def test_an_open_input_that_is_copied_is_asked_for() -> None:
    made = network(lambda n, x: n.add("Expand", x, n.ints(1, 3, 1, 1)), 3, ("N", "C", 32, 32))
    with pytest.raises(ModelShapeError, match=r"1 channel as .* and 3 channels as .*state the"):
        load_model(made.SerializeToString())
    assert load_model(made.SerializeToString(), channels=1).channels == 1
