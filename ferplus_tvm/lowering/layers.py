"""Recognise layers in the imported Relax function.

Rules are tried in order at each binding; a rule that does not apply returns None.

1. ``subtract`` and ``multiply`` by constants, directly before a convolution, become its affine
   input scaling, which is exact: the convolution's halo stays zero.
2. ``conv2d``, ``add`` [, ``relu``] become a convolution.
3. ``max_pool2d`` [, ``relu``] becomes a pooling; the ReLU moves before it, into the convolution,
   since the maximum of clipped values is the clipped maximum.
4. ``batch_flatten`` is remembered for the dense layer that follows.
5. ``matmul``, ``add`` [, ``relu``] become a dense layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.relax import RelaxModel, to_relax


@dataclass(frozen=True)
class ConvLayer:
    """Convolution with bias; weight (CO, CI, KH, KW), groups already spread out."""

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    relu: bool
    affine: tuple[float, float] | None


@dataclass(frozen=True)
class PoolLayer:
    """Max pooling."""

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class DenseLayer:
    """Dense layer; weight (K, O), its rows in the model's order (channels first)."""

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    relu: bool


Layer = ConvLayer | PoolLayer | DenseLayer


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers of a tidy ONNX graph, in order.

    The graph goes through Relax, which is how TVM imports a model, although the rules below could
    read the ONNX nodes: so whatever TVM's importer says of an operator is what is compiled.

    Raises
    ------
    UnsupportedModelError
        For an operator that has no kernel in its place.
    """
    return match(to_relax(model))


def match(model: RelaxModel) -> list[Layer]:
    """Return the layers of ``model``, in order.

    Raises
    ------
    UnsupportedModelError
        Where no rule applies, naming the operator and its node.
    """
    function = model.module["main"]
    values = dict(zip(function.params[1:], model.weights.values(), strict=True))
    bindings = [
        _Binding(model.nodes[binding.var], binding.value, values)
        for block in function.body.blocks
        for binding in block.bindings
        if hasattr(binding.value, "op")
    ]
    layers: list[Layer] = []
    at = 0
    while at < len(bindings):
        for rule in _RULES:
            taken = rule(bindings[at:], layers)
            if taken:
                at += taken
                break
        else:
            unmatched = bindings[at]
            raise UnsupportedModelError(
                f"the operator {unmatched.op!r} at node {unmatched.name!r} has no kernel in this "
                "place: expected a chain of convolutions, poolings and dense layers, as in FER+"
            )
    return layers


class _Binding:
    """One call of the Relax function, with its operands' values within reach."""

    def __init__(self, name: str, call: Any, values: dict[Any, NDArray[np.float32]]) -> None:
        self.name = name
        self.op = str(call.op.name).removeprefix("relax.").removeprefix("nn.")
        self.attrs = call.attrs
        self._call = call
        self._values = values

    @property
    def operand(self) -> NDArray[np.float32]:
        """The value of the second argument: a weight or a constant."""
        argument = self._call.args[1]
        if argument in self._values:
            return self._values[argument]
        return np.asarray(argument.value.numpy())


def _ops(bindings: list[_Binding], *names: str) -> bool:
    return [binding.op for binding in bindings[: len(names)]] == list(names)


def _conv(bindings: list[_Binding], layers: list[Layer]) -> int | None:
    subtract, multiply = 0.0, 1.0
    start = 0
    if bindings[start].op == "subtract":
        subtract = float(bindings[start].operand)
        start += 1
    if _ops(bindings[start:], "multiply"):
        multiply = float(bindings[start].operand)
        start += 1
    if not _ops(bindings[start:], "conv2d", "add"):
        return None
    conv, add, *rest = bindings[start:]
    relu = _ops(rest, "relu")
    attrs = conv.attrs
    layers.append(
        ConvLayer(
            conv.name,
            _without_groups(conv.operand, int(attrs.groups)),
            add.operand.reshape(-1),
            _ints(attrs.strides),
            _ints(attrs.padding),
            _ints(attrs.dilation),
            relu,
            (subtract, multiply) if start else None,
        )
    )
    return start + 2 + relu


def _without_groups(weight: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """Spread grouped weights (CO, CI/groups, KH, KW) out to (CO, CI, KH, KW), with zeros."""
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    spread = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), np.float32)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        spread[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return spread


def _pool(bindings: list[_Binding], layers: list[Layer]) -> int | None:
    if not _ops(bindings, "max_pool2d"):
        return None
    pool, *rest = bindings
    relu = _ops(rest, "relu")
    if relu:
        source = next(
            (index for index, layer in enumerate(layers[::-1]) if not isinstance(layer, PoolLayer)),
            None,
        )
        if source is None:
            return None
        producer = layers[-1 - source]
        if not isinstance(producer, ConvLayer):
            return None
        layers[-1 - source] = replace(producer, relu=True)
    attrs = pool.attrs
    layers.append(
        PoolLayer(pool.name, _ints(attrs.pool_size), _ints(attrs.strides), _ints(attrs.padding))
    )
    return 1 + relu


def _dense(bindings: list[_Binding], layers: list[Layer]) -> int | None:
    start = int(_ops(bindings, "batch_flatten"))
    if not _ops(bindings[start:], "matmul", "add"):
        return None
    matmul, add, *rest = bindings[start:]
    relu = _ops(rest, "relu")
    layers.append(DenseLayer(matmul.name, matmul.operand, add.operand.reshape(-1), relu))
    return start + 2 + relu


def _ints(values: Any) -> Any:
    return tuple(int(value) for value in values)


_RULES: tuple[Callable[[list[_Binding], list[Layer]], int | None], ...] = (_conv, _pool, _dense)
