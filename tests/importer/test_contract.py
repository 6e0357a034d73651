"""The contract finds what is not tidy, also in a graph that no importer made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from ferplus_tvm.errors import ModelError
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.contract import check_tidy
from tests.importer.networks import around
from tests.models import make_weights, official, raw_tensor, value

TIDY = load_model(official(make_weights(width=64)).SerializeToString()).proto
LEAKY = load_model(
    around(lambda n, x: n.pool(n.add("LeakyRelu", x, alpha=0.5), "AveragePool"), 256)
    .SerializeToString()
).proto  # fmt: skip
BOUNDED = load_model(
    around(lambda n, x: n.add("Clip", x, n.store(0.0), n.store(6.0))).SerializeToString()
).proto


@pytest.mark.parametrize("model", [TIDY, LEAKY, BOUNDED])
def test_a_tidy_graph_passes(model: onnx.ModelProto) -> None:
    check_tidy(model)


def _drop_bias(model: onnx.ModelProto) -> None:
    name = model.graph.node[2].input.pop()
    tensors = [t for t in model.graph.initializer if t.name == name]
    model.graph.initializer.remove(tensors[0])


def _swap_scaling(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[1].op_type = "Mul", "Sub"


def _transpose(model: onnx.ModelProto) -> None:
    for attribute in model.graph.node[-1].attribute:
        if attribute.name == "transB":
            attribute.i = 1


def _auto_pad(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute.append(helper.make_attribute("auto_pad", "NOTSET"))


def _out_of_order(model: onnx.ModelProto) -> None:
    last = onnx.NodeProto.FromString(model.graph.node[-1].SerializeToString())
    del model.graph.node[-1]
    model.graph.node.insert(0, last)


def _far_pads(model: onnx.ModelProto) -> None:
    for attribute in model.graph.node[2].attribute:
        if attribute.name == "pads":
            del attribute.ints[:]
            attribute.ints.extend([1 << 40] * 4)


def _double(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(raw_tensor(tensor.name, array.astype(np.float64)))


@pytest.mark.parametrize(
    "change",
    [
        _drop_bias,
        _swap_scaling,
        _transpose,
        _auto_pad,
        _out_of_order,
        _far_pads,
        _double,
        lambda m: m.graph.initializer.append(raw_tensor("unused", np.ones(1, np.float32))),
        lambda m: m.graph.input.append(value("second", [1])),
        lambda m: m.graph.input[0].CopyFrom(value("Input3", [1, 1, 64, 64])),
        lambda m: m.graph.output[0].CopyFrom(value("Plus692_Output_0", ["N", 7])),
        lambda m: setattr(m.opset_import[0], "version", 18),
        lambda m: m.graph.node.append(helper.make_node("Relu", ["Input3"], ["dead"])),
    ],
)
def test_anything_else_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(TIDY)
    change(model)
    with pytest.raises(ModelError):
        check_tidy(model)


def _move_activation(model: onnx.ModelProto) -> None:
    """Put the activation behind the flattening."""
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.op_type in ("LeakyRelu", "Max"))
    end = next(i for i, node in enumerate(nodes) if node.op_type == "Flatten")
    order = [*nodes[:at], *nodes[at + 1 : end + 1], nodes[at], *nodes[end + 1 :]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    for node, before in zip(copies[1:], copies, strict=False):
        node.input[0] = before.output[0]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _swap_bounds(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.op_type = {"Max": "Min", "Min": "Max"}.get(node.op_type, node.op_type)


def _scalar_bound(model: onnx.ModelProto) -> None:
    name = next(node.input[1] for node in model.graph.node if node.op_type == "Max")
    tensor = next(each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(raw_tensor(name, np.zeros((), np.float32)))


def _set(op: str, key: str, number: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == op)
        kept = [each for each in node.attribute if each.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(key, number)])

    return change


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (LEAKY, _move_activation),
        (BOUNDED, _move_activation),
        (BOUNDED, _swap_bounds),
        (BOUNDED, _scalar_bound),
        (LEAKY, _set("LeakyRelu", "alpha", -0.5)),
        (LEAKY, _set("AveragePool", "pads", [1, 1, 1, 1])),
        (LEAKY, _set("AveragePool", "count_include_pad", 1)),
        (LEAKY, lambda m: m.graph.input[0].CopyFrom(value("faces", ["N", 1, 32, 33]))),
        (LEAKY, lambda m: m.graph.input[0].CopyFrom(value("faces", ["N", 2, 32, 32]))),
    ],
)
def test_activations_and_pooling_in_other_forms_are_refused(
    model: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]
) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    with pytest.raises(ModelError):
        check_tidy(copy)
