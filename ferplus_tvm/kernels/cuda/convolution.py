"""Convolution on a GPU, by the kernels that a configuration is of: `conv2d` or `winograd`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.conv2d import Workload
from ferplus_tvm.kernels.cuda import conv2d, winograd
from ferplus_tvm.kernels.cuda.launch import Kernel
from ferplus_tvm.targets import Gpu, Precision

Config = conv2d.Config | winograd.Config


def space(w: Workload, gpu: Gpu, precision: Precision) -> list[Config]:
    """Return every configuration that makes sense for a layer."""
    return [*conv2d.space(w, gpu, precision), *winograd.space(w, gpu, precision)]


def cycles(w: Workload, gpu: Gpu, precision: Precision, config: Config) -> float:
    """Estimate a layer's time in cycles of a GPU."""
    if isinstance(config, winograd.Config):
        return winograd.cycles(w, gpu, config)
    return conv2d.cycles(w, gpu, precision, config)


def weight_kind(precision: Precision, config: Config | None) -> str:
    """Return what tells the layout of the weights; ``config`` is None for few input channels."""
    if isinstance(config, winograd.Config):
        return f"winograd{config.tile}"
    return "direct" if config is None else precision


def pack_weight(
    w: Workload, weight: NDArray[np.float32], precision: Precision, config: Config | None
) -> NDArray[Any]:
    """Lay (CO,CI,KH,KW) out as the kernels take it."""
    if isinstance(config, winograd.Config):
        return winograd.pack_weight(weight, config.tile)
    return conv2d.pack_weight(w, weight, precision)


def kernels(w: Workload, config: Config | None, precision: Precision) -> list[Kernel]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked."""
    if isinstance(config, winograd.Config):
        return winograd.kernels(w, config)
    return conv2d.kernels(w, config, precision, last=False)
