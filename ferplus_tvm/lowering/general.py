"""Lower a Relax function of general operators with TVM's own means, and one schedule for all.

TVM replaces each operator by loops (``LegalizeOps``) and joins those that can be one kernel
(``FuseOps``, ``FuseTIR``).  The rule below then shares the outer loops between threads, computes
a tile of each sum in registers, and makes the innermost loop vectors.  It knows no network: what
does not have the form that it expects stays as TVM made it, right and slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ferplus_tvm.importer.relax import BLOCK_BUILDER_LOCK
from ferplus_tvm.targets import ResolvedTarget

_REGISTERS = 12
"""The vectors that the sums of a tile may take: of 16 registers, some are for operands."""

_CHANNELS = 8
"""The channels that a tile may have."""

_WINDOW = 9
"""The places of a convolution's window that are unrolled."""


def lower_general(module: Any, prefix: str, target: ResolvedTarget) -> Any:
    """Return a module whose Relax functions call scheduled kernels, which it holds as well.

    Parameters
    ----------
    module
        An ``IRModule`` of Relax functions alone.
    prefix
        What the names of the kernels begin with.
    target
        The CPU to compile for.
    """
    import tvm
    from tvm import relax, tirx

    passes = relax.transform
    pipeline = tvm.transform.Sequential(
        [
            passes.LegalizeOps(),
            passes.AnnotateTIROpPattern(),
            passes.FoldConstant(),
            passes.FuseOps(),
            passes.FuseTIR(),
            passes.DeadCodeElimination(),
        ]
    )
    with BLOCK_BUILDER_LOCK, target.tvm_target():
        module = pipeline(module)
    kernels = [
        (name, function)
        for name, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc)
    ]
    for number, (name, function) in enumerate(kernels):
        scheduled = _scheduled(function, target.vector_unit.lanes)
        # TVM's own names list all that was fused, some of them for hundreds of characters.
        operator = name.name_hint.removeprefix("fused_").split("_")[0].rstrip("0123456789")
        named = scheduled.with_attr("global_symbol", f"{prefix}_{operator}{number}")
        module.update_func(name, named)
    return passes.NormalizeGlobalVar()(module)


def _scheduled(function: Any, lanes: int) -> Any:
    """Return a kernel that computes the same in the order of the rule above."""
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    try:
        _Rule(schedule, lanes).apply()
    except s_tir.ScheduleError:
        return function
    return schedule.mod["main"]


class _Rule:
    """The rule, at work on one kernel."""

    def __init__(self, schedule: Any, lanes: int) -> None:
        self._schedule = schedule
        self._lanes = lanes
        self._blocks = schedule.get_child_blocks(schedule.get_sblock("root"))

    def apply(self) -> None:
        schedule = self._schedule
        sums = [block for block in self._blocks if self._reduces(block)]
        *others, last = self._blocks
        for block in others:
            if block not in sums and not (sums and self._has_border(block)):
                schedule.compute_inline(block)
                self._blocks.remove(block)
        for block in self._blocks:
            if block not in sums and block != last:  # LLVM makes better vectors of a border
                schedule.parallel(schedule.fuse(*schedule.get_loops(block)[:-1]))
        if not sums:
            self._spread(last)
        elif sums == [last]:
            self._sum_alone(last)
        elif len(sums) == 1 and self._convolves(sums[0], last):
            self._sum(sums[0], last)

    def _spread(self, block: Any) -> None:
        """Share the outer loops between threads, and make the innermost one vectors."""
        schedule = self._schedule
        *outer, row = schedule.get_loops(block)
        if outer:
            schedule.parallel(schedule.fuse(*outer))
        _, inner = schedule.split(row, [None, self._width(row)])
        schedule.vectorize(inner)

    def _sum_alone(self, block: Any) -> None:
        """Schedule a reduction with nothing behind it, such as a pooling."""
        schedule = self._schedule
        loops = schedule.get_loops(block)
        spatial = [loop for loop, kind in zip(loops, self._kinds(block), strict=True) if kind == 0]
        reduced = [loop for loop in loops if loop not in spatial]
        *outer, row = spatial
        chunk, inner = schedule.split(row, [None, self._width(row)])
        schedule.reorder(*outer, chunk, *reduced, inner)
        schedule.parallel(schedule.fuse(*outer))
        schedule.vectorize(inner)
        self._start(block, reduced[0])

    def _sum(self, block: Any, last: Any) -> None:
        """Compute a tile of a convolution's sums in registers, and then what follows it."""
        schedule = self._schedule
        batch, channel, line, row = schedule.get_loops(last)
        depth = schedule.get_loops(block)[4]
        width = self._width(row)
        most = _REGISTERS // -(-width // self._lanes) if self._extent(depth) > 1 else 1
        channels = _divisors(self._extent(channel), max(min(most, _CHANNELS), 1))[-1]
        channel, channels_in = schedule.split(channel, [None, channels])
        row, row_in = schedule.split(row, [None, width])
        schedule.reorder(batch, channel, line, row, channels_in, row_in)
        schedule.parallel(schedule.fuse(batch, channel, line))
        schedule.unroll(channels_in)
        schedule.vectorize(row_in)
        schedule.compute_at(block, row, preserve_unit_loops=True)
        _, tile, _, inner, depth, *window = schedule.get_loops(block)[-7:]
        schedule.reorder(depth, *window, tile, inner)
        schedule.set_scope(block, 0, "local")
        if self._extent(window[0]) * self._extent(window[1]) <= _WINDOW:
            for loop in window:
                schedule.unroll(loop)
        schedule.unroll(tile)
        schedule.vectorize(inner)
        self._start(block, depth)

    def _start(self, block: Any, reduced: Any) -> None:
        """Set the sums of a block to zero before the first loop that adds to them.

        What the loops of the block are to be is said before: TVM cannot tell afterwards that
        nothing else writes the sums.
        """
        schedule = self._schedule
        start = schedule.decompose_reduction(block, reduced)
        schedule.vectorize(schedule.get_loops(start)[-1])

    def _width(self, row: Any) -> int:
        """Return how much of a row is computed at once: a power of two, at most two vectors.

        LLVM takes vectors of other sizes apart into single numbers where a loop carries them.
        """
        extent = self._extent(row)
        return min(extent & -extent, 2 * self._lanes)

    def _extent(self, loop: Any) -> int:
        return int(self._schedule.get(loop).extent)

    def _kinds(self, block: Any) -> list[int]:
        """Return for each iteration variable 0 for a spatial one, 2 for one that is summed over."""
        return [int(each.iter_type) for each in self._schedule.get(block).iter_vars]

    def _reduces(self, block: Any) -> bool:
        return 2 in self._kinds(block)

    def _convolves(self, block: Any, last: Any) -> bool:
        """Whether a block sums over channels and a window, and what follows has its shape."""
        return self._kinds(block) == [0] * 4 + [2] * 3 and self._kinds(last) == [0] * 4

    def _has_border(self, block: Any) -> bool:
        """Whether the block puts a border around its input, which no inner loop shall ask for."""
        return "if_then_else" in str(self._schedule.get(block).body)


def _divisors(number: int, most: int) -> Sequence[int]:
    return [size for size in range(1, most + 1) if number % size == 0]
