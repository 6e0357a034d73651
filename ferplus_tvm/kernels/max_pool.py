"""Max pooling, channels last, in float32.

Pattern
    y[n,oy,ox,c] = max over ky,kx of x[n, oy*sy+ky-top, ox*sx+kx-left, c], outside of x ignored.
Buffers
    x (N, H, W, C), y (N, OH, OW, C): float32, 64-byte aligned, C a multiple of the vector width.
Registers, caches
    One accumulator per vector of channels; the map is read once and bounds the speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.targets import VectorUnit


@dataclass(frozen=True)
class Workload:
    """One pooling: ``padding`` is (top, left, bottom, right)."""

    batch: int
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        rows = self.height + self.padding[0] + self.padding[2]
        return (rows - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        columns = self.width + self.padding[1] + self.padding[3]
        return (columns - self.kernel[1]) // self.stride[1] + 1

    @property
    def name(self) -> str:
        """A readable name: window, map, channels, batch."""
        kernel = "x".join(map(str, self.kernel))
        return f"maxpool{kernel}_{self.height}x{self.width}_{self.channels}_batch{self.batch}"

    @property
    def flops(self) -> int:
        """Comparisons."""
        window = self.kernel[0] * self.kernel[1]
        return self.batch * self.out_height * self.out_width * self.channels * window


def reference(w: Workload, x: NDArray[Any]) -> NDArray[Any]:
    """Compute the pooling of x (N,H,W,C) with numpy."""
    top, left, bottom, right = w.padding
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    p = np.pad(x, border, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(p, w.kernel, axis=(1, 2))
    return np.asarray(windows[:, :: w.stride[0], :: w.stride[1]].max(axis=(-2, -1)))


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled: lanes per vector."""

    lanes: int

    @classmethod
    def preset(cls, w: Workload, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for."""
        del w  # one shape serves all
        return cls(unit.lanes)


def define(w: Workload, config: Config) -> Any:
    """Return the unscheduled PrimFunc with block ``pool``."""
    from tvm import te, tirx

    del config  # the definition does not depend on it
    top, left, _, _ = w.padding
    x = te.placeholder((w.batch, w.height, w.width, w.channels), "float32", "x")
    ky = te.reduce_axis((0, w.kernel[0]), "ky")
    kx = te.reduce_axis((0, w.kernel[1]), "kx")

    def value(n: Any, row: Any, column: Any, c: Any) -> Any:
        taken = x[n, row - top, column - left, c]
        if not any(w.padding):
            return taken
        inside = tirx.all(row >= top, row < w.height + top, column >= left, column < w.width + left)
        return tirx.if_then_else(inside, taken, tirx.min_value("float32"))

    pool = te.compute(
        (w.batch, w.out_height, w.out_width, w.channels),
        lambda n, oy, ox, c: te.max(
            value(n, oy * w.stride[0] + ky, ox * w.stride[1] + kx, c), axis=[ky, kx]
        ),
        name="pool",
    )
    return te.create_prim_func([x, pool])


def schedule(sch: Any, w: Workload, config: Config) -> None:
    """Run over images and rows in parallel, over the window inside of a vector of channels."""
    del w  # the tiling alone decides
    pool = sch.get_sblock("pool")
    n, oy, ox, c, ky, kx = sch.get_loops(pool)
    vector, lane = sch.split(c, [None, config.lanes])
    sch.reorder(n, oy, ox, vector, ky, kx, lane)
    sch.parallel(sch.fuse(n, oy))
    sch.vectorize(lane)
    sch.unroll(ky)
    sch.unroll(kx)
    sch.decompose_reduction(pool, ky)
