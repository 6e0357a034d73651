"""Dense layer on a GPU: for few faces at the speed of the weights (dense.cuh), else a product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cuda import activation_type, implicit_gemm, store
from ferplus_tvm.kernels.cuda.launch import Array, Kernel, instance
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.targets import Gpu, Precision

_CACHED_BYTES_PER_CYCLE = 48  # of a processor, from its caches


@dataclass(frozen=True)
class Config:
    """How the layer is computed without a product: a warp for each output of some faces.

    warps
        in a block.
    faces
        that share a warp's reading of the weights.
    """

    warps: int
    faces: int


def preset(w: Dense, gpu: Gpu, precision: Precision) -> Config | implicit_gemm.Config:
    """Return the configuration with the least estimated time."""
    return min(space(w, gpu, precision), key=lambda each: cycles(w, gpu, precision, each))


def space(w: Dense, gpu: Gpu, precision: Precision) -> list[Config | implicit_gemm.Config]:
    """Return every configuration that makes sense for a layer."""
    faces = [count for count in (1, 2, 4, 8) if count < 2 * w.batch]
    return [
        *(Config(warps, count) for warps in (4, 1, 2, 8) for count in faces),
        *implicit_gemm.space(as_conv2d(w), gpu, precision),
    ]


def cycles(
    w: Dense, gpu: Gpu, precision: Precision, config: Config | implicit_gemm.Config
) -> float:
    """Estimate a layer's time in cycles of a GPU, of which nothing has been measured."""
    if isinstance(config, implicit_gemm.Config):
        return implicit_gemm.cycles(as_conv2d(w), gpu, precision, config)
    weights = (
        w.in_features * w.outputs * (2 if weight_kind(w, precision, config) == "float16" else 4)
    )
    passes = math.ceil(w.batch / config.faces)
    # Too few warps do not ask for enough bytes at a time.
    busy = min(1, w.outputs * passes / (4 * gpu.sms))
    reads = (passes - 1) * weights + w.outputs * w.batch * w.in_features * 4
    return (
        implicit_gemm.LAUNCH_CYCLES
        + weights / (gpu.sms * implicit_gemm.BYTES_PER_CYCLE * busy)
        + reads / (gpu.sms * _CACHED_BYTES_PER_CYCLE * busy)
    )


def weight_kind(w: Dense, precision: Precision, config: Config | implicit_gemm.Config) -> Precision:
    """Return how the weights are stored: as half-precision numbers where that is exact."""
    return "float16" if w.fp16_weights and isinstance(config, Config) else precision


def as_conv2d(w: Dense) -> Conv:
    """Return the same layer as a product."""
    return implicit_gemm.product(w.batch, w.in_features, w.out_features, w.relu)


def pack_weight(weight: NDArray[np.float32], kind: Precision) -> NDArray[Any]:
    """Lay (K,O) out as (O,K)."""
    return implicit_gemm.rounded(weight.T, kind)


def kernels(
    w: Dense, config: Config | implicit_gemm.Config, precision: Precision, last: bool
) -> list[Kernel]:
    """Return the launches for x (N,K) -> y (N, outputs); the ``last`` layer writes float32."""
    if isinstance(config, implicit_gemm.Config):
        return implicit_gemm.kernels(as_conv2d(w), config, precision, last)
    kind = weight_kind(w, precision, config)
    weight_type = "float16" if kind == "float16" else "float32"
    element = activation_type(precision)
    stored: Precision = "float32" if last else precision
    fields: dict[str, int | bool] = {
        "batch": w.batch,
        "in_features": w.in_features,
        "outputs": w.outputs,
        "relu": w.relu,
        "warps": config.warps,
        "faces": config.faces,
    }
    return [
        Kernel(
            f"{w.name}_{precision}",
            instance("dense", "Dense", fields, store(stored)),
            math.ceil(w.outputs / config.warps) * math.ceil(w.batch / config.faces),
            32 * config.warps,
            (
                Array("x", (w.batch, w.in_features), element),
                Array("weight", (w.out_features, w.in_features), weight_type),
                Array("bias", (w.out_features,), "float32"),
                Array("y", (w.batch, w.outputs), activation_type(stored)),
            ),
        )
    ]
