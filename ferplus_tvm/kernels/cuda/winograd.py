"""Winograd's convolution on a GPU, in float32: see winograd.cuh.

Three launches: tiles are transformed, multiplied in (m+2)^2 matrix products at once, and
transformed back with bias, ReLU and maxima.  For m = 4 that is a quarter of the implicit product's
arithmetic, but what is between the launches passes through memory, so a card's bandwidth decides
which is faster.  Only tuning on the card chooses it: no preset does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cpu import winograd
from ferplus_tvm.kernels.cuda import implicit_gemm, store
from ferplus_tvm.kernels.cuda.launch import Array, Kernel, instance
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import Gpu, Precision

_THREADS = 256
_MOST_VALUES = 1 << 28  # of tiles transformed: 1 GB, of which there are two at a time


@dataclass(frozen=True)
class Config:
    """The algorithm, and how its products are tiled.

    tile
        m, outputs of a tile along one side.
    rows, columns
        tiles and channels of a block.
    warp_rows, warp_columns, stages
        as in `implicit_gemm.Config`.
    """

    tile: int
    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int

    @property
    def elements(self) -> int:
        """Products of a tile and channel, each of a matrix of its own."""
        return ALGORITHMS[self.tile].side ** 2

    @property
    def product(self) -> implicit_gemm.Config:
        """The tiling of one matrix product."""
        return implicit_gemm.Config(
            self.rows, self.columns, self.warp_rows, self.warp_columns, self.stages
        )


def space(w: Conv, gpu: Gpu, precision: Precision) -> Iterator[Config]:
    """Yield every configuration that makes sense for a layer: none in other precisions.

    The transforms would magnify the rounding of the tensor cores' operands.
    """
    if precision != "float32" or not winograd.applies(w):
        return
    for tile, algorithm in ALGORITHMS.items():
        product = _product(w, tile)
        channels = max(w.in_channels, w.out_channels)
        if algorithm.side**2 * product.batch * channels > _MOST_VALUES:
            continue  # smaller batches, which serve any number of faces, are as fast
        for tiling in implicit_gemm.space(product, gpu, precision):
            if tiling.split == 1:
                fields = {name: value for name, value in vars(tiling).items() if name != "split"}
                yield Config(tile, **fields)


def presets(w: Conv, gpu: Gpu, precision: Precision) -> list[Config]:
    """Return for each algorithm the configuration with the least estimated time."""
    algorithms = itertools.groupby(space(w, gpu, precision), key=lambda config: config.tile)
    return [min(each, key=lambda config: cycles(w, gpu, config)) for _, each in algorithms]


def cycles(w: Conv, gpu: Gpu, config: Config) -> float:
    """Estimate a layer's time in cycles of a GPU, of which nothing has been measured."""
    product = _product(w, config.tile)
    ways = product.batch * config.elements * (w.in_channels + w.out_channels)
    y = implicit_gemm.output(w, "float32").shape
    maps = w.batch * w.height * w.width * w.in_channels + math.prod(y)
    transforms = 4 * (ways + maps) / (gpu.sms * implicit_gemm.BYTES_PER_CYCLE)
    products = implicit_gemm.cycles(product, gpu, "float32", config.product, config.elements)
    return 2 * implicit_gemm.LAUNCH_CYCLES + transforms + products


def pack_weight(weight: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """Transform (CO,CI,3,3) in float64 and lay it out as ((m+2)^2, CO, CI)."""
    u = ALGORITHMS[tile].transform_filter(weight)
    side, _, in_channels, out_channels = u.shape
    elements = u.reshape(side * side, in_channels, out_channels)
    return np.ascontiguousarray(elements.transpose(0, 2, 1), dtype=np.float32)


def kernels(w: Conv, config: Config) -> list[Kernel]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked."""
    product, tiling = _product(w, config.tile), config.product
    fields = implicit_gemm.fields(
        w, implicit_gemm.Config(1, 1, 1, 1, 1)
    )  # the transforms have no tiling
    name = f"{w.name}_winograd{config.tile}"
    x = Array("x", (w.batch, w.height, w.width, w.in_channels), "float32")
    v = (config.elements, product.batch, w.in_channels)
    u = Array("weight", (config.elements, w.out_channels, w.in_channels), "float32")
    m = (config.elements, product.batch, w.out_channels)
    bias = Array("bias", (w.out_channels,), "float32")
    return [
        Kernel(
            f"{name}_input",
            instance("winograd_input", "Conv2d", fields, str(config.tile)),
            math.ceil(math.prod(v[1:]) / _THREADS),
            _THREADS,
            (x, Array("v", v, "float32")),
        ),
        Kernel(
            f"{name}_products",
            instance(
                "conv2d",
                "Conv2d",
                implicit_gemm.fields(product, tiling, config.elements),
                "ferplus::Multiply",
                store("float32"),
            ),
            implicit_gemm.tiles(product, tiling.rows, tiling.columns) * config.elements,
            tiling.threads,
            (Array("x", v, "float32"), u, bias, Array("m", m, "float32")),
            shared=tiling.shared,
        ),
        Kernel(
            f"{name}_output",
            instance("winograd_output", "Conv2d", fields, str(config.tile)),
            math.ceil(math.prod(m[1:]) / _THREADS),
            _THREADS,
            (Array("x", m, "float32"), bias, implicit_gemm.output(w, "float32")),
        ),
    ]


def _product(w: Conv, tile: int) -> Conv:
    """Return one of the products."""
    rows = winograd.tiles(w, tile)
    return implicit_gemm.product(rows, w.in_channels, w.out_channels, relu=False)
