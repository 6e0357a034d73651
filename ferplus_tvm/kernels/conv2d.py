"""Direct 2D convolution with bias and optional ReLU, channels last, in float32.

Pattern
    y[n,oy,ox,o] = max(0, b[o] + sum over ky,kx,i of
                                 p[n, oy*sy+ky*dy, ox*sx+kx*dx, i] * w[o,i,ky,kx])
    where p is x, scaled if asked, in a border of zeros.
Buffers
    x (N, H, W, CI), w (CO/tile, KH, KW, CI, tile), b (CO), y (N, OH, OW, CO): float32, 64-byte
    aligned; tile = ``Config.vectors * lanes`` output channels, CO a multiple of it.
Registers
    ``width`` x ``vectors`` accumulators, ``vectors`` weights and one broadcast input value have to
    fit the register file; about ten accumulators hide the latency of a fused multiply-add.
Caches
    The weights of one channel tile (KH*KW*CI*tile floats, 295 KB for 3x3x256 and 32 channels) are
    read once per row of the map and stay in L2; KH input rows stay in L1 or L2.
Not used
    im2col and a GEMM: it writes and reads KH*KW times the map, and the register tile here reads
    the map in place at the same speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels import vectors_per_tile
from ferplus_tvm.targets import VectorUnit


@dataclass(frozen=True)
class Workload:
    """One convolution: what the definition depends on.

    padding
        (top, left, bottom, right) zeros.
    affine
        (a, b) where the input is to be taken as (x - a) * b, or None.
    pool
        whether the 2x2 maxima, at steps of 2, are wanted in place of the map itself; only the
        Winograd kernel gives them, and `define` here leaves the pooling to its own kernel.
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
    def tile(self) -> int:
        """Output channels per tile, which is also the layout of the weights."""
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


def pack_weight(weight: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Lay (CO,CI,KH,KW) out as (CO/tile, KH, KW, CI, tile)."""
    out_channels, in_channels, *kernel = weight.shape
    tiles = weight.reshape(out_channels // config.tile, config.tile, in_channels, *kernel)
    return np.ascontiguousarray(tiles.transpose(0, 3, 4, 2, 1))


def define(w: Workload, config: Config) -> Any:
    """Return the unscheduled PrimFunc with blocks ``pad``, ``conv`` and ``out``."""
    from tvm import te, tirx

    zero = tirx.const(0.0, "float32")
    tile = config.tile
    top, left, bottom, right = w.padding
    x = te.placeholder((w.batch, w.height, w.width, w.in_channels), "float32", "x")
    tiles = w.out_channels // tile
    weight = te.placeholder((tiles, *w.kernel, w.in_channels, tile), "float32", "weight")
    bias = te.placeholder((w.out_channels,), "float32", "bias")

    def value(n: Any, row: Any, column: Any, c: Any) -> Any:
        inside = tirx.all(row >= top, row < w.height + top, column >= left, column < w.width + left)
        taken = x[n, row - top, column - left, c]
        if w.affine is not None:
            taken = (taken - tirx.const(w.affine[0], "float32")) * tirx.const(
                w.affine[1], "float32"
            )
        return tirx.if_then_else(inside, taken, zero)

    shape = (w.batch, w.height + top + bottom, w.width + left + right, w.in_channels)
    pad = te.compute(shape, value, name="pad")
    ky = te.reduce_axis((0, w.kernel[0]), "ky")
    kx = te.reduce_axis((0, w.kernel[1]), "kx")
    ci = te.reduce_axis((0, w.in_channels), "ci")
    out_shape = (w.batch, w.out_height, w.out_width, w.out_channels)
    conv = te.compute(
        out_shape,
        lambda n, oy, ox, o: te.sum(
            pad[
                n,
                oy * w.stride[0] + ky * w.dilation[0],
                ox * w.stride[1] + kx * w.dilation[1],
                ci,
            ]
            * weight[o // tile, ky, kx, ci, o % tile],
            axis=[ky, kx, ci],
        ),
        name="conv",
    )

    def finish(n: Any, oy: Any, ox: Any, o: Any) -> Any:
        total = conv[n, oy, ox, o] + bias[o]
        return te.max(total, zero) if w.relu else total

    out = te.compute(out_shape, finish, name="out")
    return te.create_prim_func([x, weight, bias, out])


def schedule(sch: Any, w: Workload, config: Config) -> None:
    """Apply the tiling.

    1. Fill the padded copy in parallel by rows, in vectors of channels.
    2. Split the output into tiles of ``width`` columns and ``tile`` channels; run over images,
       channel tiles and rows in parallel, so that a channel tile's weights stay in L2.
    3. Compute each tile's sums in registers: taps and input channels outside, the unrolled tile of
       columns and vectors inside.
    4. Add the bias, clip and store the tile.
    """
    del w  # the tiling alone decides
    pad, conv, out = (sch.get_sblock(name) for name in ("pad", "conv", "out"))

    n, row, _, c = sch.get_loops(pad)
    sch.parallel(sch.fuse(n, row))
    _vectorize(sch, c, config.lanes)

    n, oy, ox, o = sch.get_loops(out)
    o_tile, o_in = sch.split(o, [None, config.tile])
    x_tile, x_in = sch.split(ox, [None, config.width])
    sch.reorder(n, o_tile, oy, x_tile, x_in, o_in)
    outer = sch.fuse(n, o_tile, oy)
    sch.parallel(outer)

    sch.compute_at(conv, x_tile, preserve_unit_loops=True)
    sch.set_scope(conv, 0, "local")
    *_, n, oy, ox, o, ky, kx, ci = sch.get_loops(conv)
    vector, lane = sch.split(o, [None, config.lanes])
    sch.reorder(ky, kx, ci, n, oy, ox, vector, lane)
    sch.vectorize(lane)
    sch.unroll(vector)
    sch.unroll(ox)
    sch.decompose_reduction(conv, ky)

    vector = _vectorize(sch, o_in, config.lanes)
    sch.unroll(vector)
    sch.unroll(x_in)


def _vectorize(sch: Any, loop: Any, lanes: int) -> Any:
    """Vectorise the inner part of a channel loop and return the outer; a map of one stays."""
    if int(sch.get(loop).extent) % lanes:
        return loop
    outer, inner = sch.split(loop, [None, lanes])
    sch.vectorize(inner)
    return outer
