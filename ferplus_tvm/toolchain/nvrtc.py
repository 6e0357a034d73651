"""NVRTC, the compiler that the extra ``cuda`` installs from PyPI."""

from __future__ import annotations

import importlib.util
from typing import Any

from ferplus_tvm.errors import CudaCompilerError, last_line
from ferplus_tvm.toolchain.cuda_errors import INSTALL, STANDARD, failed


def is_installed() -> bool:
    """Whether the Python packages of the extra ``cuda`` are there."""
    try:
        return importlib.util.find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        return False


def compile(source: str, arch: str) -> bytes:
    """Return the cubin of a CUDA source for an architecture.

    Raises
    ------
    CudaCompilerError
        If NVRTC or its headers cannot be loaded, or it refuses the source.
    """
    nvrtc, include = _loaded()
    options = [STANDARD, f"--gpu-architecture={arch}", f"--include-path={include}"]

    def expect(answer: tuple[Any, ...]) -> Any:
        if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise failed("NVRTC", arch, answer[0].name)
        return answer[1] if len(answer) > 1 else None

    program = expect(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    try:
        compiled = nvrtc.nvrtcCompileProgram(
            program, len(options), [option.encode() for option in options]
        )
        if compiled[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(expect(nvrtc.nvrtcGetProgramLogSize(program)))
            expect(nvrtc.nvrtcGetProgramLog(program, log))
            raise failed("NVRTC", arch, log.decode(errors="replace").rstrip("\0"))
        code = bytearray(expect(nvrtc.nvrtcGetCUBINSize(program)))
        expect(nvrtc.nvrtcGetCUBIN(program, code))
        return bytes(code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _loaded() -> tuple[Any, str]:
    """Return the module ``nvrtc``, its library loaded, and the folder of CUDA's headers."""
    try:
        from cuda.bindings import nvrtc
        from cuda.pathfinder import find_nvidia_header_directory

        include = find_nvidia_header_directory("cudart")
        nvrtc.nvrtcVersion()  # which loads the library
    except (ImportError, OSError, RuntimeError) as error:
        raise CudaCompilerError(f"NVRTC cannot be used ({last_line(error)}): {INSTALL}") from error
    if include is None:
        raise CudaCompilerError(f"NVRTC's headers (cuda_fp16.h) were not found: {INSTALL}")
    return nvrtc, str(include)
