"""Emit the kernel of chains of separable convolutions: see `separable` for what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ferplus_tvm.kernels.cpu.separable import Separable, output_shapes
from ferplus_tvm.kernels.cpu.separable_source import Source
from ferplus_tvm.kernels.cpu.separable_stage import Stage
from ferplus_tvm.kernels.cpu.tensorir import (
    Expr,
    argument,
    flat,
    function,
    parallel,
    serial,
    value,
    when,
)
from ferplus_tvm.targets import VectorUnit

_LEAST_RUN = 20  # rows, of a run whose border costs too much if it is shorter
_RUNS = 8  # that a map is split into, if they are not too short


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
            stages = [Stage(w, unit, flat(each)) for w, each in zip(chain, weights, strict=True)]
            _Chain(stages, [flat(each) for each in inputs], written, start).emit()
            start += math.prod(chain[-1].outputs[0])
    return builder.get()


class _Chain:
    """The kernel of a chain while it is being emitted."""

    def __init__(
        self, stages: Sequence[Stage], inputs: Sequence[Any], outputs: Sequence[Any], start: int
    ) -> None:
        self.stages, self.inputs, self.start = stages, inputs, start
        self.y, *self.z = outputs

    def emit(self) -> None:
        """Emit tasks of a run of rows; of a chain of one workload, of a run and a panel.

        The rows of s and t that a workload computes for a run grow from the last one to the first:
        by one above and below, and by two for one where there is a pooling.
        """
        last = self.stages[-1].w
        run = _run(last.height, last.shrink)
        split = self.stages[-1].panels if len(self.stages) == 1 else 1
        for stage in self.stages:
            stage.choose_rows(run)
        with parallel(last.height // run * split) as task:
            top, rows = task // split * run - 1, run + 2
            for at, stage in reversed(list(enumerate(self.stages))):
                stage.top = value(top)
                stage.allocate(None if split == 1 else value(task % split))
                if at > 0:
                    before = self.stages[at - 1]
                    stage.allocate_line(before.results)
                    top, rows = stage.top * before.w.shrink - 1, rows * before.w.shrink + 2
            source = Source(self.stages[0].w, self.stages[0], self.inputs)
            source.allocate()
            with serial(rows) as turn:
                row = value(self.stages[0].top + turn)
                self.feed(0, row, turn, lambda: source.row(row))

    def feed(self, at: int, row: Expr, turn: Expr, s: Callable[[], tuple[Any, Expr]]) -> None:
        """Give a workload its next row of s, and what it makes of that to the workload behind.

        A row beyond the map has none: its t is zero.
        """
        stage = self.stages[at]
        w, rows = stage.w, stage.rows
        with when((row >= 0) & (row < w.height)):
            stage.pointwise(turn, *s())
        with when((row < 0) | (row >= w.height)):
            stage.clear(turn)
        z = value(row - rows)  # the row of z, or the first of two, whose t is complete
        complete = turn >= 2 if rows == 1 else (turn >= 3) & (turn % 2 == 1)
        if stage is self.stages[-1]:
            with when(complete):
                width = w.outputs[0][2] * w.out_channels
                result = (self.y, value(self.start + z // w.shrink * width))
                whole = [(each, value(z * w.width * w.out_channels)) for each in self.z]
                stage.depthwise(turn, *result, *whole)
            return
        behind = self.stages[at + 1]
        with when(complete):
            with when((z > -rows) & (z < w.height)):
                stage.depthwise(turn, behind.line, 0)
            with serial(stage.results) as number:
                next_turn = value((turn - rows - 1) // w.shrink + number)
                self.feed(
                    at + 1,
                    value(behind.top + next_turn),
                    next_turn,
                    lambda: (behind.line, number * (behind.w.width * behind.w.in_channels)),
                )


def _run(height: int, shrink: int) -> int:
    """Return the rows of a task: they split a map evenly, into some eight runs."""
    least = max(_LEAST_RUN, -(-height // _RUNS))
    return next(
        rows
        for rows in range(min(least, height), height + 1)
        if height % rows == 0 and rows % shrink == 0
    )
