"""Lower a network of separable convolutions: a Relax function that calls their own kernels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ferplus_tvm.importer.general_relax import GeneralFunction
from ferplus_tvm.importer.relax import BLOCK_BUILDER_LOCK
from ferplus_tvm.kernels.cpu.separable import output_shapes, pack
from ferplus_tvm.kernels.cpu.separable_kernel import define
from ferplus_tvm.lowering.separable_match import Block, SeparableNetwork
from ferplus_tvm.targets import ResolvedTarget

Chain = list[Block]
"""Blocks of which each reads what the one before it writes, and nothing else."""

_LARGE = 1 << 20
"""Bytes of a map that costs more to write and read than the rows that a chain computes twice."""


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
    builder = relax.BlockBuilder()
    weights = {
        block.name: pack(block.workload, block.weights)
        for block in (*network.blocks, *network.heads)
    }
    parameters = {
        block: relax.Var(f"{block}.weights", relax.TensorType(array.shape, "float32"))
        for block, array in weights.items()
    }
    x = relax.Var("x", relax.TensorType(network.input_shape, "uint8"))
    values: dict[str, Any] = {network.input: x}
    *calls, heads = _calls(network)

    def call(chains: Sequence[Chain], number: int) -> Any:
        workloads = [[block.workload for block in chain] for chain in chains]
        symbol = f"{name}_separable{number}"
        kernel = define(workloads, unit).with_attr("global_symbol", symbol)
        operands = []
        for chain in chains:
            operands += [values[value] for value in chain[0].inputs]
            operands += [parameters[block.name] for block in chain]
        written = [relax.TensorType(shape, "float32") for shape in output_shapes(workloads)]
        function = builder.add_func(kernel, symbol)
        return relax.call_tir(function, operands, written if len(written) > 1 else written[0])

    with BLOCK_BUILDER_LOCK, builder.function(name, [x, *parameters.values()]):
        with builder.dataflow():
            for number, chains in enumerate(calls):
                made = builder.emit(call(chains, number))
                outputs = chains[-1][-1].outputs
                for at, output in enumerate(outputs):
                    values[output] = builder.emit(made[at]) if len(outputs) > 1 else made
            result = builder.emit_output(call(heads, len(calls)))
        builder.emit_func_output(result)
    return GeneralFunction(builder.get(), weights)


def _calls(network: SeparableNetwork) -> list[list[Chain]]:
    """Return the chains of each kernel call; the heads, and what only they read, are the last."""
    everything = (*network.blocks, *network.heads)
    read = Counter(value for block in everything for value in block.inputs)
    chains: dict[str, Chain] = {}  # by what they write
    for block in everything:
        before = chains.get(block.inputs[0])
        if before is not None and _passes(before, block, read):
            del chains[block.inputs[0]]
            chains[block.outputs[0]] = [*before, block]
        else:
            chains[block.outputs[0]] = [block]
    heads = [chains.pop(head.outputs[0]) for head in network.heads]
    return [*([chain] for chain in chains.values()), heads]


def _passes(chain: Chain, block: Block, read: Mapping[str, int]) -> bool:
    """Whether a block is better computed with the chain before it than from a map in memory."""
    last = chain[-1]
    return (
        block.workload.source == "map"
        and read[block.inputs[0]] == 1
        # The rows of a border are twice as many before a pooling.
        and not last.workload.pool
        and 4 * math.prod(last.workload.outputs[0]) >= _LARGE
    )
