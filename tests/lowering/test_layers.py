"""From the tidy graph by way of Relax to layers, rule by rule as match.py numbers them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, PoolLayer, match
from tests.chains import Chain


def layers(chain: Chain) -> list[Layer]:
    return match(to_relax(chain.model()))


def stored(model: onnx.ModelProto, node: str, operand: int) -> NDArray[np.float32]:
    """Return what ``model`` stores for an operand of a node."""
    (name,) = (found.input[operand] for found in model.graph.node if found.name == node)
    (array,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
    return array


@pytest.mark.parametrize(
    ("chain", "affine"),
    [
        (Chain(), None),
        (Chain().sub(127.5), (127.5, 1.0)),
        (Chain().mul(0.25), (0.0, 0.25)),
        (Chain().sub(-3).mul(2), (-3.0, 2.0)),
    ],
    ids=["none", "sub", "mul", "both"],
)
def test_scaling_before_a_convolution_becomes_part_of_it(
    chain: Chain, affine: tuple[float, float] | None
) -> None:
    conv, dense = layers(chain.conv("conv", 3).flatten().dense("dense"))
    assert isinstance(conv, ConvLayer)
    assert conv.affine == affine
    assert isinstance(dense, DenseLayer)


def test_a_convolution_keeps_its_weights_and_options() -> None:
    chain = Chain().conv(
        "conv", 4, kernel=(3, 2), strides=(2, 3), pads=(0, 1, 2, 0), dilations=(2, 1)
    )
    model = chain.relu("relu").conv("next", 2).flatten().dense("dense").model()
    conv, following, _ = match(to_relax(model))
    assert isinstance(conv, ConvLayer)
    assert isinstance(following, ConvLayer)
    assert conv.name == "conv"
    assert (conv.stride, conv.padding, conv.dilation) == ((2, 3), (0, 1, 2, 0), (2, 1))
    assert conv.relu
    assert not following.relu
    np.testing.assert_array_equal(conv.weight, stored(model, "conv", 1))
    np.testing.assert_array_equal(conv.bias, stored(model, "conv", 2))


def test_groups_are_spread_out_with_zeros_between() -> None:
    model = Chain().conv("one", 4).conv("two", 6, group=2).flatten().dense("dense").model()
    _, conv, _ = match(to_relax(model))
    assert isinstance(conv, ConvLayer)
    grouped = stored(model, "two", 1)
    assert grouped.shape == (6, 2, 3, 3)
    assert conv.weight.shape == (6, 4, 3, 3)
    np.testing.assert_array_equal(conv.weight[:3, :2], grouped[:3])
    np.testing.assert_array_equal(conv.weight[3:, 2:], grouped[3:])
    assert not conv.weight[:3, 2:].any()
    assert not conv.weight[3:, :2].any()


@pytest.mark.parametrize("pools", [1, 2])
def test_a_relu_behind_poolings_moves_before_them(pools: int) -> None:
    chain = Chain().conv("conv", 3)
    for index in range(pools):
        chain.pool(f"pool{index}")
    conv, *pooled, _ = layers(chain.relu("relu").flatten().dense("dense"))
    assert isinstance(conv, ConvLayer)
    assert conv.relu
    assert [type(layer) for layer in pooled] == [PoolLayer] * pools


def test_a_pooling_keeps_its_options_and_leaves_the_convolution_alone() -> None:
    chain = Chain().conv("conv", 3).pool("pool", (3, 2), (2, 1), (1, 0, 2, 1))
    conv, pool, _ = layers(chain.flatten().dense("dense"))
    assert pool == PoolLayer("pool", (3, 2), (2, 1), (1, 0, 2, 1))
    assert isinstance(conv, ConvLayer)
    assert not conv.relu


def test_dense_layers_keep_their_weights() -> None:
    model = Chain().flatten().dense("one", 5).relu("relu").dense("two").model()
    one, two = match(to_relax(model))
    assert isinstance(one, DenseLayer)
    assert isinstance(two, DenseLayer)
    assert (one.name, one.relu, two.name, two.relu) == ("one", True, "two", False)
    np.testing.assert_array_equal(one.weight, stored(model, "one", 1))
    np.testing.assert_array_equal(two.weight, stored(model, "two", 1))
    np.testing.assert_array_equal(two.bias, stored(model, "two", 2))


@pytest.mark.parametrize(
    ("chain", "operator", "node"),
    [
        (Chain().sub(1, "shift").flatten().dense("dense"), "subtract", "shift"),
        (Chain().mul(2, "scale").pool("p").flatten().dense("dense"), "multiply", "scale"),
        (Chain().relu("first").conv("c", 2).flatten().dense("dense"), "relu", "first"),
        (Chain().pool("p").relu("r").flatten().dense("dense"), "max_pool2d", "p"),
        (Chain().conv("c", 2).flatten("flat").relu("r").dense("d"), "batch_flatten", "flat"),
        (Chain().conv("c", 8, kernel=(64, 64), pads=[0] * 4).flatten("flat"), "batch_fl", "flat"),
    ],
    ids=["sub dense", "mul pool", "relu first", "pool relu", "flatten relu", "no dense layer"],
)
def test_a_chain_without_a_kernel_is_refused_by_node(
    chain: Chain, operator: str, node: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        layers(chain)
    message = str(caught.value)
    assert message.startswith(f"the operator '{operator}")
    assert f"at node {node!r} has no kernel in this place" in message
    assert "\n" not in message


# As torch.onnx.export names nodes, and worse: the last four differ only in what a name in a
# program cannot hold.
NAMES = [
    "/features/features.0/Conv",
    "/features.1/Relu",
    "node_conv2d_1",
    "Conv 2",
    "Gesichtsgröße/畳み込み",
    "a/b",
    "a.b",
    "a_b",
    "a b",
]


def test_any_unique_node_names_work_and_stay_apart() -> None:
    chain = Chain()
    for index, name in enumerate(NAMES):
        chain.conv(name, index % 3 + 1)
    model = chain.flatten("/Flatten").dense("/classifier/Gemm").model()
    relax_model = to_relax(model)
    assert list(relax_model.weights) == [
        f"{name}.{role}" for name in [*NAMES, "/classifier/Gemm"] for role in ("weight", "bias")
    ]
    found = match(relax_model)
    assert [layer.name for layer in found] == [*NAMES, "/classifier/Gemm"]
    for name, layer in zip(NAMES, found[:-1], strict=True):
        assert isinstance(layer, ConvLayer)
        np.testing.assert_array_equal(layer.weight, stored(model, name, 1))


def test_names_that_look_like_weights_of_others_stay_apart() -> None:
    model = (
        Chain()
        .conv("x", 2)
        .conv("x.bias", 3)
        .conv("x.weight", 4)
        .flatten("N")
        .dense("main")
        .model()
    )
    relax_model = to_relax(model)
    assert len(relax_model.weights) == 8
    found = match(relax_model)
    assert [layer.name for layer in found] == ["x", "x.bias", "x.weight", "main"]
    for name, layer in zip(["x", "x.bias", "x.weight"], found[:-1], strict=True):
        assert isinstance(layer, ConvLayer)
        np.testing.assert_array_equal(layer.weight, stored(model, name, 1))


def test_relax_takes_faces_and_then_the_weights() -> None:
    model = Chain().sub(2).conv("conv", 3).flatten().dense("dense").model()
    function = to_relax(model).module["main"]
    assert [parameter.name for parameter in function.params] == [
        "x", "conv.weight", "conv.bias", "dense.weight", "dense.bias",
    ]  # fmt: skip
    assert [int(size) for size in list(function.params[0].ty.shape)[1:]] == [1, 64, 64]


def test_an_untidy_graph_is_refused_by_node() -> None:
    model = Chain().conv("conv", 3).relu("odd").flatten().dense("dense").model()
    model.graph.node[1].op_type = "Sigmoid"
    with pytest.raises(UnsupportedModelError, match="node 'odd' is a Sigmoid, which a tidy graph"):
        to_relax(model)
