"""The reference that a library is checked against: the tidy graph in numpy's float64.

It follows the ONNX operator specification, and shares no code with the importer's Relax and the
lowering.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool

Tensor = NDArray[np.float64]


def scores(model: onnx.ModelProto, x: NDArray[np.float32]) -> Tensor:
    """Return the scores (N, outputs) of faces (N, C, S, S), with every sum in float64.

    Raises
    ------
    UnsupportedModelError
        For an operator that a tidy graph does not have.
    """
    graph = Graph.from_model(model)
    value = x.astype(np.float64).transpose(0, 2, 3, 1)  # channels last
    for node in graph.nodes:
        value = _apply(node, value, [graph.constants[name] for name in node.inputs[1:]])
    return value


def _apply(node: Node, x: Tensor, stored: list[NDArray[np.float32]]) -> Tensor:
    """Return the output of a node for its input and its stored tensors."""
    match node.op:
        case "Sub":
            return x - _channels_last(stored[0])
        case "Mul":
            return x * _channels_last(stored[0])
        case "Conv":
            return _conv(node.attributes, x, *stored)
        case "Relu":
            return np.maximum(x, 0)
        case "LeakyRelu":
            return np.where(x < 0, node.attributes["alpha"] * x, x)
        case "Max":
            return np.maximum(x, _channels_last(stored[0]))
        case "Min":
            return np.minimum(x, _channels_last(stored[0]))
        case "MaxPool":
            return Pool(*x.shape, *_window(node)).reference(x)
        case "AveragePool":
            return replace(Pool(*x.shape, *_window(node)), kind="average").reference(x)
        case "Flatten":
            return x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels first, as ONNX has it
        case "Gemm":
            features, outputs = stored[0].shape
            return Dense(len(x), features, outputs, outputs, relu=False).reference(x, *stored)
    raise UnsupportedModelError(
        f"{node} has no reference: expected a tidy graph, as load_model returns it"
    )


def _channels_last(stored: NDArray[np.float32]) -> Tensor:
    """Return a single number, (C, 1, 1) or (K) in the shape that broadcasts to channels last."""
    return stored.astype(np.float64).reshape(stored.size if stored.ndim else ())


def _window(node: Node) -> tuple[Any, ...]:
    """Return kernel, stride and padding of a pooling."""
    return tuple(tuple(node.attributes[name]) for name in ("kernel_shape", "strides", "pads"))


def _conv(
    given: dict[str, Any], x: Tensor, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Tensor:
    """Return a convolution, each group of channels as a convolution of its own."""
    groups = given["group"]
    workload = Conv(
        batch=len(x),
        height=x.shape[1],
        width=x.shape[2],
        in_channels=x.shape[3] // groups,
        out_channels=len(weight) // groups,
        kernel=weight.shape[2:],
        stride=tuple(given["strides"]),
        padding=tuple(given["pads"]),
        dilation=tuple(given["dilations"]),
        relu=False,
    )
    operands = (np.split(x, groups, axis=3), np.split(weight, groups), np.split(bias, groups))
    return np.concatenate(list(map(workload.reference, *operands)), axis=3)
