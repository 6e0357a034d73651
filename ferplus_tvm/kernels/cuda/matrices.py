"""Winograd's matrices as CUDA C++: what winograd.cuh calls ``Matrices``."""

from __future__ import annotations

from ferplus_tvm.kernels.winograd_matrices import MATRICES, Matrix


def source() -> str:
    """Return ``Matrices<m>::input(i, k)``, which is B^T, and ``output(i, k)``, A^T."""
    structs = "\n".join(
        f"template <>\nstruct Matrices<{tile}> {{\n"
        f"{_entry('input', each.input)}{_entry('output', each.output)}}};"
        for tile, each in MATRICES.items()
    )
    return f"namespace ferplus {{\ntemplate <int Tile>\nstruct Matrices;\n{structs}\n}}\n"


def _entry(name: str, matrix: Matrix) -> str:
    rows = ", ".join("{" + ", ".join(f"{value!r}f" for value in row) + "}" for row in matrix)
    return (
        f"  static __device__ __forceinline__ constexpr float {name}(int row, int column) {{\n"
        f"    constexpr float values[{len(matrix)}][{len(matrix[0])}] = {{{rows}}};\n"
        f"    return values[row][column];\n  }}\n"
    )
