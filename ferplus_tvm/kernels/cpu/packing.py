"""How dense and Winograd kernels for CPUs have a matrix of weights: columns in groups of a line.

(K, O) is stored as (ceil(O/group), K, group) with a group of 16 float32 or 32 float16 columns,
which fill a cache line, whatever vectors and register tiles a kernel has, so that kernels for
several vector units read one copy.  A register tile reads one group, a part of one, or several side
by side.  (Direct convolutions, whose weights are few, keep a layout for each width of tile.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cpu.tensorir import CACHE_LINE, Expr, Vectors, prefetch, value


def group(dtype: str) -> int:
    """Return how many columns lie together: those of a cache line."""
    return CACHE_LINE // np.dtype(dtype).itemsize


def grouped(matrix: NDArray[Any], dtype: str = "float32") -> NDArray[Any]:
    """Lay (K,O) out as (ceil(O/group), K, group), filled up with zeros."""
    rows, columns = matrix.shape
    size = group(dtype)
    whole = np.pad(matrix, ((0, 0), (0, -columns % size)))
    return np.ascontiguousarray(whole.reshape(rows, -1, size).transpose(1, 0, 2), dtype=dtype)


def grouped_shape(rows: int, columns: int, dtype: str = "float32") -> tuple[int, int, int]:
    """Return the shape of the layout of (K, O)."""
    size = group(dtype)
    return (-(-columns // size), rows, size)


class Columns:
    """Adjacent vectors of columns of a grouped matrix, from a row on.

    A register tile that starts or ends within a group shares its lines with the next one.
    """

    def __init__(
        self, unit: Vectors, vectors: int, matrix: Any, rows: int, row: Expr, column: Expr
    ) -> None:
        """Compute where each vector begins in the flat ``matrix``, which has ``rows``."""
        self._unit = unit
        self._matrix = matrix
        self._group = size = group(str(matrix.dtype))
        self._width = vectors * unit.lanes
        columns = [value(column + vector * unit.lanes) for vector in range(vectors)]
        self._starts = [
            value(at // size * (rows * size) + row * size + at % size) for at in columns
        ]

    def load(self, vector: int, row: Expr) -> Expr:
        """Return a vector of the row that is so many further on, as float32."""
        return self._unit.load(self._matrix, self._starts[vector] + row * self._group)

    def fetch(self, row: Expr, ahead: int) -> None:
        """Have what is ``ahead`` values further on fetched into the caches, over all groups."""
        size = self._group
        distance = ahead // max(size, self._width) * size
        last = len(self._starts) - 1
        first_of_lines = set(range(0, last + 1, max(1, size // self._unit.lanes)))
        if self._width % size and size % self._width:  # it may end in one group more
            first_of_lines.add(last)
        for vector in sorted(first_of_lines):
            prefetch(self._matrix, self._starts[vector] + row * size + distance)
