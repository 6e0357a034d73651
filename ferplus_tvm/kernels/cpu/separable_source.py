"""Where a chain of separable convolutions gets its first rows from: a map, a sum or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ferplus_tvm.kernels.cpu.separable import Separable
from ferplus_tvm.kernels.cpu.separable_stage import Stage
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    scratch,
    serial,
    value,
    vectors_per_tile,
    when,
)

_TAPS = 27  # of a picture: 3x3 of three colours


class Source:
    """Rows of the first s of a chain, which come from its inputs."""

    def __init__(self, w: Separable, stage: Stage, inputs: Sequence[Any]) -> None:
        self.w, self.stage, self.inputs = w, stage, inputs
        self.unit = stage.unit
        self.pixel_line = self.unit.lanes + 6 * w.width  # a vector before the row's own pixels

    def allocate(self) -> None:
        """Allocate the memory of a task."""
        w, unit = self.w, self.unit
        if w.source != "map":
            self.s = scratch(w.width * w.in_channels)
        if w.source == "picture":
            self.pixels = scratch(3 * self.pixel_line)
            for line in range(3):
                unit.store(self.pixels, unit.splat(0), line * self.pixel_line)

    def row(self, row: Expr) -> tuple[Any, Expr]:
        """Return where a row of s lies: a buffer and an index.  What is no map is computed here."""
        w = self.w
        if w.source == "map":
            return self.inputs[0], value(row * (w.width * w.in_channels))
        if w.source == "sum":
            self._sum(row)
        else:
            self._convolve(row)
        return self.s, 0

    def _sum(self, row: Expr) -> None:
        """Compute a row of s, the sum of two maps."""
        w, unit = self.w, self.unit
        here, half = self.inputs
        at = value(row * (w.width * w.in_channels))
        over = value(row // 2 * (w.width // 2 * w.in_channels))
        with serial(w.width // 2) as pair, serial(w.in_channels // unit.lanes) as vector:
            c = value(vector * unit.lanes)
            added = value(unit.load(half, over + pair * w.in_channels + c))
            for column in (0, 1):
                to = value((pair * 2 + column) * w.in_channels + c)
                unit.store(self.s, unit.load(here, at + to) + added, to)

    def _convolve(self, row: Expr) -> None:
        """Compute a row of s of a picture: three of its rows as float32, and a GEMM of 27 taps."""
        w, unit, lanes = self.w, self.unit, self.unit.lanes
        across = 6 * w.width
        for ky in range(3):
            line = ky * self.pixel_line + lanes
            source = value((row * 2 + ky - 1) * across)
            inside = row * 2 + ky >= 1
            with serial(across // lanes) as vector:
                at = value(vector * lanes)
                with when(inside):
                    unit.store(self.pixels, unit.load(self.inputs[0], source + at), line + at)
                with when(row * 2 + ky < 1):
                    unit.store(self.pixels, unit.splat(0), line + at)

        vectors = vectors_per_tile(w.in_channels, lanes, self.stage.most_vectors)
        panel = vectors * lanes
        with serial(w.in_channels // panel) as number:
            first = value(number * panel)

            def add(tile: RegisterTile, start: Expr) -> None:
                at = value(start * 6 + lanes - 3)
                for tap in range(_TAPS):
                    self._add_tap(tile, at, tap, first)

            self.stage.gemm(
                vectors,
                add,
                lambda c: self.stage.weight("picture_bias", first + c),
                lambda column, c, total: unit.store(
                    self.s, unit.clip(total), column * w.in_channels + first + c
                ),
            )

    def _add_tap(self, tile: RegisterTile, at: Expr, tap: int, first: Expr) -> None:
        """Add one of three colours of one of 3x3 pixels, which lie side by side in a row."""
        begin = at + tap // 9 * self.pixel_line + tap % 9
        weights = first + tap * self.w.in_channels
        tile.add(
            lambda column: self.pixels[begin + column * 6],
            lambda vector: self.stage.weight("picture", weights + vector * self.unit.lanes),
        )
