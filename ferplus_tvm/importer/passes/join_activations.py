"""Rule: an activation that is written as branches of one value becomes one operator.

Everything between the value x and the place where the branches meet is a multiple of x where x
is positive, and another multiple of it elsewhere: Relu, Neg, Abs, products with stored numbers,
sums, maxima, and choices by the sign of x.  So is the result:

1. Multiples 1 and 0 become Relu; 1 and any other number PRelu, with that number as its slope.
2. A positive multiple p of the positive side becomes PRelu and a Mul by p.
3. What is no such function, or read from outside, is left alone.

Keras and TensorFlow write PReLU as relu(x) - a * relu(-x), others LeakyReLU as max(x, a * x) and
ReLU as where(x > 0, x, 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Graph, Node, float32

# (multiple where x > 0, multiple where x < 0)
Sides = tuple[NDArray[Any], NDArray[Any]]
# Nodes are sorted by depth, so the branches of an activation stand together.
_MOST_NODES = 32
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    return any([_join(graph, name) for name in list(_branching(graph))])


def _branching(graph: Graph) -> Iterator[str]:
    """Yield the values that are read more than once."""
    reads = Counter(name for node in graph.nodes if node.op != "Shape" for name in node.inputs)
    for name in [graph.input, *(name for node in graph.nodes for name in node.outputs)]:
        if reads[name] > 1:
            yield name


def _join(graph: Graph, start: str) -> bool:
    """Write the branches of one value as one operator; return whether they are one."""
    sides: dict[str, Sides] = {start: (np.ones(()), np.ones(()))}
    # Values that are 1 or 0 by the sign of x, as comparisons and casts of them are.
    masks: dict[str, Sides] = {}
    inside: list[Node] = []
    readers = graph.consumers(start)
    if not readers:  # it was inside of what is one operator now
        return False
    first = graph.nodes.index(readers[0])
    for node in graph.nodes[first : first + _MOST_NODES]:
        result = _multiples(graph, node, sides)
        mask = _mask(graph, node, start, masks)
        if mask is None and result is None:
            result = _chosen(graph, node, sides, masks)
        if mask is not None:
            masks[node.outputs[0]] = mask
        elif result is not None:
            sides[node.outputs[0]] = result
        else:
            continue
        inside.append(node)
        output = node.outputs[0]
        if output in sides and len(inside) > 1 and _closed(graph, start, inside):
            return _write(graph, start, inside, sides[output])
    return False


def _closed(graph: Graph, start: str, inside: list[Node]) -> bool:
    """Tell whether nothing but the last node's result is read from outside."""
    values = [start, *(node.outputs[0] for node in inside[:-1])]
    readers = (reader for name in values for reader in graph.consumers(name))
    return graph.output not in values and all(reader in inside for reader in readers)


def _multiples(graph: Graph, node: Node, sides: dict[str, Sides]) -> Sides | None:
    """Return the two multiples of x that a node makes of others; None if it does not."""
    zero = (np.zeros(()), np.zeros(()))
    known = [
        sides.get(name, zero if _is_zero(graph, name) else None) for name in node.inputs if name
    ]
    first = known[0] if known else None
    constant = graph.split(node)
    if constant is not None and constant[0] in sides and node.op in ("Mul", "Div"):
        (p, n), number = sides[constant[0]], constant[1].astype(np.float64)
        if node.op == "Mul":
            return p * number, n * number
        if constant[2] or not number.all():
            return None
        return p / number, n / number
    if first is None or not any(name in sides for name in node.inputs):
        return None
    (p, n) = first
    match node.op, known[1:]:
        case "Relu", []:
            return np.maximum(p, 0), np.minimum(n, 0)
        case "LeakyRelu", []:
            slope = node.attributes.get("alpha", 0.01)
            return np.where(p < 0, slope * p, p), np.where(n > 0, slope * n, n)
        case "Neg", []:
            return -p, -n
        case "Abs", []:
            return np.abs(p), -np.abs(n)
        case "Identity", []:
            return first
        case "Add" | "Sum", [(q, m)]:
            return p + q, n + m
        case "Sub", [(q, m)]:
            return p - q, n - m
        # A larger multiple of a negative x is the smaller number.
        case "Max", [(q, m)]:
            return np.maximum(p, q), np.minimum(n, m)
        case "Min", [(q, m)]:
            return np.minimum(p, q), np.maximum(n, m)
    return None


def _mask(graph: Graph, node: Node, start: str, masks: dict[str, Sides]) -> Sides | None:
    """Return what a comparison of x with 0, or a cast of one, is on both sides."""
    if node.op in ("Cast", "Not", "Identity") and node.inputs[0] in masks:
        p, n = masks[node.inputs[0]]
        return (1 - p, 1 - n) if node.op == "Not" else (p, n)
    if node.op not in _COMPARISONS or start not in node.inputs:
        return None
    other = node.inputs[1 - node.inputs.index(start)]
    if not _is_zero(graph, other):
        return None
    positive = node.op.startswith("Greater") == (node.inputs[0] == start)
    return np.array(float(positive)), np.array(float(not positive))


def _chosen(
    graph: Graph, node: Node, sides: dict[str, Sides], masks: dict[str, Sides]
) -> Sides | None:
    """Return what Where, or a product with a mask, is on both sides."""
    if node.op == "Mul" and len({*node.inputs} & {*masks}) == len({*node.inputs} & {*sides}) == 1:
        (mask,) = (masks[name] for name in node.inputs if name in masks)
        (value,) = (sides[name] for name in node.inputs if name in sides)
        return value[0] * mask[0], value[1] * mask[1]
    if node.op != "Where" or node.inputs[0] not in masks:
        return None
    zero = (np.zeros(()), np.zeros(()))
    yes, no = (sides.get(name, zero if _is_zero(graph, name) else None) for name in node.inputs[1:])
    if yes is None or no is None:
        return None
    mask = masks[node.inputs[0]]
    return yes[0] if mask[0] else no[0], yes[1] if mask[1] else no[1]


def _is_zero(graph: Graph, name: str) -> bool:
    """Tell whether a value is a stored tensor of zeros."""
    return name in graph.constants and not graph.constants[name].any()


def _write(graph: Graph, start: str, inside: list[Node], sides: Sides) -> bool:
    """Put one operator, or two, in the place of the nodes; return whether there is one."""
    last = inside[-1]
    p, n = np.broadcast_arrays(*sides)
    if not (p > 0).all() or not np.isfinite(n).all():
        return False
    at = graph.nodes.index(last)
    slope = graph.add_constant(f"{last.name}_slope", float32(n / p))
    made = [Node("PRelu", last.name, [start, slope], [last.outputs[0]])]
    if not n.any():
        made = [Node("Relu", last.name, [start], [last.outputs[0]])]
    if (p != 1).any():
        factor = graph.add_constant(f"{last.name}_factor", float32(p))
        between = f"{last.outputs[0]}_unscaled"
        made[0].outputs = [between]
        name = graph.free_node_name(f"{last.name}_factor")
        made.append(Node("Mul", name, [between, factor], [last.outputs[0]]))
    graph.nodes[at : at + 1] = made
    graph.nodes = [node for node in graph.nodes if node not in inside]
    return True
