"""Emit TensorIR statement by statement: vectors, register tiles, zero halos, prefetching.

The kernels are written as the loops that shall run, in place of a definition and a schedule: their
stages share tasks, registers and buffers in ways that schedule primitives do not reach (a halo
that the producer writes, two passes of a transform that share partial sums, weights fetched
ahead).  `function` gives the frame; everything else is called within it, and what depends on a
configuration is unrolled by Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ferplus_tvm.kernels.backend import NO_HALO, Halo
from ferplus_tvm.targets import VectorUnit

Expr = Any
"""A TensorIR expression, or an int where an index is expected."""

CACHE_LINE = 64

_MOST_VECTORS = 8  # of a register tile, that tuning tries


@contextmanager
def function() -> Iterator[Any]:
    """Open a PrimFunc; the builder's ``get()`` returns it afterwards."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        # Buffers never overlap, so that what is loaded once need not be loaded again.
        T.func_attr({"tirx.noalias": True})
        yield builder


def pass_context(cuda_graph: bool = False) -> Any:
    """Return the context to compile such functions in.

    TVM's rewriting of storage would drop what `RegisterTile` says of its memory; the kernels place
    theirs themselves.
    """
    import tvm

    return tvm.transform.PassContext(
        config={
            "tirx.disable_storage_rewrite": True,
            "relax.backend.use_cuda_graph": cuda_graph,
        }
    )


