"""Direct convolution of few input channels on a GPU, as a first layer's: see conv2d.cuh."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, TensorSpec
from ferplus_tvm.kernels.cuda import activation_type, implicit_gemm, store
from ferplus_tvm.kernels.cuda.launch import Launch, instance
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import Precision

_THREADS = 256


@dataclass(frozen=True)
class Config:
    """There is nothing to configure."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.DIRECT


def applies(w: Conv) -> bool:
    """Whether there are too few input channels for a GEMM."""
    return w.in_channels % 8 != 0


def pack_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay (CO,CI,KH,KW) out as (KH*KW*CI, CO)."""
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
    return np.ascontiguousarray(rows.T)


def launch(w: Conv, precision: Precision) -> Launch:
    """Return the launch for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked."""
    constants = implicit_gemm.fields(w, implicit_gemm.NO_TILING)
    threads = math.ceil(implicit_gemm.gemm_rows(w) / 32) * 8 * w.out_channels // 4
    taps = math.prod(w.kernel) * w.in_channels
    return Launch(
        f"{w.name}_{precision}",
        instance("conv2d_direct", "Conv2d", constants, store(precision)),
        math.ceil(threads / _THREADS),
        _THREADS,
        {
            "x": TensorSpec((w.batch, w.height, w.width, w.in_channels), "float32"),
            "weight": TensorSpec((taps, w.out_channels), "float32"),
            "bias": TensorSpec(w.bias_shape(w.out_channels), "float32"),
        },
        TensorSpec(w.out_shape, activation_type(precision)),
        (w.slope, *itertools.chain.from_iterable(zip(*w.scaling, strict=True))),
    )
