"""Convolution on a GPU, by the kernels that a configuration is of: `conv2d` or `winograd`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cuda import implicit_gemm, winograd
from ferplus_tvm.kernels.cuda.launch import Kernel
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import Gpu, Precision

Config = implicit_gemm.Config | winograd.Config


def space(w: Conv, gpu: Gpu, precision: Precision) -> list[Config]:
    """Return every configuration that makes sense for a layer."""
    return [*implicit_gemm.space(w, gpu, precision), *winograd.space(w, gpu, precision)]


def cycles(w: Conv, gpu: Gpu, precision: Precision, config: Config) -> float:
    """Estimate a layer's time in cycles of a GPU."""
    if isinstance(config, winograd.Config):
        return winograd.cycles(w, gpu, config)
    return implicit_gemm.cycles(w, gpu, precision, config)


def weight_kind(precision: Precision, config: Config | None) -> str:
    """Return what tells the layout of the weights; ``config`` is None for few input channels."""
    if isinstance(config, winograd.Config):
        return f"winograd{config.tile}"
    return "direct" if config is None else precision


def pack_weight(
    w: Conv, weight: NDArray[np.float32], precision: Precision, config: Config | None
) -> NDArray[Any]:
    """Lay (CO,CI,KH,KW) out as the kernels take it."""
    if isinstance(config, winograd.Config):
        return winograd.pack_weight(weight, config.tile)
    return implicit_gemm.pack_weight(w, weight, precision)


def kernels(w: Conv, config: Config | None, precision: Precision) -> list[Kernel]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked."""
    if isinstance(config, winograd.Config):
        return winograd.kernels(w, config)
    return implicit_gemm.kernels(w, config, precision, last=False)
