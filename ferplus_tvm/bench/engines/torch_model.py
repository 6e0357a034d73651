"""The imported model as PyTorch runs it, operator by operator (eager)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ferplus_tvm.errors import UnsupportedModelError


def of_onnx(path: str, device: Any = "cpu", dtype: Any = None) -> Callable[[Any], Any]:
    """Return a function of a tensor that computes an ONNX model.

    Parameters
    ----------
    path
        The model, as the importer has normalised it.
    device
        PyTorch's device of the weights.
    dtype
        PyTorch's type of the weights; by default the model's own.

    Raises
    ------
    UnsupportedModelError
        If the model has an operator that is none of those that the importer leaves.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {
        stored.name: _constant(numpy_helper.to_array(stored), device, dtype)
        for stored in graph.initializer
    }
    (given,) = (value.name for value in graph.input if value.name not in constants)
    steps = [(_operator(node), list(node.input), node.output[0]) for node in graph.node]

    def run(x: Any) -> Any:
        values = {given: x}
        for operator, inputs, output in steps:
            values[output] = operator(
                *(values[name] if name in values else constants[name] for name in inputs if name)
            )
        return values[graph.output[0].name]

    return run


def _constant(value: Any, device: Any, dtype: Any) -> Any:
    import torch

    constant = torch.from_numpy(value.copy()).to(device)
    return constant.to(dtype) if dtype is not None and constant.is_floating_point() else constant


def _operator(node: Any) -> Callable[..., Any]:
    import onnx
    import torch
    from torch.nn import functional

    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    pads = given.get("pads", [0, 0, 0, 0])
    padding = [pads[1], pads[3], pads[0], pads[2]]  # left, right, top, bottom

    def convolve(x: Any, weight: Any, bias: Any = None) -> Any:
        stride, dilation = given.get("strides", 1), given.get("dilations", 1)
        if pads[:2] == pads[2:]:
            return functional.conv2d(
                x, weight, bias, stride, pads[:2], dilation, given.get("group", 1)
            )
        padded = functional.pad(x, padding)
        return functional.conv2d(padded, weight, bias, stride, 0, dilation, given.get("group", 1))

    def pool(x: Any) -> Any:
        padded = functional.pad(x, padding, value=float("-inf")) if any(pads) else x
        return functional.max_pool2d(padded, given["kernel_shape"], given.get("strides", 1))

    def average(x: Any) -> Any:
        return functional.avg_pool2d(x, given["kernel_shape"], given.get("strides", 1))

    def gemm(x: Any, weight: Any, bias: Any) -> Any:
        return functional.linear(x, weight if given.get("transB") else weight.T, bias)

    operators: dict[str, Callable[..., Any]] = {
        "AveragePool": average,
        "Conv": convolve,
        "Flatten": lambda x: torch.flatten(x, 1),
        "Gemm": gemm,
        "LeakyRelu": lambda x: functional.leaky_relu(x, given.get("alpha", 0.01)),
        "Max": torch.maximum,
        "MaxPool": pool,
        "Min": torch.minimum,
        "Mul": torch.mul,
        "Relu": torch.relu,
        "Sub": torch.sub,
    }
    if node.op_type not in operators:
        raise UnsupportedModelError(
            f"the model has the operator {node.op_type}, which is not measured with torch: take "
            "torch out of --peers"
        )
    return operators[node.op_type]
