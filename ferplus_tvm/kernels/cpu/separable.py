"""Chains of separable convolutions: each a pointwise (1x1) and a depthwise 3x3 one, in one pass.

Pattern
    t[y,x,o] = p[o] + sum over i of s[y,x,i] * q[i,o], and zero beyond the map
    z[y,x,o] = activation(b[o] + sum over ky,kx of t[y+ky-1,x+kx-1,o] * d[ky,kx,o])
    where s is a map; or the sum of a map and one of half its size, each pixel repeated; or the
    rectified 3x3 convolution with stride 2 of a picture of three bytes a pixel.  The result is z
    or its 2x2 maxima; within a chain it is the s of the next workload.
Buffers
    s (1, H, W, CI), z (1, H, W, CO), maxima (1, H/2, W/2, CO), picture (1, 2H, 2W, 3) in uint8;
    all weights in one array, q as (CO/panel, CI, panel), p (CO), d (9, CO), b (CO), and those of
    the picture (27, CI) and (CI): float32, 64-byte aligned; CO is a multiple of the panel, CI of
    the lanes.
Registers
    The pointwise convolution is `tensorir.RegisterTile`.  The depthwise one has nine weights and a
    few sums, and loads each value of t once for all sums of a row that want it.
Caches
    A task computes a run of rows of the last result, row by row through the whole chain.  Of every
    t it keeps four rows in a ring, and of every s within the chain a single row, which stay in L2:
    maps are written at the end of a chain alone.  The rows beyond a run that each workload wants
    are computed by two tasks.
Not used
    Tiles of columns, which would stay in L1: they compute borders twice, and are no faster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cpu.sigmoid import sigmoid
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
_MOST_ROWS = 12  # of a register tile: more sums than these hide no more latency
_COLUMNS = 4  # outputs of the depthwise convolution that share what they load
_LEAST_RUN = 16  # rows, of a run whose border costs too much if it is shorter
_RUNS = 8  # that a map is split into, if they are not too short
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
    pool
        Whether the result is the 2x2 maxima of z.
    whole
        Whether z is written besides its maxima, by the last one of a chain.
    """

    height: int
    width: int
    in_channels: int
    out_channels: int
    source: Literal["map", "sum", "picture"]
    activation: Literal["relu", "sigmoid"]
    pool: bool = False
    whole: bool = False

    @property
    def inputs(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """The shape and type of each input."""
        here = ((1, self.height, self.width, self.in_channels), "float32")
        half = ((1, self.height // 2, self.width // 2, self.in_channels), "float32")
        picture = ((1, 2 * self.height, 2 * self.width, 3), "uint8")
        return {"map": (here,), "sum": (here, half), "picture": (picture,)}[self.source]

    @property
    def outputs(self) -> list[tuple[int, ...]]:
        """The shape of the result, and that of z if it is written as well."""
        shrinks = (self.step, 1) if self.whole else (self.step,)
        return [
            (1, self.height // shrink, self.width // shrink, self.out_channels)
            for shrink in shrinks
        ]

    @property
    def step(self) -> int:
        """The rows of z that are computed at once, for one row of the result."""
        return 2 if self.pool else 1

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, as `pack` takes it."""
        shapes: dict[str, tuple[int, ...]] = {
            "pointwise": (self.out_channels, self.in_channels, 1, 1),
            "pointwise_bias": (self.out_channels,),
            "depthwise": (self.out_channels, 1, 3, 3),
            "depthwise_bias": (self.out_channels,),
        }
        if self.source == "picture":
            shapes |= {"picture": (self.in_channels, 3, 3, 3), "picture_bias": (self.in_channels,)}
        return shapes

    @property
    def weight_count(self) -> int:
        """The number of all weights together."""
        return sum(math.prod(shape) for shape in self.weights.values())


def panel_of(w: Separable, unit: VectorUnit) -> int:
    """Return the output channels that are computed at once, which is the layout of the weights."""
    most = 4 if unit.registers >= 32 else 2
    return unit.lanes * vectors_per_tile(w.out_channels, unit.lanes, most)


def pack(
    w: Separable, unit: VectorUnit, weights: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Lay the weights out as the kernel takes them: (CO/panel, CI, panel), then as (taps, CO)."""
    panel = panel_of(w, unit)
    packed = []
    for name in w.weights:
        array = weights[name]
        if name == "pointwise":
            array = array.reshape(w.out_channels // panel, panel, w.in_channels)
            array = array.transpose(0, 2, 1)
        elif array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        packed.append(array.ravel())
    return np.concatenate(packed)


def output_shapes(chains: Sequence[Sequence[Separable]]) -> list[tuple[int, ...]]:
    """Return the shapes of what the kernel of some chains writes."""
    results = [chain[-1].outputs for chain in chains]
    if len(results) == 1:
        return results[0]
    rows = sum(height * width for ((_, height, width, _),) in results)
    return [(1, rows, chains[0][-1].out_channels)]


def define(chains: Sequence[Sequence[Separable]], unit: VectorUnit) -> Any:
    """Return the PrimFunc (inputs of each chain, then the weights of its workloads; outputs).

    Several chains write one output (1, rows, CO), in which their results follow each other.
    """
    with function() as builder:
        declared = []
        for number, chain in enumerate(chains):
            inputs = [
                argument(f"x{number}_{at}", shape, kind)
                for at, (shape, kind) in enumerate(chain[0].inputs)
            ]
            weights = [
                argument(f"weights{number}_{at}", (w.weight_count,)) for at, w in enumerate(chain)
            ]
            declared.append((inputs, weights))
        outputs = [
            argument(f"y{number}", shape) for number, shape in enumerate(output_shapes(chains))
        ]
        written = [flat(each) for each in outputs]
        start = 0
        for chain, (inputs, weights) in zip(chains, declared, strict=True):
            stages = [
                _Stage(w, unit, flat(each), number > 0)
                for number, (w, each) in enumerate(zip(chain, weights, strict=True))
            ]
            _Chain(stages, [flat(each) for each in inputs], written, start).emit()
            start += math.prod(chain[-1].outputs[0])
    return builder.get()


class _Chain:
    """The kernel of a chain while it is being emitted."""

    def __init__(
        self, stages: Sequence[_Stage], inputs: Sequence[Any], outputs: Sequence[Any], start: int
    ) -> None:
        self.stages, self.inputs, self.start = stages, inputs, start
        self.y, *self.z = outputs

    def emit(self) -> None:
        """Emit tasks of a run of rows; of a chain of one workload, of a run and a panel.

        The rows of s and t that a workload computes for a run grow from the last one to the first:
        by one above and below, and by two for one where there is a pooling.
        """
        last = self.stages[-1].w
        run = _run(last.height, last.step)
        split = self.stages[-1].panels if len(self.stages) == 1 else 1
        with parallel(last.height // run * split) as task:
            top, rows = task // split * run - 1, run + 2
            for stage in reversed(self.stages):
                stage.top = value(top)
                stage.allocate(None if split == 1 else value(task % split))
                if stage is not self.stages[0]:
                    before = self.stages[self.stages.index(stage) - 1].w.step
                    top, rows = stage.top * before - 1, rows * before + 2
            source = _Source(self.stages[0].w, self.stages[0], self.inputs)
            source.allocate()
            with serial(rows) as turn:
                row = value(self.stages[0].top + turn)
                self.feed(0, row, turn, lambda: source.row(row))

    def feed(self, at: int, row: Expr, turn: Expr, s: Callable[[], tuple[Any, Expr]]) -> None:
        """Give a workload its next row of s, and what it makes of that to the workload behind.

        A row beyond the map has none: its t is zero.
        """
        stage = self.stages[at]
        w, step = stage.w, stage.w.step
        with when((row >= 0) & (row < w.height)):
            stage.pointwise(turn, *s())
        with when((row < 0) | (row >= w.height)):
            stage.clear(turn)
        z = value(row - step)  # the row of z, or the first of two, whose t is complete
        complete = turn >= 2 if step == 1 else (turn >= 3) & (turn % 2 == 1)
        inside = (z >= 0) & (z < w.height)
        if stage is self.stages[-1]:
            with when(complete):
                width = w.outputs[0][2] * w.out_channels
                result = (self.y, value(self.start + z // step * width))
                whole = [(each, value(z * w.width * w.out_channels)) for each in self.z]
                stage.depthwise(turn, *result, *whole)
            return
        following = self.stages[at + 1]
        with when(complete):
            with when(inside):
                stage.depthwise(turn, following.line, 0)
            behind = value((turn - step - 1) // step)
            self.feed(at + 1, value(following.top + behind), behind, lambda: (following.line, 0))


class _Stage:
    """A workload of a chain while it is being emitted: its two convolutions.

    Attributes
    ----------
    w
        The workload.
    panels
        The panels of its channels.
    top
        The row of its first t in a task.
    line
        A row of its s, where that is another workload's result.
    """

    def __init__(self, w: Separable, unit: VectorUnit, weights: Any, chained: bool) -> None:
        self.w, self.weights, self.chained = w, weights, chained
        self.unit, self.registers = Vectors(unit.lanes), unit.registers
        self.panel = panel_of(w, unit)
        self.panels = w.out_channels // self.panel
        self.ring_line = (w.width + 2) * self.panel  # a row of t, with a zero pixel at each end
        sizes = [math.prod(shape) for shape in w.weights.values()]
        starts = itertools.accumulate(sizes, initial=0)
        self.offsets = dict(zip(w.weights, starts, strict=False))
        self.top: Expr = 0

    def allocate(self, panel: Expr | None) -> None:
        """Allocate the memory of a task, which computes one panel, or all of them."""
        w, line = self.w, self.ring_line
        self.only = panel
        panels = self.panels if panel is None else 1
        self.ring = scratch(panels * _RING * line)
        if self.chained:
            self.line = scratch(w.width * w.in_channels)
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
                    weights = value(o * w.in_channels + k * self.panel)
                    tile.add(
                        lambda column: s[at + column * w.in_channels + k],
                        lambda vector: self.weight("pointwise", weights + vector * unit.lanes),
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
        """Compute a row of the result out of the last rows of t.

        It is written to ``y``, and the rows of z to ``whole``.
        """
        w, unit, step = self.w, self.unit, self.w.step
        with self.each_panel() as (first, ring):
            lines = [
                value(self.slot(turn + (_RING - 1 - step + ahead), ring) - self.panel)
                for ahead in range(step + 2)
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
                    for upper in range(step):
                        for left in range(count):
                            total = bias
                            for tap, weight in enumerate(taps):
                                total = total + t[upper + tap // 3][left + tap % 3] * weight
                            sums.append(value(self.activated(total, o)))
                    to = value(base + start // step * w.out_channels + o)
                    for x, result in enumerate(_pooled(sums) if w.pool else sums):
                        unit.store(y, result, to + x * w.out_channels)
                    for z, row in whole:
                        for number, total in enumerate(sums):
                            pixel = number // count * w.width + number % count + start
                            unit.store(z, total, row + pixel * w.out_channels + o)

                in_tiles(0, w.width, _COLUMNS, columns)

    def activated(self, total: Expr, o: Expr) -> Expr:
        """Apply the activation to a vector of z, which begins with channel ``o``."""
        if self.w.activation == "relu":
            return self.unit.clip(total)
        return self.unit.select(
            lambda lane: o + lane < SIGMOIDS, sigmoid(self.unit, value(total)), total
        )


class _Source:
    """Rows of the first s of a chain, which come from its inputs."""

    def __init__(self, w: Separable, stage: _Stage, inputs: Sequence[Any]) -> None:
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

        def add(tile: RegisterTile, start: Expr) -> None:
            at = value(start * 6 + lanes - 3)
            for tap in range(_TAPS):
                self._add_tap(tile, at, tap)

        self.stage.gemm(
            w.in_channels // lanes,
            add,
            lambda c: self.stage.weight("picture_bias", c),
            lambda column, c, total: unit.store(
                self.s, unit.clip(total), column * w.in_channels + c
            ),
        )

    def _add_tap(self, tile: RegisterTile, at: Expr, tap: int) -> None:
        """Add one of three colours of one of 3x3 pixels, which lie side by side in a row."""
        begin = at + tap // 9 * self.pixel_line + tap % 9
        weights = tap * self.w.in_channels
        tile.add(
            lambda column: self.pixels[begin + column * 6],
            lambda vector: self.stage.weight("picture", weights + vector * self.unit.lanes),
        )


def _pooled(sums: Sequence[Expr]) -> list[Expr]:
    """Return the 2x2 maxima of two rows, which follow each other."""
    from tvm import tirx

    width = len(sums) // 2
    return [
        tirx.max(tirx.max(sums[x], sums[x + 1]), tirx.max(sums[width + x], sums[width + x + 1]))
        for x in range(0, width, 2)
    ]


def _run(height: int, step: int) -> int:
    """Return the rows of a task: they split a map evenly, into some eight runs."""
    least = max(_LEAST_RUN, -(-height // _RUNS))
    return next(
        rows
        for rows in range(min(least, height), height + 1)
        if height % rows == 0 and rows % step == 0
    )
