"""Emit Winograd's transforms of one tile of vectors: B^T d B and A^T M A.

Both rest on the points being zero, pairs p and -p, and infinity (see `winograd_matrices`): the rows
of B^T for p and -p differ in the sign of their odd half, and A^T's columns for them are equal or
opposite, so that two rows share their partial sums.

A tile of F(4, 3) has 36 values, more than there are registers.  Going in, rows of the first pass
that belong together are followed by the whole second pass for them, before the next ones are begun:
at most two rows of intermediate values are alive, and what is loaded again comes from L1.  Going
back, the first pass leaves m (m+2) values, which is 24 for F(4, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ferplus_tvm.kernels.cpu.tensorir import Expr, Vectors, value
from ferplus_tvm.kernels.winograd_matrices import Matrices

Read = Callable[[int, int], Expr]
Write = Callable[[int, int, Expr], None]


def transform_input(unit: Vectors, matrices: Matrices, read: Read, write: Write) -> None:
    """Emit B^T d B for d = ``read(row, column)``, both in 0..m+2, and hand each value on."""
    matrix = matrices.input
    for rows in _groups(matrices.side):
        columns = [
            _rows_of_input(unit, matrix, rows, [read(k, j) for k in range(matrices.side)])
            for j in range(matrices.side)
        ]
        for position, i in enumerate(rows):
            line = [column[position] for column in columns]
            for targets in _groups(matrices.side):
                for j, result in zip(
                    targets, _rows_of_input(unit, matrix, targets, line), strict=True
                ):
                    write(i, j, result)


def transform_output(unit: Vectors, matrices: Matrices, read: Read) -> list[list[Expr]]:
    """Emit A^T M A for M = ``read(row, column)``, both in 0..m+2; return the m x m outputs."""
    side = range(matrices.side)
    columns = [_output(unit, matrices, [value(read(k, j)) for k in side]) for j in side]
    return [
        _output(unit, matrices, [column[i] for column in columns]) for i in range(matrices.tile)
    ]


def _groups(side: int) -> list[tuple[int, ...]]:
    """Return the rows of the points 0, then p and -p together, then infinity."""
    return [(0,), *((k, k + 1) for k in range(1, side - 1, 2)), (side - 1,)]


def _rows_of_input(
    unit: Vectors, matrix: Sequence[Sequence[float]], rows: tuple[int, ...], line: list[Expr]
) -> list[Expr]:
    """Return rows of B^T times a line of values.  Small factors come last: fewer roundings."""

    def half(row: Sequence[float], parity: int) -> Expr:
        terms = [(row[k], line[k]) for k in range(len(line)) if k % 2 == parity]
        return value(unit.combine(terms[::-1]))

    first = matrix[rows[0]]
    if len(rows) == 1:
        return [value(unit.combine(list(zip(first, line, strict=True))[::-1]))]
    even, odd = half(first, 0), half(first, 1)
    return [value(even + odd), value(even - odd)]


def _output(unit: Vectors, matrices: Matrices, line: list[Expr]) -> list[Expr]:
    """Return A^T times a line of m + 2 values."""
    pairs = range(1, matrices.side - 1, 2)
    sums = {k: value(line[k] + line[k + 1]) for k in pairs}
    differences = {k: value(line[k] - line[k + 1]) for k in pairs}
    results = []
    for row in matrices.output:
        terms = [(row[0], line[0])]
        terms += [(row[k], (sums if row[k] == row[k + 1] else differences)[k]) for k in pairs]
        results.append(value(unit.combine([*terms, (row[-1], line[-1])])))
    return results
