"""Rule: compute at import what does not depend on the faces.

1. A Constant node becomes a stored array.
2. A node whose inputs are all stored arrays is run, and its outputs become stored arrays: casts
   of half-precision weights, transposed or reshaped weights, and whatever else an exporter left.
3. A node that reads a value which depends on the faces is left alone, and so is one that reads
   nothing at all, such as a random generator.
"""

from __future__ import annotations

from ferplus_tvm.importer.evaluate import constant_value, evaluate
from ferplus_tvm.importer.graph import Graph, Node


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph.

    Raises
    ------
    UnsupportedModelError
        If a constant node cannot be computed.
    """
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name]
        if node.op == "Constant":
            results = [constant_value(node)]
        elif inputs and all(name in graph.constants for name in inputs):
            results = evaluate(node, [graph.constants.get(name) for name in node.inputs])
        else:
            kept.append(node)
            continue
        stored = zip(node.outputs, results, strict=True)
        graph.constants.update((name, array) for name, array in stored if name)
    modified = len(kept) < len(graph.nodes)
    graph.nodes = kept
    return modified
