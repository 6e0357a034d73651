"""Pooling, channels last, in float32.

Pattern
    y[n,oy,ox,c] = max or average over ky,kx of x[n, oy*sy+ky-top, ox*sx+kx-left, c]; a maximum
    ignores what lies outside of x, and an average has no padding.
Buffers
    x (N, H, W, C), y (N, OH, OW, C) in the halo that is asked of it: float32, 64-byte aligned,
    C a multiple of the vector width, or any number as plain numbers.
Registers, caches
    One accumulator per vector of channels; the map is read once and bounds the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ferplus_tvm.kernels.backend import Algorithm, Halo
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    Vectors,
    argument,
    clear_halo,
    flat,
    function,
    parallel,
    registers,
    serial,
    value,
)
from ferplus_tvm.kernels.workloads import Pool
from ferplus_tvm.targets import VectorUnit

_UNROLLED_TAPS = 16


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled: lanes per vector."""

    lanes: int

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.MAX_POOL

    @staticmethod
    def preset(w: Pool, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for: one serves all shapes."""
        return (AverageConfig if w.kind == "average" else Config)(unit.lanes)


@dataclass(frozen=True)
class AverageConfig(Config):
    """The same for an average."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.AVERAGE_POOL


def define(w: Pool, config: Config, out_halo: Halo, x_shape: Sequence[int] | None = None) -> Any:
    """Return the PrimFunc (x, y): one task per image and row, vectors of channels inside.

    ``x_shape`` is another shape for the same x.
    Positions beyond the map are taken at its edge: that one is in the window too, so the maximum
    is the same.
    """
    # A map of one channel or three is a plain number per position and channel.
    unit = Vectors(config.lanes if w.channels % config.lanes == 0 else 1)
    out_shape = out_halo.around(w.batch, w.out_height, w.out_width, w.channels)
    with function() as builder:
        buffers = [
            argument("x", x_shape or (w.batch, w.height, w.width, w.channels)),
            argument("y", out_shape),
        ]
        x, y = (flat(buffer) for buffer in buffers)
        tasks = w.batch * w.out_height
        with parallel(tasks) as task:
            n, oy = value(task // w.out_height), value(task % w.out_height)
            line = value((n * out_shape[1] + oy + out_halo.top) * out_shape[2] + out_halo.left)
            with serial(w.out_width) as ox, serial(w.channels // unit.lanes) as vector:
                c = vector * unit.lanes

                def row(ky: Expr) -> Expr:
                    return _clamped(oy * w.stride[0] + ky, w.padding[0], w.padding[2], w.height)

                def tap(row: Expr, kx: Expr) -> Expr:
                    column = ox * w.stride[1] + kx
                    column = _clamped(column, w.padding[1], w.padding[3], w.width)
                    return unit.load(x, ((n * w.height + row) * w.width + column) * w.channels + c)

                result = _reduced(w, unit, row, tap)
                unit.store(y, result, (line + ox) * w.channels + c)
            clear_halo(unit, y, out_shape, out_halo, task, tasks)
    return builder.get()


def _reduced(
    w: Pool, unit: Vectors, row: Callable[[Expr], Expr], tap: Callable[[Expr, Expr], Expr]
) -> Expr:
    """Return the maximum or the average of a window; a handful of taps is unrolled."""
    from tvm import tirx

    high, wide = w.kernel
    average = w.kind == "average"

    def joined(total: Expr, taken: Expr) -> Expr:
        return total + taken if average else tirx.max(total, taken)

    if high * wide <= _UNROLLED_TAPS:
        total = None
        for ky in range(high):
            line = row(ky)
            for kx in range(wide):
                taken = tap(line, kx)
                total = taken if total is None else joined(total, taken)
    else:
        sum_or_greatest = registers(unit.lanes)
        unit.store(sum_or_greatest, unit.splat(0) if average else tap(row(0), 0), 0)
        with serial(high) as ky:
            line = row(ky)
            with serial(wide) as kx:
                unit.store(sum_or_greatest, joined(unit.load(sum_or_greatest, 0), tap(line, kx)), 0)
        total = unit.load(sum_or_greatest, 0)
    return total / unit.splat(high * wide) if average else total


def _clamped(position: Expr, before: int, after: int, extent: int) -> Expr:
    """Return a padded position as one of the map: at its edge where it lies beyond."""
    from tvm import tirx

    at = position - before
    if before:
        at = tirx.max(at, 0)
    return value(tirx.min(at, extent - 1) if after else at)
