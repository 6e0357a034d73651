"""Estimate the time of a kernel on a GPU, in clock cycles of its SMs.

The constants are fitted to 809 tilings of FER+'s layers that were measured on an H100; the presets
that they choose are within some per cent of the best that was measured.  Of Winograd's kernels and
of the dense ones nothing has been measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ferplus_tvm.kernels.cuda import dense, implicit_gemm, winograd
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.targets import Gpu, Precision

LAUNCH = 2500
"""Cycles of a kernel whatever it does."""

_BYTES_PER_CYCLE = 12  # of an SM, from memory; not measured
_CACHED_BYTES_PER_CYCLE = 48  # of an SM, from its caches
_REGISTERS, _MOST_THREADS = 65536, 2048  # of an SM


@dataclass(frozen=True)
class _Costs:
    """The constants of an estimate.

    Attributes
    ----------
    efficiency
        The share of peak arithmetic that warp tiles of a size reach with ``warps`` on an SM.
    registers
        The registers of a thread.
    warps, exponent
        With fewer warps, efficiency falls by this power of their number.
    copied, reduced
        Bytes of operands, and of split-K partial sums, in a cycle of an SM.
    launch, reduction
        Cycles of a kernel whatever it does, and of a second one.
    fill
        Cycles of each pipeline stage until the first k-tile is there.
    """

    efficiency: dict[tuple[int, int], float]
    registers: dict[tuple[int, int], int]
    warps: float
    exponent: float
    copied: float
    launch: float
    fill: float
    reduction: float
    reduced: float


_FLOAT32 = _Costs(
    efficiency={(64, 32): 0.56, (32, 32): 0.66, (32, 16): 0.53},
    registers={(64, 32): 128, (32, 32): 128, (32, 16): 128},  # by their launch bounds
    warps=12,
    exponent=0.365,
    copied=14.5,
    launch=2500,
    fill=255,
    reduction=490,
    reduced=14.5,
)
_TENSOR_CORES = _Costs(
    efficiency={(64, 64): 0.30, (64, 32): 0.26, (32, 32): 0.47, (32, 16): 0.89},
    registers={(64, 64): 214, (64, 32): 128, (32, 32): 96, (32, 16): 72},
    warps=9.2,
    exponent=0.38,
    copied=18.2,
    launch=2850,
    fill=645,
    reduction=0,
    reduced=23.7,
)


def of_gemm(
    w: Conv, gpu: Gpu, precision: Precision, config: implicit_gemm.Config, batch: int = 1
) -> float:
    """Return the cycles of ``batch`` GEMMs at once.

    The bound is arithmetic or the operands' way from L2, on the busiest SM.
    """
    costs = _FLOAT32 if precision == "float32" else _TENSOR_CORES
    warp = (config.warp_rows, config.warp_columns)
    steps = math.ceil(math.ceil(implicit_gemm.k_vectors(w, precision) / 4) / config.split)
    count = implicit_gemm.tiles(w, config.rows, config.columns) * config.split * batch
    blocks = math.ceil(count / gpu.sms)
    resident = min(
        blocks,
        _REGISTERS // (costs.registers[warp] * config.threads),
        gpu.shared_bytes // (config.shared + 1024),
        _MOST_THREADS // config.threads,
    )
    resident = max(1, resident)
    warps = resident * config.threads / 32
    efficiency = costs.efficiency[warp] * float(min(1, (warps / costs.warps) ** costs.exponent))
    peak = gpu.fma_per_clock if precision == "float32" else gpu.tensor_fma_per_clock
    computing = blocks * config.rows * config.columns * 16 * steps / (peak * efficiency)
    copying = blocks * (config.rows + config.columns) * 64 * steps / costs.copied
    rounds = math.ceil(blocks / resident)
    total = max(computing, copying) + costs.launch + costs.fill * config.stages * rounds
    if config.split > 1:
        partial = config.split * implicit_gemm.gemm_rows(w) * w.out_channels * 4
        total += costs.reduction + 2 * partial / (gpu.sms * costs.reduced)
    return total


def of_winograd(w: Conv, gpu: Gpu, config: winograd.Config) -> float:
    """Return the cycles of the three launches."""
    gemm = winograd.gemm_of(w, config.tile)
    transformed = gemm.batch * config.elements * (w.in_channels + w.out_channels)
    activations = w.batch * w.height * w.width * w.in_channels + math.prod(w.out_shape)
    transforms = 4 * (transformed + activations) / (gpu.sms * _BYTES_PER_CYCLE)
    gemms = of_gemm(gemm, gpu, "float32", config.gemm, config.elements)
    return 2 * LAUNCH + transforms + gemms


def of_gemv(w: Dense, gpu: Gpu, config: dense.Gemv, weight_bytes: int) -> float:
    """Return the cycles of a dense layer whose weights are read at the speed of memory."""
    weights = w.in_features * w.outputs * weight_bytes
    passes = math.ceil(w.batch / config.faces)
    # Too few warps do not ask for enough bytes at a time.
    busy = min(1, w.outputs * passes / (4 * gpu.sms))
    reads = (passes - 1) * weights + w.outputs * w.batch * w.in_features * 4
    return (
        LAUNCH
        + weights / (gpu.sms * _BYTES_PER_CYCLE * busy)
        + reads / (gpu.sms * _CACHED_BYTES_PER_CYCLE * busy)
    )
