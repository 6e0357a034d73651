"""Compiles and runs single kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray

from ferplus_tvm.host import cpu
from ferplus_tvm.kernels.cpu.tensorir import Halo, pass_context
from ferplus_tvm.targets import ResolvedTarget, VectorUnit
from tests.kernels import emulated

_GUARD = 256  # values on either side of every buffer

# Besides none and a plain ReLU.
ACTIVATIONS: tuple[dict[str, Any], ...] = (
    {"relu": True, "slope": 0.25},
    {"relu": True, "slope": 3.0},
    {"relu": False, "bounded": True},
)
UNITS = (VectorUnit(4, 16), VectorUnit(8, 16), VectorUnit(16, 32), VectorUnit(4, 32))


def compile_kernel(function: Any, target: ResolvedTarget) -> Any:
    """Compile a kernel; its entry is ``main``."""
    with pass_context():
        return tvm.compile(function, target=target.tvm_target())


def run_kernel(
    function: Any,
    target: ResolvedTarget,
    out_shape: tuple[int, ...],
    *arrays: NDArray[Any],
) -> NDArray[np.float32]:
    """Run a kernel over arrays of the types given; return its output.

    Every array lies at 64 bytes between guards of not-a-number, so that a read beyond it is seen
    in the result, and a write beyond the output in its guards.  What else the kernel writes is
    written into the arrays given, if it is not emulated.
    """
    library = compile_kernel(function, target)
    if target.arch != cpu.architecture():
        return emulated.run(library, target, *arrays, np.full(out_shape, np.nan, np.float32))
    out, guarded = _guarded(np.full(out_shape, np.nan, np.float32))
    inputs = [_guarded(array)[0] for array in arrays]
    library["main"](*[tvm_ffi.from_dlpack(array) for array in (*inputs, out)])
    for array, read in zip(arrays, inputs, strict=True):
        array[...] = read
    start = (out.ctypes.data - guarded.ctypes.data) // 4
    around = np.concatenate([guarded[:start], guarded[start + out.size :]])
    assert np.isnan(around).all(), "the kernel wrote beyond its output"
    return out


def with_halos(maps: NDArray[np.float32], halo: Halo) -> NDArray[np.float32]:
    """Return maps (N, H, W, C) in a halo of zeros."""
    ends = ((0, 0), (halo.top, halo.bottom), (halo.left, halo.right), (0, 0))
    return np.pad(maps, ends)


def inside(maps: NDArray[np.float32], halo: Halo) -> NDArray[np.float32]:
    """Return maps without their halo, which has to be zeros."""
    rows = slice(halo.top, maps.shape[1] - halo.bottom)
    columns = slice(halo.left, maps.shape[2] - halo.right)
    around = np.ones(maps.shape[1:3], bool)
    around[rows, columns] = False
    assert (maps[:, around] == 0).all(), "the halo is not all zeros"
    return maps[:, rows, columns]


def _guarded(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a copy at a multiple of 64 bytes, and the not-a-numbers that it lies in.

    Whole numbers lie in the largest of theirs.
    """
    kind = array.dtype
    guard = np.nan if kind.kind == "f" else np.iinfo(kind).max
    whole = np.full(array.size + 2 * _GUARD + 64, guard, kind)
    start = _GUARD + (-whole.ctypes.data % 64) // array.itemsize
    inner = whole[start : start + array.size].reshape(array.shape)
    inner[...] = array
    return inner, whole
