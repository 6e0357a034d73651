"""Choose the algorithm of a layer from an estimate of its time.

The estimate counts what bounds each algorithm on one core, in cycles:

- multiply-adds, two vectors a cycle at nine tenths of the peak, as measured for the kernels here;
- Winograd's transforms, some fifteen cycles per vector of values that they write and read;
- weights, eight bytes a cycle: they come from L3 or memory, since 20 MB and more of them pass
  between two uses.

It never depends on the number of threads, so the same library serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferplus_tvm.kernels import conv2d, dense, max_pool, winograd
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.targets import VectorUnit

_MULTIPLY_ADD_VECTORS_PER_CYCLE = 2 * 0.9
_CYCLES_PER_TRANSFORMED_VECTOR = 15
_WEIGHT_BYTES_PER_CYCLE = 8
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


def choose(w: conv2d.Workload, unit: VectorUnit) -> Choice:
    """Return the algorithm of a convolution with the least estimated time."""
    estimates = {0: _direct(w, unit)}
    if winograd.applies(w):
        estimates |= {tile: _winograd(w, unit, tile) for tile in ALGORITHMS}
    tile = min(estimates, key=lambda candidate: estimates[candidate])
    compared = ", ".join(
        f"{'direct' if candidate == 0 else f'F({candidate},3)'} {milliseconds:.2f} ms"
        for candidate, milliseconds in sorted(estimates.items())
    )
    return Choice(tile, estimates[tile], f"estimated {compared}")


def only_dense(w: dense.Workload, unit: VectorUnit) -> Choice:
    """Return the one way to compute a dense layer, with its estimate."""
    weights = w.in_features * w.out_features
    return Choice(0, _milliseconds(w.flops, 0, weights, unit), "the only kernel for it")


def only_max_pool(w: max_pool.Workload, unit: VectorUnit) -> Choice:
    """Return the one way to compute a pooling, with its estimate: it runs at the map's speed."""
    values = w.batch * w.height * w.width * w.channels
    return Choice(0, _milliseconds(0, 0, values, unit), "the only kernel for it")


def _milliseconds(flops: float, values: float, weights: float, unit: VectorUnit) -> float:
    cycles = (
        flops / (2 * unit.lanes * _MULTIPLY_ADD_VECTORS_PER_CYCLE)
        + values / unit.lanes * _CYCLES_PER_TRANSFORMED_VECTOR
        + 4 * weights / _WEIGHT_BYTES_PER_CYCLE
    )
    return cycles / (1e6 * _GHZ)


def _direct(w: conv2d.Workload, unit: VectorUnit) -> float:
    weights = w.kernel[0] * w.kernel[1] * w.in_channels * w.out_channels
    return _milliseconds(w.flops, 0, weights, unit)


def _winograd(w: conv2d.Workload, unit: VectorUnit, tile: int) -> float:
    elements = ALGORITHMS[tile].side ** 2
    tiles = w.batch * -(-w.out_height // tile) * -(-w.out_width // tile)
    weights = elements * w.in_channels * w.out_channels
    values = elements * tiles * (w.in_channels + w.out_channels)
    return _milliseconds(2.0 * tiles * weights, values, weights, unit)
