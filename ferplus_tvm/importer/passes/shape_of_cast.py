"""Rule: the shape of a Cast's or Identity's result is the shape of what it gets.

1. A Shape node reads the value before such nodes; float16 converters put a Cast before each reader.
2. Every other node is left alone.
"""

from __future__ import annotations

from ferplus_tvm.importer.graph import Graph


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    before = {
        node.outputs[0]: node.inputs[0]
        for node in graph.nodes
        if node.op in ("Cast", "Identity") and node.outputs[0] != graph.output
    }
    modified = False
    for node in graph.nodes:
        while node.op == "Shape" and node.inputs[0] in before:
            node.inputs[0] = before[node.inputs[0]]
            modified = True
    return modified
