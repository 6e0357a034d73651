"""Dense layer on a GPU: for few faces a GEMV as fast as memory (dense.cuh), else a GEMM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, TensorSpec
from ferplus_tvm.kernels.cuda import activation_type, implicit_gemm, store
from ferplus_tvm.kernels.cuda.launch import Launch, instance
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.targets import Gpu, Precision


@dataclass(frozen=True)
class Gemv:
    """A warp for each output of some faces.

    Attributes
    ----------
    warps
        The warps of a block.
    faces
        The faces that share a warp's reading of the weights.
    """

    warps: int
    faces: int

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.GEMV


@dataclass(frozen=True)
class Gemm(implicit_gemm.Config):
    """The tiling of the layer as a GEMM."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.GEMM


Config = Gemv | Gemm


def candidates(w: Dense, gpu: Gpu, precision: Precision) -> Iterator[Config]:
    """Yield every configuration that makes sense for a layer."""
    faces = [count for count in (1, 2, 4, 8) if count < 2 * w.batch]
    for warps in (4, 1, 2, 8):
        for count in faces:
            yield Gemv(warps, count)
    if w.outputs != w.out_features:
        return  # a GEMM writes every column
    for tiling in implicit_gemm.candidates(gemm_of(w), gpu, precision):
        yield Gemm(**vars(tiling))


def weight_type(w: Dense, precision: Precision, config: Config) -> Precision:
    """Return the type of the stored weights: float16 where that is exact and a GEMV reads them."""
    return "float16" if w.fp16_weights and isinstance(config, Gemv) else precision


def gemm_of(w: Dense) -> Conv:
    """Return the layer as a GEMM."""
    return implicit_gemm.gemm(w.batch, w.in_features, w.out_features, w.relu, w.slope, w.bounded)


def pack_weight(weight: NDArray[np.float32], stored: Precision) -> NDArray[Any]:
    """Lay (K,O) out as (O,K)."""
    return implicit_gemm.rounded(weight.T, stored)


def launches(w: Dense, config: Config, precision: Precision, last: bool) -> list[Launch]:
    """Return the launches for x (N,K) -> y (N, outputs); the ``last`` layer writes float32."""
    if isinstance(config, Gemm):
        return implicit_gemm.launches(gemm_of(w), config, precision, last)
    stored: Precision = "float32" if last else precision
    fields: dict[str, int | bool] = {
        "batch": w.batch,
        "in_features": w.in_features,
        "out_features": w.out_features,
        "outputs": w.outputs,
        "relu": w.relu,
        "bounded": w.bounded,
        "warps": config.warps,
        "faces": config.faces,
    }
    weights = activation_type(weight_type(w, precision, config))
    return [
        Launch(
            f"{w.name}_{precision}",
            instance("dense", "Dense", fields, store(stored)),
            math.ceil(w.outputs / config.warps) * math.ceil(w.batch / config.faces),
            32 * config.warps,
            {
                "x": TensorSpec((w.batch, w.in_features), activation_type(precision)),
                "weight": TensorSpec((w.out_features, w.in_features), weights),
                "bias": TensorSpec(w.bias_shape(w.out_features), "float32"),
            },
            TensorSpec((w.batch, w.outputs), activation_type(stored)),
            (w.slope,),
        )
    ]
