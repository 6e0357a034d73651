"""Tell apart the formats that are protobuf messages as ONNX models are, and have no signature."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from ferplus_tvm.errors import ModelFileError
from ferplus_tvm.importer.tensors import check_size, claimed_bytes

_FIELDS = 4096
# The fields of CoreML's message for a model that hold the model itself; others are below 20.
_COREML = range(200, 3001)
_CAFFE_LAYER = 100


def recognise_protobuf(data: bytes) -> str | None:
    """Return what ``data`` is, which is not an ONNX model, and what to do next; None if unknown."""
    fields = list(_fields(data))
    numbers = {number for number, _ in fields}
    first = fields[0] if fields else (0, b"")
    if _is_tensor(data):
        return "is a single ONNX tensor, as in test_data_set_0, and not a model; pass the model"
    if numbers == {1, 2} and any(word in data for word in (b"serving_default", b"saved_model")):
        return (
            "is a TensorFlow SavedModel, not an ONNX model; convert its folder with "
            "`python -m tf2onnx.convert --saved-model FOLDER --output model.onnx`"
        )
    if numbers & {1} and any(number in _COREML for number in numbers):
        return (
            "is a CoreML model (.mlmodel), not an ONNX model; pass the ONNX model that it was "
            "made from"
        )
    if _CAFFE_LAYER in numbers:
        return (
            "is a Caffe network (.caffemodel), not an ONNX model; convert it, with its .prototxt, "
            "to ONNX first"
        )
    if first[0] == 1 and _is_tensorflow_node(first[1]):
        return (
            "is a frozen TensorFlow graph, not an ONNX model; convert it with `python -m "
            "tf2onnx.convert --graphdef FILE --inputs NAME --outputs NAME --output model.onnx`"
        )
    return None


def _is_tensor(data: bytes) -> bool:
    """Tell whether ``data`` is a whole tensor, type, dimensions and values fitting together."""
    tensor = TensorProto()
    try:
        tensor.ParseFromString(data)
        if not tensor.dims or not claimed_bytes(tensor):
            return False
        check_size(tensor)
    except (DecodeError, ModelFileError):
        return False
    return True


def _is_tensorflow_node(data: bytes) -> bool:
    """Tell whether ``data`` begins with a name and an operator, as TensorFlow's nodes do."""
    (first, name), (second, operator), *_ = [*_fields(data), (0, b""), (0, b"")]
    return (first, second) == (1, 2) and name.isascii() and operator.isalnum()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the first fields of a message, with no bytes for numbers."""
    at = 0
    for _ in range(_FIELDS):
        tag, at = _varint(data, at)
        if at < 0 or tag >> 3 == 0:
            return
        wire, length = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
        elif wire not in (1, 5):
            return
        if at < 0 or at + length > len(data):
            return
        yield tag >> 3, data[at : at + length] if wire == 2 else b""
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; -1 for the end if there is none."""
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, at + index + 1
    return 0, -1
