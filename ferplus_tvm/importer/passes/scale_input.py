"""Rule: write the affine scaling of the input as (x - a) * b.

1. A chain of Add, Sub, Mul and Div of the input with single numbers becomes one Sub and one Mul;
   a and b are composed in float64 and rounded once.  Where the chain is already Sub then Mul or
   Div, a stays exactly as it is.
2. The numbers become scalars, whatever their shape was ([1], [1, 1, 1, 1]).
3. A Sub of 0 or a Mul by 1 is not written.
4. A number divided by the input, a constant of more than one number (a mean image), a factor
   of 0, and an input that is read twice are left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Graph, Node, float32

_BINARY = ("Add", "Sub", "Mul", "Div")
_MAX_RANK = 4  # a constant of higher rank would give the input more dimensions


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    chain, offset, factor = _collect(graph)
    low, scale = float32(offset), float32(factor)
    if not chain or not (np.isfinite(low).all() and np.isfinite(scale).all() and scale.all()):
        return False
    wanted = [("Sub", low)] * bool(low.any()) + [("Mul", scale)] * bool((scale != 1).any())
    if _written(graph, chain) == [(op, value.shape, value.tolist()) for op, value in wanted]:
        return False
    first = graph.nodes.index(chain[0])
    names = {node.op: node.name for node in chain}
    new: list[Node] = []
    value = graph.input
    for op, constant in wanted:
        # Div becomes Mul and Add becomes Sub: such a node keeps its name too.
        name = names.get(op) or names.get({"Mul": "Div", "Sub": "Add"}[op])
        last = op == wanted[-1][0]
        between = chain[0].outputs[0] if len(chain) > 1 else f"{chain[0].outputs[0]}_shifted"
        output = chain[-1].outputs[0] if last else between
        stored = graph.add_constant(f"{output}_{'offset' if op == 'Sub' else 'factor'}", constant)
        name = name or graph.free_node_name(f"{op}_{graph.input}")
        new.append(Node(op, name, [value, stored], [output]))
        value = output
    end = chain[-1]
    if not wanted:
        end.inputs[0] = graph.input
        graph.remove(end)
        chain = chain[:-1]
    graph.nodes = [node for node in graph.nodes if node not in chain]
    graph.nodes[first:first] = new
    return True


def _collect(graph: Graph) -> tuple[list[Node], NDArray[Any], NDArray[Any]]:
    """Return the chain of nodes at the input and its (x - offset) * factor in float64."""
    chain: list[Node] = []
    offset, factor = np.zeros(()), np.ones(())
    node = graph.only_consumer(graph.input)
    while node is not None and node.op in _BINARY:
        parts = graph.split(node)
        number = _per_channel(parts[1], graph.input_shape[0]) if parts is not None else None
        if parts is None or number is None:
            break
        number_first = parts[2]
        if node.op in ("Mul", "Div") and (not number.all() or (node.op == "Div" and number_first)):
            break
        if node.op == "Mul":
            factor = factor * number
        elif node.op == "Div":
            factor = factor / number
        elif node.op == "Add":
            offset = offset - number / factor
        else:
            offset = offset + number / factor
            if number_first:
                factor = -factor
        chain.append(node)
        node = graph.only_consumer(node.outputs[0])
    return chain, offset, factor


def _per_channel(array: NDArray[Any], channels: int) -> NDArray[Any] | None:
    """Return a constant in float64 with the shape () or (C, 1, 1), None if it has another."""
    if array.dtype != np.float32 or array.ndim > _MAX_RANK:
        return None
    if array.size == 1:
        return array.astype(np.float64).reshape(())
    wanted = (channels, 1, 1)
    return array.astype(np.float64).reshape(wanted) if array.shape[-3:] == wanted else None


def _written(graph: Graph, chain: list[Node]) -> list[tuple[str, tuple[int, ...], Any]] | None:
    """Return the chain as operators and numbers, None if it is not in the form of this rule."""
    steps = []
    for node in chain:
        constant = graph.constants.get(node.inputs[1])
        if constant is None or constant.ndim not in (0, 3) or constant.dtype != np.float32:
            return None
        steps.append((node.op, constant.shape, constant.tolist()))
    return steps
