"""Winograd convolution F(m x m, 3x3) with bias, optional ReLU and optional 2x2 max pool, float32.

Pattern
    y = pool(max(0, b + x * w)) for a 3x3 convolution of stride 1, by tiles of m x m outputs:
    V = B^T d B per tile and channel, M[e] = V[e] U[e] for each of the (m+2)^2 elements e, and
    A^T M A per tile and output channel.
Buffers
    x (N, H, W, CI), u (m+2, m+2, CO/tile, CI, tile), b (CO), y (N, OH, OW, CO) or half that when
    pooled: float32, 64-byte aligned; tile = ``Config.vectors * lanes``.
Registers
    The products take ``rows`` x ``columns`` x ``vectors`` accumulators, ``vectors`` weights and one
    broadcast input.  A transform holds one tile of one vector of channels, (m+2)^2 values: more
    than there are registers for m = 4, and L1 takes the rest.
Caches
    Two ways.  *Blocks*: V and M of a few rows of tiles stay in L2 beside U, and threads take
    different blocks; for layers whose U is small, and for batches.  *Stages*: each of the three
    steps covers the whole map, and threads share the elements and channel tiles of the products,
    so that every byte of U is read once, by one core; for layers whose U outweighs their map.
Not used
    Tiles of 6 x 6: a fifth less arithmetic than m = 4, for 1.8 times the bytes of weights and a
    larger error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels import conv2d, vectors_per_tile
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS, Matrix
from ferplus_tvm.targets import VectorUnit

_SMALL_WEIGHTS = 3 << 19  # bytes of U that a core reads again for every block without harm
_BLOCK_TILES = 16
_STRIDE_UNIT = 64  # floats
_BATCH_BLOCK_TILES = 64


def applies(w: conv2d.Workload) -> bool:
    """Whether the convolution is one that Winograd's algorithm computes."""
    plain = (w.kernel, w.stride, w.dilation) == ((3, 3), (1, 1), (1, 1))
    return plain and w.affine is None and w.in_channels > 1


