"""A small network with branches: two strides, two heads, a sum of scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(height: int, width: int, **changed: dict[str, Any]) -> onnx.ModelProto:
    """Return a model of opset 13 for float32 (1, 3, height, width), both even after halving.

    ``changed`` gives a node other attributes, by its name.
    """
    random = np.random.default_rng(5)
    stored: dict[str, np.ndarray[Any, Any]] = {
        "first.w": random.normal(size=(8, 3, 3, 3)) / 5,
        "first.b": random.normal(size=8),
        "depth.w": random.normal(size=(8, 1, 3, 3)) / 3,
        "point.w": random.normal(size=(8, 8, 1, 1)) / 3,
        "point.b": random.normal(size=8),
        "wide.w": random.normal(size=(6, 4, 3, 2)) / 5,
        "wide.b": random.normal(size=6),
    }
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    stored["rows"] = np.array([0, -1, 8])
    stored["none"] = np.empty(0, np.float32)
    stored["scales"] = np.array([1, 1, 2, 2], np.float32)
    stored["more rows"] = np.array([1, -1, 8])

    def node(op: str, inputs: list[str], output: str, **given: Any) -> onnx.NodeProto:
        return helper.make_node(
            op, inputs, [output], output, **{**given, **changed.get(output, {})}
        )

    pair = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Conv", ["x", "first.w", "first.b"], "first", strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Relu", ["first"], "lit"),
        node("Conv", ["lit", "depth.w"], "depth", group=8, pads=[1, 1, 1, 1]),
        node("MaxPool", ["lit"], "pooled", **pair),
        node("Conv", ["pooled", "point.w", "point.b"], "point"),
        node("Resize", ["point", "none", "scales"], "larger", mode="nearest",
             nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
        node("Add", ["depth", "larger"], "sum"),
        node("Conv", ["sum", "wide.w", "wide.b"], "wide", group=2, pads=[2, 1, 0, 0],
             dilations=[1, 1]),
        node("Transpose", ["sum"], "last", perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "rows"], "flat"),
        node("Sigmoid", ["flat"], "likely"),
        node("Transpose", ["pooled"], "turned", perm=[0, 2, 3, 1]),
        node("Reshape", ["turned", "more rows"], "flat pooled"),
        node("Concat", ["likely", "flat pooled"], "y", axis=-2),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, height, width])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None, 8]),
            helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, 6, None, None]),
        ],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opset = helper.make_opsetid("", 13)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model
