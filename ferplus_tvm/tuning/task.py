"""A layer to tune: its kernels for a configuration, what they are run on, and the right answer."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cpu import dense, direct, max_pool, winograd
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO, Halo
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.targets import TOLERANCE, VectorUnit
from ferplus_tvm.tuning.space import Config, CpuSpace, Layer, Space, config_of

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerTask(ABC):
    """One layer at one batch size."""

    layer: Layer

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """How far an answer may be off, relative to the largest value, as for whole networks."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """What may be tried."""

    @abstractmethod
    def define(self, config: Config) -> list[Any]:
        """Return the PrimFuncs that compute the layer, one after the other."""

    @abstractmethod
    def layout(self, config: Config) -> tuple[Any, ...]:
        """Return what the operands' layout depends on."""

    @abstractmethod
    def operands(self, config: Config) -> list[list[Array]]:
        """Return the arguments of each kernel, the output last; the next one reads it."""

    def expected(self) -> Array:
        """Return the layer's output for the operands, in float64."""
        return self.layer.reference(*self.values)

    @functools.cached_property
    def values(self) -> tuple[Array, Array, Array]:
        """An input, as a ReLU leaves it, weights that keep its size, and a bias."""
        w = self.layer
        if isinstance(w, Dense):
            fan = w.in_features
            shapes: Sequence[tuple[int, ...]] = [(w.batch, fan), (fan, w.out_features)]
            outputs = w.out_features
        else:
            fan = w.kernel[0] * w.kernel[1] * w.in_channels
            shapes = [
                (w.batch, w.height, w.width, w.in_channels),
                (w.out_channels, w.in_channels, *w.kernel),
            ]
            outputs = w.out_channels
        random = np.random.default_rng(0)
        x, weight = (random.standard_normal(shape, np.float32) for shape in shapes)
        weight *= np.sqrt(2 / fan, dtype=np.float32)
        if isinstance(w, Dense) and w.fp16_weights:
            weight = weight.astype(np.float16).astype(np.float32)
        return np.maximum(x, 0), weight, random.standard_normal(outputs, np.float32)


@dataclass(frozen=True)
class Task(LayerTask):
    """One layer at one batch size, for a CPU.

    first
        whether it reads the faces, which come without a halo.
    """

    unit: VectorUnit
    first: bool = False

    @property
    def tolerance(self) -> float:
        """How far an answer may be off, relative to the largest value."""
        return TOLERANCE["float32"]

    @functools.cached_property
    def space(self) -> CpuSpace:
        """What may be tried."""
        return CpuSpace(self.layer, self.unit)

    def define(self, config: Config) -> list[Any]:
        """Return the PrimFuncs that compute the layer, one after the other.

        A pooling that a convolution does not take in is one of its own.
        """
        w, own = self.layer, config_of(config)
        if isinstance(w, Dense):
            return [dense.define(w, own)]
        if config["tile"]:
            return [winograd.define(w, own, NO_HALO)]
        plain = replace(w, pool=False)
        kernels = [direct.define(plain, own, self._border(config), NO_HALO)]
        if w.pool:
            pool = _pool(w)
            preset = max_pool.Config.preset(pool, self.unit)
            kernels.append(max_pool.define(pool, preset, NO_HALO))
        return kernels

    def layout(self, config: Config) -> tuple[Any, ...]:
        """Return what the operands' layout depends on."""
        tile = config.get("tile")
        return (tile, config_of(config).panel if tile == 0 else None, self._border(config))

    def operands(self, config: Config) -> list[list[Array]]:
        """Return the arguments of each kernel, the output last; the next one reads it."""
        w, own = self.layer, config_of(config)
        x, weight, bias = self.values
        if isinstance(w, Dense):
            packed = dense.pack_weight(w, weight)
            return [[x, packed, bias, np.zeros((w.batch, w.outputs), np.float32)]]
        halo = self._border(config)
        ends = ((0, 0), (halo.top, halo.bottom), (halo.left, halo.right), (0, 0))
        packed = (
            winograd.pack_weight(weight, own.tile)
            if config["tile"]
            else direct.pack_weight(weight, own)
        )
        shape = (w.batch, w.out_height, w.out_width, w.out_channels)
        halves = (w.batch, w.out_height // 2, w.out_width // 2, w.out_channels)
        split = w.pool and not config["tile"]
        y = np.zeros(halves if w.pool and not split else shape, np.float32)
        calls = [[np.pad(x, ends), packed, bias, y]]
        if split:
            calls.append([y, np.zeros(halves, np.float32)])
        return calls

    def _border(self, config: Config) -> Halo:
        w = self.layer
        if isinstance(w, Dense) or self.first:
            return NO_HALO
        return winograd.halo(w, config_of(config)) if config["tile"] else direct.halo(w)


def _pool(w: Conv) -> Pool:
    window = ((2, 2), (2, 2), (0, 0, 0, 0))
    return Pool(w.batch, w.out_height, w.out_width, w.out_channels, *window)
