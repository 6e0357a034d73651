"""Winograd convolution F(m x m, 3x3) with bias, optional ReLU and optional 2x2 max pool, float32.

Pattern
    y = pool(max(0, b + x * w)) for a 3x3 convolution of stride 1, by tiles of m x m outputs:
    V = B^T d B per tile and channel, M[e] = V[e] U[e] for each of the (m+2)^2 elements e, and
    A^T M A per tile and output channel.
Buffers
    x (N, H, W, CI) in the halo that `halo` asks for, u ((m+2)^2 * CI, CO) as `weights` groups
    its columns, b (CO), y (N, OH, OW, CO), half that when pooled, in the halo that is asked of
    it: float32, 64-byte aligned.
Registers
    The products take ``rows`` x ``vectors`` accumulators, ``vectors`` weights and one broadcast
    input (`tensorir.RegisterTile`).  A transform's partial sums take the others.
Caches
    Per strip of output channels, M of a block of tiles is written and at once transformed back, so
    that it never leaves L2.  Two ways with V.  *Blocks*: each task transforms a few tiles, which
    then meet all strips; U is read once per block, from L2 or L3, so for layers whose U is small,
    and for batches.  *Strips*: V covers the whole map, and the tasks are the strips, so that every
    byte of U is read once, in order, by one core; for layers whose U outweighs their map.
    With ``prefetch``, U is asked for that many floats ahead: hardware prefetchers stop at each
    page of 4 KB, and what comes from memory would then wait at each.
Not used
    Three passes over the whole map (V, M, y): M goes out to L3 and back, 20 % slower.  Blocks that
    fill L2: 5 % slower, 10 % where a neighbour uses the cache too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, Halo
from ferplus_tvm.kernels.cpu.packing import Columns, group, grouped, grouped_shape
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    Vectors,
    argument,
    candidate_vectors,
    clear_halo,
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
from ferplus_tvm.kernels.cpu.winograd_transforms import transform_input, transform_output
from ferplus_tvm.kernels.winograd import tile_counts, tiles
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS, Matrices
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import VectorUnit

_GROUP = group("float32")
_SMALL_WEIGHTS = 3 << 20  # bytes of U that are read again for every block without harm
_BLOCK_BYTES = 300 << 10  # the most of V, so that much of L2 stays free for M and for U in passing
_BLOCK_DOUBLES = 6 << 20  # bytes of V that would double the time, by what larger blocks cost
_ROWS = 8  # tiles that amortise the loading of weights
_FEW = 4  # tiles that give enough accumulators with two vectors
_SUMS = 16  # accumulators beyond which more help no more
_PREFETCH = 1024  # floats, one page ahead
_PREFETCHES = (0, 256, 512, 1024, 2048, 4096)  # that tuning tries
_MOST_BLOCK_BYTES = 4 << 20  # of V, beyond every L2
_BLOCK_GROWTH = 1.2  # from one size of a block that tuning tries to the next


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled.

    lanes
        float32 values per vector register.
    tile
        m, outputs of a Winograd tile along one side: 2, 4 or 6.
    vectors
        vectors of output channels in the register tile.
    rows
        Winograd tiles in the register tile.
    block
        Winograd tiles in a block, or 0 for strips over the whole map.
    prefetch
        how many floats ahead weights are fetched, over all groups of the register tile; 0 leaves it
        to the hardware.
    """

    lanes: int
    tile: int
    vectors: int
    rows: int
    block: int = 0
    prefetch: int = 0

    @property
    def panel(self) -> int:
        """Output channels of a register tile."""
        return self.lanes * self.vectors

    def strip(self, out_channels: int) -> int:
        """Return the output channels computed together: a panel's, or of panels that share lines.

        Such narrow panels go over a group one after the other, while its lines are in the caches.
        """
        panels, most = out_channels // self.panel, max(1, _GROUP // self.panel)
        return self.panel * next(count for count in range(most, 0, -1) if panels % count == 0)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.winograd(self.tile)

    @property
    def matrices(self) -> Matrices:
        """The matrices of the algorithm."""
        return ALGORITHMS[self.tile]

    @classmethod
    def preset(cls, w: Conv, unit: VectorUnit, tile: int) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Two vectors of channels; more only where a tile or two would leave most of the registers
        unused.  A block of tiles is small, so that V and M leave the caches to U, even where these
        are shared with others; its size and the rows are those that leave the least to compute in
        vain for two threads with equal shares, in register tiles that are as full as can be.
        """
        count = tiles(w, tile)
        vectors = vectors_per_tile(w.out_channels, unit.lanes, most=2 if count >= _FEW else 4)
        most = max(1, most_rows(vectors, unit.registers))
        elements = ALGORITHMS[tile].side ** 2
        if w.batch == 1 and 4 * elements * w.in_channels * w.out_channels > _SMALL_WEIGHTS:
            rows = _even_share(count, min(most, _ROWS))
            return cls(unit.lanes, tile, vectors, rows, 0, _PREFETCH)
        tile_bytes = 4 * elements * w.in_channels  # of V
        largest = min(count, max(_ROWS, _BLOCK_BYTES // tile_bytes))
        configs = [
            cls(unit.lanes, tile, vectors, rows, block)
            for block in range(1, largest + 1)
            for rows in range(1, min(most, block) + 1)
        ]

        def cost(config: Config) -> float:
            full, rest = divmod(config.block, config.rows)
            shares = [config.rows] * full + [rest] * (rest > 0)
            time = sum(rows * (1 + 1 / min(rows * vectors, _SUMS)) for rows in shares)
            crowding = 1 + config.block * tile_bytes / _BLOCK_DOUBLES
            return computed_tiles(w, config) / config.block * time * crowding

        return min(configs, key=cost)


def computed_tiles(w: Conv, config: Config) -> int:
    """Return how many tiles' time the kernel takes, where two threads share the blocks."""
    count = tiles(w, config.tile)
    if not config.block or count == 1:
        return count
    blocks = -(-count // config.block)
    return (blocks + blocks % 2) * config.block


def _even_share(extent: int, most: int) -> int:
    """Return the size, up to ``most``, that covers ``extent`` in the fewest and evenest tiles."""
    return -(-extent // -(-extent // most))


def candidates(w: Conv, unit: VectorUnit, tile: int) -> Iterator[Config]:
    """Yield every configuration of F(tile, 3) that fits the registers and the caches."""
    count = tiles(w, tile)
    for vectors in candidate_vectors(w.out_channels, unit):
        for rows in range(1, min(most_rows(vectors, unit.registers), count) + 1):
            for block in _blocks(w, unit, tile):
                for prefetch in _PREFETCHES:
                    yield Config(unit.lanes, tile, vectors, rows, block, prefetch)


@functools.cache
def _blocks(w: Conv, unit: VectorUnit, tile: int) -> tuple[int, ...]:
    """Return 0, for strips, and sizes that share the tiles out evenly, up to the caches'."""
    count = tiles(w, tile)
    most = max(1, _MOST_BLOCK_BYTES // (4 * (tile + 2) ** 2 * w.in_channels))
    sizes = {0, Config.preset(w, unit, tile).block}
    last = 0.0
    for size in sorted({-(-count // blocks) for blocks in range(1, count + 1)}):
        if size <= most and size >= last * _BLOCK_GROWTH:
            sizes.add(size)
            last = size
    return tuple(sorted(sizes))


def halo(w: Conv, config: Config) -> Halo:
    """Return the zeros wanted around x: the padding, and what fills the last tiles."""
    top, left, _, _ = w.padding
    high, wide = (count * config.tile + 2 for count in tile_counts(w, config.tile))
    return Halo(top, left, max(0, high - top - w.height), max(0, wide - left - w.width))


def pack_weight(weight: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """Transform (CO,CI,3,3) in float64 and group the columns of ((m+2)^2 * CI, CO)."""
    u = ALGORITHMS[tile].transform_filter(weight)
    return grouped(u.reshape(-1, u.shape[-1]))


def define(w: Conv, config: Config, out_halo: Halo) -> Any:
    """Return the PrimFunc (x, u, bias, y)."""
    return _Winograd(w, config, out_halo).emit()


class _Winograd:
    """The kernel while it is being emitted: sizes, and one method per step."""

    def __init__(self, w: Conv, config: Config, out_halo: Halo) -> None:
        self.w = w
        self.config = config
        self.unit = Vectors(config.lanes)
        self.out_halo = out_halo
        self.tiles_high, self.tiles_wide = tile_counts(w, config.tile)
        self.tiles = tiles(w, config.tile)
        self.block = config.block or self.tiles
        self.elements = config.matrices.side**2
        self.strip = config.strip(w.out_channels)
        self.strips = w.out_channels // self.strip
        shrink = 2 if w.pool else 1
        self.step = config.tile // shrink  # outputs of a tile along one side
        self.out_height, self.out_width = w.out_height // shrink, w.out_width // shrink
        self.in_shape = halo(w, config).around(w.batch, w.height, w.width, w.in_channels)
        self.u_shape = grouped_shape(self.elements * w.in_channels, w.out_channels)
        self.out_shape = out_halo.around(w.batch, self.out_height, self.out_width, w.out_channels)
        # How far the elements of V and of M lie apart: a vector more than their size.  A tile's
        # values would otherwise be powers of two apart, in one set of L1, and evict each other.
        self.strides = (
            self.block * w.in_channels + config.lanes,
            self.block * self.strip + config.lanes,
        )

    def emit(self) -> Any:
        """Emit blocks or strips."""
        w, config, unit = self.w, self.config, self.unit
        with function() as builder:
            buffers = [
                argument("x", self.in_shape),
                argument("u", self.u_shape),
                argument("bias", (w.out_channels,)),
                argument("y", self.out_shape),
            ]
            self.x, self.u, self.bias, self.y = (flat(buffer) for buffer in buffers)
            if config.block:
                blocks = -(-self.tiles // self.block)
                with parallel(blocks) as block:
                    self.v, self.m = (scratch(self.elements * s) for s in self.strides)
                    first = value(block * self.block)
                    with serial(self.block) as position:
                        self.input(position, first)
                    with serial(self.strips) as strip:
                        self.multiply(strip)
                        with serial(self.block) as position:
                            self.output(strip, position, first)
                    clear_halo(unit, self.y, self.out_shape, self.out_halo, block, blocks)
            else:
                v_stride, m_stride = self.strides
                self.v = scratch(self.elements * v_stride)
                with parallel(self.tiles) as position:
                    self.input(position, 0)
                with parallel(self.strips) as strip:
                    self.m = scratch(self.elements * m_stride)
                    self.multiply(strip)
                    with serial(self.block) as position:
                        self.output(strip, position, 0)
                    clear_halo(unit, self.y, self.out_shape, self.out_halo, strip, self.strips)
        return builder.get()

    def locate(self, first: Expr, position: Expr) -> tuple[Expr, Expr, Expr]:
        """Return image, row and column of a tile.

        The last block may reach beyond the last tile, and then computes that one again.
        """
        from tvm import tirx

        at = first + position
        if self.tiles % self.block:
            at = tirx.min(at, self.tiles - 1)
        at = value(at)
        per_image = self.tiles_high * self.tiles_wide
        image, row = at // per_image, at // self.tiles_wide % self.tiles_high
        return value(image), value(row), value(at % self.tiles_wide)

    def input(self, position: Expr, first: Expr) -> None:
        """V = B^T d B for one tile, vector by vector of channels."""
        unit, side, channels = self.unit, self.config.matrices.side, self.w.in_channels
        n, row, column = self.locate(first, position)
        _, height, width, _ = self.in_shape
        m = self.config.tile
        corner = value(((n * height + row * m) * width + column * m) * channels)
        stride = self.strides[0]
        with serial(channels // unit.lanes) as vector:
            source = value(corner + vector * unit.lanes)
            target = value(position * channels + vector * unit.lanes)
            transform_input(
                unit,
                self.config.matrices,
                lambda i, j: unit.load(self.x, source + (i * width + j) * channels),
                lambda i, j, result: unit.store(self.v, result, target + (i * side + j) * stride),
            )

    def multiply(self, strip: Expr) -> None:
        """M = V U for one strip, element by element: panels, rows of tiles, k, register tile."""
        unit, config, channels = self.unit, self.config, self.w.in_channels
        v_stride, m_stride = self.strides

        def products(element: Expr, column: Expr, start: Expr, rows: int, fetch: bool) -> None:
            tile = RegisterTile(unit, rows, config.vectors)
            values = value(element * v_stride + start * channels)
            weights = Columns(
                unit,
                config.vectors,
                self.u,
                self.elements * channels,
                element * channels,
                strip * self.strip + column,
            )
            with serial(channels) as k:
                if fetch:
                    weights.fetch(k, config.prefetch)
                tile.add(
                    lambda row: self.v[values + row * channels + k],
                    lambda vector: weights.load(vector, k),
                )
            target = value(element * m_stride + start * self.strip + column)
            for row in range(rows):
                for vector in range(config.vectors):
                    at = target + row * self.strip + vector * unit.lanes
                    unit.store(self.m, tile.result(row, vector), at)

        with serial(self.elements) as element, serial(self.strip // config.panel) as panel:
            column = value(panel * config.panel)
            # The first tile fetches weights for all of them.
            head = min(config.rows, self.block) if config.prefetch else 0
            if head:
                products(element, column, 0, head, fetch=True)
            in_tiles(
                head,
                self.block,
                config.rows,
                lambda start, rows: products(element, column, start, rows, fetch=False),
            )

    def output(self, strip: Expr, position: Expr, first: Expr) -> None:
        """Y = A^T M A for one tile, with bias, ReLU and pooling, vector by vector."""
        w, unit, config = self.w, self.unit, self.config
        side, stride = config.matrices.side, self.strides[1]
        n, row, column = self.locate(first, position)
        top, left = value(row * self.step), value(column * self.step)
        _, height, width, _ = self.out_shape
        corner = value(
            ((n * height + top + self.out_halo.top) * width + left + self.out_halo.left)
            * w.out_channels
        )
        with serial(self.strip // unit.lanes) as vector:
            source = value(position * self.strip + vector * unit.lanes)
            o = value(strip * self.strip + vector * unit.lanes)
            target = value(corner + o)
            bias = value(unit.load(self.bias, o))
            outputs = transform_output(
                unit,
                config.matrices,
                lambda i, j: unit.load(self.m, source + (i * side + j) * stride),
            )
            if w.pool:
                outputs = _pooled(outputs)
            for i, line in enumerate(outputs):
                for j, total in enumerate(line):
                    result = total + bias
                    if w.relu:
                        result = unit.clip(result)
                    with self.within(top + i, left + j):
                        unit.store(self.y, result, target + (i * width + j) * w.out_channels)

    def within(self, row: Expr, column: Expr) -> AbstractContextManager[object]:
        """Do what follows unless the output lies beyond the map, as in the last tiles."""
        inside = ExitStack()
        if self.tiles_high * self.step > self.out_height:
            inside.enter_context(when(row < self.out_height))
        if self.tiles_wide * self.step > self.out_width:
            inside.enter_context(when(column < self.out_width))
        return inside


def _pooled(outputs: list[list[Expr]]) -> list[list[Expr]]:
    """Return the 2x2 maxima; the bias can be added and the ReLU taken afterwards."""
    from tvm import tirx

    return [
        [
            tirx.max(tirx.max(upper[j], upper[j + 1]), tirx.max(lower[j], lower[j + 1]))
            for j in range(0, len(upper), 2)
        ]
        for upper, lower in zip(outputs[::2], outputs[1::2], strict=True)
    ]
