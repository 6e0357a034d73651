"""Convolutions and dense layers."""

from __future__ import annotations

import math

import numpy as np

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.state import MAX_VALUES, State, refuse
from ferplus_tvm.importer.steps import Conv, Floats
from ferplus_tvm.importer.window import Window, window_of

_EXPORT = "export the network again"
_CONV = "only in two dimensions, with stored weights"
_GEMM = "only of one row per face with stored weights and a stored bias"
_MATMUL = "only of one row per face with a stored matrix in second place"


def _conv(state: State, node: Node) -> None:
    state.first(node, _CONV)
    weight = state.weights(node, 1, _CONV)
    group = int(node.attributes.get("group", 1))
    if weight.ndim != 4 or not weight.size:
        refuse(node, f"{_CONV}, and not with weights of shape {weight.shape}")
    channels, height, width = _maps(state, node)
    if weight.shape[1] * group != channels or group < 1 or weight.shape[0] % group:
        raise ModelShapeError(
            f"{node} has weights of shape {weight.shape} in {group} groups for {channels} "
            f"channels, which do not fit together: {_EXPORT}"
        )
    kernel = (weight.shape[2], weight.shape[3])
    if node.attributes.get("kernel_shape", list(kernel)) != list(kernel):
        raise ModelShapeError(
            f"{node} states a kernel of {node.attributes['kernel_shape']} and has weights of shape "
            f"{weight.shape}: {_EXPORT}"
        )
    bias: Floats = np.zeros(weight.shape[0], np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = state.weights(node, 2, _CONV)
        if bias.shape != weight.shape[:1]:
            refuse(node, f"{_CONV}, and a bias of shape {bias.shape} is none for it")
    window = fitting_window(node, kernel, (height, width))
    # With the groups spread out; a larger one stays a convolution.
    values = weight.size * group
    fits = max(values, len(weight) * math.prod(state.view.shape)) <= MAX_VALUES
    if window.output == (1, 1) and fits:
        matrix = _as_matrix(weight, group, window, (height, width))
        state.dense(node.name, matrix, bias, (weight.shape[0], 1, 1))
        return
    order = state.channels(node)
    inputs = state.view.base[0]
    if order != list(range(inputs)):
        if values > MAX_VALUES:
            refuse(
                node, "only on channels in the order of the layer before them, in so many groups"
            )
        weight, group = _reordered(weight, group, order, inputs), 1
    assert window.output is not None
    shape = (weight.shape[0], *window.output)
    state.add(Conv(node.name, shape, weight, bias, window, group))


def _maps(state: State, node: Node) -> tuple[int, int, int]:
    """Return channels, height and width of the maps that a layer gets."""
    shape = state.view.shape
    if len(shape) != 3 or not state.view.batched:
        raise ModelShapeError(f"{node} needs feature maps, and gets {shape} per face: {_EXPORT}")
    return shape[0], shape[1], shape[2]


def fitting_window(node: Node, kernel: tuple[int, int], size: tuple[int, int]) -> Window:
    """Return the window of a node, and see that it fits the map."""
    window = window_of(node, kernel, size)
    if window.output is None:
        raise ModelShapeError(
            f"{node} has a window larger than the {size[0]}x{size[1]} feature map it gets: "
            f"{_EXPORT}"
        )
    if not window.touches:
        refuse(node, f"only with a border narrower than its window, and it has pads={window.pads}")
    return window


def spread_groups(weight: Floats, group: int) -> Floats:
    """Return grouped weights [O, I/group, kh, kw] as [O, I, kh, kw], with zeros between groups."""
    outputs, inputs = weight.shape[:2]
    if group == 1:
        return weight
    full = np.zeros((outputs, inputs * group, *weight.shape[2:]), weight.dtype)
    for at in range(group):
        rows = slice(at * outputs // group, (at + 1) * outputs // group)
        full[rows, at * inputs : (at + 1) * inputs] = weight[rows]
    return full


def _reordered(weight: Floats, group: int, order: list[int], inputs: int) -> Floats:
    """Return weights for the channels of the layer before in place of the view's."""
    full = spread_groups(weight, group)
    result = np.zeros((full.shape[0], inputs, *full.shape[2:]), full.dtype)
    for at, channel in enumerate(order):
        result[:, channel] += full[:, at]
    return result


def _as_matrix(weight: Floats, group: int, window: Window, size: tuple[int, int]) -> Floats:
    """Return a convolution that gives one pixel as the matrix [C*H*W, O] of a dense layer."""
    full = spread_groups(weight, group)
    outputs, channels = full.shape[:2]
    matrix = np.zeros((channels, *size, outputs), full.dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            y = i * window.dilations[0] - window.pads[0]
            x = j * window.dilations[1] - window.pads[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                matrix[:, y, x] = full[:, :, i, j].T
    return matrix.reshape(-1, outputs)


def _gemm(state: State, node: Node) -> None:
    state.first(node, _GEMM)
    given = node.attributes
    weight: Floats = state.weights(node, 1, _GEMM)
    rows = state.view.rank == 2 or math.prod(state.view.shape[:-1]) > 1
    if given.get("transA", 0) or weight.ndim != 2 or not rows:
        refuse(node, _GEMM)
    if given.get("transB", 0):
        weight = weight.T
    if given.get("alpha", 1.0) != 1:
        weight = weight * np.float64(given["alpha"])
    bias: Floats = np.zeros(weight.shape[1], np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        stored = state.weights(node, 2, _GEMM)
        if stored.ndim > 2 or stored.shape[-1:] not in ((), (1,), bias.shape) or (
            stored.ndim == 2 and stored.shape[0] != 1
        ):  # fmt: skip
            refuse(node, f"{_GEMM}, and not with one of shape {stored.shape}")
        bias = np.broadcast_to(stored.reshape(-1), bias.shape)
        if given.get("beta", 1.0) != 1:
            bias = bias * np.float64(given["beta"])
    _product(state, node, weight, bias)


def _matmul(state: State, node: Node) -> None:
    state.first(node, _MATMUL)
    weight = state.weights(node, 1, _MATMUL)
    # One face without a batch may be one row of rank 1.
    rank = max(state.view.rank, 2)
    if weight.ndim < 2 or math.prod(weight.shape[:-2]) != 1 or weight.ndim > rank:
        refuse(node, _MATMUL)
    matrix = weight.reshape(weight.shape[-2], weight.shape[-1])
    bias = np.zeros(matrix.shape[1], np.float32)
    _product(state, node, matrix, bias)


def _product(state: State, node: Node, matrix: Floats, bias: Floats) -> None:
    """Read a product with the last dimension of the value."""
    maps = state.view.maps() if math.prod(state.view.shape[:-1]) != 1 else None
    if maps is None or maps[0] != 2:
        _dense(state, node, matrix, bias)
    # On the last axis of channels-last maps it is a convolution of 1x1.
    elif not state.pointwise(node.name, matrix.T, bias):
        raise ModelShapeError(
            f"{node} has weights for {matrix.shape[0]} channels and gets {len(maps[1])}: {_EXPORT}"
        )


def _dense(state: State, node: Node, matrix: Floats, bias: Floats) -> None:
    shape = state.view.shape
    if not shape or math.prod(shape[:-1]) != 1:
        refuse(node, f"{_MATMUL if node.op == 'MatMul' else _GEMM}, and it gets {shape} per face")
    if matrix.shape[0] != shape[-1] or 0 in matrix.shape:
        raise ModelShapeError(
            f"{node} has weights for {matrix.shape[0]} values per face and gets {shape[-1]}: "
            f"{_EXPORT}"
        )
    state.dense(node.name, matrix, bias, (*shape[:-1], matrix.shape[1]))


OPERATORS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
