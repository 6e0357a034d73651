"""The contract between the importer and everything after it: what a tidy graph is.

- Opset 17; one input, float32 ("N", C, S, S) with C of 1 or 3 and S of 32 to 224; one output,
  float32 ("N", K) with K of 2 to 64.
- Every initializer is float32, finite, used, and no graph input.
- The nodes form one chain, in order.  Each is one of

  - ``Sub(x, a)`` then ``Mul(x, b)``, at most one each, at the start; scalars of shape [], or one
    number for each of three channels, of shape [3, 1, 1];
  - ``Conv(x, W [O, I/group, kh, kw], B [O])`` with kernel_shape, strides, pads (top, left,
    bottom, right), dilations and group;
  - an activation, at most one, right after a Conv or a Gemm: ``Relu(x)``; ``LeakyRelu(x)`` with
    alpha, not negative; ``Max(x, low)``, ``Min(x, high)``, or both in this order, with bounds of
    shape [O, 1, 1] after a Conv and [O] after a Gemm;
  - ``MaxPool(x)`` with kernel_shape, strides, pads, dilations 1, ceil_mode 0, storage_order 0;
  - ``AveragePool(x)`` with kernel_shape, strides and pads of 0;
  - ``Flatten(x)`` with axis 1;
  - ``Gemm(x, B [K, O], C [O])`` with alpha = beta = 1 and transA = transB = 0.

- The last node is a Gemm: the scores are a dense layer's, without an activation.
- Node names are unique and not empty.

A scale and shift per channel that no layer can take in is a depthwise Conv of 1x1; global pooling
is pooling whose kernel is the whole map.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from ferplus_tvm.artifact.validate import CHANNELS, CLASSES, SIZES
from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.interface import BATCH
from ferplus_tvm.importer.shapes import value_shapes
from ferplus_tvm.importer.structure import opset_of
from ferplus_tvm.importer.tensors import check_finite
from ferplus_tvm.importer.upgrade import OPSET
from ferplus_tvm.importer.writer import PLAIN_GEMM

_WINDOW = {"kernel_shape", "strides", "pads", "dilations"}
# Operator -> (number of stored inputs, attribute names).
_FORMS: dict[str, tuple[int, set[str]]] = {
    "Sub": (1, set()),
    "Mul": (1, set()),
    "Conv": (2, {*_WINDOW, "group"}),
    "Relu": (0, set()),
    "LeakyRelu": (0, {"alpha"}),
    "Max": (1, set()),
    "Min": (1, set()),
    "MaxPool": (0, {*_WINDOW, "ceil_mode", "storage_order"}),
    "AveragePool": (0, {"kernel_shape", "strides", "pads"}),
    "Flatten": (0, {"axis"}),
    "Gemm": (2, set(PLAIN_GEMM)),
}


def check_tidy(model: onnx.ModelProto) -> None:
    """Check that ``model`` keeps the contract of this module.

    Raises
    ------
    ModelShapeError
        If there are not 2 to 64 scores, or if a face is not square, of 1 or 3 channels and of 32
        to 224 pixels.
    UnsupportedModelError
        If anything else differs; the message names the node or the tensor.
    """
    if opset_of(model) != OPSET or len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise UnsupportedModelError(
            f"a tidy graph has opset {OPSET}, one input and one output, and this one has opset "
            f"{opset_of(model)}, {len(model.graph.input)} and {len(model.graph.output)}"
        )
    graph = Graph.from_model(model)
    classes = check_graph(graph)
    for value, wanted in (
        (model.graph.input[0], [BATCH, *graph.input_shape]),
        (model.graph.output[0], [BATCH, classes]),
    ):
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        if dims != wanted or tensor.elem_type != TensorProto.FLOAT:
            raise UnsupportedModelError(f"{value.name!r} must be float32 {wanted}, not {dims}")


def check_graph(graph: Graph) -> int:
    """Check a graph against the contract, and return its number of scores.

    Errors are those of `check_tidy`.
    """
    channels, *sides = graph.input_shape if len(graph.input_shape) == 3 else (0, 0, 1)
    if channels not in CHANNELS or sides[0] not in SIZES or len(set(sides)) != 1:
        raise ModelShapeError(
            f"a face of the model has the shape {graph.input_shape}, and (C, S, S) is expected, "
            f"with C of 1 or 3 and S from {SIZES[0]} to {SIZES[-1]}"
        )
    chain: list[Node] = []
    value = graph.input
    for node in graph.nodes:
        if node.op not in _FORMS or node.inputs[0] != value or graph.consumers(value) != [node]:
            raise UnsupportedModelError(
                f"{node} is not one of {', '.join(_FORMS)}, in one chain and in order from the "
                "faces to the scores: load the model with load_model"
            )
        _check_node(graph, node, chain)
        chain.append(node)
        value = node.outputs[0]
    if value != graph.output or len({node.name for node in chain}) != len(chain):
        raise UnsupportedModelError(
            f"the last node of the model does not make its output {graph.output!r}, or two nodes "
            "have one name: load the model with load_model"
        )
    read = {name for node in graph.nodes for name in node.inputs[1:]}
    for name, array in graph.constants.items():
        if name not in read or array.dtype != np.float32:
            raise UnsupportedModelError(
                f"the stored tensor {name!r} is {array.dtype}, and only float32 weights that are "
                "in use are supported: export the model in float32"
            )
        check_finite(name, array)
    shape = value_shapes(graph)[graph.output]
    if len(shape) == 1 and shape[0] not in CLASSES:
        raise ModelShapeError(
            f"the model gives {shape[0]} score{'s' * (shape[0] != 1)} for each face, and one for "
            f"each of {CLASSES[0]} to {CLASSES[-1]} classes is expected: check that it is the "
            "right file, and that its output holds the scores"
        )
    if len(shape) != 1:
        raise ModelShapeError(
            f"the model's output {graph.output!r} has the shape {shape} per face, and (K,) is "
            f"expected, one score for each of {CLASSES[0]} to {CLASSES[-1]} classes: export the "
            "network that ends in the scores of one face"
        )
    if chain[-1].op != "Gemm":
        raise UnsupportedModelError(
            f"{chain[-1]} makes the scores, and a dense layer is expected to: load the model with "
            "load_model"
        )
    return shape[0]


def _check_node(graph: Graph, node: Node, chain: list[Node]) -> None:
    """Check one node that comes after those of ``chain``."""
    previous = [earlier.op for earlier in chain]
    channels = graph.input_shape[0]
    count, attributes = _FORMS[node.op]
    stored = [graph.constants.get(name) for name in node.inputs[1:]]
    shapes = [array.shape for array in stored if array is not None]
    given = node.attributes
    tidy = len(shapes) == len(stored) == count and set(given) == attributes
    tidy = tidy and len(node.outputs) == 1
    if tidy and node.op in ("Sub", "Mul"):
        tidy = previous in ([], ["Sub"] if node.op == "Mul" else [])
        tidy = tidy and (shapes[0] == () or shapes[0] == (3, 1, 1) == (channels, 1, 1))
    elif tidy and node.op == "Conv":
        tidy = len(shapes[0]) == 4 and shapes[1] == shapes[0][:1] and _pads_fit(given)
    elif tidy and node.op in ("Relu", "LeakyRelu", "Max", "Min"):
        tidy = _activation_fits(graph, node, chain)
    elif tidy and node.op == "AveragePool":
        tidy = given["pads"] == [0, 0, 0, 0]
    elif tidy and node.op == "MaxPool":
        tidy = not given["ceil_mode"] and not given["storage_order"]
        tidy = tidy and given["dilations"] == [1, 1] and _pads_fit(given)
    elif tidy and node.op == "Flatten":
        tidy = given["axis"] == 1
    elif tidy and node.op == "Gemm":
        tidy = given == PLAIN_GEMM and len(shapes[0]) == 2 and shapes[1] == shapes[0][1:]
    if not tidy:
        raise UnsupportedModelError(
            f"{node} has stored inputs of shape {shapes} and the attributes {given} behind "
            f"{previous[-1:] or 'the input'}, which no tidy graph has: load the model "
            "with load_model"
        )


def _activation_fits(graph: Graph, node: Node, chain: list[Node]) -> bool:
    """Whether the node is the one activation of the layer before it."""
    layers = chain[:-1] if node.op == "Min" and chain and chain[-1].op == "Max" else chain
    if not layers or layers[-1].op not in ("Conv", "Gemm"):
        return False
    if node.op == "LeakyRelu":
        return bool(node.attributes["alpha"] >= 0)
    if node.op == "Relu":
        return True
    bias = graph.constants[layers[-1].inputs[2]]
    wanted = (*bias.shape, 1, 1) if layers[-1].op == "Conv" else bias.shape
    return graph.constants[node.inputs[1]].shape == wanted


def _pads_fit(given: dict[str, list[int]]) -> bool:
    """Whether each window touches the feature map, which also bounds what a file can ask for."""
    reach = [
        d * (k - 1) + 1 for d, k in zip(given["dilations"], given["kernel_shape"], strict=True)
    ]
    return all(pad < most for pad, most in zip(given["pads"], reach * 2, strict=True))
