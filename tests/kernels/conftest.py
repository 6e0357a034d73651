"""Runs single kernels: compiled for every target that this machine can run."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from numpy.typing import NDArray

from ferplus_tvm import targets
from ferplus_tvm.targets import ResolvedTarget

_GUARD = 256  # floats on either side of every buffer

Runner = Callable[..., NDArray[np.float32]]


@pytest.fixture(
    params=["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"], scope="session"
)
def target(request: pytest.FixtureRequest) -> ResolvedTarget:
    resolved = targets.resolve(request.param)
    if not resolved.runs_here:
        pytest.skip(f"this CPU cannot run code for {request.param}")
    return resolved


@pytest.fixture(scope="session")
def lower() -> Callable[..., Any]:
    """Return ``lower(kernel, workload, target, config=None)``: a compiled kernel, ``main``."""

    def lower(kernel: ModuleType, workload: Any, target: ResolvedTarget, config: Any = None) -> Any:
        config = config or kernel.Config.preset(workload, target.vector_unit)
        sch = tvm.s_tir.Schedule(kernel.define(workload, config))
        kernel.schedule(sch, workload, config)
        return tvm.compile(sch.mod, target=target.tvm_target())

    return lower


@pytest.fixture(scope="session")
def run(lower: Callable[..., Any]) -> Runner:
    """Return ``run(kernel, workload, target, out_shape, *arrays, config=None)``.

    Every array lies at 64 bytes between guards of not-a-number, so that a read beyond it is seen
    in the result, and a write beyond the output in its guards.
    """

    def run(
        kernel: ModuleType,
        workload: Any,
        target: ResolvedTarget,
        out_shape: tuple[int, ...],
        *arrays: NDArray[np.float32],
        config: Any = None,
    ) -> NDArray[np.float32]:
        library = lower(kernel, workload, target, config)
        out, guarded = _guarded(np.full(out_shape, np.nan, np.float32))
        inputs = [_guarded(np.asarray(array, np.float32))[0] for array in arrays]
        library["main"](*[tvm_ffi.from_dlpack(array) for array in (*inputs, out)])
        start = (out.ctypes.data - guarded.ctypes.data) // 4
        around = np.concatenate([guarded[:start], guarded[start + out.size :]])
        assert np.isnan(around).all(), "the kernel wrote beyond its output"
        return out

    return run


def _guarded(array: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a copy at a multiple of 64 bytes, and the not-a-numbers that it lies in."""
    whole = np.full(array.size + 2 * _GUARD + 16, np.nan, np.float32)
    start = _GUARD + (-whole.ctypes.data // 4) % 16
    inner = whole[start : start + array.size].reshape(array.shape)
    inner[...] = array
    return inner, whole
