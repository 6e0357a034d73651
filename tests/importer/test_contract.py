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
from tests.models import make_weights, official, raw_tensor, value

TIDY = load_model(official(make_weights(width=64)).SerializeToString()).proto


def test_a_tidy_graph_passes() -> None:
    check_tidy(TIDY)


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
