"""The contract between the importer and everything after it: what a tidy graph is.

- Opset 17; one input, float32 ("N", 1, 64, 64); one output, float32 ("N", 8).
- Every initializer is float32, finite, used, and no graph input.
- The nodes form one chain, in order.  Each is one of

  - ``Sub(x, a)`` then ``Mul(x, b)`` with scalars of shape [], at most one each, at the start;
  - ``Conv(x, W [O, I/group, kh, kw], B [O])`` with kernel_shape, strides, pads (top, left,
    bottom, right), dilations and group;
  - ``Relu(x)``;
  - ``MaxPool(x)`` with kernel_shape, strides, pads, dilations 1, ceil_mode 0, storage_order 0;
  - ``Flatten(x)`` with axis 1;
  - ``Gemm(x, B [K, O], C [O])`` with alpha = beta = 1 and transA = transB = 0.

- Node names are unique and not empty.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.interface import BATCH, FACE_SHAPE
from ferplus_tvm.importer.passes.plain_gemm import PLAIN
from ferplus_tvm.importer.shapes import value_shapes
from ferplus_tvm.importer.structure import opset_of
from ferplus_tvm.importer.tensors import check_finite
from ferplus_tvm.importer.upgrade import OPSET

_WINDOW = {"kernel_shape", "strides", "pads", "dilations"}
# Operator -> (number of stored inputs, attribute names).
_FORMS: dict[str, tuple[int, set[str]]] = {
    "Sub": (1, set()),
    "Mul": (1, set()),
    "Conv": (2, {*_WINDOW, "group"}),
    "Relu": (0, set()),
    "MaxPool": (0, {*_WINDOW, "ceil_mode", "storage_order"}),
    "Flatten": (0, {"axis"}),
    "Gemm": (2, set(PLAIN)),
}
# What is supported of an operator that was left over, where that is not obvious.
_ONLY = dict.fromkeys(
    ("Add", "Sub", "Mul", "Div"),
    "only single numbers at the input, and an Add of a stored bias per channel right after a "
    "convolution or dense layer",
) | {
    "BatchNormalization": "only at inference, right after a convolution or dense layer",
    "Cast": "only of stored weights, or to float32",
    "Clip": "only from 0 without an upper bound, which is Relu",
    "Conv": "only in two dimensions with stored weights",
    "Dropout": "only at inference and without its mask",
    "Flatten": "only from feature maps to one row per face",
    "Gemm": "only of one row per face with stored weights and a stored bias",
    "MatMul": "only of one row per face with a stored matrix in second place",
    "MaxPool": "only without dilations, rounding up and indices",
    "Reshape": "only from feature maps to one row per face",
}


def check_tidy(model: onnx.ModelProto) -> None:
    """Check that ``model`` keeps the contract of this module.

    Raises
    ------
    ModelShapeError
        If there are not eight scores.
    UnsupportedModelError
        If anything else differs; the message names the node or the tensor.
    """
    if opset_of(model) != OPSET or len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise UnsupportedModelError(
            f"a tidy graph has opset {OPSET}, one input and one output, and this one has opset "
            f"{opset_of(model)}, {len(model.graph.input)} and {len(model.graph.output)}"
        )
    for value, wanted in (
        (model.graph.input[0], [BATCH, *FACE_SHAPE]),
        (model.graph.output[0], [BATCH, len(EMOTIONS)]),
    ):
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        if dims != wanted or tensor.elem_type != TensorProto.FLOAT:
            raise UnsupportedModelError(f"{value.name!r} must be float32 {wanted}, not {dims}")
    check_graph(Graph.from_model(model, None))


def check_graph(graph: Graph) -> None:
    """Check nodes and constants of a graph against the contract; errors as for `check_tidy`.

    This is also where a user learns which part of his model no rule could handle.
    """
    value = graph.input
    chain: list[Node] = []
    while value != graph.output or graph.consumers(value):
        node = _next(graph, value)
        if len(chain) == len(graph.nodes):
            raise UnsupportedModelError(f"{node} depends on its own output: export the model again")
        _check_node(graph, node, [earlier.op for earlier in chain])
        chain.append(node)
        value = node.outputs[0]
    read = {name for node in graph.nodes for name in node.inputs[1:]}
    for name, array in graph.constants.items():
        if name not in read or array.dtype != np.float32:
            raise UnsupportedModelError(
                f"the stored tensor {name!r} is {array.dtype}, and only float32 weights are "
                "supported: export the model in float32"
            )
        check_finite(name, array)
    shape = value_shapes(graph).get(graph.output)
    if shape != (len(EMOTIONS),):
        raise ModelShapeError(
            f"the model's output {graph.output!r} has the shape {shape} per face, and "
            f"({len(EMOTIONS)},) is expected, one score for each of {', '.join(EMOTIONS)}"
        )
    if chain != graph.nodes or len({node.name for node in chain}) != len(chain):
        raise UnsupportedModelError(
            "the model's operators are not one chain in order, each with its own name, from the "
            "faces to the scores: export it without branches"
        )


def _next(graph: Graph, value: str) -> Node:
    """Return the one reader of ``value``, or say what stands in its place."""
    readers = graph.consumers(value)
    # Shape only looks at a value; the node that makes use of the shape is the one to name.
    readers = [node for node in readers if node.op != "Shape"] or readers
    for node in readers:
        if node.op not in _FORMS:
            only = f" here ({_ONLY[node.op]})" if node.op in _ONLY else ""
            raise UnsupportedModelError(
                f"{node} is not supported{only}: export the FER+ network, which needs only "
                f"{', '.join(_FORMS)}"
            )
    if len(readers) != 1 or value == graph.output:
        names = " and ".join(str(node) for node in readers) or "no operator"
        raise UnsupportedModelError(
            f"the value {value!r} is read by {names}, and only one chain of layers is supported: "
            "export the network without branches"
        )
    return readers[0]


def _check_node(graph: Graph, node: Node, previous: list[str]) -> None:
    """Check one node; ``previous`` holds the operators before it."""
    count, attributes = _FORMS[node.op]
    stored = [graph.constants.get(name) for name in node.inputs[1:]]
    shapes = [array.shape for array in stored if array is not None]
    given = node.attributes
    tidy = len(shapes) == len(stored) == count and set(given) == attributes
    tidy = tidy and len(node.outputs) == 1
    if tidy and node.op in ("Sub", "Mul"):
        tidy = shapes == [()] and previous in ([], ["Sub"] if node.op == "Mul" else [])
    elif tidy and node.op == "Conv":
        tidy = len(shapes[0]) == 4 and shapes[1] == shapes[0][:1] and _pads_fit(given)
    elif tidy and node.op == "MaxPool":
        tidy = not given["ceil_mode"] and not given["storage_order"]
        tidy = tidy and given["dilations"] == [1, 1] and _pads_fit(given)
    elif tidy and node.op == "Flatten":
        tidy = given["axis"] == 1
    elif tidy and node.op == "Gemm":
        tidy = given == PLAIN and len(shapes[0]) == 2 and shapes[1] == shapes[0][1:]
    if not tidy:
        raise UnsupportedModelError(
            f"{node} is supported {_ONLY.get(node.op, 'only in its plain form')}, and has stored "
            f"inputs of shape {shapes} and the attributes {given}: export the model for inference"
        )


def _pads_fit(given: dict[str, list[int]]) -> bool:
    """Whether each window touches the feature map, which also bounds what a file can ask for."""
    reach = [
        d * (k - 1) + 1 for d, k in zip(given["dilations"], given["kernel_shape"], strict=True)
    ]
    return all(pad < most for pad, most in zip(given["pads"], reach * 2, strict=True))
