"""Instantiate a template of the .cuh files as a kernel that TVM's host code launches."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ferplus_tvm.kernels.backend import KernelCall, TensorSpec
from ferplus_tvm.kernels.cuda import matrices

_HEADERS = ("primitives", "numbers", "conv2d", "winograd", "dense", "pool")


@dataclass(frozen=True)
class Launch:
    """A kernel launch.

    Attributes
    ----------
    symbol
        The name of the function, which says what is computed.
    function
        The instantiated template, called with the arguments by every thread.
    blocks, threads
        The grid's blocks and a block's threads, both along x.
    inputs
        ``x``, which the kernel before has written, then ``weight`` and ``bias`` as far as it takes
        them.
    output
        What it writes.
    constants
        float32 numbers that follow the arguments.
    shared
        Bytes of dynamic shared memory, whose address comes last, or 0 for none.
    min_blocks_per_sm
        The blocks that an SM has to hold, by its registers, or 0 for any number.
    """

    symbol: str
    function: str
    blocks: int
    threads: int
    inputs: Mapping[str, TensorSpec]
    output: TensorSpec
    constants: tuple[float, ...] = ()
    shared: int = 0
    min_blocks_per_sm: int = 0

    def call(self, last: bool = False) -> KernelCall:
        """Return the call in a network; the ``last`` layer's function has a name of its own."""
        operands = tuple(name for name in self.inputs if name in ("weight", "bias"))
        symbol = f"{self.symbol}_last" if last else self.symbol
        return KernelCall(symbol, operands, self.output, self.define)

    def define(self, x_shape: Sequence[int] | None = None) -> Any:
        """Return the PrimFunc; ``x_shape`` is another shape for the same x."""
        from tvm import tirx
        from tvm.script.ir_builder import IRBuilder
        from tvm.script.ir_builder import tirx as T

        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("main")
            T.func_attr({"tirx.noalias": True})
            buffers = []
            for name, each in (*self.inputs.items(), ("y", self.output)):
                shape = x_shape if x_shape and name == "x" else each.shape
                buffers.append(T.arg(name, T.buffer(tuple(shape), each.dtype)))
            with ExitStack() as context:
                context.enter_context(T.launch_thread("blockIdx.x", self.blocks))
                context.enter_context(T.launch_thread("threadIdx.x", self.threads))
                operands = [buffer.data for buffer in buffers]
                operands += [tirx.const(number, "float32") for number in self.constants]
                if self.shared:
                    memory = T.alloc_buffer((self.shared // 4,), "uint32", scope="shared.dyn")
                    operands.append(memory.data)
                if self.min_blocks_per_sm:
                    bound = tirx.const(self.min_blocks_per_sm, "int32")
                    context.enter_context(
                        T.attr(bound, "tirx.launch_bounds_min_blocks_per_sm", bound)
                    )
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
    return "\n".join([header(_HEADERS[0]), matrices.source(), *map(header, _HEADERS[1:]), kernels])
