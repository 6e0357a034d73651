"""Estimate the time of a kernel on one core.

The estimate counts what bounds each algorithm, in cycles (constants measured with
``ferplus-tvm bench --layers`` on Zen 4):

- multiply-adds, at 97 % of what the vector unit can start;
- Winograd's transforms: for each vector of values between a transform and the GEMM, a ninth of a
  cycle per value of its tile;
- weights, which come from L3 or memory, since tens of megabytes pass between two uses: six bytes a
  cycle.  They are fetched ahead while the core computes, but for a quarter of their time, and no
  layer is faster than its weights.

The estimate never depends on the number of threads, so the same library serves all of them.
"""

from __future__ import annotations

from ferplus_tvm.kernels.cpu import winograd
from ferplus_tvm.kernels.winograd import transformed_weights
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.targets import VectorUnit

_SHARE_OF_PEAK = 0.97
_CYCLES_PER_TRANSFORMED_VECTOR_AND_VALUE = 1 / 9
_WEIGHT_BYTES_PER_CYCLE = 6
_WEIGHTS_NOT_OVERLAPPED = 0.25
_GHZ = 3.0  # only to express cycles as a time


def of_direct(w: Conv, unit: VectorUnit) -> float:
    """Return the milliseconds of a direct convolution."""
    weights = w.kernel[0] * w.kernel[1] * w.in_channels * w.out_channels
    return _milliseconds(w.flops, 0, 4 * weights, unit)


def of_winograd(w: Conv, config: winograd.Config, unit: VectorUnit) -> float:
    """Return the milliseconds of a Winograd convolution, its pooling included."""
    side, weights = config.matrices.side, transformed_weights(w, config.tile)
    tiles = winograd.computed_tiles(w, config)
    vectors = side**2 * tiles * (w.in_channels + w.out_channels) / unit.lanes
    transform = vectors * side**2 * _CYCLES_PER_TRANSFORMED_VECTOR_AND_VALUE
    return _milliseconds(2.0 * tiles * weights, transform, 4 * weights, unit)


def of_dense(w: Dense, unit: VectorUnit) -> float:
    """Return the milliseconds of a dense layer."""
    weight_bytes = w.in_features * w.out_features * w.weight_bytes
    return _milliseconds(w.flops, 0, weight_bytes, unit)


def of_pool(w: Pool, unit: VectorUnit) -> float:
    """Return the milliseconds of a pooling, which is as fast as its input is read."""
    values = w.batch * w.height * w.width * w.channels
    return _milliseconds(0, 0, 4 * values, unit)


def _milliseconds(flops: float, transform: float, weight_bytes: float, unit: VectorUnit) -> float:
    """Return the time of operations, cycles of transforms and bytes of weights."""
    computing = flops / (2 * unit.lanes * unit.per_cycle * _SHARE_OF_PEAK) + transform
    fetching = weight_bytes / _WEIGHT_BYTES_PER_CYCLE
    cycles = max(computing + _WEIGHTS_NOT_OVERLAPPED * fetching, fetching)
    return cycles / (1e6 * _GHZ)
