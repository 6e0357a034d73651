"""CUDA kernels on a machine without a GPU: compile their source as C++, and call them.

See emulation.h for what that shows and what it does not.  Run as a program, this is nvcc: what it
writes in place of machine code names the library of emulated kernels, which driver.cpp loads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.cuda.launch import Launch, header, source

HERE = Path(__file__).parent
COMPILER = next((path for path in map(shutil.which, ("g++", "clang++", "c++")) if path), None)

_SIGNATURE = re.compile(
    r'extern "C" __global__ void __launch_bounds__\([\d, ]+\) (\w+)\(([^)]*)\);'
)


def compile_library(text: str, library: Path, *options: str) -> Path:
    """Compile C++ into a shared library."""
    assert COMPILER is not None
    file = library.with_suffix(".cpp")
    file.write_text(text)
    command = [COMPILER, "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-I", str(HERE)]
    done = subprocess.run(
        [*command, *options, str(file), "-o", str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:4000]
    return library


def emulate(text: str, library: Path) -> Path:
    """Compile CUDA source; each kernel is called by ``emulated_<name>``."""
    assert header("primitives") in text
    text = text.replace(header("primitives"), '#include "emulation.h"\n')
    text = text.replace("extern __shared__ __align__(64) uint", "alignas(64) static unsigned")
    text = re.sub(r"(static unsigned \w+)\[\];", r"\1[24576];", text)  # 96 KB
    callers = []
    for name, parameters in _SIGNATURE.findall(text):
        types = [parameter.rsplit(" ", 1)[0] for parameter in parameters.split(", ")]
        listed = ", ".join(f"*({kind}*)arguments[{at}]" for at, kind in enumerate(types))
        callers.append(
            f'extern "C" int arguments_of_{name} = {len(types)};\n'
            f'extern "C" void emulated_{name}(unsigned blocks, unsigned threads, '
            f"void** arguments) {{\n"
            f"  emulation::launch(blocks, threads, [=] {{ {name}({listed}); }});\n}}\n"
        )
    assert callers
    return compile_library(text + "\n".join(callers), library)


class Program:
    """Kernels that are compiled together: a compiler spends most of its time on the headers."""

    def __init__(self, launches: Iterable[Sequence[Launch]]) -> None:
        self._launches: list[Launch] = []
        for launch in itertools.chain.from_iterable(launches):
            if launch not in self._launches:
                self._launches.append(launch)

    @functools.cached_property
    def text(self) -> str:
        """The CUDA source."""
        return source(_generated(self._launches))

    @property
    def name(self) -> str:
        """A name that no program with another source has."""
        return f"kernels-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    def build(self, folder: Path) -> Path:
        """Compile them into a library in a folder."""
        return emulate(self.text, folder / "kernels.so")

    def run(self, library: Path, kernels: Sequence[Launch], **arrays: NDArray[Any]) -> NDArray[Any]:
        """Run launches one after the other on ``x``, ``weight``, ``bias``; return the last output.

        ``library`` is what was built.
        """
        opened, x = ctypes.CDLL(str(library)), arrays["x"]
        for kernel in kernels:
            given = [x if name == "x" else arrays[name] for name in kernel.inputs]
            x = _launch(opened, self._launches.index(kernel), kernel, given)
        return x


def run(kernels: Sequence[Launch], folder: Path, **arrays: NDArray[Any]) -> NDArray[Any]:
    """Compile launches by themselves, and run them as `Program.run` does."""
    program = Program([kernels])
    return program.run(program.build(folder), kernels, **arrays)


def _launch(
    library: ctypes.CDLL, number: int, kernel: Launch, given: Sequence[NDArray[Any]]
) -> NDArray[Any]:
    """Run a kernel on all arguments but the output, and return that."""
    output = kernel.output
    size = int(np.prod(output.shape)) * np.dtype(output.dtype).itemsize
    memory = np.full(size + 64, 0xFF, np.uint8)  # NaN, whatever the type
    start = -memory.ctypes.data % 64
    y = memory[start : start + size].view(output.dtype).reshape(output.shape)
    aligned = [_aligned(array) for array in given]
    for array, wanted in zip(aligned, kernel.inputs.values(), strict=True):
        assert (array.size, str(array.dtype)) == (int(np.prod(wanted.shape)), wanted.dtype)
    pointers: list[Any] = [ctypes.c_void_p(array.ctypes.data) for array in (*aligned, y)]
    arguments = (ctypes.c_void_p * len(pointers))(
        *(ctypes.addressof(pointer) for pointer in pointers)
    )
    getattr(library, f"emulated_kernel{number}")(kernel.blocks, kernel.threads, arguments)
    return y


def _generated(kernels: Sequence[Launch]) -> str:
    """Return kernels as TVM generates them, with their arguments in order."""
    declared, defined = [], []
    for at, kernel in enumerate(kernels):
        types = {"float32": "float* __restrict__", "float16": "half* __restrict__"}
        arguments = {**kernel.inputs, "y": kernel.output}
        parameters = ", ".join(f"{types[a.dtype]} {name}_ptr" for name, a in arguments.items())
        head = (
            f'extern "C" __global__ void __launch_bounds__({kernel.threads}) '
            f"kernel{at}({parameters})"
        )
        operands = [f"{name}_ptr" for name in arguments]
        operands += [f"{number!r}f" for number in kernel.constants]
        shared = ""
        if kernel.shared:
            shared = "extern __shared__ __align__(64) uint _ptr[];\n"
            operands.append("_ptr")
        declared.append(f"{head};")
        defined.append(f"{head} {{\n{shared}  {kernel.function}({', '.join(operands)});\n}}")
    return "\n".join([*declared, *defined])


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    result = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def nvcc(arguments: Sequence[str]) -> None:
    """Do what ``nvcc ... -o OUTPUT SOURCE`` does, for an emulated GPU."""
    output, text = Path(arguments[arguments.index("-o") + 1]), Path(arguments[-1]).read_text()
    folder = Path(os.environ["CUDA_HOME"])
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    library = folder / f"{name}.so"
    if not library.exists():
        unfinished = emulate(text, folder / f"{name}-{os.getpid()}.so")
        unfinished.rename(library)
    # As much of an ELF file for NVIDIA's architecture as driver.cpp looks at.
    elf = struct.pack("<4sBBBB8xHH44x", b"\x7fELF", 2, 1, 1, 51, 2, 190)
    output.write_bytes(elf + bytes(library) + b"\0")


if __name__ == "__main__":
    nvcc(sys.argv[1:])
