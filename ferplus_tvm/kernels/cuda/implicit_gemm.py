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

from ferplus_tvm.kernels.cuda import activation_type, store
from ferplus_tvm.kernels.cuda.launch import Array, Kernel, instance
from ferplus_tvm.kernels.workloads import Conv
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
    def preset(cls, w: Conv, gpu: Gpu, precision: Precision) -> Config:
        """Return the tiling with the least estimated time."""
        return min(space(w, gpu, precision), key=lambda each: cycles(w, gpu, precision, each))


def product(rows: int, in_channels: int, out_channels: int, relu: bool) -> Conv:
    """Return a matrix product (rows, CI) x (CI, CO) as a 1x1 convolution of 1x1 maps."""
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
    )


def is_direct(w: Conv) -> bool:
    """Whether there are too few input channels for the product: the first layer's."""
    return w.in_channels % 8 != 0


def vectors(w: Conv, precision: Precision) -> int:
    """Return how many 16-byte vectors of products each output needs."""
    size = 2 if precision == "float16" else 4
    return w.kernel[0] * w.kernel[1] * w.in_channels * size // 16


def space(w: Conv, gpu: Gpu, precision: Precision) -> Iterator[Config]:
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
            # As many as hide the way from memory, but no more than two blocks have room for.
            slice_bytes = (rows + columns) * _ROW_BYTES
            stages = min(
                4, _SHARED_BYTES // slice_bytes, max(2, gpu.shared_bytes // 2 // slice_bytes)
            )
            if stages < 2 or rows >= 2 * max(pixels, 32) or columns >= 2 * max(w.out_channels, 16):
                continue
            for split in splits:
                if split == 1 or tiles(w, rows, columns) * split <= 8 * gpu.sms:
                    yield Config(rows, columns, warp_rows, warp_columns, stages, split)


def tiles(w: Conv, rows: int, columns: int) -> int:
    """Return how many tiles of a block the product has."""
    return math.ceil(_product_rows(w) / rows) * math.ceil(w.out_channels / columns)


