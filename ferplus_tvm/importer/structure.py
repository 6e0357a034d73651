"""The structure of an ONNX graph: sorted, without dead parts, and free of what we cannot take."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import AttributeProto

from ferplus_tvm.errors import ModelFileError, UnsupportedModelError
from ferplus_tvm.importer.fused import DOMAIN as MICROSOFT
from ferplus_tvm.importer.fused import refuse_unknown, split_fused
from ferplus_tvm.importer.outputs import choose_output
from ferplus_tvm.importer.wording import describe

# FER+ has 52 nodes; the rules take quadratic time, so a file with millions is refused.
MAX_NODES = 5000
_DAMAGED = "the model is not valid, so fetch or export it again"
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)
# The whole domain com.microsoft has quantized operators too; a name tells them by these parts.
_QUANTIZED = ("QLinear", "Quantize", "Dequantize", "DynamicQuantize", "Integer", "QGemm", "NBits")
STANDARD = ("", "ai.onnx")
# What gives class numbers in place of scores.
_CHOICES = ("ArgMax", "TopK", "Hardmax")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that ``model`` is written in.

    Raises
    ------
    ModelFileError
        If it names none.
    UnsupportedModelError
        If it is newer than the installed onnx package knows.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if not versions or min(versions) < 1:
        raise ModelFileError(f"the model names no version of the ONNX operator set: {_DAMAGED}")
    if max(versions) > newest:
        raise UnsupportedModelError(
            f"the model uses ONNX operator set {max(versions)}, and onnx {onnx.__version__} knows "
            f"those up to {newest}: install a newer onnx, or export the model with opset 17"
        )
    return int(max(versions))


def check_structure(model: onnx.ModelProto, output: str | None = None) -> None:
    """Sort the nodes of ``model``, drop the dead ones, and refuse what no rule can handle.

    Initializers leave the list of inputs, where files of IR version 3 repeat them; unused
    initializers, value_info and metadata are dropped; what onnxruntime fused is split.  A
    dimension of the input that is no positive number is left open, as tools mean it that write
    -1 or 0.  ``model`` is changed in place.

    Parameters
    ----------
    model
        A model whose functions were put in place.
    output
        The name of the output that holds the scores; None if the model has only one.

    Raises
    ------
    ModelFileError
        If a value is missing, defined twice, or depends on itself.
    ModelShapeError
        If there is no such output, or if none is named and there is not exactly one.
    UnsupportedModelError
        For quantized activations, other domains, control flow and sparse tensors, and for an IR
        version that the installed onnx package does not know.
    """
    graph = model.graph
    if model.ir_version > onnx.IR_VERSION:
        raise UnsupportedModelError(
            f"the model has IR version {model.ir_version}, and onnx {onnx.__version__} knows those "
            f"up to {onnx.IR_VERSION}: install a newer onnx, or export the model with opset 17"
        )
    if len(graph.node) > MAX_NODES:
        raise UnsupportedModelError(
            f"the model has {len(graph.node)} operators and at most {MAX_NODES} are supported: "
            "FER+ has 52, so check that it is the right file"
        )
    _check_names(graph)
    choose_output(model, output)
    opset = opset_of(model)
    nodes = split_fused(graph, _live_nodes(graph), opset)
    stored = _stored_values(graph, nodes)
    for node in nodes:
        _check_node(node, stored)
        _check_known(node, opset)
    if graph.sparse_initializer:
        raise UnsupportedModelError(
            "the model has sparse weights, which are not supported: export it with dense float32 "
            "weights"
        )
    _rebuild(graph, nodes)
    for field in ("functions", "training_info", "metadata_props"):
        model.ClearField(field)


def _check_names(graph: onnx.GraphProto) -> None:
    """Refuse names that are no text, and values that are defined more than once."""
    stored = [tensor.name for tensor in graph.initializer]
    produced = [name for node in graph.node for name in node.output if name]
    texts: list[object] = [*stored, *produced, graph.name]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input]
        texts += [attribute.name for attribute in node.attribute]
        texts += [attribute.ref_attr_name for attribute in node.attribute]
    for value in (*graph.input, *graph.output):
        texts += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    # protobuf hands text that is not UTF-8 out as bytes.
    if any(not isinstance(text, str) for text in texts):
        raise ModelFileError(f"a name in the model is not UTF-8 text: {_DAMAGED}")
    given = {value.name for value in graph.input} - set(stored)
    counts = Counter([*stored, *produced, *given])
    for name, count in counts.items():
        if count > 1:
            raise ModelFileError(f"the value {name!r} is defined {count} times: {_DAMAGED}")


def _live_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that the output needs, each after those that it reads from."""
    producer = {name: node for node in graph.node for name in node.output if name}
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    order: list[onnx.NodeProto] = []
    done: set[str] = set(known)
    open_nodes: set[int] = set()
    # Depth first without recursion, so that a long chain cannot exhaust the stack.
    stack = [(graph.output[0].name, "the output of the graph")]
    while stack:
        name, reader = stack[-1]
        if name in done:
            stack.pop()
            continue
        node = producer.get(name)
        if node is None:
            raise ModelFileError(f"{reader} reads {name!r}, which nothing produces: {_DAMAGED}")
        waiting = [value for value in node.input if value and value not in done]
        if not waiting:
            order.append(node)
            done.update(value for value in node.output if value)
            stack.pop()
        elif id(node) in open_nodes:
            raise ModelFileError(f"{describe(node)} depends on its own output: {_DAMAGED}")
        else:
            open_nodes.add(id(node))
            stack += [(value, describe(node)) for value in waiting]
    return order


