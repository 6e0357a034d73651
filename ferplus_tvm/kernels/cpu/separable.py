"""Separable convolution: a pointwise (1x1) and a depthwise 3x3 convolution, in one pass.

Pattern
    t[y,x,o] = p[o] + sum over i of s[y,x,i] * q[i,o], and zero beyond the map
    z[y,x,o] = activation(b[o] + sum over ky,kx of t[y+ky-1,x+kx-1,o] * d[ky,kx,o])
    where s is a map; or the sum of a map and one of half its size, each pixel repeated; or the
    rectified 3x3 convolution with stride 2 of a picture of three bytes a pixel.  Written are z, the
    2x2 maxima of z, or both.
Buffers
    s (1, H, W, CI), z (1, H, W, CO), maxima (1, H/2, W/2, CO), picture (1, 2H, 2W, 3) in uint8; q
    (CO/panel, CI, panel), d (9, CO), p and b (CO), the picture's weight (27, CI) and bias (CI):
    float32, 64-byte aligned; panel = ``vectors * lanes`` channels, CO a multiple of it, CI one of
    the lanes.
Registers
    The pointwise convolution is `tensorir.RegisterTile`.  The depthwise one has nine weights and a
    few sums, and loads each value of t once for all sums of a row that want it.
Caches
    A task computes a panel of channels in a run of rows.  Of t it keeps four rows in a ring, which
    stay in L1 or L2; t is never written to memory, nor is z where its maxima alone are wanted.  The
    two rows of t beyond a run are computed twice.
Not used
    Tiles of columns: they would need fewer values of t at once, and compute borders twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    RegisterTile,
    Vectors,
    argument,
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
from ferplus_tvm.targets import VectorUnit

CHANNELS = 16
"""What the channels of every map are a multiple of, so that they are whole vectors everywhere."""

SIGMOIDS = 2
"""The channels of a head that go through a sigmoid: the first ones."""

_RING = 4  # rows of t
_MOST_ROWS = 8  # of a register tile: more sums than these hide no more latency
_COLUMNS = 4  # outputs of the depthwise convolution that share what they load
_TAPS = 27  # of a picture: 3x3 of three colours


@dataclass(frozen=True)
class Separable:
    """The workload.

    Attributes
    ----------
    height, width
        Of the maps s and z.
    in_channels, out_channels
        Those of s and of z.
    source
        What s is, as the module's docstring says.
    activation
        What z goes through: ``"sigmoid"`` for the first `SIGMOIDS` channels alone.
    whole, pooled
        Whether z is written, and whether its 2x2 maxima are.
    """

    height: int
    width: int
    in_channels: int
    out_channels: int
    source: Literal["map", "sum", "picture"]
    activation: Literal["relu", "sigmoid"]
    whole: bool
    pooled: bool

    @property
    def inputs(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """The shape and type of each input."""
        here = ((1, self.height, self.width, self.in_channels), "float32")
        half = ((1, self.height // 2, self.width // 2, self.in_channels), "float32")
        picture = ((1, 2 * self.height, 2 * self.width, 3), "uint8")
        return {"map": (here,), "sum": (here, half), "picture": (picture,)}[self.source]

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each output."""
        whole = (1, self.height, self.width, self.out_channels)
        pooled = (1, self.height // 2, self.width // 2, self.out_channels)
        return (whole,) * self.whole + (pooled,) * self.pooled

    def panel(self, unit: VectorUnit) -> int:
        """Return the output channels that are computed at once."""
        most = 4 if unit.registers >= 32 or self.source == "picture" else 2
        return unit.lanes * vectors_per_tile(self.out_channels, unit.lanes, most)

    def weights(self, unit: VectorUnit) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight, in the order of the arguments."""
        panel = self.panel(unit)
        shapes: dict[str, tuple[int, ...]] = {
            "pointwise": (self.out_channels // panel, self.in_channels, panel),
            "pointwise_bias": (self.out_channels,),
            "depthwise": (9, self.out_channels),
            "depthwise_bias": (self.out_channels,),
        }
        if self.source == "picture":
            shapes |= {"picture": (_TAPS, self.in_channels), "picture_bias": (self.in_channels,)}
        return shapes


def pack(
    w: Separable, unit: VectorUnit, weights: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Lay weights out as the kernel takes them, in its order.

    ``pointwise`` comes as (CO,CI,1,1), ``depthwise`` as (CO,1,3,3), ``picture`` as (CI,3,3,3), and
    each ``..._bias`` as it is.
    """
    panel = w.panel(unit)
    orders = {"pointwise": (0, 2, 1), "depthwise": (2, 3, 1, 0), "picture": (2, 3, 1, 0)}
    packed = {}
    for name, shape in w.weights(unit).items():
        array = weights[name]
        if name == "pointwise":
            array = array.reshape(w.out_channels // panel, panel, w.in_channels)
        if name in orders:
            array = array.transpose(orders[name])
        packed[name] = np.ascontiguousarray(array).reshape(shape)
    return packed


def output_shapes(workloads: Sequence[Separable]) -> list[tuple[int, ...]]:
    """Return the shapes of what the kernel of some workloads writes."""
    if len(workloads) == 1:
        return list(workloads[0].outputs)
    rows = sum(w.height * w.width for w in workloads)
    return [(1, rows, workloads[0].out_channels)]


def define(workloads: Sequence[Separable], unit: VectorUnit) -> Any:
    """Return the PrimFunc (inputs, weights of all workloads, outputs).

    Several workloads, each with its own inputs and weights, write one output (1, rows, CO), in
    which the maps follow each other.
    """
    with function() as builder:
        operands = []
        for number, w in enumerate(workloads):
            given = [
                argument(f"x{number}_{at}", shape, kind)
                for at, (shape, kind) in enumerate(w.inputs)
            ]
            weights = {
                name: argument(f"{name}{number}", shape) for name, shape in w.weights(unit).items()
            }
            operands.append((given, weights))
        outputs = [
            argument(f"y{at}", shape) for at, shape in enumerate(output_shapes(workloads))
        ]
        written = [flat(each) for each in outputs]
        start = 0
        for w, (given, weights) in zip(workloads, operands, strict=True):
            inputs = [flat(each) for each in given]
            named = {name: flat(each) for name, each in weights.items()}
            _Stage(w, unit, inputs, named, written, start).emit()
            start += w.height * w.width * w.out_channels
    return builder.get()


class _Stage:
    """The kernel of one workload while it is being emitted."""

    def __init__(
        self,
        w: Separable,
        unit: VectorUnit,
        inputs: Sequence[Any],
        weights: dict[str, Any],
        outputs: Sequence[Any],
        start: int,
    ) -> None:
        self.w, self.inputs, self.weights, self.start = w, inputs, weights, start
        self.z = outputs[0] if w.whole else None
        self.maxima = outputs[-1] if w.pooled else None
        self.unit = Vectors(unit.lanes)
        self.registers = unit.registers
        self.panel = w.panel(unit)
        self.step = 2 if w.pooled else 1  # rows of z that are computed at once
        self.line = (w.width + 2) * self.panel  # values of a row of t, a zero pixel at each end

    def emit(self) -> None:
        """Emit tasks of a run of rows and a panel."""
        w = self.w
        panels = w.out_channels // self.panel
        rows = _run(w.height, self.step)
        with parallel(w.height // rows * panels) as task:
            first = value(task // panels * rows)
            self.o = value(task % panels * self.panel)
            self.ring = scratch(_RING * self.line)
            if w.source != "map":
                self.s = scratch(w.width * w.in_channels)
            if w.source == "picture":
                self.bytes = scratch(3 * self._bytes_line)
            with serial(_RING) as slot:
                self._clear(slot * self.line, self.panel)
                self._clear(slot * self.line + (w.width + 1) * self.panel, self.panel)
            with serial((rows + 2) // self.step) as turn:
                for ahead in range(self.step):
                    row = value(first + turn * self.step + ahead - 1)
                    slot = value((turn * self.step + ahead) % _RING * self.line + self.panel)
                    inside = (row >= 0) & (row < w.height)
                    with when(inside):
                        self._pointwise(row, slot)
                    with when(_not(inside)):
                        self._clear(slot, w.width * self.panel)
                with when(turn >= 2 // self.step):
                    self._depthwise(first, turn)

    def _clear(self, start: Expr, size: int) -> None:
        with serial(size // self.unit.lanes) as vector:
            self.unit.store(self.ring, self.unit.splat(0), start + vector * self.unit.lanes)

    def _pointwise(self, row: Expr, target: Expr) -> None:
        """Compute a row of a panel of t."""
        w, unit = self.w, self.unit
        s, base = self._source(row)
        weight, bias = self.weights["pointwise"], self.weights["pointwise_bias"]
        vectors = self.panel // unit.lanes

        def columns(start: Expr, count: int) -> None:
            tile = RegisterTile(unit, count, vectors)
            at = value(base + start * w.in_channels)
            with serial(w.in_channels) as k:
                weights = value(self.o * w.in_channels + k * self.panel)
                tile.add(
                    lambda column: s[at + column * w.in_channels + k],
                    lambda vector: unit.load(weight, weights + vector * unit.lanes),
                )
            to = value(target + start * self.panel)
            for vector in range(vectors):
                o = vector * unit.lanes
                added = value(unit.load(bias, self.o + o))
                for column in range(count):
                    total = tile.result(column, vector) + added
                    unit.store(self.ring, total, to + column * self.panel + o)

        in_tiles(0, w.width, min(most_rows(vectors, self.registers), _MOST_ROWS), columns)

    def _source(self, row: Expr) -> tuple[Any, Expr]:
        """Return where a row of s lies: a buffer and an index.  What is no map is computed here."""
        w = self.w
        if w.source == "map":
            return self.inputs[0], value(row * (w.width * w.in_channels))
        if w.source == "sum":
            self._sum(row)
        else:
            self._convolve_picture(row)
        return self.s, 0

    def _sum(self, row: Expr) -> None:
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

    @property
    def _bytes_line(self) -> int:
        """The values of a row of the picture, as float32: a zero pixel, and whole vectors."""
        lanes = self.unit.lanes
        return lanes + -(-6 * self.w.width // lanes) * lanes

    def _convolve_picture(self, row: Expr) -> None:
        """Compute a row of s of a picture: three of its rows as float32, and a GEMM of 27 taps."""
        w, unit = self.w, self.unit
        picture = self.inputs[0]
        lanes, line, across = unit.lanes, self._bytes_line, 6 * w.width
        for ky in range(3):
            source = value((row * 2 + ky - 1) * across)
            target = ky * line
            unit.store(self.bytes, unit.splat(0), target)
            with when(row * 2 + ky >= 1):
                with serial(across // lanes) as vector:
                    at = vector * lanes
                    unit.store(self.bytes, unit.load(picture, source + at), target + lanes + at)
            with when(row * 2 + ky < 1), serial(across // lanes) as vector:
                unit.store(self.bytes, unit.splat(0), target + lanes + vector * lanes)
        weight, bias = self.weights["picture"], self.weights["picture_bias"]
        vectors = w.in_channels // lanes

        def columns(start: Expr, count: int) -> None:
            tile = RegisterTile(unit, count, vectors)
            at = value(start * 6 + lanes - 3)
            for tap in range(_TAPS):
                begin = tap // 9 * line + tap % 9
                tile.add(
                    lambda column, begin=begin: self.bytes[at + column * 6 + begin],
                    lambda vector, tap=tap: unit.load(weight, tap * w.in_channels + vector * lanes),
                )
            to = value(start * w.in_channels)
            for vector in range(vectors):
                added = value(unit.load(bias, vector * lanes))
                for column in range(count):
                    total = unit.clip(tile.result(column, vector) + added)
                    unit.store(self.s, total, to + column * w.in_channels + vector * lanes)

        in_tiles(0, w.width, min(most_rows(vectors, self.registers), _MOST_ROWS), columns)

    def _depthwise(self, first: Expr, turn: Expr) -> None:
        """Compute ``step`` rows of a panel of z out of the ring."""
        w, unit, step = self.w, self.unit, self.step
        z_row = value(first + turn * step - 2)
        slots = [
            value((turn * step + ahead + _RING - 2) % _RING * self.line)
            for ahead in range(step + 2)
        ]
        with serial(self.panel // unit.lanes) as vector:
            c = value(vector * unit.lanes)
            o = value(self.o + c)
            taps = [
                value(unit.load(self.weights["depthwise"], o + tap * w.out_channels))
                for tap in range(9)
            ]
            bias = value(unit.load(self.weights["depthwise_bias"], o))

            def columns(start: Expr, count: int) -> None:
                at = [value(slot + start * self.panel + c) for slot in slots]
                rows = [
                    [value(unit.load(self.ring, line + x * self.panel)) for x in range(count + 2)]
                    for line in at
                ]
                sums = []
                for y in range(step):
                    for x in range(count):
                        total = bias
                        for tap, weight in enumerate(taps):
                            total = total + rows[y + tap // 3][x + tap % 3] * weight
                        sums.append(value(self._activated(total)))
                self._write(z_row, start, count, o, sums)

            in_tiles(0, w.width, _COLUMNS, columns)
        if w.activation == "sigmoid":
            self._squash(z_row)

    def _activated(self, total: Expr) -> Expr:
        return self.unit.clip(total) if self.w.activation == "relu" else total

    def _write(self, row: Expr, start: Expr, count: int, o: Expr, sums: Sequence[Expr]) -> None:
        from tvm import tirx

        w, unit = self.w, self.unit
        if self.z is not None:
            for y in range(self.step):
                to = value(self.start + ((row + y) * w.width + start) * w.out_channels + o)
                for x in range(count):
                    unit.store(self.z, sums[y * count + x], to + x * w.out_channels)
        if self.maxima is not None:
            to = value((row // 2 * (w.width // 2) + start // 2) * w.out_channels + o)
            for x in range(0, count, 2):
                upper = tirx.max(sums[x], sums[x + 1])
                lower = tirx.max(sums[count + x], sums[count + x + 1])
                unit.store(self.maxima, tirx.max(upper, lower), to + x // 2 * w.out_channels)

    def _squash(self, row: Expr) -> None:
        """Put the first channels of a row of z through a sigmoid."""
        from tvm.script.ir_builder import tirx as T

        w = self.w
        with when(self.o == 0), serial(w.width) as column, serial(SIGMOIDS) as c:
            at = value(self.start + (row * w.width + column) * w.out_channels + c)
            T.buffer_store(self.z, 1.0 / (1.0 + T.exp(0.0 - self.z[at])), [at])


def _not(condition: Expr) -> Expr:
    from tvm import tirx

    return tirx.Not(condition)


def _run(height: int, step: int) -> int:
    """Return the rows of a task: a divisor of the height, some eighth of it and not too few."""
    least = max(16, -(-height // 8))
    return next(
        rows
        for rows in range(min(least, height), height + 1)
        if height % rows == 0 and rows % step == 0
    )
