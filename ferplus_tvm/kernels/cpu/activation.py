"""Emit what ends a layer: its bias, and its activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ferplus_tvm.kernels.activation import Activated
from ferplus_tvm.kernels.cpu.tensorir import Expr, Vectors, value


def ending(
    unit: Vectors, w: Activated, bias: Any, channels: int, at: Expr
) -> Callable[[Expr], Expr]:
    """Load the bias of a vector of channels, and its bounds; return what ends their sums.

    ``bias`` is flat, and holds a row of all stored ``channels`` after the other.
    """
    from tvm import tirx

    shift, *bounds = (
        value(unit.load(bias, at + row * channels if row else at))
        for row in range(3 if w.bounded else 1)
    )

    def end(total: Expr) -> Expr:
        total = total + shift
        if w.relu and w.slope:
            total = value(total)
            below = total * unit.splat(w.slope)
            total = tirx.Select(total > unit.splat(0), total, below)
        elif w.relu:
            total = unit.clip(total)
        if bounds:
            lower, upper = bounds
            total = tirx.min(tirx.max(total, lower), upper)
        return total

    return end
