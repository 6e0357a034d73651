"""Direct 2D convolution with bias and optional activation, channels last, in float32.

Pattern
    y[n,oy,ox,o] = activation(b[o] + sum over ky,kx,i of
                                     p[n, oy*sy+ky*dy, ox*sx+kx*dx, i] * w[o,i,ky,kx])
    where p is x, scaled if asked, in a halo of zeros.
Buffers
    x (N, H, W, CI) in the halo that `halo` asks for or in none, w (CO/panel, KH, KW, CI,
    panel), b (CO) or (3, CO), y (N, OH, OW, CO) in the halo that is asked of it: float32, 64-byte
    aligned; panel = ``Config.vectors * lanes`` output channels, CO a multiple of it.  CI is any
    number: the faces come with one channel or three.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import NO_HALO, Algorithm, Halo
from ferplus_tvm.kernels.cpu.activation import ending
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
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import VectorUnit

_UNROLLED_TAPS = 16


@dataclass(frozen=True)
class Config:
    """How the kernel is tiled.

    Attributes
    ----------
    lanes
        float32 values per vector register.
    vectors
        Vectors of output channels in the register tile.
    width
        Output columns in the register tile.
    """

    lanes: int
    vectors: int
    width: int

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return Algorithm.DIRECT

    @property
    def panel(self) -> int:
        """Output channels per panel of weights, which is also their layout."""
        return self.lanes * self.vectors

    @classmethod
    def preset(cls, w: Conv, unit: VectorUnit) -> Config:
        """Return the tiling for a CPU that nothing was tuned for.

        Two vectors of channels, and the number of columns that wastes least: full tiles first,
        then the more accumulators the better.
        """
        vectors = vectors_per_tile(w.out_channels, unit.lanes, most=2)
        most = min(most_rows(vectors, unit.registers), 8)

        def worth(width: int) -> float:
            used = w.out_width / (-(-w.out_width // width) * width)
            accumulators = width * vectors
            return used * accumulators / (accumulators + 1)

        return cls(unit.lanes, vectors, max(range(1, most + 1), key=worth))


def candidates(w: Conv, unit: VectorUnit) -> Iterator[Config]:
    """Yield every configuration that fits the registers."""
    for vectors in candidate_vectors(w.out_channels, unit):
        for width in range(1, min(most_rows(vectors, unit.registers), w.out_width) + 1):
            yield Config(unit.lanes, vectors, width)


def halo(w: Conv) -> Halo:
    """Return the zeros wanted around x; a scaled map gets its own, after the scaling."""
    return Halo(*w.padding) if w.affine is None else NO_HALO


def pack_weight(weight: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Lay (CO,CI,KH,KW) out as (CO/panel, KH, KW, CI, panel)."""
    out_channels, in_channels, *kernel = weight.shape
    panels = weight.reshape(out_channels // config.panel, config.panel, in_channels, *kernel)
    return np.ascontiguousarray(panels.transpose(0, 3, 4, 2, 1))


def define(
    w: Conv,
    config: Config,
    in_halo: Halo,
    out_halo: Halo,
    x_shape: Sequence[int] | None = None,
) -> Any:
    """Return the PrimFunc (x, weight, bias, y); ``x_shape`` is another shape for the same x.

    1. Where x does not come in its halo, or is to be scaled: copy it into one.
    2. One task per image, panel and row: tiles of columns, with the taps and input channels
       outside of the register tile.
    3. Add the bias, apply the activation and store.
    """
    unit = Vectors(config.lanes)
    in_shape = in_halo.around(w.batch, w.height, w.width, w.in_channels)
    out_shape = out_halo.around(w.batch, w.out_height, w.out_width, w.out_channels)
    panels = w.out_channels // config.panel
    with function() as builder:
        buffers = [
            argument("x", x_shape or in_shape),
            argument("weight", (panels, *w.kernel, w.in_channels, config.panel)),
            argument("bias", w.bias_shape(w.out_channels)),
            argument("y", out_shape),
        ]
        x, weight, bias, y = (flat(buffer) for buffer in buffers)
        if in_halo != Halo(*w.padding) or w.affine is not None:
            x, in_shape = _pad(w, unit, x)
        tasks = w.batch * panels * w.out_height
        with parallel(tasks) as task:
            oy = value(task % w.out_height)
            panel = value(task // w.out_height % panels)
            n = value(task // (w.out_height * panels))
            row = value((n * in_shape[1] + oy * w.stride[0]) * in_shape[2] * w.in_channels)
            target = value(
                ((n * out_shape[1] + oy + out_halo.top) * out_shape[2] + out_halo.left)
                * w.out_channels
                + panel * config.panel
            )

            def columns(start: Expr, count: int) -> None:
                tile = RegisterTile(unit, count, config.vectors)
                _sums(w, config, tile, x, weight, in_shape, row, panel, start)
                for vector in range(config.vectors):
                    o = vector * unit.lanes
                    end = ending(unit, w, bias, w.out_channels, panel * config.panel + o)
                    for column in range(count):
                        at = target + (start + column) * w.out_channels + o
                        unit.store(y, end(tile.result(column, vector)), at)

            in_tiles(0, w.out_width, config.width, columns)
            clear_halo(unit, y, out_shape, out_halo, task, tasks)
    return builder.get()


def _sums(
    w: Conv,
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


def _pad(w: Conv, unit: Vectors, x: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """Copy x into its halo, scaled; return the copy and its shape."""
    from tvm import tirx

    shape = Halo(*w.padding).around(w.batch, w.height, w.width, w.in_channels)
    _, height, width, channels = shape
    copy = scratch(math.prod(shape))
    several = len(set(w.scaling)) > 1
    lanes = Vectors(unit.lanes if channels % unit.lanes == 0 and not several else 1)
    top, left, _, _ = w.padding

    def store(inside: Expr, at: Expr, affine: tuple[float, float] | None) -> None:
        with when(inside):
            taken = lanes.load(x, source + at)
            if affine is not None:
                taken = (taken - lanes.splat(affine[0])) * lanes.splat(affine[1])
            lanes.store(copy, taken, target + at)
        with when(tirx.Not(inside)):
            lanes.store(copy, lanes.splat(0), target + at)

    with parallel(w.batch * height) as line, serial(width) as column:
        n, row = value(line // height), value(line % height - top)
        inside = tirx.all(row >= 0, row < w.height, column >= left, column < left + w.width)
        source = value(((n * w.height + row) * w.width + column - left) * channels)
        target = value((line * width + column) * channels)
        if several:
            for channel, affine in enumerate(w.scaling):
                store(inside, channel, affine)
        else:
            with serial(channels // lanes.lanes) as vector:
                store(inside, vector * lanes.lanes, w.scaling[0] if w.scaling else None)
    return copy, shape
