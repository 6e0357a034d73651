"""The tidy graph as a Relax function: ``main(x, weight, bias, ...)`` over a symbolic batch N.

Relax is TVM's graph language, the successor of Relay.  Weights stay parameters, never constants:
the rewrite lays them out for its kernels and the library maps them from its own file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.errors import UnsupportedModelError


@dataclass(frozen=True)
class RelaxModel:
    """A Relax module with the values of its weights.

    module
        an ``IRModule`` whose ``main`` takes x (N, 1, 64, 64) and then the weights, all float32.
    weights
        their values, by parameter name, in the order of the parameters.
    nodes
        the name of the ONNX node that each binding of ``main`` comes from, by its variable: Relax
        changes names to fit its own rules.
    """

    module: Any
    weights: dict[str, NDArray[np.float32]]
    nodes: dict[Any, str]


def to_relax(proto: onnx.ModelProto) -> RelaxModel:
    """Translate a tidy graph, node by node.

    A convolution becomes ``conv2d`` and ``add``, a dense layer ``matmul`` and ``add``.
    """
    from tvm import relax, tirx

    graph = proto.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    batch = tirx.Var("N", "int64")
    x = relax.Var("x", relax.TensorType((batch, 1, 64, 64), "float32"))
    weights: dict[str, NDArray[np.float32]] = {}
    parameters = {}

    def parameter(tensor: str, node: str, role: str, shape: tuple[int, ...] | None = None) -> Any:
        value = np.ascontiguousarray(values[tensor], dtype=np.float32)
        value = value.reshape(shape if shape is not None else value.shape)
        name = f"{node}.{role}"
        weights[name] = value
        parameters[name] = relax.Var(name, relax.TensorType(value.shape, "float32"))
        return parameters[name]

    def scalar(tensor: str) -> Any:
        return relax.const(float(values[tensor].reshape(())), "float32")

    builder = relax.BlockBuilder()
    nodes: dict[Any, str] = {}
    steps: list[tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = []
    current = x
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in ("Sub", "Mul"):
            operator = {"Sub": relax.op.subtract, "Mul": relax.op.multiply}[node.op_type]
            steps.append((node.name, operator, (scalar(node.input[1]),), {}))
        elif node.op_type == "Conv":
            weight = parameter(node.input[1], node.name, "weight")
            bias = parameter(node.input[2], node.name, "bias", (1, -1, 1, 1))
            options = {
                "strides": attributes["strides"],
                "padding": attributes["pads"],
                "dilation": attributes["dilations"],
                "groups": attributes["group"],
            }
            steps.append((node.name, relax.op.nn.conv2d, (weight,), options))
            steps.append((node.name, relax.op.add, (bias,), {}))
        elif node.op_type == "Relu":
            steps.append((node.name, relax.op.nn.relu, (), {}))
        elif node.op_type == "MaxPool":
            options = {
                "pool_size": attributes["kernel_shape"],
                "strides": attributes["strides"],
                "padding": attributes["pads"],
            }
            steps.append((node.name, relax.op.nn.max_pool2d, (), options))
        elif node.op_type == "Flatten":
            steps.append((node.name, relax.op.nn.batch_flatten, (), {}))
        elif node.op_type == "Gemm":
            weight = parameter(node.input[1], node.name, "weight")
            bias = parameter(node.input[2], node.name, "bias")
            steps.append((node.name, relax.op.matmul, (weight,), {}))
            steps.append((node.name, relax.op.add, (bias,), {}))
        else:
            raise UnsupportedModelError(
                f"node {node.name!r} is a {node.op_type}, which a tidy graph does not have"
            )

    with builder.function("main", [x, *parameters.values()]):
        with builder.dataflow():
            for name, operator, operands, options in steps:
                current = builder.emit(operator(current, *operands, **options))
                nodes[current] = name
            result = builder.emit_output(current)
        builder.emit_func_output(result)
    return RelaxModel(builder.get(), weights, nodes)
