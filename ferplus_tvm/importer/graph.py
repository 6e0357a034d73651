"""The graph that the rules under passes/ rewrite: lists and numpy arrays in place of protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ferplus_tvm.importer.tensors import to_array


@dataclass(eq=False)
class Node:
    """One operator of the graph.

    Attributes
    ----------
    op
        The ONNX operator, for example ``Conv``.
    name
        A name that no other node of the graph has.
    inputs, outputs
        The names of the values that it reads and makes; "" where an optional one is left out.
    attributes
        Python values: text as str, tensors as TensorProto.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} node {self.name!r}"


@dataclass(eq=False)
class Graph:
    """A graph with one input and one output.

    Attributes
    ----------
    nodes
        In topological order.
    constants
        The stored arrays by name.
    input, output
        The names of the input and of the scores, both float32 with the batch in front.
    input_shape
        The shape of one face: (channels, height, width).
    batch
        The batch size that the file fixed, None if it fixed none.
    name
        The name of the graph.
    """

    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    input: str
    output: str
    input_shape: tuple[int, ...]
    batch: int | None
    name: str

    @classmethod
    def from_model(cls, model: onnx.ModelProto, batch: int | None = None) -> Graph:
        """Read a model that `upgrade` returned; every node gets a name of its own."""
        proto = model.graph
        taken: set[str] = set()
        nodes = []
        for index, item in enumerate(proto.node):
            name = _unique(item.name or f"{item.op_type}_{index}", taken)
            taken.add(name)
            attributes = {a.name: _value(a) for a in item.attribute}
            nodes.append(Node(item.op_type, name, list(item.input), list(item.output), attributes))
        constants = {tensor.name: to_array(tensor) for tensor in proto.initializer}
        dims = proto.input[0].type.tensor_type.shape.dim
        shape = tuple(int(dim.dim_value) for dim in list(dims)[1:])
        ends = proto.input[0].name, proto.output[0].name
        return cls(nodes, constants, *ends, shape, batch, proto.name)

    def to_model(
        self,
        opset: int,
        ir_version: int,
        input_dims: tuple[str | int, ...],
        output_dims: tuple[str | int, ...],
    ) -> onnx.ModelProto:
        """Write the graph as a model with a float32 input and output of these dimensions."""
        nodes = [
            helper.make_node(n.op, n.inputs, n.outputs, name=n.name, **n.attributes)
            for n in self.nodes
        ]
        float32 = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            self.name or "graph",
            [helper.make_tensor_value_info(self.input, float32, input_dims)],
            [helper.make_tensor_value_info(self.output, float32, output_dims)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="ferplus_tvm",
        )
        return model

    def consumers(self, name: str) -> list[Node]:
        """Return the nodes that read the value."""
        return [node for node in self.nodes if name in node.inputs]

    def add_constant(self, wanted: str, array: NDArray[Any]) -> str:
        """Store an array under ``wanted``, or a name near it if that is taken; return the name."""
        name = self.free_value_name(wanted)
        self.constants[name] = array
        return name

    def free_value_name(self, wanted: str) -> str:
        """Return ``wanted``, or a name near it if a value has it."""
        taken = {self.input, *self.constants, *(v for n in self.nodes for v in n.outputs)}
        return _unique(wanted, taken)

    def free_node_name(self, wanted: str) -> str:
        """Return ``wanted``, or a name near it if a node has it."""
        return _unique(wanted, {node.name for node in self.nodes})

    def split(self, node: Node) -> tuple[str, NDArray[Any], bool] | None:
        """Take a node of two inputs apart into the value and the constant.

        Returns
        -------
        tuple or None
            The name of the value, the constant, and whether the constant comes first; None if
            not exactly one of the two inputs is a constant.
        """
        if len(node.inputs) != 2:
            return None
        first, second = node.inputs
        if (first in self.constants) == (second in self.constants):
            return None
        if second in self.constants:
            return first, self.constants[second], False
        return second, self.constants[first], True


def _unique(wanted: str, taken: set[str]) -> str:
    """Return ``wanted``, or the first of wanted_2, wanted_3, ... that is free."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _value(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute as a Python value."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if attribute.type in _LISTS else value


_LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS)


def float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float32, as a contiguous array, without a warning where a value overflows."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
