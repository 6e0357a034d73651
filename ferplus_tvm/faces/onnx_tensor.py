"""Read the tensors that ONNX's test data sets consist of: files such as ``input_0.pb``.

Such a file is one serialized TensorProto.  It is read without onnx, which an app that runs a
library does not have.  The reader is strict where protobuf's own is lenient: an unknown field,
too few numbers or too many make it no tensor, so that other files are never taken for one.
"""

from __future__ import annotations

import enum
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.protobuf import FormatError, as_bytes, as_integer, fields, integers

LARGEST = 1 << 24
"""The most bytes that a file may have: 16 MiB, as much as 1023 faces of 64 x 64 in float32."""

_CHANNELS = (1, 3)
_MOST_DIMENSIONS = 8


class _Field(enum.IntEnum):
    """The fields of a TensorProto, by their numbers in onnx.proto."""

    DIMS = 1
    DATA_TYPE = 2
    SEGMENT = 3
    FLOAT_DATA = 4
    INT32_DATA = 5
    STRING_DATA = 6
    INT64_DATA = 7
    NAME = 8
    RAW_DATA = 9
    DOUBLE_DATA = 10
    UINT64_DATA = 11
    DOC_STRING = 12
    EXTERNAL_DATA = 13
    DATA_LOCATION = 14
    METADATA_PROPS = 16


# onnx.proto's numbers of the types, and the field of a type's numbers where they are not raw.
_TYPES = {
    1: ("float32", _Field.FLOAT_DATA),
    2: ("uint8", _Field.INT32_DATA),
    3: ("int8", _Field.INT32_DATA),
    4: ("uint16", _Field.INT32_DATA),
    5: ("int16", _Field.INT32_DATA),
    6: ("int32", _Field.INT32_DATA),
    7: ("int64", _Field.INT64_DATA),
    10: ("float16", _Field.INT32_DATA),
    11: ("float64", _Field.DOUBLE_DATA),
    12: ("uint32", _Field.UINT64_DATA),
    13: ("uint64", _Field.UINT64_DATA),
}
_KNOWN = frozenset[int](_Field)
_NUMBERS = {field for _, field in _TYPES.values()}
_OTHER_TYPES = {8: "strings", 9: "truth values", 14: "complex numbers", 15: "complex numbers"}


def read_tensor(data: bytes, name: str) -> NDArray[Any]:
    """Read a serialized TensorProto of real numbers.

    Parameters
    ----------
    data
        The file's bytes.
    name
        What messages call it.

    Returns
    -------
    numpy.ndarray
        Of the tensor's own shape and type, in this machine's byte order.

    Raises
    ------
    InputError
        If the bytes are not a whole tensor, it is larger than `LARGEST`, or it holds strings,
        truth values, complex numbers or floats of other types, or lies in another file.
    """
    try:
        return _parse(data, name)
    except FormatError as error:
        raise InputError(
            f"{name} is not an ONNX tensor ({error}): expected one serialized TensorProto, such as "
            "the input_0.pb of a model's test data"
        ) from None


