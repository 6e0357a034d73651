"""The reference of a graph with branches: the model as its file has it, in numpy's float64.

It follows the ONNX operator specification and reads the file's own nodes, so that it shares
nothing with the importer, TVM and the schedules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ferplus_tvm.errors import UnsupportedModelError

Tensor = NDArray[Any]


def outputs(model: onnx.ModelProto, x: NDArray[Any]) -> dict[str, Tensor]:
    """Return the outputs of a model of one input, by their names, with every sum in float64.

    Raises
    ------
    UnsupportedModelError
        For an operator that is not among those of detectors.
    """
    values: dict[str, Tensor] = {}
    for stored in model.graph.initializer:
        array = numpy_helper.to_array(stored)
        values[stored.name] = array.astype(np.float64) if array.dtype.kind == "f" else array
    (given,) = [value.name for value in model.graph.input if value.name not in values]
    values[given] = x.astype(np.float64)
    for node in model.graph.node:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        inputs = [values.get(name) for name in node.input]
        values[node.output[0]] = _apply(node.op_type, attributes, inputs)
    return {output.name: values[output.name] for output in model.graph.output}


def _apply(op: str, given: dict[str, Any], inputs: list[Any]) -> Tensor:
    """Return the output of a node."""
    x = inputs[0]
    match op:
        case "Conv":
            return _conv(x, inputs[1], inputs[2] if len(inputs) > 2 else None, given)
        case "Relu":
            return np.asarray(np.maximum(x, 0))
        case "Sigmoid":
            return np.asarray(1 / (1 + np.exp(-x)))
        case "Add":
            return np.asarray(x + inputs[1])
        case "MaxPool":
            return _max_pool(x, given)
        case "Transpose":
            return np.transpose(x, given["perm"])
        case "Reshape":
            kept = [x.shape[at] if size == 0 else size for at, size in enumerate(inputs[1])]
            return np.reshape(x, kept)
        case "Concat":
            return np.concatenate(inputs, axis=given["axis"])
        case "Resize" if (
            given.get("mode") == b"nearest"
            and given.get("nearest_mode") == b"floor"
            and given.get("coordinate_transformation_mode") == b"asymmetric"
        ):
            for axis, scale in enumerate(inputs[2]):
                at = np.floor(np.arange(int(x.shape[axis] * scale)) / scale).astype(int)
                x = np.take(x, at, axis)
            return np.asarray(x)
    raise UnsupportedModelError(
        f"the reference has no {op} with {given}: expected the operators of a face detector"
    )


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, given: dict[str, Any]) -> Tensor:
    """Return a convolution: for each place of the window a product over the channels."""
    groups = given.get("group", 1)
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    down, across = given.get("strides", (1, 1))
    far_down, far_across = given.get("dilations", (1, 1))
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    batch, channels, height, width = x.shape
    outputs, _, high, wide = weight.shape
    rows = (height - far_down * (high - 1) - 1) // down + 1
    columns = (width - far_across * (wide - 1) - 1) // across + 1
    x = x.reshape(batch, groups, channels // groups, height, width)
    weight = weight.reshape(groups, outputs // groups, -1, high, wide)
    total = np.zeros((batch, groups, outputs // groups, rows, columns))
    for row in range(high):
        for column in range(wide):
            part = x[:, :, :, row * far_down :: down, column * far_across :: across]
            part = part[:, :, :, :rows, :columns]
            factor = weight[..., row, column]
            if factor.shape[1:] == (1, 1):  # depthwise
                total += factor[..., None] * part
            else:
                part = part.reshape(batch, groups, channels // groups, -1)
                total += np.matmul(factor, part).reshape(total.shape)
    total = total.reshape(batch, outputs, rows, columns)
    return total if bias is None else total + bias[:, None, None]


def _max_pool(x: Tensor, given: dict[str, Any]) -> Tensor:
    """Return the maximum of each window, which lies within the maps."""
    if any(given.get("pads", ())) or given.get("ceil_mode") or max(given.get("dilations", [1])) > 1:
        raise UnsupportedModelError(f"the reference has no MaxPool with {given}: expected no pads")
    (high, wide), (down, across) = given["kernel_shape"], given["strides"]
    windows = np.lib.stride_tricks.sliding_window_view(x, (high, wide), axis=(2, 3))
    return np.asarray(windows[:, :, ::down, ::across].max(axis=(4, 5)))