def _stored_values(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> set[str]:
    """Return the names of the values that do not depend on the graph's inputs."""
    stored = {tensor.name for tensor in graph.initializer}
    for node in nodes:
        if all(name in stored for name in node.input if name):
            stored.update(node.output)
    return stored


def _check_node(node: onnx.NodeProto, stored: set[str]) -> None:
    """Refuse a node that no rule can handle; ``stored`` names values that are computed once."""
    if any(part in node.op_type for part in _QUANTIZED) and not (
        node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.output[0] in stored
    ):
        raise UnsupportedModelError(
            f"the model is quantized ({describe(node)}), and of that only weights that a "
            "DequantizeLinear turns into floating-point numbers are supported: activations in "
            "int8 come in a later release, so use the float32 file that it was made from"
        )
    if node.domain not in STANDARD and not (
        node.op_type == "DequantizeLinear" and node.domain == MICROSOFT
    ):
        refuse_unknown(node)
    if node.op_type in _CHOICES:
        raise UnsupportedModelError(
            f"{describe(node)} gives the chosen class and not a score for each class: export the "
            f"value that it reads ({node.input[0] if node.input else ''!r}) as the output"
        )
    if not node.output[0]:
        raise UnsupportedModelError(
            f"{describe(node)} is used for a side result only, which is not supported: export the "
            "model for inference"
        )
    for attribute in node.attribute:
        if attribute.type in _SUBGRAPHS or attribute.HasField("g") or attribute.graphs:
            raise UnsupportedModelError(
                f"{describe(node)} is control flow, which is not supported: export the model for "
                "inference, without branches or loops"
            )
        if attribute.type in _SPARSE or attribute.ref_attr_name:
            raise UnsupportedModelError(
                f"{describe(node)} has an attribute {attribute.name!r} that is sparse or belongs "
                "to a function that is not there: export the model with dense weights and without "
                "functions"
            )


def _check_known(node: onnx.NodeProto, opset: int) -> None:
    """Refuse an operator that the operator set does not have, as exporters leave them."""
    if node.domain in STANDARD and not onnx.defs.has(node.op_type, opset):
        raise UnsupportedModelError(
            f"{describe(node)} is not an operator of ONNX opset {opset}, so the exporter left one "
            "of its own framework or of a newer opset: export the network without that layer"
        )


def _rebuild(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Keep only ``nodes``, the initializers that they read, and the inputs that are none."""
    used = {name for node in nodes for name in node.input} | {graph.output[0].name}
    stored = {tensor.name for tensor in graph.initializer}
    # Slices are assigned through copies: extending a field from itself is undefined.
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.domain = ""
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
    for index in reversed(range(len(graph.input))):
        name = graph.input[index].name
        if name in stored or name not in used:
            del graph.input[index]
    # onnx's checker wants a name, and onnxruntime takes a file without one.
    graph.name = graph.name or "graph"
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.Clear()
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    del graph.metadata_props[:]
