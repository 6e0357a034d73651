"""Convolution with bias, ReLU and 2x2 maxima on a GPU: see conv2d.cuh.

A configuration is a tiling of the implicit matrix product.  Where a batch has too few tiles for a
GPU's processors, the sums are split between blocks and combined by a second kernel, in a fixed
order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.conv2d import Workload
from ferplus_tvm.kernels.cuda import activation_type, store
from ferplus_tvm.kernels.cuda.launch import Array, Kernel, instance
from ferplus_tvm.targets import Gpu, Precision

_SHARED_BYTES = 96 << 10  # of a block: what the least of the architectures has
_ROW_BYTES = 80  # of a slice in shared memory, its padding included
_THREADS = 256  # of kernels with a thread for each output


@dataclass(frozen=True)
class Config:
    """How the product is tiled.

    rows, columns
        output pixels and channels of a block.
    warp_rows, warp_columns
        the same of each of its warps.
    stages
        slices of the operands in shared memory: one is read while the others are copied.
    split
        blocks that share the sums of a tile.
    """

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int
    split: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.warp_rows * (self.columns // self.warp_columns) * 32

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.stages * (self.rows + self.columns) * _ROW_BYTES

    @classmethod
    def preset(cls, w: Workload, gpu: Gpu, precision: Precision) -> Config:
        """Return the tiling with the least estimated time."""
        return min(space(w, gpu, precision), key=lambda each: cycles(w, gpu, precision, each))


def is_direct(w: Workload) -> bool:
    """Whether there are too few input channels for the product: the first layer's."""
    return w.in_channels % 8 != 0


def vectors(w: Workload, precision: Precision) -> int:
    """Return how many 16-byte vectors of products each output needs."""
    size = 2 if precision == "float16" else 4
    return w.kernel[0] * w.kernel[1] * w.in_channels * size // 16


