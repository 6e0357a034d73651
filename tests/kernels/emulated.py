"""Runs single kernels of another architecture: cross-compiled, linked with a small program, under
qemu's emulation of user programs."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.targets import ResolvedTarget

MAIN = Path(__file__).with_name("emulated_main.c")


def compiler(arch: str) -> str | None:
    """Return the cross compiler for Linux on an architecture."""
    return shutil.which(f"{arch}-linux-gnu-gcc")


def emulator(arch: str) -> str | None:
    """Return qemu's emulator of an architecture's programs."""
    return shutil.which(f"qemu-{arch}-static") or shutil.which(f"qemu-{arch}")


def reason_not_to(arch: str) -> str | None:
    """Return what is missing to run kernels of an architecture, or None."""
    if compiler(arch) is None:
        return f"needs {arch}-linux-gnu-gcc (Debian: gcc-{arch.replace('_', '-')}-linux-gnu)"
    if emulator(arch) is None:
        return f"needs qemu-{arch} (Debian: qemu-user-static)"
    return None


def run(library: Any, target: ResolvedTarget, *arrays: NDArray[Any]) -> NDArray[np.float32]:
    """Run a compiled kernel over arrays, the output last; return the output."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("kernel.o", "kernel", "arrays", "output")]
        kernel, program, given, output = map(str, paths)
        library.mod.write_to_file(kernel, "o")
        link = [str(compiler(target.arch)), "-O1", "-static", str(MAIN), kernel, "-o", program]
        subprocess.run(link, check=True, timeout=60)
        with open(given, "wb") as file:
            for array in arrays:
                extents = struct.pack(f"{array.ndim}q", *array.shape)
                file.write(struct.pack("2i", 8 * array.itemsize, array.ndim) + extents)
                file.write(np.ascontiguousarray(array).tobytes())
        done = subprocess.run(
            [str(emulator(target.arch)), "-cpu", "max", program, given, output],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return np.fromfile(output, np.float32).reshape(arrays[-1].shape)
