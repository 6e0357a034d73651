"""Dense layer with bias and optional activation, in float32.

Pattern
    y[n,o] = activation(b[o] + sum over k of x[n,k] * w[k,o])
Buffers
    x (N, K), w (K, O) as `packing` groups its columns, b (O) or (3, O), y (N, outputs): float32,
    64-byte aligned, but that the weights may be float16; O is a multiple of ``Config.panel``, and
    the last O - outputs columns are computed and dropped.
Registers
    ``rows`` x ``vectors`` accumulators, ``vectors`` weights and one broadcast input value
    (`tensorir.RegisterTile`).
Caches
    At batch 1 each weight is used once and the kernel runs at memory speed: the layout streams
    every group from its first byte to its last, fetched ``prefetch`` bytes ahead, and weights that
    are half-precision numbers (as of a model stored in half precision) are kept as such, which is
    exact.  For batches a panel (K*panel floats, 1 MB for 4096x64) is read from L2 once per ``rows``
    inputs.
Not used
    Splitting K between threads: the order of the sums would depend on their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm
from ferplus_tvm.kernels.cpu.activation import ending
from ferplus_tvm.kernels.cpu.packing import Columns, group, grouped, grouped_shape
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    Vectors,
    argument,
    candidate_vectors,
    flat,
    function,
    in_tiles,
    most_rows,
    parallel,
    scratch,
    serial,
    value,
    vectors_per_tile,
    when,
)
from ferplus_tvm.kernels.workloads import Dense
from ferplus_tvm.targets import VectorUnit

_PREFETCH = 8192  # bytes, two pages ahead
_PREFETCHES = (0, 1024, 2048, 4096, 8192, 16384)  # that tuning tries


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled.

    Attributes
    ----------
    lanes
        float32 values per vector register.
    vectors
        Vectors of outputs in the register tile.
    rows
        Inputs in the register tile.
    prefetch
        How many bytes ahead weights are fetched, over all groups of the register tile; 0 leaves it
        to the hardware.
    """

    lanes: int
    vectors: int
    rows: int
    prefetch: int = 0

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.GEMM

    @property
    def panel(self) -> int:
        """Outputs of a register tile, and of a task."""
        return self.lanes * self.vectors

    @classmethod
    def preset(cls, w: Dense, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Four vectors of outputs, or for one input those of a group, so that none of its lines is
        read twice; and as many rows as the registers hold, fewer if the batch has fewer, and evenly
        shared: five rows, where four fit, go as three and two.
        """
        most = 4
        if w.batch == 1:
            fit = (unit.registers - 1) // 2  # a row of sums, the weights, and one input
            most = max(most, min(fit, group(w.weight_type) // unit.lanes))
        vectors = vectors_per_tile(w.out_features, unit.lanes, most)
        most = max(1, most_rows(vectors, unit.registers))
        tiles = -(-w.batch // most)
        rows = -(-w.batch // tiles)
        return cls(unit.lanes, vectors, rows, _PREFETCH if w.batch == 1 else 0)


def candidates(w: Dense, unit: VectorUnit) -> Iterator[Config]:
    """Yield every configuration that fits the registers."""
    for vectors in candidate_vectors(w.out_features, unit):
        for rows in range(1, min(most_rows(vectors, unit.registers), w.batch) + 1):
            for prefetch in _PREFETCHES:
                yield Config(unit.lanes, vectors, rows, prefetch)


def pack_weight(w: Dense, weight: NDArray[np.float32]) -> NDArray[Any]:
    """Group the columns of (K,O)."""
    return grouped(weight, w.weight_type)


def define(w: Dense, config: Config, x_shape: Sequence[int] | None = None) -> Any:
    """Return the PrimFunc (x, weight, bias, y); ``x_shape`` is another shape for the same x.

    1. One task per panel of outputs, rows of inputs inside, so that a panel's weights stay in L2.
    2. k outside of the register tile; the first rows fetch weights for all of them.
    3. Add the bias, apply the activation, and store what is wanted of the tile.
    """
    unit = Vectors(config.lanes)
    panels = w.out_features // config.panel
    shape = grouped_shape(w.in_features, w.out_features, w.weight_type)
    with function() as builder:
        buffers = [
            argument("x", x_shape or (w.batch, w.in_features)),
            argument("weight", shape, w.weight_type),
            argument("bias", w.bias_shape(w.out_features)),
            argument("y", (w.batch, w.outputs)),
        ]
        x, weight, bias, y = (flat(buffer) for buffer in buffers)
        with parallel(panels) as panel:
            first = value(panel * config.panel)
            weights = Columns(unit, config.vectors, weight, w.in_features, 0, first)

            def rows(start: Expr, count: int, fetch: bool) -> None:
                tile = RegisterTile(unit, count, config.vectors)
                source = value(start * w.in_features)
                with serial(w.in_features) as k:
                    if fetch:
                        weights.fetch(k, config.prefetch // w.weight_bytes)
                    tile.add(
                        lambda row: x[source + row * w.in_features + k],
                        lambda vector: weights.load(vector, k),
                    )
                for vector in range(config.vectors):
                    o = value(first + vector * unit.lanes)
                    end = ending(unit, w, bias, w.out_features, o)
                    for row in range(count):
                        _store(w, unit, y, end(tile.result(row, vector)), start + row, o)

            head = min(config.rows, w.batch) if config.prefetch else 0
            if head:
                rows(0, head, fetch=True)
            in_tiles(head, w.batch, config.rows, lambda s, count: rows(s, count, fetch=False))
    return builder.get()


def _store(w: Dense, unit: Vectors, y: Any, total: Expr, row: Expr, o: Expr) -> None:
    """Store a vector of outputs, or of its values those that are wanted."""
    from tvm.script.ir_builder import tirx as T

    at = value(row * w.outputs + o)
    if w.outputs == w.out_features:
        unit.store(y, total, at)
        return
    whole = scratch(unit.lanes)
    unit.store(whole, total, 0)
    with serial(unit.lanes) as lane, when(o + lane < w.outputs):
        T.buffer_store(y, whole[lane], [at + lane])
