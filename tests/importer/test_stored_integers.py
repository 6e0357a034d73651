"""Weights stored as small integers, with a DequantizeLinear for each, are computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ferplus_tvm.errors import ModelError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, pixels
from tests.importer.support import run


def network(opset: int = 21) -> ModelProto:
    net = Net()
    x = net.add("Relu", net.conv(net.scale("faces"), 1, 4, strides=[4, 4]))
    x = net.add("Relu", net.dense(net.add("Flatten", net.pool(x), axis=1), 256, 16))
    made = net.model(net.dense(x, 16, 8), opset=opset)
    made.ir_version = 10
    return made


Parts = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, dict[str, int]]


def per_tensor(array: NDArray[np.float32]) -> Parts:
    scale = np.float32(np.abs(array).max() / 127)
    return np.round(array / scale).astype(np.int8), np.array(scale), None, {}


def with_zero_point(array: NDArray[np.float32]) -> Parts:
    scale = np.float32(np.ptp(array) / 255)
    zero = np.round(-array.min() / scale).astype(np.uint8)
    stored = np.clip(np.round(array / scale) + zero, 0, 255).astype(np.uint8)
    return stored, np.array(scale), np.array(zero), {}


def per_axis(array: NDArray[np.float32]) -> Parts:
    """Scale each output channel: the first axis of convolutions, the last of dense layers."""
    axis = 0 if array.ndim == 4 else array.ndim - 1
    others = tuple(at for at in range(array.ndim) if at != axis)
    scale = np.abs(array).max(axis=others, keepdims=True) / 127 + 1e-6
    stored = np.round(array / scale).astype(np.int8)
    zero = np.zeros(scale.size, np.int8)
    return stored, scale.reshape(-1).astype(np.float32), zero, {"axis": axis - array.ndim}


def half_precision(array: NDArray[np.float32]) -> Parts:
    stored, scale, zero, attributes = per_axis(array)
    return stored, scale.astype(np.float16), zero, attributes


def four_bits(array: NDArray[np.float32]) -> Parts:
    scale = np.float32(np.abs(array).max() / 7)
    return np.round(array / scale).astype(ml_dtypes.int4), np.array(scale), None, {}


def blocks(array: NDArray[np.float32]) -> Parts:
    """Scale each part of three rows of a matrix, the last part being shorter."""
    if array.ndim != 2:
        return per_tensor(array)
    parts = -(-len(array) // 3)
    scale = np.stack([np.abs(array[3 * i : 3 * i + 3]).max(axis=0) / 127 for i in range(parts)])
    stored = np.round(array / scale.repeat(3, axis=0)[: len(array)]).astype(np.int8)
    return stored, scale.astype(np.float32), None, {"axis": 0, "block_size": 3}


def eight_bit_floats(array: NDArray[np.float32]) -> Parts:
    return array.astype(ml_dtypes.float8_e4m3fn), np.array(1, np.float32), None, {}


def wide(array: NDArray[np.float32]) -> Parts:
    scale = np.float32(np.abs(array).max() / (1 << 30))
    return np.round(array / np.float64(scale)).astype(np.int32), np.array(scale), None, {}


def quantized(
    model: ModelProto, how: Callable[[NDArray[np.float32]], Parts], domain: str = ""
) -> ModelProto:
    """Store every array of float32 weights as ``how`` says."""
    nodes, stored = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or not array.ndim:
            stored.append(tensor)
            continue
        integers, scale, zero, attributes = how(array)
        inputs = [f"{tensor.name}_{part}" for part in ("integers", "scale", "zero")]
        arrays = [integers, scale, *([] if zero is None else [zero])]
        stored += [numpy_helper.from_array(a, n) for a, n in zip(arrays, inputs, strict=False)]
        node = helper.make_node("DequantizeLinear", inputs[: len(arrays)], [tensor.name],
                                domain=domain, **attributes)  # fmt: skip
        nodes.append(node)
    nodes += model.graph.node
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    tensors = [TensorProto.FromString(tensor.SerializeToString()) for tensor in stored]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(copies)
    model.graph.initializer.extend(tensors)
    return model


def assert_scores(model: ModelProto) -> None:
    """The tidy graph gives what the file's operators give, one by one."""
    found = run(load_model(model.SerializeToString()).proto, pixels(2))
    expected = run(model, pixels(2), literally=True)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("how", [per_tensor, with_zero_point, per_axis, wide])
def test_weights_in_integers(how: Callable[[NDArray[np.float32]], Parts], opset: int) -> None:
    assert_scores(quantized(network(opset), how))


