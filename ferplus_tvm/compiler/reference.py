"""The reference that a library is checked against: the tidy graph in numpy's float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.kernels.workloads import Conv, Pool


def scores(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the scores (N, outputs) of faces (N, 1, 64, 64), every sum in float64.

    Follows the ONNX operator specification, on the tidy graph and on channels-last maps.
    """
    constants = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in model.graph.initializer
    }
    value: NDArray[np.float64] = x.astype(np.float64).transpose(0, 2, 3, 1)
    for node in model.graph.node:
        operands = [constants[name] for name in node.input[1:]]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        value = _OPERATORS[node.op_type](value, operands, attributes)
    return value


def _conv(
    x: NDArray[np.float64], operands: list[NDArray[np.float64]], attributes: dict[str, Any]
) -> NDArray[np.float64]:
    weight, bias = operands
    group = attributes["group"]
    inputs, outputs = x.shape[-1] // group, len(weight) // group
    parts = []
    for index in range(group):
        workload = Conv(
            batch=len(x),
            height=x.shape[1],
            width=x.shape[2],
            in_channels=inputs,
            out_channels=outputs,
            kernel=weight.shape[2:],
            stride=tuple(attributes["strides"]),
            padding=tuple(attributes["pads"]),
            dilation=tuple(attributes["dilations"]),
            relu=False,
        )
        rows = slice(index * outputs, (index + 1) * outputs)
        channels = x[..., index * inputs : (index + 1) * inputs]
        parts.append(workload.reference(channels, weight[rows], bias[rows]))
    return np.concatenate(parts, axis=-1)


def _max_pool(
    x: NDArray[np.float64], operands: list[NDArray[np.float64]], attributes: dict[str, Any]
) -> NDArray[np.float64]:
    del operands
    batch, height, width, channels = x.shape
    workload = Pool(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        kernel=tuple(attributes["kernel_shape"]),
        stride=tuple(attributes["strides"]),
        padding=tuple(attributes["pads"]),
    )
    return workload.reference(x)


_OPERATORS: dict[str, Any] = {
    "Sub": lambda x, operands, _: x - operands[0],
    "Mul": lambda x, operands, _: x * operands[0],
    "Conv": _conv,
    "Relu": lambda x, _operands, _: np.maximum(x, 0),
    "MaxPool": _max_pool,
    "Flatten": lambda x, _operands, _: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
    "Gemm": lambda x, operands, _: x @ operands[0] + operands[1],
}
