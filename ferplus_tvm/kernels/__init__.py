"""The kernels: `workloads` says what is computed, and a folder for each kind of device how.

`backend` has the protocol between them.  Activations are channels last (N, H, W, C), with the
channels padded by zeros to a multiple of what the device wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferplus_tvm.kernels.backend import Backend
    from ferplus_tvm.targets import ResolvedTarget


def backend_of(target: ResolvedTarget) -> Backend:
    """Return the kernels for a target."""
    if target.gpu is not None:
        from ferplus_tvm.kernels.cuda.backend import CudaBackend

        return CudaBackend(target.gpu, target.precision)
    from ferplus_tvm.kernels.cpu.backend import CpuBackend

    return CpuBackend(target.vector_unit)
