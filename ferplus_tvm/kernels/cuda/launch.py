"""Instantiate a template of the .cuh files as a kernel that TVM's host code launches."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ferplus_tvm.kernels.cuda import matrices

_DEFINITION = re.compile(
    r"__global__ void __launch_bounds__\(\d+\) (\w+)\([^)]*\) \{(.*?)\n\}", re.S
)
_HEADERS = ("primitives", "numbers", "conv2d", "winograd", "dense", "max_pool")


@dataclass(frozen=True)
class Array:
    """An argument of a kernel."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Kernel:
    """One launch.

    name
        the symbol, which says what is computed.
    function
        the instantiated template, called with the arguments by every thread.
    arguments
        ``x``, which the kernel before has written, ``weight`` and ``bias``, as far as it takes
        them, and the output.
    numbers
        float32 constants that follow the arguments.
    shared
        bytes of shared memory, whose address comes last, or 0 for none.
    """

    name: str
    function: str
    blocks: int
    threads: int
    arguments: tuple[Array, ...]
    numbers: tuple[float, ...] = ()
    shared: int = 0

    @property
    def output(self) -> Array:
        """What it writes."""
        return self.arguments[-1]

    def define(self, x_shape: tuple[int, ...] | None = None) -> Any:
        """Return the PrimFunc; ``x_shape`` is another shape for the same x."""
        from tvm import tirx
        from tvm.script.ir_builder import IRBuilder
        from tvm.script.ir_builder import tirx as T

        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("main")
            T.func_attr({"tirx.noalias": True})
            buffers = []
            for array in self.arguments:
                shape = x_shape if x_shape and array.name == "x" else array.shape
                buffers.append(T.arg(array.name, T.buffer(shape, array.dtype)))
            with (
                T.launch_thread("blockIdx.x", self.blocks),
                T.launch_thread("threadIdx.x", self.threads),
            ):
                operands = [buffer.data for buffer in buffers]
                operands += [tirx.const(number, "float32") for number in self.numbers]
                if self.shared:
                    memory = T.alloc_buffer((self.shared // 4,), "uint32", scope="shared.dyn")
                    operands.append(memory.data)
                T.evaluate(tirx.call_extern("void", self.function, *operands))
        return builder.get()


def instance(template: str, struct: str, fields: dict[str, int | bool], *arguments: str) -> str:
    """Return a template with a struct of constants as its first argument."""
    listed = ", ".join(f".{name} = {str(value).lower()}" for name, value in fields.items())
    first = f"ferplus::{struct}{{{listed}}}"
    return f"ferplus::{template}<{', '.join((first, *arguments))}>"


@functools.cache
def header(name: str) -> str:
    """Return the text of a .cuh file."""
    return (resources.files(__package__) / f"{name}.cuh").read_text()


def source(generated: str) -> str:
    """Return the whole CUDA source of a module, from what TVM has generated for it.

    TVM's own preamble stays out: the kernels call nothing of it.
    """
    kernels = generated[generated.index('extern "C" __global__') :]
    for name, body in _DEFINITION.findall(kernels):
        if "ferplus::Multiply" in body:
            # Two blocks of 256 threads on a processor hide more latency than the registers that
            # a thread would take beyond 128 do.
            bounds = re.compile(rf"__launch_bounds__\((\d+)\) {name}\(")
            kernels = bounds.sub(
                lambda found: found[0].replace(")", f", {512 // int(found[1])})", 1), kernels
            )
    return "\n".join([header(_HEADERS[0]), matrices.source(), *map(header, _HEADERS[1:]), kernels])
