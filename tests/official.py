"""The network as the model zoo's files have it: names, order and attributes of opset 2, 7, 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from tests.network import DENSE, FEATURES, INPUT, OUTPUT, Weights, raw_tensor, value


def official(
    weights: Weights, opset: int = 8, *, scaling: str = "Div", batch: int = 1
) -> onnx.ModelProto:
    """Build the network as the model zoo's file of opset 2, 7 or 8 has it (IR 3)."""
    old = opset < 7
    nodes: list[NodeProto] = []
    stored: dict[str, NDArray[Any]] = {
        "Constant339": np.array(127.5, np.float32),
        "Constant343": np.array(127.5 if scaling == "Div" else 1 / 127.5, np.float32),
        **weights,
    }

    def add(op: str, name: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{name}_Output_0"
        nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def binary(op: str, name: str, left: str, right: str, axis: int) -> str:
        return add(op, name, [left, right], **({"axis": axis, "broadcast": 1} if old else {}))

    def reshape(name: str, source: str, output: str, shape: list[int]) -> str:
        if old:
            return add("Reshape", name, [source], output, shape=shape)
        stored[f"{output}_shape"] = np.array(shape, np.int64)
        return add("Reshape", name, [source, f"{output}_shape"], output)

    def dropout(number: int, source: str, ratio: float) -> str:
        extra = {"is_test": 1} if old else {}
        return add("Dropout", f"Dropout{number}", [source], ratio=ratio, **extra)

    first = weights["Parameter1367"]
    rows = first.size // first.shape[-1]
    matrix = reshape(
        "Times622_reshape1", "Parameter1367", "Parameter1367_reshape1", [rows, first.shape[-1]]
    )
    current = binary("Sub", "Minus340", INPUT, "Constant339", 0)
    current = binary(scaling, "Block352", current, "Constant343", 0)
    for layer in FEATURES:
        if len(layer) == 2:
            current = add(
                "MaxPool", f"Pooling{layer[0]}", [current], kernel_shape=[2, 2], strides=[2, 2],
                pads=[0, 0, 0, 0], auto_pad="NOTSET",
            )  # fmt: skip
            current = dropout(layer[1], current, 0.25)
            continue
        conv, plus, relu, weight, bias, _, _ = layer
        current = add(
            "Conv", f"Convolution{conv}", [current, weight], kernel_shape=[3, 3], strides=[1, 1],
            auto_pad="SAME_UPPER", group=1, dilations=[1, 1],
        )  # fmt: skip
        if old:
            # CNTK strips the trailing ones and gives the axis that the channels meet.
            stored[bias] = weights[bias].reshape(-1)
        current = binary("Add", f"Plus{plus}", current, bias, 1)
        current = add("Relu", f"ReLU{relu}", [current])
    current = reshape("Times622_reshape0", current, f"{current}_reshape0", [batch, rows])
    for times, plus, relu, drop, weight, bias in DENSE:
        name = matrix if weight == "Parameter1367" else weight
        current = add("MatMul", f"Times{times}", [current, name])
        current = binary("Add", f"Plus{plus}", current, bias, 1)
        if relu is not None:
            current = add("Relu", f"ReLU{relu}", [current])
            current = dropout(drop, current, 0.5)
    initializers = [raw_tensor(name, array) for name, array in stored.items()]
    inputs = [value(INPUT, [batch, 1, 64, 64])]
    inputs += [value(t.name, list(t.dims), t.data_type) for t in initializers]
    graph = helper.make_graph(
        nodes, "CNTKGraph", inputs, [value(OUTPUT, [batch, 8])], initializers,
        value_info=_intermediate_shapes(nodes, weights, batch),
    )  # fmt: skip
    return helper.make_model(
        graph,
        ir_version=3,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="CNTK",
        producer_version="2.5.1",
        domain="ai.cntk",
        model_version=1,
    )


def _intermediate_shapes(
    nodes: list[NodeProto], weights: Weights, batch: int
) -> list[onnx.ValueInfoProto]:
    """Declare every value between the nodes, as the official file does."""
    first = weights["Parameter1367"]
    infos, shape = [], [batch, 1, 64, 64]
    for node in nodes:
        if node.name == "Times622_reshape1":
            matrix = [first.size // first.shape[-1], first.shape[-1]]
            infos.append(value(node.output[0], matrix))
            continue
        if node.op_type == "Conv":
            shape = [batch, weights[node.input[1]].shape[0], *shape[2:]]
        elif node.op_type == "MaxPool":
            shape = [*shape[:2], shape[2] // 2, shape[3] // 2]
        elif node.op_type == "Reshape":
            shape = [batch, first.size // first.shape[-1]]
        elif node.op_type == "MatMul":
            name = node.input[1].removesuffix("_reshape1")
            shape = [batch, weights[name].shape[-1]]
        infos.append(value(node.output[0], shape))
    return infos[:-1]
