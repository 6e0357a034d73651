"""ONNX tensors to numpy arrays, with every claim of the file checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ferplus_tvm.errors import ModelFileError, UnsupportedModelError

# Tensor type -> (bits of an element, the field that holds the elements if raw_data does not).
_TYPES: dict[int, tuple[int, str]] = {
    TensorProto.FLOAT: (32, "float_data"),
    TensorProto.DOUBLE: (64, "double_data"),
    TensorProto.FLOAT16: (16, "int32_data"),
    TensorProto.BFLOAT16: (16, "int32_data"),
    TensorProto.FLOAT8E4M3FN: (8, "int32_data"),
    TensorProto.FLOAT8E4M3FNUZ: (8, "int32_data"),
    TensorProto.FLOAT8E5M2: (8, "int32_data"),
    TensorProto.FLOAT8E5M2FNUZ: (8, "int32_data"),
    TensorProto.BOOL: (8, "int32_data"),
    TensorProto.INT4: (4, "int32_data"),
    TensorProto.UINT4: (4, "int32_data"),
    TensorProto.INT8: (8, "int32_data"),
    TensorProto.UINT8: (8, "int32_data"),
    TensorProto.INT16: (16, "int32_data"),
    TensorProto.UINT16: (16, "int32_data"),
    TensorProto.INT32: (32, "int32_data"),
    TensorProto.INT64: (64, "int64_data"),
    TensorProto.UINT32: (32, "uint64_data"),
    TensorProto.UINT64: (64, "uint64_data"),
}
# The types that numpy itself does not have -> what holds their values exactly.
_WIDENED: dict[int, Any] = {
    TensorProto.BFLOAT16: np.float32,
    TensorProto.FLOAT8E4M3FN: np.float32,
    TensorProto.FLOAT8E4M3FNUZ: np.float32,
    TensorProto.FLOAT8E5M2: np.float32,
    TensorProto.FLOAT8E5M2FNUZ: np.float32,
    TensorProto.INT4: np.int8,
    TensorProto.UINT4: np.uint8,
}


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every dense tensor that ``model`` stores, subgraphs left out.

    First those of the graph, in file order, and then those of its functions.
    """
    yield from model.graph.initializer
    for owner in (model.graph, *model.functions):
        yield from _attribute_tensors(owner.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    """Yield the dense tensors in the attributes of ``nodes``."""
    for node in nodes:
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
    bits = _TYPES[tensor.data_type][0]
    return -(-int(math.prod(tensor.dims)) * bits // 8)


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
    bits, field = _TYPES[tensor.data_type]
    if tensor.HasField("raw_data"):
        held = len(tensor.raw_data)
    else:
        # Of elements smaller than a byte, each number of the field packs a byte.
        held = len(getattr(tensor, field)) * max(bits, 8) // 8
    if held != claimed:
        raise ModelFileError(
            f"tensor {tensor.name!r} with dimensions {list(tensor.dims)} of {type_name(tensor)} "
            f"needs {claimed} bytes but the file holds {held}: the model file is damaged, so "
            "fetch or export it again"
        )


def to_array(tensor: TensorProto) -> NDArray[Any]:
    """Return the values of a tensor whose size was checked, in a type that numpy itself has.

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
    if tensor.data_type in _WIDENED:
        array = array.astype(_WIDENED[tensor.data_type])
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
