"""Activations that are a slope below zero, or bounds: Relu, LeakyRelu, PRelu, Clip, Max, Min."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.affine import per_channel
from ferplus_tvm.importer.reader.state import State, refuse
from ferplus_tvm.importer.steps import Clip, Floats, Leaky

_CLIP = "only between stored numbers, for all values or for each channel"
_SLOPE = "only with one stored slope for all values, or for each channel"
OTHERS = ("Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Sigmoid",
           "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu")  # fmt: skip


def _relu(state: State, node: Node) -> None:
    _leaky(state, node, np.zeros(state.view.base[0]))


def _leaky_relu(state: State, node: Node) -> None:
    channels = state.view.base[0]
    _leaky(state, node, np.full(channels, float(node.attributes.get("alpha", 0.01))))


def _prelu(state: State, node: Node) -> None:
    state.first(node, _SLOPE)
    (slope,) = per_channel(state, node, [state.weights(node, 1, _SLOPE)], _SLOPE)
    _leaky(state, node, slope)


def _leaky(state: State, node: Node, slope: Floats) -> None:
    if not np.isfinite(slope).all():
        refuse(node, f"{_SLOPE}, and one of them is NaN or infinite")
    if (slope != 1).any():
        state.add_in_place(Leaky(node.name, state.view.base, slope))


def _clip(state: State, node: Node) -> None:
    state.first(node, _CLIP)
    stored = [_bound(state, node, index) for index in (1, 2)]
    defaults = np.array(-np.inf), np.array(np.inf)
    low, high = per_channel(
        state,
        node,
        [other if array is None else array for array, other in zip(stored, defaults, strict=True)],
        _CLIP,
    )
    _add(state, node, low, high)


def _extreme(state: State, node: Node) -> None:
    if node.inputs.count(state.value) != 1:
        refuse(node, _CLIP)
    stored = [_bound(state, node, index) for index, name in enumerate(node.inputs)
              if name != state.value]  # fmt: skip
    bounds = per_channel(state, node, [array for array in stored if array is not None], _CLIP)
    channels = state.view.base[0]
    low, high = np.full(channels, -np.inf), np.full(channels, np.inf)
    if node.op == "Max":
        low = np.max([low, *bounds], axis=0)
    else:
        high = np.min([high, *bounds], axis=0)
    _add(state, node, low, high)


def _bound(state: State, node: Node, index: int) -> NDArray[Any] | None:
    """Return a stored bound, None if it is left out."""
    array = state.constant(node, index, _CLIP)
    if array is not None:
        state.check_float32(node.inputs[index], array)
        if np.isnan(array).any():
            refuse(node, f"{_CLIP}, and one of its bounds is NaN")
    return array


def _add(state: State, node: Node, low: Floats, high: Floats) -> None:
    """Append the step, unless it is nothing; the largest number of float32 is no bound."""
    largest = float(np.finfo(np.float32).max)
    low, high = np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)
    if np.isfinite(low).any() or np.isfinite(high).any():
        state.add_in_place(Clip(node.name, state.view.base, low, high))


OPERATORS = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Max": _extreme,
    "Min": _extreme,
}
