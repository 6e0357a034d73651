"""Small tidy graphs of any layers, as the importer's contract has them, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ferplus_tvm.importer.contract import check_tidy


class Chain:
    """Collects nodes one after the other; sizes follow by themselves.

    Weights are scaled so that values stay of order one, and every name is the node's own choice.
    """

    def __init__(self, channels: int = 1, size: int = 64, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[TensorProto] = []
        self._value = "x"
        self._input = (channels, size, size)
        self._channels, self._map, self._features = channels, (size, size), 0

    def sub(self, number: float | Sequence[float], name: str = "sub") -> Chain:
        return self._add("Sub", name, [_per_channel(number)])

    def mul(self, number: float | Sequence[float], name: str = "mul") -> Chain:
        return self._add("Mul", name, [_per_channel(number)])

    def relu(self, name: str) -> Chain:
        return self._add("Relu", name, [])

    def leaky(self, name: str, slope: float) -> Chain:
        return self._add("LeakyRelu", name, [], alpha=slope)

    def clip(self, name: str, *bounds: str) -> Chain:
        """Add the bounds named, "Max" and "Min", each a random number for every channel."""
        for op in bounds:
            shape = (self._features,) if self._features else (self._channels, 1, 1)
            bound = abs(self._draw(shape, 4))
            self._add(op, f"{name}{op}", [bound if op == "Min" else -bound])
        return self

    def conv(
        self,
        name: str,
        channels: int,
        *,
        kernel: Sequence[int] = (3, 3),
        strides: Sequence[int] = (1, 1),
        pads: Sequence[int] = (1, 1, 1, 1),
        dilations: Sequence[int] = (1, 1),
        group: int = 1,
    ) -> Chain:
        inputs = self._channels // group
        weight = self._draw((channels, inputs, *kernel), inputs * kernel[0] * kernel[1])
        self._channels = channels
        self._slide(kernel, strides, pads, dilations)
        return self._add(
            "Conv",
            name,
            [weight, self._draw((channels,), 4)],
            kernel_shape=kernel,
            strides=strides,
            pads=pads,
            dilations=dilations,
            group=group,
        )

    def pool(
        self,
        name: str,
        kernel: Sequence[int] = (2, 2),
        strides: Sequence[int] = (2, 2),
        pads: Sequence[int] = (0, 0, 0, 0),
    ) -> Chain:
        self._slide(kernel, strides, pads, (1, 1))
        return self._add(
            "MaxPool",
            name,
            [],
            kernel_shape=kernel,
            strides=strides,
            pads=pads,
            dilations=(1, 1),
            ceil_mode=0,
            storage_order=0,
        )

    def average(
        self, name: str, kernel: Sequence[int] | None = None, strides: Sequence[int] = (1, 1)
    ) -> Chain:
        """Add an average pooling, by default of the whole map."""
        kernel, pads = kernel or self._map, (0, 0, 0, 0)
        self._slide(kernel, strides, pads, (1, 1))
        return self._add("AveragePool", name, [], kernel_shape=kernel, strides=strides, pads=pads)

    def flatten(self, name: str = "flatten") -> Chain:
        self._features = self._channels * self._map[0] * self._map[1]
        return self._add("Flatten", name, [], axis=1)

    def dense(self, name: str, outputs: int = 8) -> Chain:
        weight = self._draw((self._features, outputs), self._features)
        self._features = outputs
        bias = self._draw((outputs,), 4)
        return self._add("Gemm", name, [weight, bias], alpha=1.0, beta=1.0, transA=0, transB=0)

    def model(self, checked: bool = True) -> onnx.ModelProto:
        """Return the tidy graph, or unchecked whatever it is."""
        self._nodes[-1].output[0] = "scores"
        graph = helper.make_graph(
            self._nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self._input])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", self._features])],
            self._stored,
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        if checked:
            check_tidy(model)
        return model

    def _draw(self, shape: Sequence[int], inputs: int) -> NDArray[np.float32]:
        values = self._random.standard_normal(shape) / np.sqrt(inputs)
        return values.astype(np.float32)

    def _slide(self, *window: Sequence[int]) -> None:
        kernel, strides, pads, dilations = window
        height, width = (
            (self._map[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1)
            // strides[i]
            + 1
            for i in range(2)
        )
        self._map = (height, width)

    def _add(self, op: str, name: str, stored: list[Any], **attributes: Any) -> Chain:
        inputs = [self._value]
        for array in stored:
            inputs.append(f"stored_{len(self._stored)}")
            self._stored.append(numpy_helper.from_array(np.asarray(array), inputs[-1]))
        self._value = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [self._value], name=name, **attributes))
        return self


def faces(batch: int, seed: int = 0, channels: int = 1, size: int = 64) -> NDArray[np.float32]:
    """Draw values of order one, float32 (batch, channels, size, size)."""
    shape = (batch, channels, size, size)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _per_channel(number: float | Sequence[float]) -> NDArray[np.float32]:
    array = np.array(number, np.float32)
    return array.reshape(-1, 1, 1) if array.ndim else array
