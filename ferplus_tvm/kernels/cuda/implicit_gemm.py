"""Convolution with bias, activation and 2x2 max pooling on a GPU, as an implicit GEMM.

See conv2d.cuh.  A configuration is a tiling of the GEMM.  Where a batch has too few tiles for a
GPU's SMs, its k dimension is split between blocks (split-K), and a second kernel reduces the
partial sums, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, TensorSpec
from ferplus_tvm.kernels.cuda import activation_type, store
from ferplus_tvm.kernels.cuda.launch import Launch, instance
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import Gpu, Precision

_SHARED_BYTES = 96 << 10  # of a block: what the least of the architectures has
_ROW_BYTES = 80  # of a k-tile in shared memory, its padding included
_REDUCTION_THREADS = 256  # with a thread for each output
_MOST_FLOAT32_THREADS = 512  # of the blocks on an SM, by the registers of a thread


@dataclass(frozen=True)
class Config:
    """The tiling of a GEMM.

    Attributes
    ----------
    rows, columns
        Output pixels and channels of a block's tile.
    warp_rows, warp_columns
        The same of each of its warps.
    stages
        k-tiles of the operands in shared memory: one is read while the others are copied.
    split
        Blocks that share the k dimension of a tile.
    """

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int
    split: int = 1

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.IMPLICIT_GEMM

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.warp_rows * (self.columns // self.warp_columns) * 32

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.stages * (self.rows + self.columns) * _ROW_BYTES


def gemm(
    rows: int,
    in_channels: int,
    out_channels: int,
    relu: bool = False,
    slope: float = 0.0,
    bounded: bool = False,
) -> Conv:
    """Return the GEMM (rows, CI) x (CI, CO) as a 1x1 convolution of 1x1 images."""
    return Conv(
        batch=rows,
        height=1,
        width=1,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        relu=relu,
        slope=slope,
        bounded=bounded,
    )


def k_vectors(w: Conv, precision: Precision) -> int:
    """Return how many 16-byte vectors the k dimension has."""
    size = 2 if precision == "float16" else 4
    return w.kernel[0] * w.kernel[1] * w.in_channels * size // 16


def candidates(w: Conv, gpu: Gpu, precision: Precision) -> Iterator[Config]:
    """Yield every tiling that makes sense for a layer."""
    warps = [(64, 32), (32, 32), (32, 16)]
    if precision != "float32":
        warps = [(64, 64), *warps]
    k_tiles = -(-k_vectors(w, precision) // 4)
    pixels = w.batch * w.out_height * w.out_width
    splits = [split for split in (1, 2, 3, 4, 6, 8, 12, 16) if split * 4 <= max(k_tiles, 4)]
    for warp_rows, warp_columns in warps:
        for down, across in ((1, 1), (1, 2), (2, 1), (1, 4), (2, 2), (4, 1), (2, 4), (4, 2)):
            rows, columns = down * warp_rows, across * warp_columns
            # As many as hide the way from memory, but no more than two blocks have room for.
            tile_bytes = (rows + columns) * _ROW_BYTES
            stages = min(
                4, _SHARED_BYTES // tile_bytes, max(2, gpu.shared_bytes // 2 // tile_bytes)
            )
            if stages < 2 or rows >= 2 * max(pixels, 32) or columns >= 2 * max(w.out_channels, 16):
                continue
            for split in splits:
                if split == 1 or tiles(w, rows, columns) * split <= 8 * gpu.sms:
                    yield Config(rows, columns, warp_rows, warp_columns, stages, split)


def tiles(w: Conv, rows: int, columns: int) -> int:
    """Return how many tiles of a block the GEMM has."""
    return math.ceil(gemm_rows(w) / rows) * math.ceil(w.out_channels / columns)


def gemm_rows(w: Conv) -> int:
    """Return the rows of the GEMM: output pixels, the four of a pooling window side by side."""
    outputs = math.prod(w.out_shape[:3])
    return math.ceil(outputs / 8) * 32 if w.pool else outputs


def pack_weight(weight: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Lay (CO,CI,KH,KW) out as (CO, KH*KW*CI)."""
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
    return rounded(rows, precision)