def takes_pool(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> bool:
    """Whether the kernel can take in a max pooling: 2x2 windows at steps of 2, no border."""
    return (kernel, stride) == ((2, 2), (2, 2)) and not any(padding)


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled.

    lanes
        float32 values per vector register.
    tile
        m, outputs of a Winograd tile along one side: 2 or 4.
    vectors
        vectors of output channels in the register tile.
    rows, columns
        Winograd tiles in the register tile, down and across.
    images, tile_rows
        images and rows of tiles in a block; (0, 0) for stages over the whole map.
    """

    lanes: int
    tile: int
    vectors: int
    rows: int
    columns: int
    images: int = 0
    tile_rows: int = 0

    @property
    def channels(self) -> int:
        """Output channels per panel of weights, which is also their layout."""
        return self.lanes * self.vectors

    @property
    def staged(self) -> bool:
        """Whether each step covers the whole map."""
        return self.images == 0

    @classmethod
    def preset(cls, w: conv2d.Workload, unit: VectorUnit, tile: int) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Eight accumulators or more hide the latency of a fused multiply-add, sixteen do so with
        room for loads; the more tiles share a weight, the less often it is loaded.
        """
        high, wide = _tiles(w, tile)
        vectors = vectors_per_tile(w.out_channels, unit.lanes, most=2)
        most = max(1, min(16, unit.registers - vectors - 2) // vectors)
        columns = _largest_divisor(wide, most)
        rows = _largest_divisor(high, most // columns)
        if wide * high < most // 2:
            # Too few tiles to fill the registers: let more channels do it.
            vectors = vectors_per_tile(w.out_channels, unit.lanes, most=4)
        weights = 4 * (tile + 2) ** 2 * w.in_channels * w.out_channels
        if weights <= _SMALL_WEIGHTS:
            tile_rows = _largest_divisor(high, max(1, -(-_BLOCK_TILES // wide)))
            rows = _largest_divisor(tile_rows, rows)
            return cls(unit.lanes, tile, vectors, rows, columns, 1, tile_rows)
        images = _largest_divisor(w.batch, max(1, _BATCH_BLOCK_TILES // (high * wide)))
        if w.batch // images >= 4:
            return cls(unit.lanes, tile, vectors, rows, columns, images, high)
        return cls(unit.lanes, tile, vectors, rows, columns)


def _tiles(w: conv2d.Workload, tile: int) -> tuple[int, int]:
    return -(-w.out_height // tile), -(-w.out_width // tile)


def _largest_divisor(number: int, most: int) -> int:
    return next(d for d in range(max(1, min(number, most)), 0, -1) if number % d == 0)


def pack_weight(weight: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Transform (CO,CI,3,3) in float64 and lay it out as (m+2, m+2, CO/tile, CI, tile)."""
    u = ALGORITHMS[config.tile].transform_filter(weight)
    side, _, in_channels, out_channels = u.shape
    panels = u.reshape(side, side, in_channels, out_channels // config.channels, config.channels)
    return np.ascontiguousarray(panels.transpose(0, 1, 3, 2, 4), dtype=np.float32)


Value = Callable[[int], Any]


def _sum(terms: Sequence[tuple[float, Any]]) -> Any:
    """Return the sum of factor * value; ones cost nothing."""
    from tvm import tirx

    total = None
    for factor, value in terms:
        term = value if abs(factor) == 1 else value * tirx.const(abs(factor), "float32")
        if total is None:
            total = term if factor > 0 else tirx.const(0.0, "float32") - term
        else:
            total = total + term if factor > 0 else total - term
    return total


def _even_and_odd(row: Sequence[float], value: Value) -> Any:
    """Combine a row of B^T: the rows of p and -p differ in the sign of their odd half."""
    even = [(factor, value(k)) for k, factor in enumerate(row) if factor and k % 2 == 0]
    odd = [(factor, value(k)) for k, factor in enumerate(row) if factor and k % 2 == 1]
    if not even or not odd:
        return _sum(even or odd)
    sign = 1 if odd[-1][0] > 0 else -1
    half = _sum([(sign * factor, x) for factor, x in reversed(odd)])
    return _sum([(1, _sum(list(reversed(even)))), (sign, half)])


def _pairs(row: Sequence[float], value: Value) -> Any:
    """Combine a row of A^T: the values of p and -p are added or subtracted first."""
    terms = [(row[0], value(0))] if row[0] else []
    for k in range(1, len(row) - 1, 2):
        if row[k]:
            sign = 1 if row[k] == row[k + 1] else -1
            terms.append((row[k], _sum([(1, value(k)), (sign, value(k + 1))])))
    if row[-1]:
        terms.append((row[-1], value(len(row) - 1)))
    return _sum(terms)


def _multiply(
    matrix: Matrix, combine: Callable[[Sequence[float], Value], Any], index: Any, value: Value
) -> Any:
    """Return row ``index`` of a constant matrix times a vector.

    The schedule unrolls ``index``, and the choice between the rows is gone; what two rows have in
    common, the compiler computes once.
    """
    from tvm import tirx

    chosen = combine(matrix[-1], value)
    for k in range(len(matrix) - 2, -1, -1):
        chosen = tirx.Select(index == k, combine(matrix[k], value), chosen)
    return chosen


def define(w: conv2d.Workload, config: Config) -> Any:
    """Return the unscheduled PrimFunc.

    Blocks: ``pad``, ``rows`` (B^T d), ``input`` (V), ``product`` (M), ``columns`` (A^T M), ``tile``
    (with bias and ReLU) and ``out`` (the map, pooled or plain).
    """
    from tvm import te, tirx

    algorithm = ALGORITHMS[config.tile]
    m, side, channels = algorithm.tile, algorithm.side, config.channels
    into, back = algorithm.input, algorithm.output
    high, wide = _tiles(w, m)
    zero = tirx.const(0.0, "float32")
    top, left, _, _ = w.padding
    x = te.placeholder((w.batch, w.height, w.width, w.in_channels), "float32", "x")
    panels = w.out_channels // channels
    u = te.placeholder((side, side, panels, w.in_channels, channels), "float32", "u")
    bias = te.placeholder((w.out_channels,), "float32", "bias")

    def bordered(n: Any, row: Any, column: Any, c: Any) -> Any:
        inside = tirx.all(row >= top, row < w.height + top, column >= left, column < w.width + left)
        return tirx.if_then_else(inside, x[n, row - top, column - left, c], zero)

    pad = te.compute((w.batch, high * m + 2, wide * m + 2, w.in_channels), bordered, name="pad")
    rows = te.compute(
        (w.batch, high, wide, side, side, w.in_channels),
        lambda n, ty, tx, i, b, c: _multiply(
            into, _even_and_odd, i, lambda k: pad[n, ty * m + k, tx * m + b, c]
        ),
        name="rows",
    )
    v = te.compute(
        (side, side, w.batch, high, wide, w.in_channels),
        lambda i, j, n, ty, tx, c: _multiply(
            into, _even_and_odd, j, lambda k: rows[n, ty, tx, i, k, c]
        ),
        name="input",
    )
    k = te.reduce_axis((0, w.in_channels), "k")
    product = te.compute(
        (side, side, w.batch, high, wide, w.out_channels),
        lambda i, j, n, ty, tx, o: te.sum(
            v[i, j, n, ty, tx, k] * u[i, j, o // channels, k, o % channels], axis=k
        ),
        name="product",
    )
    columns = te.compute(
        (w.batch, high, wide, m, side, w.out_channels),
        lambda n, ty, tx, i, j, o: _multiply(
            back, _pairs, i, lambda k: product[k, j, n, ty, tx, o]
        ),
        name="columns",
    )

    def finished(n: Any, ty: Any, tx: Any, i: Any, j: Any, o: Any) -> Any:
        total = bias[o] + _multiply(back, _pairs, j, lambda k: columns[n, ty, tx, i, k, o])
        return te.max(total, zero) if w.relu else total

    tile = te.compute((w.batch, high, wide, m, m, w.out_channels), finished, name="tile")

    def output(n: Any, y: Any, x: Any) -> Callable[[Any], Any]:
        return lambda o: tile[n, y // m, x // m, y % m, x % m, o]

    if not w.pool:
        out = te.compute(
            (w.batch, w.out_height, w.out_width, w.out_channels),
            lambda n, y, x, o: output(n, y, x)(o),
            name="out",
        )
    else:
        half = m // 2

        def pooled(n: Any, y: Any, x: Any, o: Any) -> Any:
            def at(i: int, j: int) -> Any:
                return tile[n, y // half, x // half, y % half * 2 + i, x % half * 2 + j, o]

            return te.max(te.max(at(0, 0), at(0, 1)), te.max(at(1, 0), at(1, 1)))

        out = te.compute(
            (w.batch, w.out_height // 2, w.out_width // 2, w.out_channels), pooled, name="out"
        )
    return te.create_prim_func([x, u, bias, out])


def schedule(sch: Any, w: conv2d.Workload, config: Config) -> None:
    """Apply the tiling.

    1. Read the border where the input transform needs it: no padded copy.
    2. Walk over the output tile by tile and vector by vector of channels; compute ``columns`` and
       ``tile`` there, unrolled, in registers.
    3. Blocks: split images and rows of tiles into blocks, in parallel, and compute ``product`` and
       ``input`` per block.  Stages: make each step parallel by itself.
    4. The product: element and panel outside, then register tiles, k, and the unrolled tile.
    5. The input transform: tile by tile and vector by vector, ``rows`` in registers, unrolled.
    6. Set the elements of V and M one vector further apart: a tile's (m+2)^2 values would
       otherwise lie powers of two apart, in one set of L1, and evict each other.
    """
    pad, rows, transform, product, columns, tile, out = (
        sch.get_sblock(name)
        for name in ("pad", "rows", "input", "product", "columns", "tile", "out")
    )
    lanes = config.lanes

    sch.compute_inline(pad)

    side = config.tile // 2 if w.pool else config.tile
    n, y, x, o = sch.get_loops(out)
    ty, y_in = sch.split(y, [None, side])
    tx, x_in = sch.split(x, [None, side])
    vector, lane = sch.split(o, [None, lanes])
    block = None
    if config.staged:
        sch.reorder(n, ty, tx, vector, y_in, x_in, lane)
        sch.parallel(sch.fuse(n, ty, tx))
    else:
        n_block, n_in = sch.split(n, [None, config.images])
        t_block, t_in = sch.split(ty, [None, config.tile_rows])
        sch.reorder(n_block, t_block, n_in, t_in, tx, vector, y_in, x_in, lane)
        block = sch.fuse(n_block, t_block)
        sch.parallel(block)
    sch.vectorize(lane)
    sch.unroll(y_in)
    sch.unroll(x_in)
    for stage in (tile, columns):
        _unrolled(sch, stage, vector)

    if block is not None:
        sch.compute_at(product, block, preserve_unit_loops=True)
    *_, i, j, n, ty, tx, o, k = sch.get_loops(product)
    panel, o_in = sch.split(o, [None, config.channels])
    vector, lane = sch.split(o_in, [None, lanes])
    ty, ty_in = sch.split(ty, [None, config.rows])
    tx, tx_in = sch.split(tx, [None, config.columns])
    sch.reorder(i, j, panel, n, ty, tx, k, ty_in, tx_in, vector, lane)
    share = sch.fuse(i, j, panel)
    if block is None:
        sch.parallel(share)
    sch.vectorize(lane)
    for loop in (vector, tx_in, ty_in):
        sch.unroll(loop)
    store = sch.cache_write(product, 0, "local")
    sch.reverse_compute_at(store, tx, preserve_unit_loops=True)
    _vectorize(sch, sch.get_loops(store)[-1], lanes)
    sch.decompose_reduction(product, k)

    if block is not None:
        sch.compute_at(transform, block, preserve_unit_loops=True)
    *_, i, j, n, ty, tx, c = sch.get_loops(transform)
    vector, lane = sch.split(c, [None, lanes])
    sch.reorder(n, ty, tx, vector, i, j, lane)
    if block is None:
        sch.parallel(sch.fuse(n, ty, tx))
    sch.vectorize(lane)
    sch.unroll(i)
    sch.unroll(j)
    _unrolled(sch, rows, vector)

    for stage in (transform, product):
        sch.storage_align(stage, 0, axis=1, factor=_STRIDE_UNIT, offset=lanes)


def _unrolled(sch: Any, stage: Any, loop: Any) -> None:
    """Compute a transform's first half at ``loop``, in registers, unrolled."""
    sch.compute_at(stage, loop, preserve_unit_loops=True)
    sch.set_scope(stage, 0, "local")
    *_, i, j, lane = sch.get_loops(stage)
    sch.vectorize(lane)
    sch.unroll(i)
    sch.unroll(j)


def _vectorize(sch: Any, loop: Any, lanes: int) -> None:
    outer, inner = sch.split(loop, [None, lanes])
    sch.vectorize(inner)
    del outer
