"""The tidy graph as a Relax function: ``main(x, weight, bias, ...)`` over a symbolic batch N.

Relax is TVM's graph language, the successor of Relay.  Weights stay parameters, never constants:
lowering packs them for its kernels, and the library maps them from its own file.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node, float32

BLOCK_BUILDER_LOCK = threading.Lock()
"""Held while a Relax function is written: TVM's BlockBuilder has one stack for all threads."""


@dataclass(frozen=True)
class RelaxModel:
    """A Relax module with the values of its weights.

    Attributes
    ----------
    module
        An ``IRModule`` whose ``main`` takes x (N, C, S, S) and then the weights, all float32.
    weights
        The weights by parameter name, in the order of the parameters.
    nodes
        The name of the ONNX node that each binding of ``main`` comes from, by its variable: Relax
        changes names to fit its own rules.
    """

    module: Any
    weights: dict[str, NDArray[np.float32]]
    nodes: dict[Any, str]


def to_relax(model: onnx.ModelProto) -> RelaxModel:
    """Translate a tidy graph, node by node.

    A convolution becomes ``conv2d`` and ``add``, a dense layer ``matmul`` and ``add``.

    Raises
    ------
    UnsupportedModelError
        For an operator that a tidy graph does not have.
    """
    from tvm import relax, tirx

    graph = Graph.from_model(model)
    parameters = _Parameters(graph.constants)
    calls = [(node.name, call) for node in graph.nodes for call in _calls(node, parameters)]
    x = relax.Var("x", relax.TensorType((tirx.Var("N", "int64"), *graph.input_shape), "float32"))
    builder = relax.BlockBuilder()
    nodes: dict[Any, str] = {}
    with BLOCK_BUILDER_LOCK, builder.function("main", [x, *parameters.variables]):
        with builder.dataflow():
            current = x
            for name, call in calls:
                current = builder.emit(call.operator(current, *call.operands, **call.options))
                nodes[current] = name
            result = builder.emit_output(current)
        builder.emit_func_output(result)
    return RelaxModel(builder.get(), parameters.weights, nodes)


class _Parameters:
    """The parameters that stored tensors become, and the values of these."""

    def __init__(self, stored: dict[str, NDArray[Any]]) -> None:
        self._stored = stored
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.variables: list[Any] = []

    def weight(self, node: Node) -> Any:
        """Return the parameter of the second input."""
        return self._add(f"{node.name}.weight", self._stored[node.inputs[1]])

    def bias(self, node: Node, shape: tuple[int, ...] = (-1,)) -> Any:
        """Return the parameter of the third input, in the shape that broadcasts as ONNX does."""
        return self._add(f"{node.name}.bias", self._stored[node.inputs[2]].reshape(shape))

    def bound(self, node: Node) -> Any:
        """Return the parameter of the second input, in the shape that it has."""
        return self._add(f"{node.name}.bound", self._stored[node.inputs[1]])

    def scaling(self, node: Node) -> Any:
        """Return the second input, one number or one for each channel, as a constant."""
        from tvm import relax

        return relax.const(self._stored[node.inputs[1]], "float32")

    def _add(self, name: str, value: NDArray[Any]) -> Any:
        from tvm import relax

        self.weights[name] = float32(value)
        self.variables.append(relax.Var(name, relax.TensorType(value.shape, "float32")))
        return self.variables[-1]


@dataclass(frozen=True)
class _Call:
    """A call of a Relax operator on the value before it."""

    operator: Any
    operands: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def _calls(node: Node, parameters: _Parameters) -> list[_Call]:
    """Return what an ONNX node is in Relax."""
    from tvm.relax import op

    given = node.attributes
    match node.op:
        case "Sub":
            return [_Call(op.subtract, (parameters.scaling(node),))]
        case "Mul":
            return [_Call(op.multiply, (parameters.scaling(node),))]
        case "Conv":
            window = {
                "strides": given["strides"],
                "padding": given["pads"],
                "dilation": given["dilations"],
                "groups": given["group"],
            }
            return [
                _Call(op.nn.conv2d, (parameters.weight(node),), window),
                _Call(op.add, (parameters.bias(node, (1, -1, 1, 1)),)),
            ]
        case "Relu":
            return [_Call(op.nn.relu)]
        case "LeakyRelu":
            return [_Call(op.nn.leakyrelu, (), {"alpha": given["alpha"]})]
        case "Max":
            return [_Call(op.maximum, (parameters.bound(node),))]
        case "Min":
            return [_Call(op.minimum, (parameters.bound(node),))]
        case "MaxPool" | "AveragePool":
            pool = op.nn.max_pool2d if node.op == "MaxPool" else op.nn.avg_pool2d
            window = {
                "pool_size": given["kernel_shape"],
                "strides": given["strides"],
                "padding": given["pads"],
            }
            return [_Call(pool, (), window)]
        case "Flatten":
            return [_Call(op.nn.batch_flatten)]
        case "Gemm":
            return [
                _Call(op.matmul, (parameters.weight(node),)),
                _Call(op.add, (parameters.bias(node),)),
            ]
    raise UnsupportedModelError(
        f"node {node.name!r} is a {node.op}, which a tidy graph does not have: load the model "
        "with load_model"
    )