def argument(name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
    """Declare the next argument of the function."""
    from tvm.script.ir_builder import tirx as T

    return T.arg(name, T.buffer(tuple(shape), dtype))


def flat(buffer: Any) -> Any:
    """Return a view of a buffer with one dimension.

    With a base that is computed once and offsets that are numbers, every access is one addressing
    mode; from several dimensions LLVM computes each address anew (a third of a transform's time).
    """
    from tvm.script.ir_builder import tirx as T

    size = math.prod(int(extent) for extent in buffer.shape)
    return T.decl_buffer((size,), buffer.dtype, data=buffer.data)


def scratch(size: int) -> Any:
    """Allocate float32 memory: for the task in a parallel loop, for all of them outside of one."""
    from tvm.script.ir_builder import tirx as T

    return T.alloc_buffer((size,), "float32")


def registers(lanes: int) -> Any:
    """Allocate a vector of float32 numbers that is to stay in a register.

    It gets a stack slot of its own, which LLVM turns into a register.  Without the annotation TVM
    takes it from the heap, and whatever may alias the heap (a prefetch may) has every sum stored
    and loaded again.
    """
    from tvm.script.ir_builder import tirx as T

    annotations = {"disable_lower_builtin": True}
    return T.alloc_buffer((lanes,), "float32", scope="local", annotations=annotations)


def serial(extent: Expr) -> Any:
    """Loop over 0..extent."""
    from tvm.script.ir_builder import tirx as T

    return T.serial(0, extent)


def parallel(extent: int) -> Any:
    """Loop over 0..extent, shared between threads in runs of equal length."""
    from tvm.script.ir_builder import tirx as T

    return T.parallel(0, extent)


def value(expression: Expr) -> Expr:
    """Compute an expression here, once."""
    from tvm.script.ir_builder import tirx as T

    return expression if isinstance(expression, int | float) else T.Bind(expression)


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Do what follows if the condition holds."""
    from tvm.script.ir_builder import tirx as T

    with T.If(condition), T.Then():
        yield


@dataclass(frozen=True)
class Vectors:
    """Vectors of ``lanes`` float32 numbers; one lane is a plain number."""

    lanes: int

    def load(self, buffer: Any, at: Expr) -> Expr:
        """Return the vector at an index, as float32; its address is a multiple of its size."""
        from tvm import tirx

        loaded = buffer[tirx.Ramp(at, 1, self.lanes) if self.lanes > 1 else at]
        if str(buffer.dtype) == "float32":
            return loaded
        return loaded.astype(f"float32x{self.lanes}" if self.lanes > 1 else "float32")

    def store(self, buffer: Any, stored: Expr, at: Expr) -> None:
        """Store a vector at an index."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        T.buffer_store(buffer, stored, [tirx.Ramp(at, 1, self.lanes) if self.lanes > 1 else at])

    def splat(self, scalar: Expr) -> Expr:
        """Return a vector of equal values."""
        from tvm import tirx

        if isinstance(scalar, int | float):
            scalar = tirx.const(float(scalar), "float32")
        return tirx.Broadcast(scalar, self.lanes) if self.lanes > 1 else scalar

    def clip(self, vector: Expr) -> Expr:
        """Return the larger of each value and zero."""
        from tvm import tirx

        return tirx.max(vector, self.splat(0))

    def select(self, condition: Callable[[Expr], Expr], yes: Expr, no: Expr) -> Expr:
        """Return ``yes`` in the lanes whose number fulfils a condition, ``no`` in the others."""
        from tvm import tirx

        return tirx.Select(condition(tirx.Ramp(0, 1, self.lanes) if self.lanes > 1 else 0), yes, no)

    def combine(self, terms: Sequence[tuple[float, Expr]]) -> Expr:
        """Return the sum of factor * vector in the order given; ones and zeros cost nothing."""
        total = None
        for factor, vector in terms:
            if not factor:
                continue
            term = vector if abs(factor) == 1 else vector * self.splat(abs(factor))
            if total is None:
                total = term if factor > 0 else self.splat(0) - term
            else:
                total = total + term if factor > 0 else total - term
        return total


class RegisterTile:
    """``rows`` x ``vectors`` accumulators: the micro-kernel of every GEMM here.

    One step adds the outer product of ``rows`` values, each broadcast, and ``vectors`` vectors: the
    more rows share a loaded vector, the fewer loads per multiply-add.  The accumulators, the
    vectors and one broadcast value have to fit the register file, and eight accumulators or more
    hide the latency of a fused multiply-add on today's CPUs.
    """

    def __init__(self, unit: Vectors, rows: int, vectors: int) -> None:
        """Set the accumulators to zero."""
        self._unit = unit
        self._sums = [[registers(unit.lanes) for _ in range(vectors)] for _ in range(rows)]
        for row in self._sums:
            for accumulator in row:
                unit.store(accumulator, unit.splat(0), 0)

    def add(self, scalar: Callable[[int], Expr], vector: Callable[[int], Expr]) -> None:
        """Add ``scalar(row) * vector(position)`` to every accumulator."""
        vectors = [value(vector(position)) for position in range(len(self._sums[0]))]
        for row, accumulators in enumerate(self._sums):
            broadcast = value(self._unit.splat(scalar(row)))
            for accumulator, other in zip(accumulators, vectors, strict=True):
                total = self._unit.load(accumulator, 0) + broadcast * other
                self._unit.store(accumulator, total, 0)

    def result(self, row: int, position: int) -> Expr:
        """Return an accumulator."""
        return self._unit.load(self._sums[row][position], 0)


def vectors_per_tile(channels: int, lanes: int, most: int) -> int:
    """Return the most vectors, up to ``most``, that split the stored channels evenly."""
    vectors = channels // lanes
    return next(count for count in range(most, 0, -1) if vectors % count == 0)


def most_rows(vectors: int, registers: int) -> int:
    """Return the most rows of a register tile: its sums, the vectors and a broadcast value fit."""
    return (registers - vectors - 1) // vectors


def candidate_vectors(channels: int, unit: VectorUnit) -> list[int]:
    """Return how many vectors a register tile may have: they split the stored channels evenly."""
    count = channels // unit.lanes
    most = min(_MOST_VECTORS, (unit.registers - 1) // 2)  # a row of sums and its operands fit
    return [vectors for vectors in range(1, most + 1) if count % vectors == 0]


def in_tiles(start: int, stop: int, size: int, emit: Callable[[Expr, int], None]) -> None:
    """Emit ``emit(first, rows)`` for start..stop in tiles of ``size``, and for what is left."""
    full, rest = divmod(stop - start, size)
    if full == 1:
        emit(start, size)
    elif full:
        with serial(full) as index:
            emit(value(start + index * size), size)
    if rest:
        emit(start + full * size, rest)


def prefetch(buffer: Any, at: Expr) -> None:
    """Have the line of memory at an index fetched into the caches, for reading.

    Past the end of the buffer it does nothing.
    """
    from tvm import tirx
    from tvm.script.ir_builder import tirx as T

    read, all_levels, data = (tirx.const(number, "int32") for number in (0, 3, 1))
    T.evaluate(
        tirx.call_llvm_intrin(
            "void", "llvm.prefetch.p0", T.address_of(buffer[at]), read, all_levels, data
        )
    )


def clear_halo(
    unit: Vectors, y: Any, shape: tuple[int, int, int, int], halo: Halo, task: Expr, tasks: int
) -> None:
    """Write one task's share of the zeros around the images of ``y``.

    ``shape`` is that of y (N, H, W, C), halo included; every task clears a run of rows.
    """
    if halo == NO_HALO:
        return
    batch, height, width, channels = shape
    rows = batch * height
    share = -(-rows // tasks)

    def clear(row: Expr, first: int, columns: int) -> None:
        if columns:
            start = value((row * width + first) * channels)
            with serial(columns * channels // unit.lanes) as vector:
                unit.store(y, unit.splat(0), start + vector * unit.lanes)

    with serial(share) as index:
        row = value(task * share + index)
        with when(row < rows):
            if halo.top or halo.bottom:
                in_map = value(row % height)
                with when((in_map < halo.top) | (in_map >= height - halo.bottom)):
                    clear(row, halo.left, width - halo.left - halo.right)
            clear(row, 0, halo.left)
            clear(row, width - halo.right, halo.right)
