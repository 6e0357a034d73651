"""Scales and shifts by stored numbers: one for all values, or one for each channel.

They may stand anywhere and come in any shape that broadcasts so; behind a Flatten there may be
one for each value of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.state import MAX_VALUES, State, refuse
from ferplus_tvm.importer.steps import Affine, Floats

_EPSILON = 1e-5  # the default of the ONNX specification
_ONLY = "only with one stored number, or one for each channel"
_NORM = "only at inference, with stored numbers for each channel"


def per_channel(
    state: State, node: Node, arrays: Sequence[NDArray[Any]], only: str = _ONLY
) -> list[Floats]:
    """Return stored numbers that meet the chain's value, one for each channel or value of rows."""
    numbers = [state.view.per_channel(array) for array in arrays]
    rows = max(state.view.shape, default=1) == math.prod(state.view.shape)
    if rows and any(found is None for found in numbers):
        state.flatten(node.name)
        numbers = [state.view.per_channel(array) for array in arrays]
    elif any(found is None for found in numbers) and state.view.moved is not None:
        # Copies of one channel get numbers of their own, so they become channels first.
        maps = state.view.maps()
        if maps is not None:
            count = len(maps[1])
            state.pointwise(f"{node.name}_channels", np.eye(count), np.zeros(count))
            numbers = [state.view.per_channel(array) for array in arrays]
    for array, found in zip(arrays, numbers, strict=True):
        if found is None:
            refuse(
                node,
                f"{only}, and its stored tensor has the shape {array.shape} for a value of "
                f"{state.view.shape} per face",
            )
    return [found for found in numbers if found is not None]


def _binary(state: State, node: Node) -> None:
    parts = state.graph.split(node)
    if parts is None:
        refuse(node, _ONLY)
    name, array, constant_first = parts
    if name != state.value:
        refuse(node, _ONLY)
    stored = node.inputs[0] if constant_first else node.inputs[1]
    state.check_float32(stored, array)
    _broadcast(state, array)
    (numbers,) = per_channel(state, node, [array])
    one, zero = np.ones_like(numbers), np.zeros_like(numbers)
    with np.errstate(all="ignore"):  # a division by 0 is found by the check for infinities
        match node.op:
            case "Add" | "Sum":
                _add(state, node, one, numbers)
            case "Sub" if constant_first:
                _add(state, node, -one, numbers)
            case "Sub":
                _add(state, node, one, -numbers)
            case "Mul":
                _add(state, node, numbers, zero)
            case "Div" if not constant_first:
                _add(state, node, 1 / numbers, zero)
            case _:
                refuse(node, "only by a stored number")


def _broadcast(state: State, array: NDArray[Any]) -> None:
    """Let one channel meet the numbers of several: each of these gets a copy."""
    view = state.view
    rank = len(view.shape)
    if rank != 3 or array.ndim > view.rank:
        return
    with suppress(ValueError):  # what does not broadcast is refused when its numbers are read
        shape = np.broadcast_shapes(view.shape, array.shape[-rank:])
        if shape != view.shape and math.prod(shape) <= MAX_VALUES:
            state.view = view.at(np.broadcast_to(view.positions, shape))
            state.chain.broadcasts = True


def _negate(state: State, node: Node) -> None:
    channels = state.view.base[0]
    _add(state, node, -np.ones(channels), np.zeros(channels))


def _batch_normalization(state: State, node: Node) -> None:
    state.first(node, _NORM)
    if node.attributes.get("training_mode", 0) or not state.view.batched or not state.view.shape:
        refuse(node, _NORM)
    after = (1,) * (len(state.view.shape) - 1)
    arrays = [state.weights(node, index, _NORM) for index in range(1, 5)]
    if any(array.shape != state.view.shape[:1] for array in arrays):
        refuse(node, f"{_NORM}, and not of shape {arrays[0].shape} for {state.view.shape} per face")
    aligned = [array.reshape(-1, *after) for array in arrays]
    scale, shift, mean, variance = per_channel(state, node, aligned, _NORM)
    with np.errstate(all="ignore"):  # a negative variance is found by the check for NaN
        factor = scale / np.sqrt(variance + node.attributes.get("epsilon", _EPSILON))
        _add(state, node, factor, shift - mean * factor)


def _add(state: State, node: Node, scale: Floats, shift: Floats) -> None:
    """Append the step, unless it is nothing."""
    if (scale == 1).all() and not shift.any():
        return
    if not np.isfinite([scale, shift]).all():
        raise UnsupportedModelError(
            f"{node} scales or shifts by numbers that are NaN or infinite, and scores need finite "
            "ones: train or export the model again"
        )
    base = state.view.base
    if node.op in ("Mul", "Div", "Neg"):
        state.add_in_place(Affine(base, scale, shift, scaled_by=node.name))
    else:
        state.add_in_place(Affine(base, scale, shift, shifted_by=node.name))


OPERATORS = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum"), _binary),
    "Neg": _negate,
    "BatchNormalization": _batch_normalization,
}
