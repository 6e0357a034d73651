"""The layout that kernels for all vector units share, and what of it is fetched ahead."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ferplus_tvm.kernels.cpu import packing
from ferplus_tvm.kernels.cpu.packing import Columns, group, grouped, grouped_shape
from ferplus_tvm.kernels.cpu.tensorir import CACHE_LINE, Vectors

TYPES = ("float32", "float16")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns", [1, 8, 16, 40, 64])
def test_a_row_of_a_group_fills_a_cache_line(dtype: str, columns: int) -> None:
    matrix = np.arange(1, 5 * columns + 1).reshape(5, columns)
    stored = grouped(matrix, dtype)
    assert stored.shape == grouped_shape(5, columns, dtype) and stored.dtype == dtype
    assert stored[0, 0].nbytes == CACHE_LINE
    whole = stored.transpose(1, 0, 2).reshape(5, -1)
    np.testing.assert_array_equal(whole[:, :columns], matrix)
    assert not whole[:, columns:].any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("lanes", "vectors"), [(4, 2), (4, 3), (4, 7), (8, 3), (8, 4), (16, 4)])
def test_a_register_tile_reads_its_columns_and_fetches_every_line_of_them(
    lanes: int, vectors: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, width, size = 50, lanes * vectors, group(dtype)
    numbers = np.arange(rows * 6 * width).reshape(rows, -1)
    stored = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % size)))
    flat = stored.reshape(rows, -1, size).transpose(1, 0, 2).ravel()
    monkeypatch.setattr(Vectors, "load", lambda self, _, at: flat[at : at + self.lanes])
    fetched: list[int] = []
    monkeypatch.setattr(packing, "prefetch", lambda _, at: fetched.append(at))
    for panel in range(6):
        matrix = SimpleNamespace(dtype=dtype)
        tile = Columns(Vectors(lanes), vectors, matrix, rows, 3, panel * width)
        read = np.concatenate([tile.load(vector, 2) for vector in range(vectors)])
        np.testing.assert_array_equal(read, numbers[5, panel * width : (panel + 1) * width])
        fetched.clear()
        tile.fetch(2, ahead=10 * max(size, width))  # which is ten rows of all its groups
        lines = {int(np.flatnonzero(flat == number)[0]) // size for number in read}
        assert {at // size for at in fetched} == {line + 10 for line in lines}
