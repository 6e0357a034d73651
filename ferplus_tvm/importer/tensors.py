"""ONNX tensors to numpy arrays, with every claim of the file checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ferplus_tvm.errors import ModelFileError, UnsupportedModelError

# Tensor type -> (numpy type, the field that holds the values if raw_data does not).
_TYPES: dict[int, tuple[Any, str]] = {
    TensorProto.FLOAT: (np.float32, "float_data"),
    TensorProto.DOUBLE: (np.float64, "double_data"),
    TensorProto.FLOAT16: (np.float16, "int32_data"),
    TensorProto.BOOL: (np.bool_, "int32_data"),
    TensorProto.INT8: (np.int8, "int32_data"),
    TensorProto.UINT8: (np.uint8, "int32_data"),
    TensorProto.INT16: (np.int16, "int32_data"),
    TensorProto.UINT16: (np.uint16, "int32_data"),
    TensorProto.INT32: (np.int32, "int32_data"),
    TensorProto.INT64: (np.int64, "int64_data"),
    TensorProto.UINT32: (np.uint32, "uint64_data"),
    TensorProto.UINT64: (np.uint64, "uint64_data"),
}


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield every dense tensor that ``graph`` stores, in file order, subgraphs left out."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def type_name(tensor: TensorProto) -> str:
    """Return the element type as ONNX spells it, in lower case."""
    if tensor.data_type in TensorProto.DataType.values():
        return str(TensorProto.DataType.Name(tensor.data_type)).lower()
    return f"type number {tensor.data_type}"


def claimed_bytes(tensor: TensorProto) -> int | None:
    """Return the size in bytes that type and dims claim; None for a type that is not handled.

    Raises
    ------
    ModelFileError
        If a dimension is negative.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ModelFileError(
            f"tensor {tensor.name!r} has the dimensions {list(tensor.dims)}, and none may be "
            "negative: the model file is damaged, so fetch or export it again"
        )
    if tensor.data_type not in _TYPES:
        return None
    return int(math.prod(tensor.dims)) * int(np.dtype(_TYPES[tensor.data_type][0]).itemsize)


def check_size(tensor: TensorProto) -> None:
    """Check that the file holds as much data as the tensor's dims claim.

    Types that are not handled are let pass: they only matter if the network uses the tensor.

    Raises
    ------
    ModelFileError
        If there is more or less data, so that a small file cannot claim much memory.
    """
    claimed = claimed_bytes(tensor)
    if claimed is None:
        return
    numpy_type, field = _TYPES[tensor.data_type]
    if tensor.HasField("raw_data"):
        held = len(tensor.raw_data)
    else:
        held = len(getattr(tensor, field)) * int(np.dtype(numpy_type).itemsize)
    if held != claimed:
        raise ModelFileError(
            f"tensor {tensor.name!r} with dimensions {list(tensor.dims)} of {type_name(tensor)} "
            f"needs {claimed} bytes but the file holds {held}: the model file is damaged, so "
            "fetch or export it again"
        )


def to_array(tensor: TensorProto) -> NDArray[Any]:
    """Return the values of a tensor whose size was checked.

    Raises
    ------
    UnsupportedModelError
        If the element type is not handled, or if a value is NaN or infinite; single numbers may
        be infinite, since that is how some exporters write "no bound".
    """
    if tensor.data_type not in _TYPES:
        raise UnsupportedModelError(
            f"tensor {tensor.name!r} is of {type_name(tensor)}, which is not supported: export "
            "the model with float32 weights"
        )
    try:
        array: NDArray[Any] = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelFileError(
            f"tensor {tensor.name!r} holds values that its type {type_name(tensor)} cannot: the "
            "model file is damaged, so fetch or export it again"
        ) from error
    if array.ndim:
        check_finite(tensor.name, array)
    return array


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raise UnsupportedModelError if a floating-point array holds NaN or an infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise UnsupportedModelError(
            f"tensor {name!r} holds {bad} of {array.size} values that are NaN or infinite, and "
            "scores need finite weights: train or export the model again"
        )
