"""Emit the Winograd kernel: see `winograd` for the pattern, the buffers and the caches."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ferplus_tvm.kernels.backend import Halo
from ferplus_tvm.kernels.cpu.activation import ending
from ferplus_tvm.kernels.cpu.packing import Columns, grouped_shape
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    Vectors,
    argument,
    clear_halo,
    flat,
    function,
    in_tiles,
    parallel,
    scratch,
    serial,
    value,
    when,
)
from ferplus_tvm.kernels.cpu.winograd import Config, halo
from ferplus_tvm.kernels.cpu.winograd_transforms import transform_input, transform_output
from ferplus_tvm.kernels.winograd import tile_counts, tiles
from ferplus_tvm.kernels.workloads import Conv


def define(w: Conv, config: Config, out_halo: Halo) -> Any:
    """Return the PrimFunc (x, u, bias, y)."""
    return _WinogradKernel(w, config, out_halo).emit()


class _WinogradKernel:
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
                argument("bias", w.bias_shape(w.out_channels)),
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
        """M = V U for one strip, a GEMM an element: panels, rows of tiles, k, register tile."""
        unit, config, channels = self.unit, self.config, self.w.in_channels
        v_stride, m_stride = self.strides

        def gemm(element: Expr, column: Expr, start: Expr, rows: int, fetch: bool) -> None:
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
                gemm(element, column, 0, head, fetch=True)
            in_tiles(
                head,
                self.block,
                config.rows,
                lambda start, rows: gemm(element, column, start, rows, fetch=False),
            )

    def output(self, strip: Expr, position: Expr, first: Expr) -> None:
        """Y = A^T M A for one tile, with bias, activation and pooling, vector by vector."""
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
            end = ending(unit, w, self.bias, w.out_channels, o)
            outputs = transform_output(
                unit,
                config.matrices,
                lambda i, j: unit.load(self.m, source + (i * side + j) * stride),
            )
            if w.pool:
                outputs = _pooled(outputs)
            for i, line in enumerate(outputs):
                for j, total in enumerate(line):
                    result = end(total)
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
    """Return the 2x2 maxima; bias and activation may come afterwards."""
    from tvm import tirx

    return [
        [
            tirx.max(tirx.max(upper[j], upper[j + 1]), tirx.max(lower[j], lower[j + 1]))
            for j in range(0, len(upper), 2)
        ]
        for upper, lower in zip(outputs[::2], outputs[1::2], strict=True)
    ]