@pytest.mark.parametrize("how", [four_bits, blocks, eight_bit_floats])
def test_weights_in_ways_of_opset_21(how: Callable[[NDArray[np.float32]], Parts]) -> None:
    assert_scores(quantized(network(), how))


def test_a_half_precision_scale() -> None:
    """The file's own weights are float16 then, and so is what onnxruntime would compute."""
    imported = load_model(quantized(network(), half_precision).SerializeToString())
    judge = quantized(network(), per_axis)
    for tensor in judge.graph.initializer:
        if tensor.name.endswith("_scale"):
            rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    assert_scores(judge)
    tidy = load_model(judge.SerializeToString()).proto
    assert imported.proto.graph.initializer == tidy.graph.initializer


def test_onnxruntimes_own_operator() -> None:
    made = quantized(network(13), per_axis, domain="com.microsoft")
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_scores(made)


def test_integers_in_constant_nodes() -> None:
    made = quantized(network(), per_axis)
    for tensor in list(made.graph.initializer):
        made.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del made.graph.initializer[:]
    assert_scores(made)


@pytest.mark.parametrize("opset", [13, 21])
def test_integers_that_are_laid_out_first(opset: int) -> None:
    made = quantized(network(opset), per_tensor)
    name = next(n for n in made.graph.node if n.op_type == "Gemm").input[1] + "_integers"
    tensor = next(t for t in made.graph.initializer if t.name == name)
    turned = numpy_helper.from_array(numpy_helper.to_array(tensor).T.copy(), f"{name}_turned")
    tensor.CopyFrom(turned)
    made.graph.node.insert(0, helper.make_node("Transpose", [turned.name], [name]))
    assert_scores(made)


@pytest.mark.parametrize("opset", [13, 21])
def test_weights_that_are_quantized_in_the_file(opset: int) -> None:
    """A QuantizeLinear and a DequantizeLinear of stored weights are computed once, too."""
    made = network(opset)
    weight = next(n for n in made.graph.node if n.op_type == "Gemm").input[1]
    made.graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "step"))
    made.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    for node in made.graph.node:
        node.input[:] = ["read" if name == weight else name for name in node.input]
    rest = ["step", "zero"]
    pair = [
        helper.make_node("QuantizeLinear", [weight, *rest], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", *rest], ["read"]),
    ]
    for node in reversed(pair):
        made.graph.node.insert(0, node)
    assert_scores(made)


@pytest.mark.parametrize(
    ("scale", "attributes"),
    [((3,), {}), ((2, 2), {}), ((8,), {"axis": 7}), ((1 << 20, 8), {"axis": 0, "block_size": 3}),
     ((1, 8), {"axis": 0, "block_size": -1}), ((16, 8), {"axis": -9, "block_size": 1})],
)  # fmt: skip
def test_scales_that_do_not_fit(scale: tuple[int, ...], attributes: dict[str, int]) -> None:
    def odd(array: NDArray[np.float32]) -> Parts:
        if array.shape != (16, 8):
            return per_tensor(array)
        return array.astype(np.int8), np.ones(scale, np.float32), None, attributes

    with pytest.raises(UnsupportedModelError, match=r"DequantizeLinear node .* do not fit"):
        load_model(quantized(network(), odd).SerializeToString())


def test_shared_weights_cannot_multiply_without_bound() -> None:
    made = quantized(network(), per_tensor)
    large = numpy_helper.from_array(np.zeros(1 << 20, np.int8), "large")
    made.graph.initializer.append(large)
    scale = next(t.name for t in made.graph.initializer if t.name.endswith("_scale"))
    names = [f"copy_{index}" for index in range(200)]
    for name in names:
        made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["large", scale], [name]))
    last = made.graph.node[-1]
    made.graph.node.insert(len(made.graph.node) - 1, helper.make_node("Sum", names, ["all"]))
    made.graph.node.insert(
        len(made.graph.node) - 1, helper.make_node("Add", [last.input[2], "all"], ["bias"])
    )
    last.input[2] = "bias"
    with pytest.raises(UnsupportedModelError, match="quantized weights and at most"):
        load_model(made.SerializeToString())


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.FLOAT8E5M2, TensorProto.BFLOAT16])
def test_claims_of_small_types_are_checked(kind: int) -> None:
    made = network()
    made.graph.initializer.append(
        TensorProto(name="lie", data_type=kind, dims=[1 << 40], raw_data=b"1234")
    )
    with pytest.raises(ModelError, match="'lie' with dimensions"):
        load_model(made.SerializeToString())
