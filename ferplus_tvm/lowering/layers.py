"""Recognise layers in the imported Relax function.

Rules are tried in order at each binding; one that applies returns how many it takes, and the layer
that they are.

1. ``subtract`` and ``multiply`` by constants, directly before a convolution, become its affine
   input scaling, which is exact: the convolution's halo stays zero.  Before a dense layer they are
   folded into its weights and bias, and before a pooling they become a convolution of their own.
2. ``conv2d``, ``add`` [, activation] become a convolution.
3. ``max_pool2d`` or ``avg_pool2d`` becomes a pooling.
4. ``batch_flatten`` is remembered for the dense layer that follows.
5. ``matmul``, ``add`` [, activation] become a dense layer.

An activation is ``relu``, ``leakyrelu``, or ``maximum`` and ``minimum`` by a number for each
channel, of which one may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.relax import RelaxModel, to_relax
from ferplus_tvm.kernels.workloads import Affine


@dataclass(frozen=True)
class ConvLayer:
    """Convolution with bias; weight (CO, CI, KH, KW), groups already spread out.

    Attributes
    ----------
    relu, slope
        Whether values below zero are multiplied by ``slope``, which is 0 for a plain ReLU.
    affine
        How the input is scaled, or None.
    bounds
        (2, CO), the lower and the upper bound of each channel, or None.
    """

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    relu: bool
    affine: Affine | None
    slope: float = 0.0
    bounds: NDArray[np.float32] | None = None

    @classmethod
    def identity(cls, name: str, channels: int, affine: Affine | None = None) -> ConvLayer:
        """Return the layer that only scales its input, or not even that."""
        weight = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
        bias = np.zeros(channels, np.float32)
        return cls(name, weight, bias, (1, 1), (0, 0, 0, 0), (1, 1), False, affine)


@dataclass(frozen=True)
class PoolLayer:
    """Pooling; an average has no padding."""

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    kind: Literal["max", "average"] = "max"


@dataclass(frozen=True)
class DenseLayer:
    """Dense layer; weight (K, O), its rows in the model's order (channels first).

    ``relu``, ``slope`` and ``bounds`` are those of `ConvLayer`.
    """

    name: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    relu: bool
    slope: float = 0.0
    bounds: NDArray[np.float32] | None = None


Layer = ConvLayer | PoolLayer | DenseLayer


@dataclass(frozen=True)
class LayeredModel:
    """A model as layers.

    Attributes
    ----------
    input_shape
        The shape of one face (C, S, S).
    layers
        In order.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]


def layers_of(model: onnx.ModelProto) -> LayeredModel:
    """Return the layers of a tidy ONNX graph.

    The graph goes through Relax, which is how TVM imports a model, although the rules below could
    read the ONNX nodes: so whatever TVM's importer says of an operator is what is compiled.

    Raises
    ------
    UnsupportedModelError
        For an operator that has no kernel in its place.
    """
    return match(to_relax(model))


def match(model: RelaxModel) -> LayeredModel:
    """Return the layers of ``model``.

    Raises
    ------
    UnsupportedModelError
        Where no rule applies, naming the operator and its node.
    """
    function = model.module["main"]
    x, *parameters = function.params
    channels, height, width = (int(size) for size in list(x.ty.shape)[1:])
    values = dict(zip(parameters, model.weights.values(), strict=True))
    bindings = [
        _Binding(model.nodes[binding.var], binding.value, values)
        for block in function.body.blocks
        for binding in block.bindings
        if hasattr(binding.value, "op")
    ]
    layers: list[Layer] = []
    scaled, affine = _affine(bindings, channels)
    at = scaled
    while at < len(bindings):
        for rule in _RULES:
            found = rule(bindings[at:])
            if found is not None:
                at += found[0]
                layers.append(found[1])
                break
        else:
            unmatched = bindings[at]
            raise UnsupportedModelError(
                f"the operator {unmatched.op!r} at node {unmatched.name!r} has no kernel in this "
                "place: expected a chain of convolutions, poolings and dense layers, as in FER+"
            )
    if affine is not None:
        layers[:1] = _scaled(layers[0], affine, bindings[scaled - 1].name, channels)
    return LayeredModel((channels, height, width), tuple(layers))


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