def read_tensor_file(path: str | os.PathLike[str], name: str) -> NDArray[Any]:
    """Read the file of a tensor, as `read_tensor` does its bytes.

    Raises
    ------
    InputError
        Also if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise InputError(
            f"{name} cannot be read ({getattr(error, 'strerror', None) or error}): check the path "
            "and its permissions"
        ) from error
    return read_tensor(data, name)


def tensor_of(item: Any, name: str) -> NDArray[Any] | None:
    """Return the faces of a tensor as an array with the channels last; of anything else, None.

    Parameters
    ----------
    item
        A path that ends in ``.pb``, or the bytes of a tensor.
    name
        What messages call it.

    Raises
    ------
    InputError
        If the tensor cannot be read, or is not of a shape that models take.
    """
    if isinstance(item, str | os.PathLike):
        if not os.fsdecode(item).lower().endswith(".pb"):
            return None
        tensor = read_tensor_file(os.path.expanduser(item), name)
    elif isinstance(item, bytes | bytearray | memoryview) and _is_tensor(bytes(item)):
        tensor = read_tensor(bytes(item), name)
    else:
        return None
    shape = tensor.shape
    if len(shape) == 4 and shape[1] in _CHANNELS:
        return np.moveaxis(tensor, 1, -1)
    if len(shape) == 4 and shape[3] in _CHANNELS:
        return tensor
    raise InputError(
        f"{name} holds a tensor of the shape {shape}: expected faces as a model takes them, "
        "(N, 1, H, W) or (N, 3, H, W), such as the input_0.pb of a model's test data"
    )


def _is_tensor(data: bytes) -> bool:
    """Whether bytes are a whole serialized TensorProto, of whatever type."""
    if data[:1] not in (b"\x08", b"\x0a", b"\x10"):  # dims, one by one or packed; or the type
        return False
    try:
        _parse(data, "")
    except FormatError:
        return False
    except InputError:
        return True
    return True


def _parse(data: bytes, name: str) -> NDArray[Any]:
    """Return the tensor; a `FormatError` says that the bytes are none."""
    if len(data) > LARGEST:
        raise FormatError(f"it has more than {LARGEST} bytes")
    dims: list[int] = []
    kind, location = 0, 0
    raw: bytes | None = None
    numbers: dict[int, bytes] = {}
    for field, content in fields(data):
        if field not in _KNOWN:
            raise FormatError(f"it holds the unknown field {field}")
        if field == _Field.DIMS:
            dims += [content] if isinstance(content, int) else integers(content).tolist()
        elif field == _Field.DATA_TYPE:
            kind = as_integer(content)
        elif field == _Field.DATA_LOCATION:
            location = as_integer(content)
        elif field == _Field.RAW_DATA:
            raw = as_bytes(content)
        elif field in _NUMBERS:
            numbers[field] = numbers.get(field, b"") + as_bytes(content)
        else:
            as_bytes(content)
    if not kind:
        raise FormatError("it states no type")
    if len(dims) > _MOST_DIMENSIONS or any(dim > LARGEST for dim in dims):  # or is negative
        raise FormatError(f"it states the shape {tuple(dims[: _MOST_DIMENSIONS + 1])}")
    if kind not in _TYPES:
        raise InputError(
            f"{name} holds {_OTHER_TYPES.get(kind, f'numbers of the type {kind} of ONNX')}: "
            "expected real numbers of 8 bits or more, such as float32"
        )
    if location:
        raise InputError(
            f"{name} has its numbers in another file: expected a tensor that holds them itself"
        )
    type_name, own = _TYPES[kind]
    dtype = np.dtype(type_name).newbyteorder("<")
    if raw is not None and numbers:
        raise FormatError("it holds its numbers twice")
    if set(numbers) - {own}:
        raise FormatError(f"it holds numbers of another type than {type_name}")
    if raw is None and own not in (_Field.FLOAT_DATA, _Field.DOUBLE_DATA):
        array = _from_integers(integers(numbers.get(own, b"")), own, dtype)
    else:
        array = _from_bytes(numbers.get(own, b"") if raw is None else raw, dtype)
    if array.size != math.prod(dims):
        raise FormatError(f"it holds {array.size} numbers, and states the shape {tuple(dims)}")
    try:
        return array.astype(dtype.newbyteorder("=")).reshape(dims)
    except ValueError:  # no numbers, and dimensions beyond what numpy counts
        raise FormatError(f"it states the shape {tuple(dims)}") from None


def _from_bytes(data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise FormatError("it ends within a number")
    return np.frombuffer(data, dtype)


def _from_integers(found: NDArray[np.uint64], field: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers that are stored as integers of 64 bits, float16 by its bits."""
    values: NDArray[Any] = found if field == _Field.UINT64_DATA else found.view(np.int64)
    stored = np.dtype("<u2") if dtype.kind == "f" else dtype
    limits = np.iinfo(stored)
    if values.size and not limits.min <= int(values.min()) <= int(values.max()) <= limits.max:
        raise FormatError(f"it holds a number that is no {dtype.name}")
    return values.astype(stored).view(dtype)
