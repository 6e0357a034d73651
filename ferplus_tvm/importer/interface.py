"""Which input takes the faces, what one face is, and the freeing of the batch dimension."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from ferplus_tvm.errors import ModelShapeError

BATCH = "N"
CHANNELS = (1, 3)
SIZES = range(32, 225)
CLASSES = range(2, 65)
DEFAULT_SIZE = 64


def free_interface(model: onnx.ModelProto, stated: int | None = None) -> int | None:
    """Declare the one input as float32 (N, C, S, S), whatever batch the file fixed.

    The input is found by type and shape, never by its name.  Dimensions that the file leaves
    open fit any number.  The output is declared as float32 with two open dimensions, since files
    often declare none or another batch; the real number of scores is worked out later.

    Parameters
    ----------
    model
        A model after `check_structure`, changed in place.
    stated
        The number of channels that the caller states, or None.

    Returns
    -------
    int or None
        The batch size that the file fixed, None if it fixed none.

    Raises
    ------
    ModelShapeError
        If no input fits, if there is more than one, or if the file has other channels.
    """
    graph = model.graph
    shape = _face_shape(graph.input[0], stated) if len(graph.input) == 1 else None
    if shape is None:
        found = ", ".join(_describe(value) for value in graph.input) or "none"
        raise ModelShapeError(
            f"the model's inputs in use are {found}, and exactly one of float32 (N, C, S, S) is "
            f"expected, with 1 or 3 channels and S from {SIZES[0]} to {SIZES[-1]}: export the "
            "network for one square face per row"
        )
    if stated not in (None, shape[0]):
        raise ModelShapeError(
            f"the model's input is {_describe(graph.input[0])}, and {stated} channels are stated: "
            "leave channels out, or export the network for faces of so many"
        )
    value, output = graph.input[0], graph.output[0]
    dims = value.type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [BATCH, *shape]))
    output.CopyFrom(
        helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [BATCH, "scores"])
    )
    return fixed


def _face_shape(value: onnx.ValueInfoProto, stated: int | None) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of an input, None if it does not take square faces."""
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return None
    dims = tensor.shape.dim
    if not tensor.HasField("shape"):
        return (stated or 1, DEFAULT_SIZE, DEFAULT_SIZE)
    if len(dims) != 4 or (dims[0].HasField("dim_value") and dims[0].dim_value < 1):
        return None
    channels, height, width = (
        int(dim.dim_value) if dim.HasField("dim_value") else None for dim in list(dims)[1:]
    )
    size = height or width or DEFAULT_SIZE
    shape = (channels or stated or 1, height or size, width or size)
    fits = shape[0] in CHANNELS and shape[1] == shape[2] and size in SIZES
    return shape if fits else None


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
