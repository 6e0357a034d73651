"""Choose the algorithm of a layer from an estimate of its time.

The estimate counts what bounds each algorithm on one core, in cycles (constants measured with
``ferplus-tvm bench --layers`` on Zen 4):

- multiply-adds, at 97 % of what the vector unit can start;
- Winograd's transforms: for each vector of values between a transform and the product, a ninth of
  a cycle per value of its tile;
- weights, which come from L3 or memory, since tens of megabytes pass between two uses: six bytes a
  cycle.  They are fetched ahead while the core computes, but for a quarter of their time, and no
  layer is faster than its weights.

F(6,3) is an estimate too good where its weights crowd L2: beyond 768 KB of them it was measured to
be 5 % faster than F(4,3) on a quiet machine, and 10 % slower where neighbours use the caches.

It never depends on the number of threads, so the same library serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferplus_tvm.kernels.cpu import winograd
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.targets import VectorUnit

_SHARE_OF_PEAK = 0.97
_CYCLES_PER_TRANSFORMED_VECTOR_AND_VALUE = 1 / 9
_WEIGHT_BYTES_PER_CYCLE = 6
_WEIGHTS_NOT_OVERLAPPED = 0.25
_LARGEST_OF_F6 = 192 << 10
_GHZ = 3.0  # only to express cycles as a time


@dataclass(frozen=True)
class Choice:
    """An algorithm: 0 for the direct convolution, or m for Winograd's F(m, 3).

    milliseconds
        the estimate for one core at 3 GHz.
    why
        the estimates that were compared, in words.
    """

    tile: int
    milliseconds: float
    why: str


def choose(w: Conv, unit: VectorUnit, recorded: int | None = None) -> Choice:
    """Return the algorithm of a convolution with the least estimated time.

    ``recorded`` is the one that a tuning record found to be the fastest: chosen, if it applies.
    """
    estimates = {0: _direct(w, unit)}
    if winograd.applies(w):
        estimates |= {tile: _winograd(w, unit, tile) for tile in ALGORITHMS}
    compared = ", ".join(
        f"{'direct' if candidate == 0 else f'F({candidate},3)'} {milliseconds:.2f} ms"
        for candidate, milliseconds in sorted(estimates.items())
    )
    if recorded in estimates:
        return Choice(recorded, estimates[recorded], f"tuned; estimated {compared}")
    offered = [tile for tile in estimates if tile < 6 or _weights(w, tile) <= _LARGEST_OF_F6]
    tile = min(offered, key=lambda candidate: estimates[candidate])
    crowded = "" if 6 in offered or 6 not in estimates else ", F(6,3)'s weights crowd the caches"
    return Choice(tile, estimates[tile], f"estimated {compared}{crowded}")


def only_dense(w: Dense, unit: VectorUnit) -> Choice:
    """Return the one way to compute a dense layer, with its estimate."""
    weight_bytes = w.in_features * w.out_features * w.weight_bytes
    return Choice(0, _milliseconds(w.flops, 0, weight_bytes, unit), "the only kernel for it")


def only_max_pool(w: Pool, unit: VectorUnit) -> Choice:
    """Return the one way to compute a pooling, with its estimate: it runs at the map's speed."""
    values = w.batch * w.height * w.width * w.channels
    return Choice(0, _milliseconds(0, 0, 4 * values, unit), "the only kernel for it")


def _milliseconds(flops: float, transform: float, weight_bytes: float, unit: VectorUnit) -> float:
    """Return the time of operations, cycles of transforms and bytes of weights."""
    computing = flops / (2 * unit.lanes * unit.per_cycle * _SHARE_OF_PEAK) + transform
    fetching = weight_bytes / _WEIGHT_BYTES_PER_CYCLE
    cycles = max(computing + _WEIGHTS_NOT_OVERLAPPED * fetching, fetching)
    return cycles / (1e6 * _GHZ)


def _direct(w: Conv, unit: VectorUnit) -> float:
    weights = w.kernel[0] * w.kernel[1] * w.in_channels * w.out_channels
    return _milliseconds(w.flops, 0, 4 * weights, unit)


def _winograd(w: Conv, unit: VectorUnit, tile: int) -> float:
    side, weights = ALGORITHMS[tile].side, _weights(w, tile)
    tiles = winograd.computed_tiles(w, winograd.Config.preset(w, unit, tile))
    vectors = side**2 * tiles * (w.in_channels + w.out_channels) / unit.lanes
    transform = vectors * side**2 * _CYCLES_PER_TRANSFORMED_VECTOR_AND_VALUE
    return _milliseconds(2.0 * tiles * weights, transform, 4 * weights, unit)


def _weights(w: Conv, tile: int) -> int:
    """Return how many transformed weights there are."""
    return int(ALGORITHMS[tile].side ** 2 * w.in_channels * w.out_channels)
