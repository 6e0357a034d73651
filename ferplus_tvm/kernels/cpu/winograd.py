"""Winograd convolution F(m x m, 3x3) with bias, optional activation and 2x2 max pool, float32.

Pattern
    y = activation(b + pool(x * w)) for a 3x3 convolution of stride 1, by tiles of m x m outputs:
    V = B^T d B per tile and channel, M[e] = V[e] U[e] for each of the (m+2)^2 elements e, and
    A^T M A per tile and output channel.
Buffers
    x (N, H, W, CI) in the halo that `halo` asks for, u ((m+2)^2 * CI, CO) as `packing` groups
    its columns, b (CO) or (3, CO), y (N, OH, OW, CO), half that when pooled, in the halo that is
    asked of it: float32, 64-byte aligned.
Registers
    The GEMMs take ``rows`` x ``vectors`` accumulators, ``vectors`` weights and one broadcast
    input (`tensorir.RegisterTile`).  A transform's partial sums take the others.
Caches
    Per strip of output channels, M of a block of tiles is written and at once transformed back, so
    that it never leaves L2.  Two ways with V.  *Blocks*: each task transforms a few tiles, which
    then meet all strips; U is read once per block, from L2 or L3, so for layers whose U is small,
    and for batches.  *Strips*: V covers the whole feature map, and the tasks are the strips, so
    that every byte of U is read once, in order, by one core; for layers whose U outweighs it.
    With ``prefetch``, U is asked for that many floats ahead: hardware prefetchers stop at each
    page of 4 KB, and what comes from memory would then wait at each.
Not used
    Three passes over the whole feature map (V, M, y): M goes out to L3 and back, 20 % slower.
    Blocks that fill L2: 5 % slower, 10 % where a neighbour uses the cache too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Algorithm, Halo
from ferplus_tvm.kernels.cpu.packing import group, grouped
from ferplus_tvm.kernels.cpu.tensorir import (
    candidate_vectors,
    most_rows,
    vectors_per_tile,
)
from ferplus_tvm.kernels.winograd import tile_counts, tiles
from ferplus_tvm.kernels.winograd_matrices import MATRICES, Matrices
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

    Attributes
    ----------
    lanes
        float32 values per vector register.
    tile
        m, outputs of a Winograd tile along one side: 2, 4 or 6.
    vectors
        Vectors of output channels in the register tile.
    rows
        Winograd tiles in the register tile.
    block
        Winograd tiles in a block, or 0 for strips over the whole map.
    prefetch
        How many floats ahead weights are fetched, over all groups of the register tile; 0 leaves it
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
        return MATRICES[self.tile]

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
        elements = MATRICES[tile].side ** 2
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
    u = MATRICES[tile].transform_filter(weight)
    return grouped(u.reshape(-1, u.shape[-1]))