def space(w: Workload, gpu: Gpu, precision: Precision) -> Iterator[Config]:
    """Yield every tiling that makes sense for a layer."""
    warps = [(64, 32), (32, 32), (32, 16)]
    if precision != "float32":
        warps = [(64, 64), *warps]
    slices = -(-vectors(w, precision) // 4)
    pixels = w.batch * w.out_height * w.out_width
    splits = [split for split in (1, 2, 3, 4, 6, 8, 12, 16) if split * 4 <= max(slices, 4)]
    for warp_rows, warp_columns in warps:
        for down, across in ((1, 1), (1, 2), (2, 1), (1, 4), (2, 2), (4, 1), (2, 4), (4, 2)):
            rows, columns = down * warp_rows, across * warp_columns
            stages = min(4, _SHARED_BYTES // ((rows + columns) * _ROW_BYTES))
            if stages < 2 or rows >= 2 * max(pixels, 32) or columns >= 2 * max(w.out_channels, 16):
                continue
            for split in splits:
                tiles = _tiles(w, rows, columns)
                if split == 1 or tiles * split <= 8 * gpu.processors:
                    yield Config(rows, columns, warp_rows, warp_columns, stages, split)


def _tiles(w: Workload, rows: int, columns: int) -> int:
    return math.ceil(_product_rows(w) / rows) * math.ceil(w.out_channels / columns)


def _outputs(w: Workload) -> int:
    shrink = 2 if w.pool else 1
    return w.batch * (w.out_height // shrink) * (w.out_width // shrink)


def _product_rows(w: Workload) -> int:
    return math.ceil(_outputs(w) / 8) * 32 if w.pool else _outputs(w)


# What a kernel costs whatever it does, and a second one behind it; to begin with, not measured.
LAUNCH_CYCLES = 3000
_L2_BYTES_PER_CYCLE = 48  # of a processor


def cycles(w: Workload, gpu: Gpu, precision: Precision, config: Config) -> float:
    """Estimate a layer's time in cycles of a GPU, of which nothing has been measured.

    What bounds it is arithmetic, at the share of its peak that warps of a size reach where eight
    or more of them are on a processor, or the operands' way from L2.
    """
    blocks = _tiles(w, config.rows, config.columns) * config.split
    waves = math.ceil(blocks / gpu.processors)  # blocks that the busiest processor computes
    words = 4 * math.ceil(vectors(w, precision) / config.split)
    warps = min(blocks / gpu.processors, 2 if config.threads > 128 else 4) * config.threads / 32
    reads = 1 / config.warp_rows + 1 / config.warp_columns
    share = 0.8 * min(1, warps / 8) / max(1, reads * 22)
    rate = gpu.multiply_adds if precision == "float32" else gpu.tensor_words
    computing = waves * config.rows * config.columns * words / (rate * share)
    copying = waves * (config.rows + config.columns) * words * 4 / _L2_BYTES_PER_CYCLE
    total = max(computing, copying) + 0.3 * min(computing, copying) + LAUNCH_CYCLES
    if config.split > 1:
        parts = config.split * _product_rows(w) * w.out_channels * 4
        total += LAUNCH_CYCLES + 2 * parts / (gpu.processors * _L2_BYTES_PER_CYCLE)
    return total


def pack_weight(w: Workload, weight: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Lay (CO,CI,KH,KW) out as (CO,KH*KW*CI), or as (KH*KW*CI,CO) for few input channels."""
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
    return np.ascontiguousarray(rows.T) if is_direct(w) else rounded(rows, precision)


def rounded(weight: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Return weights as the product of a precision takes them."""
    weight = np.ascontiguousarray(weight, np.float32)
    if precision == "float16":
        limit = float(np.finfo(np.float16).max)
        return np.clip(weight, -limit, limit).astype(np.float16)
    if precision == "tf32":
        # To the nearest of ten bits, ties away from zero, as cvt.rna does.
        bits = weight.view(np.uint32) + np.uint32(0x1000)
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return weight


def kernels(w: Workload, config: Config | None, precision: Precision, last: bool) -> list[Kernel]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked.

    ``config`` is None for a layer of few input channels; the ``last`` layer writes float32.
    """
    if config is None:
        return [_direct(w, precision)]
    fields = _fields(w) | {
        "rows": config.rows,
        "columns": config.columns,
        "warp_rows": config.warp_rows,
        "warp_columns": config.warp_columns,
        "stages": config.stages,
        "split": config.split,
    }
    element = activation_type(precision)
    product = {"float32": "Multiply", "tf32": "Tf32", "float16": "Halves"}[precision]
    stored: Precision = "float32" if last else precision
    x = Array("x", (w.batch, w.height, w.width, w.in_channels), element)
    weight = Array("weight", (w.out_channels, math.prod(w.kernel) * w.in_channels), element)
    bias = Array("bias", (w.out_channels,), "float32")
    y = _output(w, stored)
    blocks = _tiles(w, config.rows, config.columns) * config.split
    name = f"{w.name}_{precision}"
    if config.split == 1:
        function = instance("conv2d", "Conv2d", fields, f"ferplus::{product}", store(stored))
        arrays = (x, weight, bias, y)
        return [Kernel(name, function, blocks, config.threads, arrays, shared=config.shared)]
    parts = (config.split, _product_rows(w), w.out_channels)
    function = instance("conv2d", "Conv2d", fields, f"ferplus::{product}", store("float32"))
    combine = instance("combine", "Conv2d", fields, store(stored))
    threads = _outputs(w) * w.out_channels * (4 if w.pool else 1)
    return [
        Kernel(
            f"{name}_parts",
            function,
            blocks,
            config.threads,
            (x, weight, bias, Array("y", parts, "float32")),
            shared=config.shared,
        ),
        Kernel(
            f"{name}_combine",
            combine,
            math.ceil(threads / _THREADS),
            _THREADS,
            (Array("x", parts, "float32"), bias, y),
        ),
    ]


def _direct(w: Workload, precision: Precision) -> Kernel:
    fields = _fields(w) | dict.fromkeys(
        ("rows", "columns", "warp_rows", "warp_columns", "stages", "split"), 1
    )
    threads = math.ceil(_product_rows(w) / 32) * 8 * w.out_channels // 4
    affine = "false" if w.affine is None else "true"
    return Kernel(
        f"{w.name}_{precision}",
        instance("conv2d_direct", "Conv2d", fields, store(precision), affine),
        math.ceil(threads / _THREADS),
        _THREADS,
        (
            Array("x", (w.batch, w.height, w.width, w.in_channels), "float32"),
            Array("weight", (math.prod(w.kernel) * w.in_channels, w.out_channels), "float32"),
            Array("bias", (w.out_channels,), "float32"),
            _output(w, precision),
        ),
        w.affine or (0.0, 1.0),
    )


def _output(w: Workload, precision: Precision) -> Array:
    shrink = 2 if w.pool else 1
    shape = (w.batch, w.out_height // shrink, w.out_width // shrink, w.out_channels)
    return Array("y", shape, activation_type(precision))


def _fields(w: Workload) -> dict[str, int | bool]:
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
    }
