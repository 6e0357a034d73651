"""Operators that onnxruntime fused when it optimised a file, as the standard ones they stand for.

- ``FusedConv`` is a Conv and an activation.
- ``FusedGemm`` is a Gemm and an activation.
- ``FusedMatMul`` is a MatMul, perhaps of a transposed matrix and times a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.wording import describe

DOMAIN = "com.microsoft"
_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid")
_AGAIN = (
    "take the file from before onnxruntime optimised it, or save it again with the level "
    "ORT_ENABLE_BASIC"
)
# Operator -> the attributes that the standard operator has not.
_OWN = {
    "FusedConv": {"activation", "activation_params"},
    "FusedGemm": {"activation", "activation_alpha", "activation_beta", "activation_gamma"},
    "FusedMatMul": {"alpha", "transA", "transB", "transBatchA", "transBatchB"},
}
_Attributes = dict[str, onnx.AttributeProto]


def split_fused(graph: onnx.GraphProto, nodes: list[NodeProto], opset: int) -> list[NodeProto]:
    """Return ``nodes`` with two or three standard operators in place of each fused one.

    Parameters
    ----------
    graph
        Their graph, which is given the numbers that the new operators read.
    nodes
        In topological order, and so is the result.
    opset
        The standard operator set of the model.

    Raises
    ------
    UnsupportedModelError
        If an operator is fused with more than an activation.
    """
    return [part for node in nodes for part in _parts(graph, node, opset)]


def _parts(graph: onnx.GraphProto, node: NodeProto, opset: int) -> Iterable[NodeProto]:
    """Return the nodes that do what ``node`` does."""
    if node.domain != DOMAIN or node.op_type not in _OWN:
        return [node]
    own = {a.name: a for a in node.attribute if a.name in _OWN[node.op_type]}
    plain = NodeProto(op_type=node.op_type.removeprefix("Fused"), name=node.name)
    plain.input.extend(node.input)
    plain.output.extend(node.output)
    plain.attribute.extend(a for a in node.attribute if a.name not in _OWN[node.op_type])
    if node.op_type == "FusedMatMul":
        return _matmul(graph, node, plain, own)
    if len(node.input) > 3:
        raise UnsupportedModelError(
            f"{describe(node)} adds a second feature map, and only one chain of layers is "
            "supported: export the network without branches"
        )
    return [plain, *_activation(graph, node, plain, own, opset)]


def _matmul(
    graph: onnx.GraphProto, node: NodeProto, plain: NodeProto, own: _Attributes
) -> Iterator[NodeProto]:
    """Return a FusedMatMul whose second operand may be transposed as standard nodes."""
    turned = {name for name, attribute in own.items() if attribute.i}
    if turned - {"transB"}:
        raise UnsupportedModelError(
            f"{describe(node)} transposes the values it gets, which is not supported: {_AGAIN}"
        )
    if turned:
        ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
        if len(node.input) < 2 or ranks.get(node.input[1]) != 2:
            raise UnsupportedModelError(
                f"{describe(node)} transposes something else than a stored matrix, which is not "
                f"supported: {_AGAIN}"
            )
        plain.input[1] = f"{node.output[0]}_turned"
        yield helper.make_node("Transpose", [node.input[1]], [plain.input[1]], perm=[1, 0])
    if "alpha" in own and own["alpha"].f != 1:
        plain.output[0] = f"{node.output[0]}_product"
    yield plain
    if plain.output[0] != node.output[0]:
        factor = _store(graph, f"{node.output[0]}_factor", own["alpha"].f)
        yield helper.make_node("Mul", [plain.output[0], factor], list(node.output))


def _activation(
    graph: onnx.GraphProto, node: NodeProto, plain: NodeProto, own: _Attributes, opset: int
) -> list[NodeProto]:
    """Return the activation of a fused node, if it has one, and put it behind ``plain``."""
    op = own["activation"].s.decode("utf-8", "replace") if "activation" in own else ""
    if not op:
        return []
    numbers = list(own["activation_params"].floats) if "activation_params" in own else []
    numbers += [own[n].f for n in ("activation_alpha", "activation_beta") if n in own]
    wanted = {"LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2}.get(op, 0)
    if op not in _ACTIVATIONS or len(numbers) < wanted:
        raise UnsupportedModelError(
            f"{describe(node)} has the activation {op!r} with the numbers {numbers}, which is not "
            f"supported: {_AGAIN}"
        )
    inputs, attributes = [f"{node.output[0]}_layer"], dict[str, Any]()
    plain.output[0] = inputs[0]
    if op == "Clip" and opset >= 11:
        bounds = zip(("low", "high"), numbers, strict=False)
        inputs += [_store(graph, f"{node.output[0]}_{end}", number) for end, number in bounds]
    else:
        names = ("min", "max") if op == "Clip" else ("alpha", "beta")
        attributes = dict(zip(names, numbers[:wanted], strict=False))
    name = f"{node.name}_{op}" if node.name else ""
    return [helper.make_node(op, inputs, list(node.output), name=name, **attributes)]


def _store(graph: onnx.GraphProto, name: str, number: float) -> str:
    """Store a float32 number and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    return name


def refuse_unknown(node: NodeProto) -> None:
    """Refuse a node that no standard operator stands for, and say where such nodes come from.

    Raises
    ------
    UnsupportedModelError
        Always.
    """
    if "nchwc" in node.domain or "nhwc" in node.domain or node.op_type.startswith("Reorder"):
        raise UnsupportedModelError(
            f"{describe(node)} holds its weights in the layout of one CPU, for which onnxruntime "
            f"optimised the file: {_AGAIN}"
        )
    if node.domain.startswith(DOMAIN):
        raise UnsupportedModelError(
            f"{describe(node)} is onnxruntime's own operator, not a standard ONNX one: export "
            f"the model with the standard operators only, or {_AGAIN}"
        )
    raise UnsupportedModelError(
        f"{describe(node)} is not a standard ONNX operator: export the model with the standard "
        "operators only"
    )
