"""A workload of a chain while it is being emitted: its two convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ferplus_tvm.kernels.cpu.separable import CHANNELS, SIGMOIDS, Separable
from ferplus_tvm.kernels.cpu.sigmoid import sigmoid
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    Vectors,
    in_tiles,
    most_rows,
    scratch,
    serial,
    value,
    vectors_per_tile,
)
from ferplus_tvm.targets import VectorUnit

_RING = 4  # rows of t
_MOST_ROWS = 12  # of a register tile: more sums than these hide no more latency
_COLUMNS = 4  # outputs of the depthwise convolution that share what they load


class Stage:
    """Emits the convolutions of a workload, a row at a time.

    Attributes
    ----------
    w
        The workload.
    panels
        The panels of its channels.
    rows
        The rows of z that are computed at once.
    top
        The row of its first t in a task.
    line
        The rows of its s that were computed at once, where that is another workload's result.
    """

    def __init__(self, w: Separable, unit: VectorUnit, weights: Any) -> None:
        self.w, self.weights = w, weights
        self.unit, self.registers = Vectors(unit.lanes), unit.registers
        # Four vectors of channels share a broadcast value where there are registers for many rows.
        self.most_vectors = 4 if unit.registers >= 32 else 2
        self.panel = unit.lanes * vectors_per_tile(w.out_channels, unit.lanes, self.most_vectors)
        self.panels = w.out_channels // self.panel
        self.ring_line = (w.width + 2) * self.panel  # a row of t, with a zero pixel at each end
        sizes = [math.prod(shape) for shape in w.weights.values()]
        starts = itertools.accumulate(sizes, initial=0)
        self.offsets = dict(zip(w.weights, starts, strict=False))
        self.top: Expr = 0

    def choose_rows(self, run: int) -> None:
        """Choose how many rows of z are computed at once, in a task of so many rows.

        Two share what they load of t; not so with few registers, which the weights alone fill.
        """
        pair = self.w.pool or (run % 2 == 0 and self.registers >= 32)
        self.rows = 2 if pair else 1

    @property
    def results(self) -> int:
        """The rows of the result that are computed at once."""
        return self.rows // self.w.shrink

    def allocate_line(self, rows: int) -> None:
        """Allocate a task's memory for rows of s."""
        self.line = scratch(rows * self.w.width * self.w.in_channels)

    def allocate(self, panel: Expr | None) -> None:
        """Allocate the memory of a task, which computes one panel, or all of them."""
        line = self.ring_line
        self.only = panel
        panels = self.panels if panel is None else 1
        self.ring = scratch(panels * _RING * line)
        with serial(panels * _RING) as each:
            self.zero(each * line, self.panel)
            self.zero((each + 1) * line - self.panel, self.panel)

    @contextmanager
    def each_panel(self) -> Iterator[tuple[Expr, Expr]]:
        """Do what follows for each panel: its first channel, and its place in the ring."""
        if self.only is not None:
            yield value(self.only * self.panel), 0
        elif self.panels == 1:
            yield 0, 0
        else:
            with serial(self.panels) as panel:
                yield value(panel * self.panel), value(panel * (_RING * self.ring_line))

    def zero(self, start: Expr, size: int) -> None:
        """Set a part of the ring to zero."""
        with serial(size // self.unit.lanes) as vector:
            self.unit.store(self.ring, self.unit.splat(0), start + vector * self.unit.lanes)

    def weight(self, name: str, at: Expr) -> Expr:
        """Return a vector of a weight."""
        return self.unit.load(self.weights, self.offsets[name] + at)

    def pointwise_weight(self, o: Expr, k: Expr) -> Expr:
        """Return a vector of q, for the output channels from ``o`` and an input channel."""
        return self.weight(
            "pointwise",
            o // CHANNELS * (self.w.in_channels * CHANNELS) + k * CHANNELS + o % CHANNELS,
        )

    def slot(self, turn: Expr, ring: Expr) -> Expr:
        """Return where a row of t lies in the ring, behind its zero pixel."""
        return value(ring + turn % _RING * self.ring_line + self.panel)

    def clear(self, turn: Expr) -> None:
        """Set a row of t to zero, for a row beyond the map."""
        with self.each_panel() as (_, ring):
            self.zero(self.slot(turn, ring), self.w.width * self.panel)

    def gemm(
        self,
        vectors: int,
        add: Callable[[RegisterTile, Expr], None],
        bias: Callable[[Expr], Expr],
        write: Callable[[Expr, Expr, Expr], None],
    ) -> None:
        """Emit register tiles for a row: what is added to each, and where its sums are written."""
        lanes = self.unit.lanes

        def emit(start: Expr, count: int) -> None:
            tile = RegisterTile(self.unit, count, vectors)
            add(tile, start)
            for vector in range(vectors):
                added = value(bias(vector * lanes))
                for column in range(count):
                    write(start + column, vector * lanes, tile.result(column, vector) + added)

        in_tiles(0, self.w.width, min(most_rows(vectors, self.registers), _MOST_ROWS), emit)

    def pointwise(self, turn: Expr, s: Any, base: Expr) -> None:
        """Compute a row of t out of a row of s."""
        w, unit = self.w, self.unit
        with self.each_panel() as (o, ring):
            target = self.slot(turn, ring)

            def add(tile: RegisterTile, start: Expr) -> None:
                at = value(base + start * w.in_channels)
                with serial(w.in_channels) as k:
                    tile.add(
                        lambda column: s[at + column * w.in_channels + k],
                        lambda vector: self.pointwise_weight(o + vector * unit.lanes, k),
                    )

            self.gemm(
                self.panel // unit.lanes,
                add,
                lambda c: self.weight("pointwise_bias", o + c),
                lambda column, c, total: unit.store(
                    self.ring, total, target + column * self.panel + c
                ),
            )

    def depthwise(self, turn: Expr, y: Any, base: Expr, *whole: tuple[Any, Expr]) -> None:
        """Compute rows of the result out of the last rows of t.

        They are written to ``y``, and those of z to ``whole``.
        """
        w, unit, rows = self.w, self.unit, self.rows
        with self.each_panel() as (first, ring):
            lines = [
                value(self.slot(turn + (_RING - 1 - rows + ahead), ring) - self.panel)
                for ahead in range(rows + 2)
            ]
            with serial(self.panel // unit.lanes) as vector:
                c = value(vector * unit.lanes)
                o = value(first + c)
                taps = [
                    value(self.weight("depthwise", o + tap * w.out_channels)) for tap in range(9)
                ]
                bias = value(self.weight("depthwise_bias", o))

                def columns(start: Expr, count: int) -> None:
                    at = [value(line + start * self.panel + c) for line in lines]
                    t = [
                        [value(unit.load(self.ring, a + x * self.panel)) for x in range(count + 2)]
                        for a in at
                    ]
                    sums = []
                    for upper in range(rows):
                        for left in range(count):
                            total = bias
                            for tap, weight in enumerate(taps):
                                total = total + t[upper + tap // 3][left + tap % 3] * weight
                            sums.append(value(self.activated(total, o)))
                    places = [] if w.pool else [(y, base)]
                    for map_, first_row in [*places, *whole]:
                        for number, total in enumerate(sums):
                            pixel = number // count * w.width + number % count + start
                            unit.store(map_, total, first_row + pixel * w.out_channels + o)
                    for x, greatest in enumerate(_pooled(sums) if w.pool else []):
                        unit.store(y, greatest, base + (start // 2 + x) * w.out_channels + o)

                in_tiles(0, w.width, _COLUMNS, columns)

    def activated(self, total: Expr, o: Expr) -> Expr:
        """Apply the activation to a vector of z, which begins with channel ``o``."""
        if self.w.activation == "relu":
            return self.unit.clip(total)
        return self.unit.select(
            lambda lane: o + lane < SIGMOIDS, sigmoid(self.unit, value(total)), total
        )


def _pooled(sums: Sequence[Expr]) -> list[Expr]:
    """Return the 2x2 maxima of two rows, which follow each other."""
    from tvm import tirx

    width = len(sums) // 2
    return [
        tirx.max(tirx.max(sums[x], sums[x + 1]), tirx.max(sums[width + x], sums[width + x + 1]))
        for x in range(0, width, 2)
    ]
