"""Which input takes the faces, and the freeing of its batch dimension."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from ferplus_tvm.errors import ModelShapeError

FACE_SHAPE = (1, 64, 64)  # channels, height, width
BATCH = "N"


def free_interface(model: onnx.ModelProto) -> int | None:
    """Declare the one input as float32 (N, 1, 64, 64), whatever batch the file fixed.

    The input is found by type and shape, never by its name.  Dimensions that the file leaves
    open fit any number.  The output is declared as float32 with two open dimensions, since files
    often declare none or another batch; the real number of scores is worked out later.

    Parameters
    ----------
    model
        A model after `check_structure`, changed in place.

    Returns
    -------
    int or None
        The batch size that the file fixed, None if it fixed none.

    Raises
    ------
    ModelShapeError
        If no input fits, or if there is more than one.
    """
    graph = model.graph
    if len(graph.input) != 1 or not _fits(graph.input[0]):
        found = ", ".join(_describe(value) for value in graph.input) or "none"
        raise ModelShapeError(
            f"the model's inputs in use are {found}, and exactly one of float32 (N, 1, 64, 64) is "
            "expected: export the network for one grey 64x64 face per row"
        )
    value, output = graph.input[0], graph.output[0]
    dims = value.type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
    value.CopyFrom(
        helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [BATCH, *FACE_SHAPE])
    )
    output.CopyFrom(
        helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [BATCH, "scores"])
    )
    return fixed


def _fits(value: onnx.ValueInfoProto) -> bool:
    """Tell whether an input may be float32 (any batch, 1, 64, 64)."""
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return False
    if not tensor.HasField("shape"):
        return True
    dims = tensor.shape.dim
    if len(dims) != 4 or (dims[0].HasField("dim_value") and dims[0].dim_value < 1):
        return False
    return all(
        not dim.HasField("dim_value") or dim.dim_value == wanted
        for dim, wanted in zip(list(dims)[1:], FACE_SHAPE, strict=True)
    )


def _describe(value: onnx.ValueInfoProto) -> str:
    """Return name, element type and dimensions of an input."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in TensorProto.DataType.values():
        return f"{value.name!r} of an unknown type"
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    dims = [
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    return f"{value.name!r} of {kind} ({', '.join(dims)})"