def _outputs(w: Conv) -> int:
    shrink = 2 if w.pool else 1
    return w.batch * (w.out_height // shrink) * (w.out_width // shrink)


def _product_rows(w: Conv) -> int:
    return math.ceil(_outputs(w) / 8) * 32 if w.pool else _outputs(w)


@dataclass(frozen=True)
class _Costs:
    """What an estimate is made of: fitted to 809 tilings of FER+'s layers, measured on an H100.

    share
        of the arithmetic's peak that warps of a size reach, where ``warps`` are on a processor.
    registers
        of a thread.
    warps, exponent
        with fewer warps, by what power of their number it falls.
    copied, combined
        bytes of operands, and of parts that are combined, in a cycle of a processor.
    launch, combine
        cycles of a kernel whatever it does, and of a second one.
    fill
        cycles of each slice until the first one is there.
    """

    share: dict[tuple[int, int], float]
    registers: dict[tuple[int, int], int]
    warps: float
    exponent: float
    copied: float
    launch: float
    fill: float
    combine: float
    combined: float


_FLOAT32 = _Costs(
    share={(64, 32): 0.56, (32, 32): 0.66, (32, 16): 0.53},
    registers={(64, 32): 128, (32, 32): 128, (32, 16): 128},  # by their launch bounds
    warps=12,
    exponent=0.365,
    copied=14.5,
    launch=2500,
    fill=255,
    combine=490,
    combined=14.5,
)
_TENSOR_CORES = _Costs(
    share={(64, 64): 0.30, (64, 32): 0.26, (32, 32): 0.47, (32, 16): 0.89},
    registers={(64, 64): 214, (64, 32): 128, (32, 32): 96, (32, 16): 72},
    warps=9.2,
    exponent=0.38,
    copied=18.2,
    launch=2850,
    fill=645,
    combine=0,
    combined=23.7,
)
LAUNCH_CYCLES = 2500
BYTES_PER_CYCLE = 12  # of a processor, from memory; not measured
_REGISTERS, _MOST_THREADS = 65536, 2048  # of a processor


def cycles(w: Conv, gpu: Gpu, precision: Precision, config: Config, elements: int = 1) -> float:
    """Estimate a layer's time in cycles; presets are within some per cent of the best measured.

    What bounds it is arithmetic or the operands' way from L2, on the busiest processor.
    ``elements`` is the number of such products at once, of which nothing has been measured.
    """
    costs = _FLOAT32 if precision == "float32" else _TENSOR_CORES
    warp = (config.warp_rows, config.warp_columns)
    steps = math.ceil(math.ceil(vectors(w, precision) / 4) / config.split)
    count = tiles(w, config.rows, config.columns) * config.split * elements
    blocks = math.ceil(count / gpu.sms)
    together = min(
        blocks,
        _REGISTERS // (costs.registers[warp] * config.threads),
        gpu.shared_bytes // (config.shared + 1024),
        _MOST_THREADS // config.threads,
    )
    together = max(1, together)
    warps = together * config.threads / 32
    share = costs.share[warp] * float(min(1, (warps / costs.warps) ** costs.exponent))
    rate = gpu.fma_per_clock if precision == "float32" else gpu.tensor_fma_per_clock
    computing = blocks * config.rows * config.columns * 16 * steps / (rate * share)
    copying = blocks * (config.rows + config.columns) * 64 * steps / costs.copied
    rounds = math.ceil(blocks / together)
    total = max(computing, copying) + costs.launch + costs.fill * config.stages * rounds
    if config.split > 1:
        parts = config.split * _product_rows(w) * w.out_channels * 4
        total += costs.combine + 2 * parts / (gpu.sms * costs.combined)
    return total


def pack_weight(w: Conv, weight: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
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


def kernels(w: Conv, config: Config | None, precision: Precision, last: bool) -> list[Kernel]:
    """Return the launches for x (N,H,W,CI) -> y (N,OH,OW,CO), pooled if asked.

    ``config`` is None for a layer of few input channels; the ``last`` layer writes float32.
    """
    if config is None:
        return [_direct(w, precision)]
    constants = fields(w, config)
    element = activation_type(precision)
    product = {"float32": "Multiply", "tf32": "Tf32", "float16": "Halves"}[precision]
    stored: Precision = "float32" if last else precision
    x = Array("x", (w.batch, w.height, w.width, w.in_channels), element)
    weight = Array("weight", (w.out_channels, math.prod(w.kernel) * w.in_channels), element)
    bias = Array("bias", (w.out_channels,), "float32")
    y = output(w, stored)
    blocks = tiles(w, config.rows, config.columns) * config.split
    name = f"{w.name}_{precision}"
    if config.split == 1:
        function = instance("conv2d", "Conv2d", constants, f"ferplus::{product}", store(stored))
        arrays = (x, weight, bias, y)
        return [Kernel(name, function, blocks, config.threads, arrays, shared=config.shared)]
    parts = (config.split, _product_rows(w), w.out_channels)
    function = instance("conv2d", "Conv2d", constants, f"ferplus::{product}", store("float32"))
    combine = instance("combine", "Conv2d", constants, store(stored))
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


def _direct(w: Conv, precision: Precision) -> Kernel:
    constants = fields(w, Config(1, 1, 1, 1, 1))  # it has no tiling
    threads = math.ceil(_product_rows(w) / 32) * 8 * w.out_channels // 4
    affine = "false" if w.affine is None else "true"
    return Kernel(
        f"{w.name}_{precision}",
        instance("conv2d_direct", "Conv2d", constants, store(precision), affine),
        math.ceil(threads / _THREADS),
        _THREADS,
        (
            Array("x", (w.batch, w.height, w.width, w.in_channels), "float32"),
            Array("weight", (math.prod(w.kernel) * w.in_channels, w.out_channels), "float32"),
            Array("bias", (w.out_channels,), "float32"),
            output(w, precision),
        ),
        w.affine or (0.0, 1.0),
    )


def output(w: Conv, precision: Precision) -> Array:
    """Return the map that is written."""
    shrink = 2 if w.pool else 1
    shape = (w.batch, w.out_height // shrink, w.out_width // shrink, w.out_channels)
    return Array("y", shape, activation_type(precision))


def fields(w: Conv, config: Config, elements: int = 1) -> dict[str, int | bool]:
    """Return the struct ``Conv2d`` of conv2d.cuh, whose last fields are the tiling's."""
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
        **vars(config),
        "elements": elements,
    }
