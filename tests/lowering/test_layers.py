"""From the tidy graph by way of Relax to layers, rule by rule as layers.py numbers them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, PoolLayer, layers_of, match
from tests.chains import Chain


def layers(chain: Chain) -> tuple[Layer, ...]:
    return layers_of(chain.model()).layers


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
    conv, following, _ = layers_of(model).layers
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
    _, conv, _ = layers_of(model).layers
    assert isinstance(conv, ConvLayer)
    grouped = stored(model, "two", 1)
    assert grouped.shape == (6, 2, 3, 3)
    assert conv.weight.shape == (6, 4, 3, 3)
    np.testing.assert_array_equal(conv.weight[:3, :2], grouped[:3])
    np.testing.assert_array_equal(conv.weight[3:, 2:], grouped[3:])
    assert not conv.weight[:3, 2:].any()
    assert not conv.weight[3:, :2].any()


def test_a_pooling_keeps_its_options_and_leaves_the_convolution_alone() -> None:
    chain = Chain().conv("conv", 3).pool("pool", (3, 2), (2, 1), (1, 0, 2, 1))
    chain = chain.average("mean", (5, 7), (4, 2))
    conv, pool, mean, _ = layers(chain.flatten().dense("dense"))
    assert pool == PoolLayer("pool", (3, 2), (2, 1), (1, 0, 2, 1))
    assert mean == PoolLayer("mean", (5, 7), (4, 2), (0, 0, 0, 0), "average")
    assert isinstance(conv, ConvLayer)
    assert not conv.relu


def test_dense_layers_keep_their_weights() -> None:
    model = Chain().flatten().dense("one", 5).relu("relu").dense("two").model()
    one, two = layers_of(model).layers
    assert isinstance(one, DenseLayer)
    assert isinstance(two, DenseLayer)
    assert (one.name, one.relu, two.name, two.relu) == ("one", True, "two", False)
    np.testing.assert_array_equal(one.weight, stored(model, "one", 1))
    np.testing.assert_array_equal(two.weight, stored(model, "two", 1))
    np.testing.assert_array_equal(two.bias, stored(model, "two", 2))


def test_scaling_of_each_channel_becomes_part_of_a_convolution() -> None:
    chain = Chain(channels=3, size=32).sub(100.5).mul([0.5, 0.25, -1])
    conv, _ = layers(chain.conv("conv", 3).flatten().dense("dense"))
    assert isinstance(conv, ConvLayer)
    assert conv.affine == ((100.5, 100.5, 100.5), (0.5, 0.25, -1.0))


@pytest.mark.parametrize("channels", [1, 3])
def test_scaling_before_a_pooling_becomes_a_convolution_of_its_own(channels: int) -> None:
    chain = Chain(channels, 32).sub(2, "shift").pool("pool").flatten().dense("dense")
    conv, pool, _ = layers(chain)
    assert isinstance(conv, ConvLayer) and isinstance(pool, PoolLayer)
    assert (conv.name, conv.affine, conv.relu) == ("shift", (2.0, 1.0), False)
    np.testing.assert_array_equal(conv.weight[:, :, 0, 0], np.eye(channels))


def test_scaling_before_a_dense_layer_is_folded_into_it() -> None:
    subtract, multiply = [100, 120, 140], [1 / 50, 1 / 60, 1 / 70]
    plain = Chain(3, 32).flatten().dense("dense").model()
    scaled = Chain(3, 32).sub(subtract).mul(multiply).flatten().dense("dense").model()
    x = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    (before,), (after,) = layers_of(plain).layers, layers_of(scaled).layers
    assert isinstance(before, DenseLayer) and isinstance(after, DenseLayer)
    values = (x - np.reshape(subtract, (3, 1, 1))) * np.reshape(multiply, (3, 1, 1))
    expected = values.reshape(-1) @ before.weight + before.bias
    found = x.reshape(-1) @ after.weight.astype(np.float64) + after.bias
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("chain", "slope", "bounds"),
    [
        (lambda c: c.leaky("a", 0.125), 0.125, ()),
        (lambda c: c.clip("a", "Max"), 0, ("Max",)),
        (lambda c: c.clip("a", "Min"), 0, ("Min",)),
        (lambda c: c.clip("a", "Max", "Min"), 0, ("Max", "Min")),
    ],
    ids=["leaky", "lower", "upper", "both"],
)
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_an_activation_becomes_part_of_its_layer(
    kind: str, chain: Callable[[Chain], Chain], slope: float, bounds: tuple[str, ...]
) -> None:
    made = Chain(size=32).conv("it", 5) if kind == "conv" else Chain(size=32).flatten()
    model = chain(made if kind == "conv" else made.dense("it", 5))
    if kind == "conv":
        model = model.flatten()
    found = model.dense("last").model()
    layer, _ = layers_of(found).layers
    assert not isinstance(layer, PoolLayer)
    assert (layer.name, layer.slope, layer.relu) == ("it", slope, bool(slope))
    if not bounds:
        assert layer.bounds is None
        return
    assert layer.bounds is not None and layer.bounds.shape == (2, 5)
    for row, op, missing in zip(layer.bounds, ("Max", "Min"), (-np.inf, np.inf), strict=True):
        expected = stored(found, f"a{op}", 1).reshape(-1) if op in bounds else np.full(5, missing)
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("chain", "operator", "node"),
    [
        (Chain().relu("first").conv("c", 2).flatten().dense("dense"), "relu", "first"),
        (Chain().conv("c", 2).flatten("flat").relu("r").dense("d"), "batch_flatten", "flat"),
    ],
    ids=["relu first", "flatten relu"],
)
def test_a_chain_without_a_kernel_is_refused_by_node(
    chain: Chain, operator: str, node: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        layers_of(chain.model(checked=False))
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
    found = match(relax_model).layers
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
    found = match(relax_model).layers
    assert [layer.name for layer in found] == ["x", "x.bias", "x.weight", "main"]
    for name, layer in zip(["x", "x.bias", "x.weight"], found[:-1], strict=True):
        assert isinstance(layer, ConvLayer)
        np.testing.assert_array_equal(layer.weight, stored(model, name, 1))


@pytest.mark.parametrize(("channels", "size"), [(1, 64), (3, 48)])
def test_relax_takes_faces_and_then_the_weights(channels: int, size: int) -> None:
    model = Chain(channels, size).sub(2).conv("conv", 3).flatten().dense("dense").model()
    function = to_relax(model).module["main"]
    assert [parameter.name for parameter in function.params] == [
        "x", "conv.weight", "conv.bias", "dense.weight", "dense.bias",
    ]  # fmt: skip
    assert [int(n) for n in list(function.params[0].ty.shape)[1:]] == [channels, size, size]


def test_an_untidy_graph_is_refused_by_node() -> None:
    model = Chain().conv("conv", 3).relu("odd").flatten().dense("dense").model()
    model.graph.node[1].op_type = "Sigmoid"
    with pytest.raises(UnsupportedModelError, match="node 'odd' is a Sigmoid, which a tidy graph"):
        to_relax(model)
