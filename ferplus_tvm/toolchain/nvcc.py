"""nvcc, the compiler of NVIDIA's CUDA toolkit."""

from __future__ import annotations

import os
import shutil
import subprocess

from ferplus_tvm.errors import CudaCompilerError
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.toolchain.cuda_errors import STANDARD, failed

_TIMEOUT = 600  # seconds; the kernels of one library take some ten


def find() -> str | None:
    """Return the path of nvcc: in the folder that CUDA_HOME or CUDA_PATH names, or on the PATH."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        folder = os.environ.get(variable)
        found = shutil.which("nvcc", path=os.path.join(folder, "bin")) if folder else None
        if found:
            return found
    return shutil.which("nvcc")


def compile(path: str, source: str, arch: str) -> bytes:
    """Return the cubin of a CUDA source for an architecture, by the nvcc at ``path``.

    Raises
    ------
    CudaCompilerError
        If nvcc cannot be run, takes too long, or refuses the source.
    """
    with temporary_folder() as folder:
        kernels, output = folder / "kernels.cu", folder / "kernels.cubin"
        kernels.write_text(source)
        options = [STANDARD, "-O3", f"-arch={arch}", "--cubin"]
        command = [path, *options, "-o", str(output), str(kernels)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CudaCompilerError(
                f"{path} did not compile the kernels ({error}): see that it runs in a terminal"
            ) from error
        if done.returncode != 0:
            raise failed(path, arch, done.stderr or done.stdout)
        return output.read_bytes()
