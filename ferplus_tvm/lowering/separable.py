"""Lower a network of separable convolutions: a Relax function that calls their own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.general_relax import GeneralFunction
from ferplus_tvm.importer.relax import BLOCK_BUILDER_LOCK
from ferplus_tvm.kernels.cpu.separable import define, output_shapes, pack
from ferplus_tvm.lowering.separable_match import Block, SeparableNetwork
from ferplus_tvm.targets import ResolvedTarget, VectorUnit


def lower_separable(
    network: SeparableNetwork, name: str, target: ResolvedTarget
) -> GeneralFunction:
    """Return a module with the Relax function ``name(x, weights...)`` and its kernels.

    Parameters
    ----------
    network
        What the function computes.
    name
        Its name, which those of the kernels begin with.
    target
        The CPU to compile for.
    """
    from tvm import relax

    unit = target.vector_unit
    everything = (*network.blocks, *network.heads)
    builder = relax.BlockBuilder()
    weights: dict[str, NDArray[np.float32]] = {}
    names = {block.name: _lay_out(block, unit, weights) for block in everything}
    parameters = {
        name: relax.Var(name, relax.TensorType(array.shape, "float32"))
        for name, array in weights.items()
    }
    x = relax.Var("x", relax.TensorType(network.input_shape, "uint8"))
    values: dict[str, Any] = {network.input: x}

    def call(blocks: tuple[Block, ...], number: int) -> Any:
        workloads = [block.workload for block in blocks]
        kernel = define(workloads, unit)
        symbol = f"{name}_separable{number}"
        operands = [
            operand
            for block in blocks
            for operand in (
                *(values[value] for value in block.inputs),
                *(parameters[weight] for weight in names[block.name]),
            )
        ]
        function = builder.add_func(kernel.with_attr("global_symbol", symbol), symbol)
        kinds = [relax.TensorType(shape, "float32") for shape in output_shapes(workloads)]
        return relax.call_tir(function, operands, kinds if len(kinds) > 1 else kinds[0])

    with BLOCK_BUILDER_LOCK, builder.function(name, [x, *parameters.values()]):
        with builder.dataflow():
            for number, block in enumerate(network.blocks):
                made = builder.emit(call((block,), number))
                several = len(block.outputs) > 1
                for at, output in enumerate(block.outputs):
                    values[output] = builder.emit(made[at]) if several else made
            result = builder.emit_output(call(network.heads, len(network.blocks)))
        builder.emit_func_output(result)
    return GeneralFunction(builder.get(), weights)


def _lay_out(
    block: Block, unit: VectorUnit, weights: dict[str, NDArray[np.float32]]
) -> tuple[str, ...]:
    """Add a block's weights; return their names, which say their layout, in the kernel's order."""
    panel = block.workload.panel(unit)
    packed = pack(block.workload, unit, block.weights)
    names = {
        kind: f"{block.name}.{kind}.{panel}" if kind == "pointwise" else f"{block.name}.{kind}"
        for kind in packed
    }
    weights.update({names[kind]: array for kind, array in packed.items()})
    return tuple(names.values())
