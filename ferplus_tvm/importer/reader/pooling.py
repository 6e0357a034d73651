"""Pooling, means and maxima over the map, and borders around it."""

from __future__ import annotations

import math

import numpy as np

from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.affine import per_channel
from ferplus_tvm.importer.reader.layers import fitting_window
from ferplus_tvm.importer.reader.state import State, refuse
from ferplus_tvm.importer.steps import Affine, Conv, Pad, Pool
from ferplus_tvm.importer.view import View
from ferplus_tvm.importer.window import Window

_MAX = "only without dilations and indices, and rounding up only where each window starts inside"
_AVERAGE = "only without dilations, rounding up, and borders that the mean leaves out"
_GLOBAL = "only over whole maps, whole rows or columns of them, or a mean or sum of all channels"
_PAD = "only a border of one stored number around the maps"


def _pool(state: State, node: Node) -> None:
    only = _MAX if node.op == "MaxPool" else _AVERAGE
    state.first(node, only)
    shape = state.view.shape
    kernel = [int(size) for size in node.attributes.get("kernel_shape", [])]
    if len(shape) != 3 or len(kernel) != 2 or not state.view.batched:
        refuse(node, f"only with a window of two sizes on feature maps, and not {shape} per face")
    size = (shape[1], shape[2])
    window = fitting_window(node, (kernel[0], kernel[1]), size)
    if any(state.readers.get(name) for name in node.outputs[1:] if name):
        refuse(node, only)
    window = _rounded_down(node, window, size, only)
    if window.dilations != (1, 1) or window.output is None:
        refuse(node, only)
    if window.kernel == window.strides == (1, 1) and not any(window.pads):
        return
    if size == (1, 1) and window.output == (1, 1):
        _pool_of_one(state, node, window)
    elif node.op == "AveragePool" and any(window.pads):
        if not node.attributes.get("count_include_pad", 0):
            refuse(node, only)
        _apply(state, node, window, as_conv=True)
    else:
        _apply(state, node, window)


def _rounded_down(node: Node, window: Window, size: tuple[int, int], only: str) -> Window:
    """Return the window without ceil_mode: wider pads at the end make the same windows."""
    if not node.attributes.get("ceil_mode", 0) or window.output is None:
        return window
    last = [(n - 1) * s for n, s in zip(window.output, window.strides, strict=True)]
    missing = [
        max(at + k - n - before - after, 0)
        for at, k, n, before, after in zip(
            last, window.kernel, size, window.pads[:2], window.pads[2:], strict=True
        )
    ]
    if not any(missing):
        return window
    starts_inside = all(
        at < n + before for at, n, before in zip(last, size, window.pads[:2], strict=True)
    )
    if node.op != "MaxPool" or not starts_inside or window.dilations != (1, 1):
        refuse(node, only)
    pads = (*window.pads[:2], window.pads[2] + missing[0], window.pads[3] + missing[1])
    return Window(window.kernel, window.strides, window.dilations, pads, window.output)


def _pool_of_one(state: State, node: Node, window: Window) -> None:
    """Read a pooling of one pixel, which is nothing, unless zeros around it are counted."""
    counted = node.attributes.get("count_include_pad", 0) and any(window.pads)
    if node.op == "AveragePool" and counted:
        channels = state.view.base[0]
        scale = np.full(channels, 1 / math.prod(window.kernel))
        base = state.view.base
        state.add_in_place(Affine(base, scale, np.zeros(channels), scaled_by=node.name))


def _apply(state: State, node: Node, window: Window, *, as_conv: bool = False) -> None:
    """Append a pooling on the maps of the view, whatever order its channels have."""
    channels = state.channels(node)
    assert window.output is not None
    count = state.view.base[0]
    base = (count, *window.output)
    if as_conv:
        weight = np.full((count, 1, *window.kernel), 1 / math.prod(window.kernel))
        state.add(Conv(node.name, base, weight, np.zeros(count), window, count))
    else:
        state.add(Pool(node.name, base, node.op, window))
    state.view = state.view.with_maps(channels, base)


def _global(state: State, node: Node) -> None:
    state.first(node, _GLOBAL)
    if len(state.view.shape) < 2 or not state.view.batched:
        refuse(node, f"{_GLOBAL}, and not of {state.view.shape} per face")
    _reduce(state, node, list(range(1, len(state.view.shape))), keep=True)