def _affine(bindings: list[_Binding], channels: int) -> tuple[int, Affine | None]:
    """Return how many bindings scale the input of the network, and how they do it."""
    subtract, multiply, taken = np.zeros((), np.float32), np.ones((), np.float32), 0
    if _ops(bindings, "subtract"):
        subtract, taken = bindings[0].operand, 1
    if _ops(bindings[taken:], "multiply"):
        multiply, taken = bindings[taken].operand, taken + 1
    if not taken:
        return 0, None
    if subtract.size == multiply.size == 1:
        return taken, (float(subtract.item()), float(multiply.item()))
    each = [np.broadcast_to(numbers.reshape(-1), channels) for numbers in (subtract, multiply)]
    return taken, (tuple(map(float, each[0])), tuple(map(float, each[1])))


def _scaled(layer: Layer, affine: Affine, name: str, channels: int) -> list[Layer]:
    """Return the layers that scale their input and then are the first layer; ``name`` is free."""
    if isinstance(layer, ConvLayer):
        return [replace(layer, affine=affine)]
    if isinstance(layer, PoolLayer):
        return [ConvLayer.identity(name, channels, affine), layer]
    weight = layer.weight.astype(np.float64)
    subtract, multiply = (
        np.repeat(np.broadcast_to(numbers, channels), len(weight) // channels) for numbers in affine
    )
    scaled = weight * multiply[:, None]
    bias = layer.bias - subtract @ scaled
    return [replace(layer, weight=scaled.astype(np.float32), bias=bias.astype(np.float32))]


def _conv(bindings: list[_Binding]) -> tuple[int, Layer] | None:
    if not _ops(bindings, "conv2d", "add"):
        return None
    conv, add, *rest = bindings
    taken, activation = _activation(rest)
    attrs = conv.attrs
    return 2 + taken, ConvLayer(
        conv.name,
        _without_groups(conv.operand, int(attrs.groups)),
        add.operand.reshape(-1),
        _ints(attrs.strides),
        _ints(attrs.padding),
        _ints(attrs.dilation),
        affine=None,
        **activation,
    )


def _activation(bindings: list[_Binding]) -> tuple[int, dict[str, Any]]:
    """Return how many bindings are an activation, and what it is as fields of a layer."""
    if _ops(bindings, "relu"):
        return 1, {"relu": True}
    if _ops(bindings, "leakyrelu"):
        return 1, {"relu": True, "slope": float(bindings[0].attrs.alpha)}
    lower, upper, taken = np.array([-np.inf]), np.array([np.inf]), 0
    if _ops(bindings, "maximum"):
        lower, taken = bindings[0].operand.reshape(-1), 1
    if _ops(bindings[taken:], "minimum"):
        upper, taken = bindings[taken].operand.reshape(-1), taken + 1
    if not taken:
        return 0, {"relu": False}
    bounds = np.stack(np.broadcast_arrays(lower, upper)).astype(np.float32)
    return taken, {"relu": False, "bounds": bounds}


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


def _pool(bindings: list[_Binding]) -> tuple[int, Layer] | None:
    kinds: dict[str, Literal["max", "average"]] = {"max_pool2d": "max", "avg_pool2d": "average"}
    pool = bindings[0]
    if pool.op not in kinds:
        return None
    given = pool.attrs
    window = _ints(given.pool_size), _ints(given.strides), _ints(given.padding)
    return 1, PoolLayer(pool.name, *window, kinds[pool.op])


def _dense(bindings: list[_Binding]) -> tuple[int, Layer] | None:
    start = int(_ops(bindings, "batch_flatten"))
    if not _ops(bindings[start:], "matmul", "add"):
        return None
    matmul, add, *rest = bindings[start:]
    taken, activation = _activation(rest)
    layer = DenseLayer(matmul.name, matmul.operand, add.operand.reshape(-1), **activation)
    return start + 2 + taken, layer


def _ints(values: Any) -> Any:
    return tuple(int(value) for value in values)


_Rule = Callable[[list[_Binding]], tuple[int, Layer] | None]
_RULES: tuple[_Rule, ...] = (_conv, _pool, _dense)
