"""Pooling on a GPU: see pool.cuh."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ferplus_tvm.kernels.backend import Algorithm, TensorSpec
from ferplus_tvm.kernels.cuda import activation_type, store
from ferplus_tvm.kernels.cuda.launch import Launch, instance
from ferplus_tvm.kernels.workloads import Pool
from ferplus_tvm.targets import Precision

_THREADS = 256


@dataclass(frozen=True)
class Config:
    """There is nothing to configure."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.MAX_POOL

    @staticmethod
    def preset(w: Pool) -> Config:
        """Return the one configuration."""
        return AverageConfig() if w.kind == "average" else Config()


@dataclass(frozen=True)
class AverageConfig(Config):
    """There is nothing to configure here either."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.AVERAGE_POOL


def launch(w: Pool, precision: Precision) -> Launch:
    """Return the launch for x (N,H,W,C) -> y (N,OH,OW,C)."""
    fields: dict[str, int | bool] = {
        "batch": w.batch,
        "height": w.height,
        "width": w.width,
        "channels": w.channels,
        "kernel_y": w.kernel[0],
        "kernel_x": w.kernel[1],
        "stride_y": w.stride[0],
        "stride_x": w.stride[1],
        "top": w.padding[0],
        "left": w.padding[1],
        "out_height": w.out_height,
        "out_width": w.out_width,
        "average": w.kind == "average",
    }
    element = activation_type(precision)
    return Launch(
        f"{w.name}_{element}",
        instance("pool", "Pool", fields, store(precision)),
        math.ceil(math.prod(w.out_shape) / _THREADS),
        _THREADS,
        {"x": TensorSpec((w.batch, w.height, w.width, w.channels), element)},
        TensorSpec(w.out_shape, element),
    )
