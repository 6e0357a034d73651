"""Winograd convolution on a GPU, in float32: see winograd.cuh.  Experimental: no preset takes it.

Three launches: tiles are transformed, multiplied in (m+2)^2 GEMMs at once, and transformed back
with bias, activation and pooling.  For m = 4 that is a quarter of the implicit GEMM's arithmetic,
but what is between the launches passes through memory, so a card's bandwidth decides which is
faster.  It has not been run on a GPU yet; only tuning on the card chooses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, TensorSpec
from ferplus_tvm.kernels.cuda import implicit_gemm, store
from ferplus_tvm.kernels.cuda.launch import Launch, instance
from ferplus_tvm.kernels.winograd import applies, tiles
from ferplus_tvm.kernels.winograd_matrices import MATRICES
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import Gpu, Precision

_THREADS = 256
_MOST_VALUES = 1 << 28  # of tiles transformed: 1 GB, of which there are two at a time


@dataclass(frozen=True)
class Config:
    """The algorithm, and the tiling of its GEMMs.

    Attributes
    ----------
    tile
        m, outputs of a tile along one side.
    rows, columns
        Tiles and channels of a block.
    warp_rows, warp_columns, stages
        As of `implicit_gemm.Config`.
    """

    tile: int
    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.winograd(self.tile)

    @property
    def elements(self) -> int:
        """The GEMMs: one for each element of a transformed tile."""
        return int(MATRICES[self.tile].side ** 2)

    @property
    def gemm(self) -> implicit_gemm.Config:
        """The tiling of one GEMM."""
        return implicit_gemm.Config(
            self.rows, self.columns, self.warp_rows, self.warp_columns, self.stages
        )


def candidates(w: Conv, gpu: Gpu, precision: Precision) -> Iterator[Config]:
    """Yield every configuration that makes sense for a layer: none in other precisions.

    The transforms would magnify the rounding of the tensor cores' operands.
    """
    if precision != "float32" or not applies(w):
        return
    for tile, matrices in MATRICES.items():
        gemm = gemm_of(w, tile)
        channels = max(w.in_channels, w.out_channels)
        if matrices.side**2 * gemm.batch * channels > _MOST_VALUES:
            continue  # smaller batches, which serve any number of faces, are as fast
        for tiling in implicit_gemm.candidates(gemm, gpu, precision):
            if tiling.split == 1:
                fields = {name: value for name, value in vars(tiling).items() if name != "split"}
                yield Config(tile, **fields)


def gemm_of(w: Conv, tile: int) -> Conv:
    """Return one of the GEMMs."""
    return implicit_gemm.gemm(tiles(w, tile), w.in_channels, w.out_channels)


def pack_weight(weight: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """Transform (CO,CI,3,3) in float64 and lay it out as ((m+2)^2, CO, CI)."""
    u = MATRICES[tile].transform_filter(weight)
    side, _, in_channels, out_channels = u.shape
    elements = u.reshape(side * side, in_channels, out_channels)
    return np.ascontiguousarray(elements.transpose(0, 2, 1), dtype=np.float32)


def launches(w: Conv, config: Config) -> list[Launch]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked."""
    gemm, tiling = gemm_of(w, config.tile), config.gemm
    fields = implicit_gemm.fields(w, implicit_gemm.NO_TILING)
    name = f"{w.name}_winograd{config.tile}"
    x = TensorSpec((w.batch, w.height, w.width, w.in_channels), "float32")
    v = TensorSpec((config.elements, gemm.batch, w.in_channels), "float32")
    u = TensorSpec((config.elements, w.out_channels, w.in_channels), "float32")
    m = TensorSpec((config.elements, gemm.batch, w.out_channels), "float32")
    bias = TensorSpec(w.bias_shape(w.out_channels), "float32")
    return [
        Launch(
            f"{name}_input",
            instance("winograd_input", "Conv2d", fields, str(config.tile)),
            math.ceil(math.prod(v.shape[1:]) / _THREADS),
            _THREADS,
            {"x": x},
            v,
        ),
        Launch(
            f"{name}_products",
            instance(
                "conv2d",
                "Conv2d",
                implicit_gemm.fields(gemm, tiling, config.elements),
                implicit_gemm.policy("float32"),
                store("float32"),
            ),
            implicit_gemm.tiles(gemm, tiling.rows, tiling.columns) * config.elements,
            tiling.threads,
            {"x": v, "weight": u, "bias": bias},
            m,
            (0.0,),
            shared=tiling.shared,
            min_blocks_per_sm=implicit_gemm.min_blocks_per_sm(tiling, "float32"),
        ),
        Launch(
            f"{name}_output",
            instance("winograd_output", "Conv2d", fields, str(config.tile)),
            math.ceil(math.prod(m.shape[1:]) / _THREADS),
            _THREADS,
            {"x": m, "bias": bias},
            TensorSpec(w.out_shape, "float32"),
            (w.slope,),
        ),
    ]
