"""The CUDA compiler of this machine: nvcc, or NVRTC of the extra ``cuda``.

TVM keeps a GPU's kernels as source where there is no GPU, and asks for a compiler where the library
is loaded.  Here the compiler runs while the library is compiled, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable

from ferplus_tvm.errors import CudaCompilerError
from ferplus_tvm.toolchain import nvcc, nvrtc
from ferplus_tvm.toolchain.cuda_errors import INSTALL
from ferplus_tvm.toolchain.environment import SharedVariable

_source_only = SharedVariable("TVM_COMPILE_FORCE_FALLBACK", "1")


def kernels_as_source() -> SharedVariable:
    """Return a context in which TVM keeps a GPU's kernels as source where there is a GPU, too.

    TVM would compile them itself there, by a package that may not be installed.  Threads may be in
    the context at the same time.
    """
    return _source_only


def missing_compiler() -> str | None:
    """Return what to install in order to compile for GPUs, or None if it is there."""
    if nvcc.find() or nvrtc.is_installed():
        return None
    return "nvcc, or pip install 'ferplus_tvm[cuda]'"


def require_compiler() -> Callable[[str, str], bytes]:
    """Return the compiler from CUDA source and an architecture to a cubin.

    It is nvcc where that is found, or otherwise NVRTC.

    Raises
    ------
    CudaCompilerError
        If there is neither.
    """
    path = nvcc.find()
    if path is not None:
        return lambda source, arch: nvcc.compile(path, source, arch)
    if nvrtc.is_installed():
        return nvrtc.compile
    raise CudaCompilerError(f"no CUDA compiler was found for a GPU target: {INSTALL}")
