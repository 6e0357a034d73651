"""Run one operator on arrays, with onnx's reference implementation and within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.tensors import to_array
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET
from ferplus_tvm.importer.wording import first_line

# The largest layer of FER+ has 4 M weights; this is 16 times as many.
_MAX_ELEMENTS = 1 << 26
# Shape inference needs the values of shapes and axes, and never those of weights.
_SMALL = 64
# onnx's reference implementation has these from operator set 19 on; they take the same inputs.
_NEWER = {"QuantizeLinear": 21, "DequantizeLinear": 21}


def constant_value(node: Node) -> NDArray[Any]:
    """Return the array of a Constant node, whose size `read_model` checked.

    Raises
    ------
    UnsupportedModelError
        If it is text or sparse.
    """
    attributes = node.attributes
    if "value" in attributes:
        return to_array(attributes["value"])
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], kind)
    raise UnsupportedModelError(
        f"{node} holds neither numbers nor a dense tensor, which is not supported: export the "
        "model with dense float32 weights"
    )


def evaluate(node: Node, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """Return the outputs of ``node``, one for each of its output names.

    Parameters
    ----------
    node
        A node of opset `OPSET`.
    inputs
        One array for each input name, None where the name is empty.

    Raises
    ------
    UnsupportedModelError
        If the operator cannot be run on these inputs, or if its result would be out of all
        proportion to this network.
    """
    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True)
             if array is not None}  # fmt: skip
    opset = helper.make_opsetid("", _NEWER.get(node.op, OPSET))
    try:
        proto = helper.make_node(
            node.op, node.inputs, node.outputs, name=node.name, **node.attributes
        )
        _check_bounds(proto, feeds, opset)
        graph = helper.make_graph(
            [proto],
            "one_node",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in feeds.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in node.outputs if name],
        )
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        with np.errstate(all="ignore"):
            values = iter(ReferenceEvaluator(model).run(None, feeds))
            results = [np.asarray(next(values) if name else None) for name in node.outputs]
    # The reference implementation is Python for every operator there is: it raises anything.
    except Exception as error:
        raise UnsupportedModelError(
            f"{node} on stored values cannot be computed ({first_line(error)}): export the model "
            "with plain float32 weights"
        ) from error
    return results


def run_nodes(
    nodes: Sequence[Node],
    constants: Mapping[str, NDArray[Any]],
    given: Mapping[str, NDArray[Any]],
    most: int,
) -> dict[str, NDArray[Any]] | None:
    """Run nodes in float64.

    Parameters
    ----------
    nodes
        In topological order.
    constants
        What they may read, by name; float32 is read as float64.
    given
        The other values that they read, by name.
    most
        The number of elements that a result may have.

    Returns
    -------
    dict or None
        All values by name; None if one of the nodes cannot be run.
    """
    values = dict(given)
    for node in nodes:
        for name in node.inputs:
            if name in constants and name not in values:
                array = constants[name]
                values[name] = array.astype(np.float64) if array.dtype.kind == "f" else array
        inputs = [values[name] if name else None for name in node.inputs]
        try:
            # Values are float64 here, where the file has float32.
            to_float32 = node.op == "Cast" and node.attributes.get("to") == TensorProto.FLOAT
            results = inputs[:1] if to_float32 else evaluate(node, inputs)
        except UnsupportedModelError:
            return None
        for name, made in zip(node.outputs, results, strict=True):
            if made is None or made.size > most:
                return None
            values[name] = made
    return values


def _check_bounds(
    proto: onnx.NodeProto, feeds: dict[str, NDArray[Any]], opset: onnx.OperatorSetIdProto
) -> None:
    """Raise ValueError unless the sizes of the outputs are known beforehand and moderate."""
    types = {
        name: helper.make_tensor_type_proto(
            helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    }
    data = {
        name: numpy_helper.from_array(array, name)
        for name, array in feeds.items()
        if array.size <= _SMALL
    }
    schema = onnx.defs.get_schema(proto.op_type, opset.version)
    inferred = infer_node_outputs(schema, proto, types, data, opset_imports=[opset])
    for name in (name for name in proto.output if name):
        shape = inferred[name].tensor_type.shape if name in inferred else None
        if shape is None or not all(dim.HasField("dim_value") for dim in shape.dim):
            raise ValueError("the size of its result is not known beforehand")
        if math.prod(dim.dim_value for dim in shape.dim) > _MAX_ELEMENTS:
            raise ValueError(f"its result would have more than {_MAX_ELEMENTS} elements")
