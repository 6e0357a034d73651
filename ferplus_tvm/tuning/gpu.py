"""What may be tried for a layer on a GPU, and how a candidate is run: see `space` and `task`.

The configurations are those that the kernels offer, decided field by field as on a CPU.  A
convolution's say first which of Winograd's algorithms computes it, 0 for none, and a dense layer's
with how many warps it is read, 0 for a product.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferplus_tvm.kernels.cuda import activation_type, convolution, dense, implicit_gemm, winograd
from ferplus_tvm.kernels.cuda.launch import Kernel
from ferplus_tvm.kernels.workloads import Dense
from ferplus_tvm.targets import TOLERANCE, Gpu, Precision
from ferplus_tvm.tuning.space import Config, Decide, Layer, Space
from ferplus_tvm.tuning.task import Array, LayerTask

Own = convolution.Config | dense.Config


class GpuSpace(Space):
    """The configurations of one layer for a GPU and a precision."""

    def __init__(self, layer: Layer, gpu: Gpu, precision: Precision) -> None:
        super().__init__(layer)
        offered: list[Own]
        if isinstance(layer, Dense):
            self._presets: list[Own] = [dense.preset(layer, gpu, precision)]
            offered = [*dense.space(layer, gpu, precision)]
        else:
            product = implicit_gemm.Config.preset(layer, gpu, precision)
            self._presets = [product, *winograd.presets(layer, gpu, precision)]
            offered = [*convolution.space(layer, gpu, precision)]
        self._offered = [record_of(layer, own) for own in offered]

    def presets(self) -> list[Config]:
        """Return what is used untuned, and what seems best of each other algorithm."""
        return [record_of(self.layer, own) for own in self._presets]

    def walk(self, decide: Decide) -> Config:
        """Decide for a configuration, field by field."""
        left, chosen = self._offered, Config()
        while len(chosen) < len(left[0]):
            name = list(left[0])[len(chosen)]
            value = chosen[name] = decide(name, sorted({config[name] for config in left}))
            left = [config for config in left if config[name] == value]
        return chosen


def record_of(layer: Layer, own: Own) -> Config:
    """Return a kernel's own configuration by its fields' names: what `config_of` takes."""
    if not isinstance(own, implicit_gemm.Config):
        return {**vars(own)}
    return {"warps" if isinstance(layer, Dense) else "tile": 0, **vars(own)}


def config_of(config: Config) -> Own:
    """Return the kernel's own configuration of a convolution or dense layer."""
    if config.get("warps"):
        return dense.Config(**config)
    if config.get("tile"):
        return winograd.Config(**config)
    return implicit_gemm.Config(
        **{name: value for name, value in config.items() if name not in ("warps", "tile")}
    )


@dataclass(frozen=True)
class GpuTask(LayerTask):
    """One layer at one batch size, for a GPU and a precision."""

    gpu: Gpu
    precision: Precision

    @property
    def tolerance(self) -> float:
        """How far an answer may be off, relative to the largest value."""
        return TOLERANCE[self.precision]

    @functools.cached_property
    def space(self) -> GpuSpace:
        """What may be tried."""
        return GpuSpace(self.layer, self.gpu, self.precision)

    def define(self, config: Config) -> list[Any]:
        """Return the PrimFuncs that compute the layer, one after the other."""
        return [kernel.define() for kernel in self.kernels(config)]

    def layout(self, config: Config) -> tuple[Any, ...]:
        """Return what the operands depend on: the kernels' arguments."""
        return tuple(kernel.arguments for kernel in self.kernels(config))

    def operands(self, config: Config) -> list[list[Array]]:
        """Return the arguments of each kernel, the output last; the next one reads it."""
        w, own = self.layer, config_of(config)
        x, weight, bias = self.values
        if isinstance(w, Dense):
            assert not isinstance(own, winograd.Config)
            packed = dense.pack_weight(weight, dense.weight_kind(w, self.precision, own))
        else:
            assert not isinstance(own, dense.Config)
            packed = convolution.pack_weight(w, weight, self.precision, own)
        # A half holds no number beyond its largest; these are of order one.
        x = implicit_gemm.rounded(x, self.precision).astype(activation_type(self.precision))
        calls = []
        for kernel in self.kernels(config):
            given = {"x": x, "weight": packed, "bias": bias}
            y = np.zeros(kernel.output.shape, kernel.output.dtype)
            calls.append([*(given[array.name] for array in kernel.arguments[:-1]), y])
            x = y
        return calls

    def kernels(self, config: Config) -> list[Kernel]:
        """Return the launches that compute the layer, one after the other."""
        w, own = self.layer, config_of(config)
        if isinstance(w, Dense):
            assert not isinstance(own, winograd.Config)
            return dense.kernels(w, own, self.precision, last=False)
        assert not isinstance(own, dense.Config)
        return convolution.kernels(w, own, self.precision)
