"""The operators of opset 1 to 6 in the words of opset 7.

onnx's own converter turns such files into invalid graphs, so these few rules come first:

1. Add, Sub, Mul and Div with ``broadcast`` and ``axis``: the second operand is reshaped so that
   today's broadcasting gives the same answer.  A scalar operand is left as it is.
2. Reshape with a ``shape`` attribute takes the shape as a second input.
3. ``is_test`` leaves Dropout and BatchNormalization: a model is compiled for inference.
4. ``consumed_inputs``, a hint for memory planning, leaves every operator.
5. ``broadcast`` leaves Gemm, which always broadcasts since.
6. Cast names its type by number instead of by text.

An operator that is none of these is left alone; the checker then sees what opset 7 makes of it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.wording import describe

LEGACY_TARGET = 7
_BINARY = ("Add", "Sub", "Mul", "Div")
_RANK_OF_INPUT = (
    *_BINARY, "BatchNormalization", "Cast", "Clip", "Conv", "Dropout", "Identity", "MatMul",
    "MaxPool", "Relu", "Transpose",
)  # fmt: skip
_RANK_TWO = ("Flatten", "Gemm")


def upgrade_legacy(model: onnx.ModelProto) -> None:
    """Rewrite a model of opset 1 to 6 as one of opset 7, in place.

    Parameters
    ----------
    model
        A model after `check_structure` (sorted, dead parts removed) and `free_interface`.

    Raises
    ------
    UnsupportedModelError
        If an operand cannot be aligned, or if a Cast names a type that does not exist.
    """
    graph = model.graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    ranks |= {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}
    nodes: list[NodeProto] = []
    for original in graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        attributes = {attribute.name: attribute for attribute in original.attribute}
        dropped = {"consumed_inputs"}
        added: list[AttributeProto] = []
        if node.op_type in _BINARY:  # rule 1
            dropped |= {"broadcast", "axis"}
            if "axis" in attributes and "broadcast" in attributes and attributes["broadcast"].i:
                nodes += _align(graph, node, attributes["axis"].i, ranks)
        elif node.op_type == "Reshape" and "shape" in attributes:  # rule 2
            dropped.add("shape")
            node.input.append(_store_shape(graph, node, list(attributes["shape"].ints)))
            ranks[node.output[0]] = len(attributes["shape"].ints)
        elif node.op_type in ("Dropout", "BatchNormalization"):  # rule 3
            dropped.add("is_test")
        elif node.op_type == "Gemm":  # rule 5
            dropped.add("broadcast")
        elif node.op_type == "Cast" and "to" in attributes and attributes["to"].s:  # rule 6
            dropped.add("to")
            added.append(helper.make_attribute("to", _type_number(node, attributes["to"].s)))
        del node.attribute[:]
        node.attribute.extend(a for a in original.attribute if a.name not in dropped)
        node.attribute.extend(added)
        nodes.append(node)
        _note_rank(node, attributes, ranks)
    del graph.node[:]
    graph.node.extend(nodes)


def _align(
    graph: onnx.GraphProto, node: NodeProto, axis: int, ranks: dict[str, int]
) -> list[NodeProto]:
    """Give the second operand trailing dimensions of 1, so that its first one meets ``axis``."""
    first, second = (ranks.get(name) for name in node.input[:2])
    if second == 0:
        return []
    if first is None or second is None or first - (axis % first) - second < 0:
        raise UnsupportedModelError(
            f"{describe(node)} broadcasts along axis {axis}, and the shapes it gets do not tell "
            "how: export the model with opset 7 or newer"
        )
    # In a Reshape 0 keeps the dimension.
    target = [0] * second + [1] * (first - (axis % first) - second)
    aligned = f"{node.output[0]}_aligned"
    shape = _store_shape(graph, node, target)
    reshape = helper.make_node("Reshape", [node.input[1], shape], [aligned])
    node.input[1] = aligned
    return [reshape]


def _store_shape(graph: onnx.GraphProto, node: NodeProto, shape: list[int]) -> str:
    """Store ``shape`` as an initializer for ``node`` and return its name."""
    name = f"{node.output[0]}_legacy_shape"
    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    return name


def _note_rank(
    node: NodeProto, attributes: dict[str, AttributeProto], ranks: dict[str, int]
) -> None:
    """Note the rank of the node's first output where it is known."""
    if node.op_type == "Constant" and "value" in attributes:
        ranks[node.output[0]] = len(attributes["value"].t.dims)
    elif node.op_type in _RANK_TWO:
        ranks[node.output[0]] = 2
    elif node.op_type in _RANK_OF_INPUT and node.input[0] in ranks:
        ranks[node.output[0]] = ranks[node.input[0]]


def _type_number(node: NodeProto, text: bytes) -> int:
    """Return the number of an element type that an old Cast spells out."""
    name = text.decode("ascii", "replace").upper()
    if name not in dict(TensorProto.DataType.items()):
        raise UnsupportedModelError(
            f"{describe(node)} converts to {name!r}, which is no ONNX type: export the model with "
            "opset 7 or newer"
        )
    return int(TensorProto.DataType.Value(name))
