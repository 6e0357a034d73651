"""How the kernels for CPUs have a matrix of weights: its columns in groups of a cache line.

(K, O) is stored as (ceil(O/group), K, group) with a group of 16 float32 or 32 float16 columns,
whatever vectors and register tiles a kernel has, so that kernels for several vector units read one
copy: a file for a fleet holds each layout once.  A register tile reads one group, a part of one, or
several side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.tensorir import CACHE_LINE, Expr, value


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


def starts(rows: int, first: Expr, lanes: int, vectors: int, dtype: str = "float32") -> list[Expr]:
    """Return where each of some adjacent vectors of columns begins, in the first row.

    The next row is a group further on.
    """
    size = group(dtype)
    columns = [value(first + vector * lanes) for vector in range(vectors)]
    return [value(at // size * (rows * size) + at % size) for at in columns]
