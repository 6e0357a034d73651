"""Read the fields of a protobuf message, strictly and within bounds.

The encoding is described at protobuf.dev/programming-guides/encoding.  Fields of a fixed width,
which ONNX has only packed into bytes, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_MOST_FIELDS = 100
_LONGEST_VARINT = 10  # bytes
_VARINT, _SIZED = 0, 2  # wire types


class FormatError(ValueError):
    """The bytes are not the message that is read."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the content of each field of a message.

    Raises
    ------
    FormatError
        If it is truncated, no message, or has very many fields.
    """
    at, count = 0, 0
    while at < len(data):
        count += 1
        if count > _MOST_FIELDS:
            raise FormatError(f"it has more than {_MOST_FIELDS} fields")
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        value, at = _varint(data, at)
        if wire_type == _VARINT:
            yield number, value
        elif wire_type == _SIZED and value <= len(data) - at:
            yield number, data[at : at + value]
            at += value
        else:
            raise FormatError("it is truncated, or not a protobuf message")


def as_bytes(content: int | bytes) -> bytes:
    """Return the content of a field that holds bytes or text.

    Raises
    ------
    FormatError
        If it holds an integer.
    """
    if isinstance(content, int):
        raise FormatError("a field of it is of the wrong kind")
    return content


def as_integer(content: int | bytes) -> int:
    """Return the content of a field that holds an integer, as 64 bits without a sign.

    Raises
    ------
    FormatError
        If it holds bytes.
    """
    if isinstance(content, bytes):
        raise FormatError("a field of it is of the wrong kind")
    return content


def integers(packed: bytes) -> NDArray[np.uint64]:
    """Return integers that stand one behind the other, as 64 bits without a sign.

    Raises
    ------
    FormatError
        If the last one is truncated, or one is too long.
    """
    stored = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(stored < 0x80) + 1  # the last byte of each has its highest bit clear
    starts = np.concatenate([[0], ends])[: len(ends)]
    if len(stored) != (ends[-1] if len(ends) else 0) or np.any(ends - starts > _LONGEST_VARINT):
        raise FormatError("it ends within a number, or is not a protobuf message")
    if not len(ends):
        return np.empty(0, np.uint64)
    place = np.arange(len(stored)) - np.repeat(starts, ends - starts)
    shifted = (stored & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(shifted, starts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer of 64 bits, and where the next byte is."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & ((1 << 64) - 1), at + place + 1
    raise FormatError("it is truncated, or not a protobuf message")