def rounded(weight: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Return numbers as the GEMM of a precision takes them."""
    weight = np.ascontiguousarray(weight, np.float32)
    if precision == "float16":
        limit = float(np.finfo(np.float16).max)
        return np.clip(weight, -limit, limit).astype(np.float16)
    if precision == "tf32":
        # To the nearest of ten bits, ties away from zero, as cvt.rna does.
        bits = weight.view(np.uint32) + np.uint32(0x1000)
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return weight


def launches(w: Conv, config: Config, precision: Precision, last: bool = False) -> list[Launch]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked.

    The ``last`` layer of a network writes float32.
    """
    constants = fields(w, config)
    element = activation_type(precision)
    stored: Precision = "float32" if last else precision
    x = TensorSpec((w.batch, w.height, w.width, w.in_channels), element)
    weight = TensorSpec((w.out_channels, math.prod(w.kernel) * w.in_channels), element)
    bias = TensorSpec(w.bias_shape(w.out_channels), "float32")
    y = TensorSpec(w.out_shape, activation_type(stored))
    name = f"{w.name}_{precision}"

    def multiply(symbol: str, output: TensorSpec, written: Precision) -> Launch:
        return Launch(
            symbol,
            instance("conv2d", "Conv2d", constants, policy(precision), store(written)),
            tiles(w, config.rows, config.columns) * config.split,
            config.threads,
            {"x": x, "weight": weight, "bias": bias},
            output,
            (w.slope,),
            shared=config.shared,
            min_blocks_per_sm=min_blocks_per_sm(config, precision),
        )

    if config.split == 1:
        return [multiply(name, y, stored)]
    partial = TensorSpec((config.split, gemm_rows(w), w.out_channels), "float32")
    outputs = math.prod(w.out_shape)
    return [
        multiply(f"{name}_parts", partial, "float32"),
        Launch(
            f"{name}_combine",
            instance("reduce_split_k", "Conv2d", constants, store(stored)),
            math.ceil(outputs * (4 if w.pool else 1) / _REDUCTION_THREADS),
            _REDUCTION_THREADS,
            {"x": partial, "bias": bias},
            y,
            (w.slope,),
        ),
    ]


def policy(precision: Precision) -> str:
    """Return the name that `conv2d.cuh` has for the arithmetic of a precision."""
    names = {"float32": "Simt", "tf32": "Tf32", "float16": "Fp16"}
    return f"ferplus::{names[precision]}"


def min_blocks_per_sm(config: Config, precision: Precision) -> int:
    """Return how many blocks an SM has to hold, 0 for any number.

    Two blocks of 256 threads hide more latency than the registers that a thread would take beyond
    128 do.
    """
    return _MOST_FLOAT32_THREADS // config.threads if precision == "float32" else 0


def fields(w: Conv, config: Config, batch: int = 1) -> dict[str, int | bool]:
    """Return the struct ``Conv2d`` of conv2d.cuh, whose last fields are the tiling's.

    ``batch`` is the number of GEMMs that are computed at once.
    """
    return {
        "batch": w.batch,
        "height": w.height,
        "width": w.width,
        "in_channels": w.in_channels,
        "out_channels": w.out_channels,
        "kernel_y": w.kernel[0],
        "kernel_x": w.kernel[1],
        "stride_y": w.stride[0],
        "stride_x": w.stride[1],
        "top": w.padding[0],
        "left": w.padding[1],
        "dilation_y": w.dilation[0],
        "dilation_x": w.dilation[1],
        "out_height": w.out_height,
        "out_width": w.out_width,
        "relu": w.relu,
        "pool": w.pool,
        "bounded": w.bounded,
        **vars(config),
        "gemms": batch,
    }


NO_TILING = Config(1, 1, 1, 1, 1)
"""What `fields` takes for kernels without a tiling."""
