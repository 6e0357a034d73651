"""Direct 2D convolution with bias and optional ReLU, channels last, in float32.

Pattern
    y[n,oy,ox,o] = max(0, b[o] + sum over ky,kx,i of
                                 p[n, oy*sy+ky*dy, ox*sx+kx*dx, i] * w[o,i,ky,kx])
    where p is x, scaled if asked, in a border of zeros.
Buffers
    x (N, H, W, CI) in the border that `border` asks for or in none, w (CO/panel, KH, KW, CI,
    panel), b (CO), y (N, OH, OW, CO) in the border that is asked of it: float32, 64-byte
    aligned; panel = ``Config.vectors * lanes`` output channels, CO a multiple of it.
Registers
    ``width`` x ``vectors`` accumulators, ``vectors`` weights and one broadcast input value
    (`tensorir.RegisterTile`).
Caches
    The weights of one panel (KH*KW*CI*panel floats, 295 KB for 3x3x256 and 32 channels) are read
    once per row of the map and stay in L2; KH input rows stay in L1 or L2.
Not used
    im2col and a GEMM: it writes and reads KH*KW times the map, and the register tile here reads
    the map in place at the same speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels import vectors_per_tile
from ferplus_tvm.kernels.tensorir import (
    NO_BORDER,
    Border,
    Expr,
    RegisterTile,
    Vectors,
    argument,
    clear_border,
    flat,
    function,
    in_tiles,
    parallel,
    scratch,
    serial,
    value,
    when,
)
from ferplus_tvm.targets import VectorUnit

_UNROLLED_TAPS = 16


@dataclass(frozen=True)
class Workload:
    """One convolution: what the definition depends on.

    padding
        (top, left, bottom, right) zeros.
    affine
        (a, b) where the input is to be taken as (x - a) * b, or None.
    pool
        whether the 2x2 maxima, at steps of 2, are wanted in place of the map itself; only the
        Winograd kernel gives them, and to `define` here pooling is a kernel of its own.
    """

    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    relu: bool
    affine: tuple[float, float] | None = None
    pool: bool = False

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        reach = self.dilation[0] * (self.kernel[0] - 1) + 1
        return (self.height + self.padding[0] + self.padding[2] - reach) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        reach = self.dilation[1] * (self.kernel[1] - 1) + 1
        return (self.width + self.padding[1] + self.padding[3] - reach) // self.stride[1] + 1

    @property
    def name(self) -> str:
        """A readable name: kernel, map, channels, batch."""
        kernel = "x".join(map(str, self.kernel))
        shape = f"{self.height}x{self.width}"
        channels = f"{self.in_channels}to{self.out_channels}"
        pooled = "_pooled" if self.pool else ""
        return f"conv{kernel}_{shape}_{channels}{pooled}_batch{self.batch}"

    @property
    def flops(self) -> int:
        """Floating point operations: two per multiply-add."""
        taps = self.kernel[0] * self.kernel[1] * self.in_channels
        return 2 * self.batch * self.out_height * self.out_width * self.out_channels * taps


def reference(
    w: Workload, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
) -> NDArray[np.float64]:
    """Compute the convolution in float64 from x (N,H,W,CI), weight (CO,CI,KH,KW) and bias (CO)."""
    values = x.astype(np.float64)
    if w.affine is not None:
        values = (values - w.affine[0]) * w.affine[1]
    top, left, bottom, right = w.padding
    p = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
    y = np.zeros((w.batch, w.out_height, w.out_width, w.out_channels)) + bias.astype(np.float64)
    for ky in range(w.kernel[0]):
        for kx in range(w.kernel[1]):
            rows = slice(ky * w.dilation[0], None, w.stride[0])
            columns = slice(kx * w.dilation[1], None, w.stride[1])
            window = p[:, rows, columns][:, : w.out_height, : w.out_width]
            taps = weight[:, :, ky, kx].T.astype(np.float64)
            y += (window.reshape(-1, window.shape[-1]) @ taps).reshape(y.shape)
    return np.maximum(y, 0) if w.relu else y


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled.

    lanes
        float32 values per vector register.
    vectors
        vectors of output channels in the register tile.
    width
        output columns in the register tile.
    """

    lanes: int
    vectors: int
    width: int

    @property
    def panel(self) -> int:
        """Output channels per panel of weights, which is also their layout."""
        return self.lanes * self.vectors

    @classmethod
    def preset(cls, w: Workload, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Two vectors of channels, and the number of columns that wastes least: full tiles first,
        then the more accumulators the better.
        """
        vectors = vectors_per_tile(w.out_channels, unit.lanes, most=2)
        most = min((unit.registers - vectors - 1) // vectors, 8)

        def worth(width: int) -> float:
            used = w.out_width / (-(-w.out_width // width) * width)
            accumulators = width * vectors
            return used * accumulators / (accumulators + 1)

        return cls(unit.lanes, vectors, max(range(1, most + 1), key=worth))


def border(w: Workload) -> Border:
    """Return the zeros wanted around x; a scaled map gets its own, after the scaling."""
    return Border(*w.padding) if w.affine is None else NO_BORDER


def pack_weight(weight: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Lay (CO,CI,KH,KW) out as (CO/panel, KH, KW, CI, panel)."""
    out_channels, in_channels, *kernel = weight.shape
    panels = weight.reshape(out_channels // config.panel, config.panel, in_channels, *kernel)
    return np.ascontiguousarray(panels.transpose(0, 3, 4, 2, 1))


def define(
    w: Workload,
    config: Config,
    in_border: Border,
    out_border: Border,
    x_shape: Sequence[int] | None = None,
) -> Any:
    """Return the PrimFunc (x, weight, bias, y); ``x_shape`` is another shape for the same x.

    1. Where x does not come in its border, or is to be scaled: copy it into one.
    2. One task per image, panel and row: tiles of columns, with the taps and input channels
       outside of the register tile.
    3. Add the bias, clip and store.
    """
    unit = Vectors(config.lanes)
    in_shape = in_border.around(w.batch, w.height, w.width, w.in_channels)
    out_shape = out_border.around(w.batch, w.out_height, w.out_width, w.out_channels)
    panels = w.out_channels // config.panel
    with function() as builder:
        buffers = [
            argument("x", x_shape or in_shape),
            argument("weight", (panels, *w.kernel, w.in_channels, config.panel)),
            argument("bias", (w.out_channels,)),
            argument("y", out_shape),
        ]
        x, weight, bias, y = (flat(buffer) for buffer in buffers)
        if in_border != Border(*w.padding) or w.affine is not None:
            x, in_shape = _pad(w, unit, x)
        tasks = w.batch * panels * w.out_height
        with parallel(tasks) as task:
            oy = value(task % w.out_height)
            panel = value(task // w.out_height % panels)
            n = value(task // (w.out_height * panels))
            row = value((n * in_shape[1] + oy * w.stride[0]) * in_shape[2] * w.in_channels)
            target = value(
                ((n * out_shape[1] + oy + out_border.top) * out_shape[2] + out_border.left)
                * w.out_channels
                + panel * config.panel
            )

            def columns(start: Expr, count: int) -> None:
                tile = RegisterTile(unit, count, config.vectors)
                _sums(w, config, tile, x, weight, in_shape, row, panel, start)
                for vector in range(config.vectors):
                    o = vector * unit.lanes
                    shift = value(unit.load(bias, panel * config.panel + o))
                    for column in range(count):
                        total = tile.result(column, vector) + shift
                        at = target + (start + column) * w.out_channels + o
                        unit.store(y, unit.clip(total) if w.relu else total, at)

            in_tiles(0, w.out_width, config.width, columns)
            clear_border(unit, y, out_shape, out_border, task, tasks)
    return builder.get()


def _sums(
    w: Workload,
    config: Config,
    tile: RegisterTile,
    x: Any,
    weight: Any,
    in_shape: tuple[int, int, int, int],
    row: Expr,
    panel: Expr,
    start: Expr,
) -> None:
    """Add all taps and channels to a tile of columns; a handful of them is unrolled."""
    unit = Vectors(config.lanes)
    high, wide = w.kernel
    taps = high * wide * w.in_channels
    first = value(row + start * w.stride[1] * w.in_channels)
    weights = value(panel * taps * config.panel)

    def add(ky: Expr, kx: Expr, c: Expr) -> None:
        source = value(
            first + (ky * w.dilation[0] * in_shape[2] + kx * w.dilation[1]) * w.in_channels + c
        )
        at = value(weights + ((ky * wide + kx) * w.in_channels + c) * config.panel)
        tile.add(
            lambda column: x[source + column * w.stride[1] * w.in_channels],
            lambda vector: unit.load(weight, at + vector * unit.lanes),
        )

    if taps <= _UNROLLED_TAPS:
        for tap in range(taps):
            add(tap // w.in_channels // wide, tap // w.in_channels % wide, tap % w.in_channels)
    else:
        with serial(high) as ky, serial(wide) as kx, serial(w.in_channels) as c:
            add(ky, kx, c)


def _pad(w: Workload, unit: Vectors, x: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """Copy x into its border, scaled; return the copy and its shape."""
    from tvm import tirx

    shape = Border(*w.padding).around(w.batch, w.height, w.width, w.in_channels)
    _, height, width, channels = shape
    copy = scratch(math.prod(shape))
    lanes = Vectors(unit.lanes if channels % unit.lanes == 0 else 1)
    top, left, _, _ = w.padding
    with parallel(w.batch * height) as line, serial(width) as column:
        n, row = value(line // height), value(line % height - top)
        inside = tirx.all(row >= 0, row < w.height, column >= left, column < left + w.width)
        source = value(((n * w.height + row) * w.width + column - left) * channels)
        target = value((line * width + column) * channels)
        with serial(channels // lanes.lanes) as vector:
            at = vector * lanes.lanes
            with when(inside):
                taken = lanes.load(x, source + at)
                if w.affine is not None:
                    taken = (taken - lanes.splat(w.affine[0])) * lanes.splat(w.affine[1])
                lanes.store(copy, taken, target + at)
            with when(tirx.Not(inside)):
                lanes.store(copy, lanes.splat(0), target + at)
    return copy, shape
