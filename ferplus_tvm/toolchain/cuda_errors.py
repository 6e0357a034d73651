"""What nvcc and NVRTC have in common: options, and what is said where they fail."""

from __future__ import annotations

from ferplus_tvm.errors import CudaCompilerError

STANDARD = "-std=c++20"
"""The kernels are templates whose arguments are structs of constants."""

INSTALL = (
    "install NVIDIA's CUDA toolkit, version 12 or later, and put nvcc on the PATH, or pip install "
    "'ferplus_tvm[cuda]'"
)


def failed(compiler: str, arch: str, output: str) -> CudaCompilerError:
    """Return the error of a compiler that failed, with the line of its output that says why."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = next((line for line in lines if "error" in line or "fatal" in line), "")
    reason = told or (lines[-1] if lines else "it said nothing")
    return CudaCompilerError(
        f"{compiler} did not compile the kernels for {arch} ({reason}): see that it is of CUDA 12 "
        "or later and knows the architecture"
    )
