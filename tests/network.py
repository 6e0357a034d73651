"""The FER+ network as tables and random weights, and how a test model stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, NDArray[np.float32]]

# (numbers of the Convolution, Plus and ReLU node, weight, bias, channels in, channels out); a
# pair is a MaxPool and a Dropout.
FEATURES: tuple[tuple[Any, ...], ...] = (
    (362, 364, 366, "Parameter3", "Parameter4", 1, 64),
    (380, 382, 384, "Parameter23", "Parameter24", 64, 64),
    (398, 408),
    (418, 420, 422, "Parameter63", "Parameter64", 64, 128),
    (436, 438, 440, "Parameter83", "Parameter84", 128, 128),
    (454, 464),
    (474, 476, 478, "Parameter575", "Parameter576", 128, 256),
    (492, 494, 496, "Parameter595", "Parameter596", 256, 256),
    (510, 512, 514, "Parameter615", "Parameter616", 256, 256),
    (528, 538),
    (548, 550, 552, "Parameter655", "Parameter656", 256, 256),
    (566, 568, 570, "Parameter675", "Parameter676", 256, 256),
    (584, 586, 588, "Parameter695", "Parameter696", 256, 256),
    (602, 612),
)
# (numbers of the Times, Plus, ReLU and Dropout node, weight, bias)
DENSE: tuple[tuple[Any, ...], ...] = (
    (622, 624, 636, 646, "Parameter1367", "Parameter1368"),
    (656, 658, 670, 680, "Parameter1403", "Parameter1404"),
    (690, 692, None, None, "Parameter1693", "Parameter1694"),
)
CONVOLUTIONS = tuple(layer for layer in FEATURES if len(layer) > 2)
INPUT, OUTPUT = "Input3", "Plus692_Output_0"
TIDY_OPS = [
    "Sub",
    "Mul",
    *(op for layer in FEATURES for op in (["Conv", "Relu"] if len(layer) > 2 else ["MaxPool"])),
    *("Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"),
]


# Variance of a layer's weights times its inputs, so that scores neither fade nor grow.
GAIN, FINAL_GAIN = 2.7, 16.0


def make_weights(seed: int = 0, width: int = 8) -> Weights:
    """
    Draw the network's parameters, scaled so that scores are of order 1 to 10 and differ by face.

    Every value fits half precision, so that a model stored so is still the same network.
    Convolution weights are [O, I, 3, 3] with biases [O, 1, 1], dense ones [K, O] with biases
    [O]; the first dense weight is [C, 4, 4, O] as in the official file.
    """
    rng = np.random.default_rng(seed)
    arrays: Weights = {}

    def draw(shape: Sequence[int], scale: float, axis: int | None = None) -> NDArray[np.float32]:
        array = rng.standard_normal(shape, np.float32)
        if axis is not None:
            # ReLU makes all activations positive; without the mean, faces stay different.
            array -= array.mean(axis=axis, keepdims=True)
        return (array * np.float32(scale)).astype(np.float16).astype(np.float32)

    def thin(channels: int) -> int:
        return channels if channels == 1 else max(channels // width, 1)

    for *_, weight, bias, inputs, outputs in CONVOLUTIONS:
        ins, outs = thin(inputs), thin(outputs)
        axis = 1 if ins > 1 else None
        arrays[weight] = draw((outs, ins, 3, 3), (GAIN / (9 * ins)) ** 0.5, axis)
        arrays[bias] = draw((outs, 1, 1), 0.1)
    last, hidden = thin(256), thin(1024)
    sizes = ((last * 16, hidden), (hidden, hidden), (hidden, 8))
    for (*_, weight, bias), (ins, outs) in zip(DENSE, sizes, strict=True):
        gain = GAIN if outs > 8 else FINAL_GAIN
        shape = (last, 4, 4, outs) if weight == "Parameter1367" else (ins, outs)
        arrays[weight] = draw(shape, (gain / ins) ** 0.5, 0)
        arrays[bias] = draw((outs,), 0.1)
    return arrays


def faces(batch: int, seed: int = 1) -> NDArray[np.float32]:
    """Draw raw grey inputs, float32 (batch, 1, 64, 64) in 0..255: smooth, unlike each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (batch, 1, 8, 8))
    noise = rng.uniform(-20, 20, (batch, 1, 64, 64))
    return np.clip(coarse.repeat(8, 2).repeat(8, 3) + noise, 0, 255).astype(np.float32)


def value(
    name: str, shape: Sequence[int | str | None] | None, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    """Declare a value, float32 unless told otherwise."""
    return helper.make_tensor_value_info(name, kind, shape)


def raw_tensor(name: str, array: NDArray[Any]) -> TensorProto:
    """Store an array as raw bytes."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
