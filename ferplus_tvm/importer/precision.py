"""Every floating-point number of a model in float32, the one type that the compiler computes in.

1. Stored float16, bfloat16, float64 and float8 tensors are rounded to float32, or widened.
2. A Cast between floating-point types is one to float32, and hands on what it gets.  A CastLike
   is a Cast to the type of its second input.
3. An input of another floating-point type is declared as float32.
4. So is an input of integers, if it is only laid out in another way before a Cast makes it
   floating-point: a raw pixel of 0 to 255 is the same number in every such type.  An operator
   that computes in integers is refused, since its results would be others.

A Cast to an integer type elsewhere, and one to float8, rounds: it is left alone.
"""

from __future__ import annotations

import math

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import float32
from ferplus_tvm.importer.tensors import tensors_of, to_array
from ferplus_tvm.importer.wording import describe

_FLOATS = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
_FLOAT8 = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2,
           TensorProto.FLOAT8E5M2FNUZ)  # fmt: skip
# Of the integer types, those that hold 0 to 255.
_INTEGERS = (TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
             TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)  # fmt: skip
# A Resize that changes the size is refused later, by the reader.
_LAYOUT = ("Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice",
           "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")  # fmt: skip
# What these give is of this type, whatever they get.
_RESULTS: dict[str, int] = dict.fromkeys(
    ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"), TensorProto.INT64
)
_RESULTS |= dict.fromkeys(
    ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN"),
    TensorProto.BOOL,
)


def to_float32(model: onnx.ModelProto, notes: list[str]) -> None:
    """Rewrite ``model`` such that all that it computes in floating point is float32, in place.

    Parameters
    ----------
    model
        A model after `check_structure`.
    notes
        A sentence is appended if the model was in another precision.

    Raises
    ------
    UnsupportedModelError
        If the model computes with pixels as integers.
    """
    graph = model.graph
    _resolve_cast_like(graph)
    found = _computed_in(graph)
    for tensor in tensors_of(model):
        _round(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                found.add(attribute.i)
                attribute.i = TensorProto.FLOAT
    for value in graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type in _INTEGERS:
            _let_pixels_be_float(graph, value.name)
            tensor.elem_type = TensorProto.FLOAT
        elif tensor.elem_type in _FLOATS:
            found.add(tensor.elem_type)
            tensor.elem_type = TensorProto.FLOAT
    names = [name for kind, name in _FLOATS.items() if kind in found]
    if names:
        notes.append(f"the model is {' and '.join(names)}, and is computed in float32")


def _computed_in(graph: onnx.GraphProto) -> set[int]:
    """Return the types of stored tensors that operators compute with, as the file has it.

    One that is only stored in another type, behind a Cast, is not computed in it.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                stored[node.output[0]] = attribute.t
    read = {name for node in graph.node if node.op_type != "Cast" for name in node.input}
    # Exporters write single numbers, such as an epsilon, in float64 without meaning anything.
    return {
        int(tensor.data_type)
        for name, tensor in stored.items()
        if name in read and (tensor.data_type != TensorProto.DOUBLE or math.prod(tensor.dims) > 1)
    }


def _round(tensor: TensorProto) -> None:
    """Turn a floating-point tensor into float32."""
    if tensor.data_type in _FLOATS or tensor.data_type in _FLOAT8:
        tensor.CopyFrom(numpy_helper.from_array(float32(to_array(tensor)), tensor.name))


def _let_pixels_be_float(graph: onnx.GraphProto, name: str) -> None:
    """Make the Casts of the integers of an input floating-point, which come first of all."""
    integers = {name}
    for node in graph.node:
        if not integers.intersection(node.input) or node.op_type == "Shape":
            continue
        if node.op_type in _LAYOUT and node.input[0] in integers:
            integers.update(node.output)
            continue
        to = next((a for a in node.attribute if a.name == "to"), None)
        if node.op_type != "Cast" or to is None or to.i not in (TensorProto.FLOAT, *_INTEGERS):
            raise UnsupportedModelError(
                f"{describe(node)} computes with the pixels of {name!r} as integers, which is not "
                "supported: export the model with a Cast to float32 as its first step, or with a "
                "float32 input"
            )
        if to.i in _INTEGERS:
            integers.add(node.output[0])
        to.i = TensorProto.FLOAT


def _resolve_cast_like(graph: onnx.GraphProto) -> None:
    """Make each CastLike a Cast, where the type of its second input is known."""
    if not any(node.op_type == "CastLike" for node in graph.node):
        return
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        if node.op_type == "CastLike" and len(node.input) == 2 and node.input[1] in types:
            cast = helper.make_node(
                "Cast", [node.input[0]], list(node.output), node.name, to=types[node.input[1]]
            )
            node.CopyFrom(cast)
        kind = _type_of(node, types)
        if kind is not None:
            types[node.output[0]] = kind


def _type_of(node: NodeProto, types: dict[str, int]) -> int | None:
    """Return the type of the first output of ``node``, None if it is not known."""
    if node.op_type in _RESULTS:
        return _RESULTS[node.op_type]
    for attribute in node.attribute:
        if attribute.name == "to":
            return int(attribute.i)
        if attribute.name == "value":
            return int(attribute.t.data_type)
        if attribute.name in ("value_float", "value_floats"):
            return int(TensorProto.FLOAT)
        if attribute.name in ("value_int", "value_ints"):
            return int(TensorProto.INT64)
    inputs = [name for name in node.input[1 if node.op_type == "Where" else 0 :] if name]
    return types.get(inputs[0]) if inputs else None
