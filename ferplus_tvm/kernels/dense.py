"""Dense layer with bias and optional ReLU, in float32.

Pattern
    y[n,o] = max(0, b[o] + sum over k of x[n,k] * w[k,o])
Buffers
    x (N, K), w (O/tile, K, tile), b (O), y (N, outputs): float32, 64-byte aligned; O is a multiple
    of tile = ``Config.vectors * lanes``, and the last O - outputs columns are computed and dropped.
Registers
    ``rows`` x ``vectors`` accumulators, ``vectors`` weights, one broadcast input value.
Caches
    At batch 1 each weight is used once and the kernel runs at memory speed: the layout streams
    every tile from its first byte to its last.  For batches a tile (K*tile floats, 1 MB for
    4096x64) is read from L2 once per ``rows`` inputs.
Not used
    Splitting K between threads: the order of the sums would depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels import vectors_per_tile
from ferplus_tvm.targets import VectorUnit


@dataclass(frozen=True)
class Workload:
    """One dense layer: ``outputs`` of the ``out_features`` stored columns are wanted."""

    batch: int
    in_features: int
    out_features: int
    outputs: int
    relu: bool

    @property
    def name(self) -> str:
        """A readable name: features, batch."""
        return f"dense_{self.in_features}to{self.outputs}_batch{self.batch}"

    @property
    def flops(self) -> int:
        """Floating point operations: two per multiply-add."""
        return 2 * self.batch * self.in_features * self.out_features


def reference(
    w: Workload, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
) -> NDArray[np.float64]:
    """Compute the layer in float64 from x (N,K), weight (K,O) and bias (O)."""
    y = x.astype(np.float64) @ weight.astype(np.float64) + bias.astype(np.float64)
    return (np.maximum(y, 0) if w.relu else y)[:, : w.outputs]


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled: lanes per vector, vectors of outputs and rows of inputs."""

    lanes: int
    vectors: int
    rows: int

    @property
    def tile(self) -> int:
        """Outputs per tile, which is also the layout of the weights."""
        return self.lanes * self.vectors

    @classmethod
    def preset(cls, w: Workload, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Four vectors of outputs and as many rows as the registers hold; fewer if the batch has
        fewer, and evenly shared: five rows in registers for four go as two and two.
        """
        vectors = vectors_per_tile(w.out_features, unit.lanes, most=4)
        most = max(1, (unit.registers - vectors - 1) // vectors)
        tiles = -(-w.batch // most)
        return cls(unit.lanes, vectors, -(-w.batch // tiles))


def pack_weight(weight: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Lay (K,O) out as (O/tile, K, tile)."""
    in_features, out_features = weight.shape
    tiles = weight.reshape(in_features, out_features // config.tile, config.tile)
    return np.ascontiguousarray(tiles.transpose(1, 0, 2))


def define(w: Workload, config: Config) -> Any:
    """Return the unscheduled PrimFunc with blocks ``dense`` and ``out``."""
    from tvm import te, tirx

    tile = config.tile
    x = te.placeholder((w.batch, w.in_features), "float32", "x")
    weight = te.placeholder((w.out_features // tile, w.in_features, tile), "float32", "weight")
    bias = te.placeholder((w.out_features,), "float32", "bias")
    k = te.reduce_axis((0, w.in_features), "k")
    dense = te.compute(
        (w.batch, w.out_features),
        lambda n, o: te.sum(x[n, k] * weight[o // tile, k, o % tile], axis=k),
        name="dense",
    )

    def finish(n: Any, o: Any) -> Any:
        total = dense[n, o] + bias[o]
        return te.max(total, tirx.const(0.0, "float32")) if w.relu else total

    out = te.compute((w.batch, w.outputs), finish, name="out")
    return te.create_prim_func([x, weight, bias, out])


def schedule(sch: Any, w: Workload, config: Config) -> None:
    """Apply the tiling.

    1. Split the output into tiles of ``rows`` inputs and ``tile`` outputs; run over the output
       tiles in parallel and over the inputs inside, so that a tile's weights stay in L2.
    2. Compute each tile's sums in registers: k outside, the unrolled tile inside.
    3. Add the bias, clip and store what is wanted of the tile.
    """
    del w  # the tiling alone decides
    dense, out = sch.get_sblock("dense"), sch.get_sblock("out")
    n, o = sch.get_loops(out)
    n_tile, n_in = sch.split(n, [None, config.rows])
    o_tile, o_in = sch.split(o, [None, config.tile])
    sch.reorder(o_tile, n_tile, n_in, o_in)
    sch.parallel(o_tile)

    sch.compute_at(dense, n_tile, preserve_unit_loops=True)
    sch.set_scope(dense, 0, "local")
    *_, n, o, k = sch.get_loops(dense)
    vector, lane = sch.split(o, [None, config.lanes])
    sch.reorder(k, n, vector, lane)
    sch.vectorize(lane)
    sch.unroll(vector)
    sch.unroll(n)
    sch.decompose_reduction(dense, k)

    vector, lane = sch.split(o_in, [None, config.lanes])
    sch.vectorize(lane)
    sch.unroll(vector)
    sch.unroll(n_in)
