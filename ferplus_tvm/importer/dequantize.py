"""Weights that are stored as small integers, turned into the numbers that they stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.tensors import to_array
from ferplus_tvm.importer.wording import describe

# FER+ has 9 M weights.  All results together are bounded, since they can share a stored tensor.
_MAX_ELEMENTS = 1 << 26
_EXPORT = "export the model with float32 weights"


def dequantize_weights(graph: onnx.GraphProto) -> None:
    """Replace each DequantizeLinear of stored tensors by a stored float32 tensor, in place.

    This comes before the change of the operator set: none before 13 has a scale per axis, and
    none before 21 blocks or 4-bit integers.

    Parameters
    ----------
    graph
        A graph after `check_structure`.

    Raises
    ------
    UnsupportedModelError
        If scale, zero point and weights do not fit together, or if there are too many.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and [a.name for a in node.attribute] == ["value"]:
            stored[node.output[0]] = node.attribute[0].t
    found = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input if name)
    ]
    total = sum(math.prod(stored[name].dims) for node in found for name in node.input if name)
    if total > _MAX_ELEMENTS:
        raise UnsupportedModelError(
            f"the model has {total} quantized weights and at most {_MAX_ELEMENTS} are supported: "
            "FER+ has 9 million, so check that it is the right file"
        )
    for node in found:
        result = _dequantize(node, [to_array(stored[name]) for name in node.input if name])
        graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
        graph.node.remove(node)


def _dequantize(node: onnx.NodeProto, arrays: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Return (weights - zero point) * scale, with one scale in all, per axis or per block."""
    numbers = {attribute.name: int(attribute.i) for attribute in node.attribute}
    axis, block = numbers.get("axis", 1), numbers.get("block_size", 0)
    shape = arrays[0].shape if arrays else ()
    spread = [_spread(array, shape, axis, block) for array in arrays[1:]]
    fitting = [array for array in spread if array is not None]
    if len(spread) not in (1, 2) or len(fitting) < len(spread):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UnsupportedModelError(
            f"{describe(node)} has weights, scale and zero point of the shapes {shapes} with "
            f"axis={axis} and block_size={block}, which do not fit together: {_EXPORT}"
        )
    # In float64 a difference of 32-bit integers is exact.
    weights = arrays[0].astype(np.float64)
    if len(fitting) == 2:
        weights -= fitting[1]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(weights * fitting[0], np.float32)


def _spread(
    array: NDArray[Any], shape: tuple[int, ...], axis: int, block: int
) -> NDArray[Any] | None:
    """Return a scale or zero point such that it broadcasts to ``shape``, None if it does not."""
    if array.ndim == 0 or array.shape == (1,):
        return array.reshape(())
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    size = shape[axis]
    if array.ndim == 1 and not block:
        return (
            array.reshape([-1 if at == axis else 1 for at in range(len(shape))])
            if (array.size == size)
            else None
        )
    blocks = -(-size // block) if block > 0 else -1
    if array.shape != (*shape[:axis], blocks, *shape[axis + 1 :]):
        return None
    return np.take(array, np.arange(size) // block, axis)
