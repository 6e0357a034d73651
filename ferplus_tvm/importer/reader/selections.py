"""Operators that select values, or copy them: they change the view and add no step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.layouts import APART, STORED, targets, view_size
from ferplus_tvm.importer.reader.state import MAX_VALUES, State, refuse
from ferplus_tvm.importer.steps import Shape
from ferplus_tvm.importer.view import View

_RESIZE = "only where it changes no size, so that faces come in the size that the layers want"
_HUGE = 10**9  # TensorFlow's largest end of a slice; others write that of their integers


def _slice(state: State, node: Node) -> None:
    state.first(node, STORED)
    starts, ends, axes, steps = (state.constant(node, index, STORED) for index in range(1, 5))
    if starts is None or ends is None:
        refuse(node, STORED)
    count = starts.size
    along = range(count) if axes is None else axes.reshape(-1).tolist()
    strides = [1] * count if steps is None else steps.reshape(-1).tolist()
    positions = state.view.positions
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), along, strides, strict=True):
        at = state.axis(node, int(axis))
        # Of the faces it may take all; a file that leaves their number open says so by a huge end.
        every = (start, step) == (0, 1) and end >= (state.batch or _HUGE)
        if step == 0 or (at == -1 and not every):
            refuse(node, APART)
        if at >= 0:
            positions = positions[(slice(None),) * at + (_range(start, end, step),)]
    _select(state, node, positions)


def _range(start: int, end: int, step: int) -> slice:
    """Return a slice of ONNX as one of Python, which has no end before the first element."""
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def _check_size(node: Node, count: int) -> None:
    """See that a view of so many values fits memory."""
    if count > MAX_VALUES:
        refuse(node, f"only up to {MAX_VALUES} values per face")


def _select(state: State, node: Node, positions: NDArray[Any]) -> None:
    """Look at some of the values."""
    if not positions.size:
        refuse(node, "only where it leaves something of the value")
    state.view = state.view.at(positions)


def _gather(state: State, node: Node) -> None:
    state.first(node, STORED)
    indices = state.constant(node, 1, STORED)
    axis = state.axis(node, int(node.attributes.get("axis", 0)))
    if indices is None or indices.dtype.kind not in "iu":
        refuse(node, STORED)
    if axis == -1:
        if indices.ndim or state.batch != 1 or int(indices) not in (0, -1):
            refuse(node, APART)
        state.view = state.view.reshaped(state.view.shape, batched=False)
        return
    size = state.view.shape[axis]
    if ((indices < -size) | (indices >= size)).any():
        refuse(node, f"only with indices below {size}")
    _check_size(node, indices.size * (view_size(state) // size))
    _select(state, node, state.view.positions.take(indices.astype(np.int64) % size, axis))


def _expand(state: State, node: Node) -> None:
    state.first(node, STORED)
    results: set[Shape] = set()
    view = state.view
    for batch, target in targets(state, node.inputs[1]):
        full = (batch, *view.shape) if view.batched else view.shape
        if target is None or target.ndim != 1 or (target < 1).any():
            refuse(node, STORED)
        try:
            result = np.broadcast_shapes(full, tuple(target.tolist()))
        except ValueError:
            refuse(node, f"only to a shape that {view.shape} per face broadcasts to")
        if len(result) > view.rank or (view.batched and result[0] != batch):
            refuse(node, APART)
        results.add(result[view.batched :])
    if len(results) != 1:
        refuse(node, APART)
    shape = results.pop()
    _check_size(node, math.prod(shape))
    _select(state, node, np.broadcast_to(view.positions, shape))


def _resize(state: State, node: Node) -> None:
    state.first(node, _RESIZE)
    view, given = state.view, node.attributes
    scales = state.constant(node, 2, _RESIZE)
    crops = given.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crops or not view.batched:
        refuse(node, _RESIZE)
    along = [state.axis(node, int(axis)) for axis in given.get("axes", range(view.rank))]
    makes: list[tuple[int, NDArray[Any] | None]]
    makes = [] if scales is None or not scales.size else [(1, scales * _sizes(view, along, 1))]
    if len(node.inputs) > 3 and node.inputs[3]:
        makes = list(targets(state, node.inputs[3]))
    for batch, sizes in makes or ((1, None),):
        before = _sizes(view, along, batch)
        if sizes is None or sizes.tolist() != before:
            made = (
                "" if sizes is None else f", and it makes {sizes.astype(int).tolist()} of {before}"
            )
            refuse(node, f"{_RESIZE}{made}")


def _sizes(view: View, along: list[int], batch: int) -> list[int]:
    """Return the sizes of a view along dimensions of one face, -1 for the batch."""
    return [batch if at == -1 else view.shape[at] for at in along]


def _tile(state: State, node: Node) -> None:
    state.first(node, STORED)
    repeats = state.constant(node, 1, STORED)
    if repeats is None or repeats.size != state.view.rank or (repeats < 1).any():
        refuse(node, STORED)
    numbers = [int(number) for number in repeats.reshape(-1)]
    if state.view.batched and numbers[0] != 1:
        refuse(node, APART)
    _check_size(node, math.prod(numbers) * view_size(state))
    _select(state, node, np.tile(state.view.positions, numbers[state.view.batched :]))


def _concat(state: State, node: Node) -> None:
    axis = state.axis(node, int(node.attributes["axis"]))
    if set(node.inputs) != {state.value} or axis == -1:
        refuse(node, "only of one value with itself")
    _check_size(node, len(node.inputs) * view_size(state))
    _select(state, node, np.concatenate([state.view.positions] * len(node.inputs), axis))


OPERATORS = {
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Resize": _resize,
}
