"""A layer to tune: its kernels for a configuration, what they are run on, and the right answer."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import NO_HALO, Backend, Config, Halo, KernelCall, Position
from ferplus_tvm.kernels.workloads import Conv, Dense

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerTask:
    """One layer at one batch size.

    Attributes
    ----------
    first
        Whether it reads the faces, which come without a halo.
    """

    workload: Conv | Dense
    backend: Backend
    first: bool = False

    def define(self, config: Config) -> list[Any]:
        """Return the PrimFuncs that compute the layer, one after the other."""
        shape = self._in_shape(config)
        functions = []
        for call in self._calls(config):
            functions.append(call.define(shape))
            shape = call.output.shape
        return functions

    def layout(self, config: Config) -> Hashable:
        """Return what the operands depend on."""
        calls = tuple((call.operands, call.output) for call in self._calls(config))
        return self.backend.weight_layout(self.workload, config), self._in_halo(config), calls

    def operands(self, config: Config) -> list[list[Array]]:
        """Return the arguments of each kernel, the output last; the next one reads it."""
        x, weight, bias = self.values
        x = self.backend.activation(x)
        if isinstance(self.workload, Conv):
            halo = self._in_halo(config)
            x = np.pad(x, ((0, 0), (halo.top, halo.bottom), (halo.left, halo.right), (0, 0)))
        given = {"weight": self.backend.pack(self.workload, config, weight), "bias": bias}
        arguments = []
        for call in self._calls(config):
            y = np.zeros(call.output.shape, call.output.dtype)
            arguments.append([x, *(given[name] for name in call.operands), y])
            x = y
        return arguments

    def expected(self) -> Array:
        """Return the layer's output for the operands, in float64."""
        return self.workload.reference(*self.values)

    @functools.cached_property
    def values(self) -> tuple[Array, Array, Array]:
        """An input as a ReLU leaves it, a weight that keeps its scale, and a bias with bounds."""
        w = self.workload
        if isinstance(w, Dense):
            shapes: list[tuple[int, ...]] = [
                (w.batch, w.in_features),
                (w.in_features, w.out_features),
            ]
            fan_in, outputs = w.in_features, w.out_features
        else:
            shapes = [
                (w.batch, w.height, w.width, w.in_channels),
                (w.out_channels, w.in_channels, *w.kernel),
            ]
            fan_in, outputs = math.prod(w.kernel) * w.in_channels, w.out_channels
        random = np.random.default_rng(0)
        x, weight = (random.standard_normal(shape, np.float32) for shape in shapes)
        weight *= np.sqrt(2 / fan_in, dtype=np.float32)
        if isinstance(w, Dense) and w.fp16_weights:
            weight = weight.astype(np.float16).astype(np.float32)
        bias = random.standard_normal(w.bias_shape(outputs), np.float32)
        if w.bounded:
            bias[1:].sort(axis=0)
        return np.maximum(x, 0), weight, bias

    def _calls(self, config: Config) -> list[KernelCall]:
        return self.backend.emit(self.workload, config, Position(self._in_halo(config)))

    def _in_halo(self, config: Config) -> Halo:
        return NO_HALO if self.first else self.backend.in_halo(self.workload, config)

    def _in_shape(self, config: Config) -> tuple[int, ...]:
        w = self.workload
        if isinstance(w, Dense):
            return (w.batch, w.in_features)
        return self._in_halo(config).around(w.batch, w.height, w.width, w.in_channels)