def _reduction(state: State, node: Node) -> None:
    state.first(node, _GLOBAL)
    stored = state.constant(node, 1, _GLOBAL)
    given = node.attributes.get("axes", [] if stored is None else stored.reshape(-1).tolist())
    if not given:
        if not node.attributes.get("noop_with_empty_axes", 0):
            refuse(node, f"{_GLOBAL}, and not over all faces")
        return
    axes = [state.axis(node, int(axis)) for axis in given]
    if -1 in axes:
        refuse(node, f"{_GLOBAL}, and not over faces")
    _reduce(state, node, axes, keep=bool(node.attributes.get("keepdims", 1)))


def _reduce(state: State, node: Node, axes: list[int], *, keep: bool) -> None:
    """Append the pooling that a reduction over these dimensions of one face is."""
    view = state.view
    count = math.prod(view.shape[axis] for axis in axes)
    kept = [axis for axis in range(len(view.shape)) if axis not in axes]
    rest = tuple(view.shape[axis] for axis in kept)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(view.shape))
    shape = shape if keep else rest
    if count == 1:
        state.view = view.reshaped(shape, batched=view.batched)
        return
    if node.op in ("ReduceMean", "ReduceSum") and _mix_channels(state, node, axes):
        state.view = state.view.reshaped(shape)
        return
    found = view.positions.transpose(*kept, *axes).reshape(-1, count)
    if len(view.base) != 3:
        refuse(node, f"{_GLOBAL}, and not over rows")
    channels, height, width = view.base
    for kernel in ((height, width), (1, width), (height, 1)):
        base = (channels, height // kernel[0], width // kernel[1])
        # The pixel of the pooled maps to which each pixel of the maps belongs.
        pooled = np.arange(math.prod(base)).reshape(base)
        owner = pooled.repeat(kernel[0], 1).repeat(kernel[1], 2).reshape(-1)[found]
        distinct = (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
        if count == math.prod(kernel) and distinct and (owner == owner[:, :1]).all():
            op = "MaxPool" if node.op in ("ReduceMax", "GlobalMaxPool") else "AveragePool"
            window = Window(kernel, kernel, (1, 1), (0, 0, 0, 0), (base[1], base[2]))
            state.add(Pool(node.name, base, op, window))
            if node.op == "ReduceSum":
                scale = np.full(channels, float(count))
                state.add_in_place(Affine(base, scale, np.zeros(channels), scaled_by=node.name))
            state.view = View.of(base).at(owner[:, 0].reshape(shape))
            return
    refuse(node, _GLOBAL)


def _mix_channels(state: State, node: Node, axes: list[int]) -> bool:
    """Read a mean or sum over all channels, as of grey from RGB; return whether it was one."""
    maps = state.view.maps()
    if maps is None or axes != [maps[0]]:
        return False
    count = len(maps[1])
    weight = np.full((1, count), 1.0 if node.op == "ReduceSum" else 1 / count)
    return state.pointwise(node.name, weight, np.zeros(1))


def _pad(state: State, node: Node) -> None:
    state.first(node, _PAD)
    pads, stored = (state.constant(node, index, _PAD) for index in (1, 2))
    axes = state.constant(node, 3, _PAD)
    mode = node.attributes.get("mode", "constant")
    view = state.view
    if pads is None or pads.dtype != np.int64 or not view.batched:
        refuse(node, _PAD)
    amounts = np.zeros((2, view.rank), np.int64)
    places = [*range(view.rank)] if axes is None else [int(a) % view.rank for a in axes.reshape(-1)]
    if pads.size != 2 * len(places) or len(set(places)) < len(places):
        refuse(node, _PAD)
    amounts[:, places] = pads.reshape(2, -1)
    if not amounts.any():
        return
    order = view.axes()
    channels = view.channels()
    if mode != "constant" or (amounts < 0).any() or amounts[:, 0].any():
        refuse(node, f"{_PAD}, and it has mode={mode!r} and pads={amounts.reshape(-1).tolist()}")
    if order is None and channels is None:
        refuse(node, _PAD)
    # A view whose maps are whole has its axes in order, even if its channels are not.
    order = order if order is not None else (0, 1, 2)
    of_axis = {axis: amounts[:, at + 1] for at, axis in enumerate(order)}
    if of_axis[0].any():
        refuse(node, f"{_PAD}, and not of more channels")
    number = 0.0
    if stored is not None:
        number = float(per_channel(state, node, [stored], _PAD)[0][0])
    top, bottom, left, right = (int(n) for axis in (1, 2) for n in of_axis[axis])
    base = (view.base[0], view.base[1] + top + bottom, view.base[2] + left + right)
    state.add(Pad(node.name, base, (top, left, bottom, right), number))
    if channels is not None:
        state.view = state.view.with_maps(channels, base)
    else:
        state.view = state.view.at(state.view.positions.transpose(order))


OPERATORS = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceSum"), _reduction),
    "Pad": _pad,
}
