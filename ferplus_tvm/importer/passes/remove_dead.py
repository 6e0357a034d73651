"""Rule: drop what the output does not need.

1. A node none of whose outputs is read leaves the graph.
2. A constant that nobody reads leaves the graph.
3. Everything that leads to the output is left alone.
"""

from __future__ import annotations

from ferplus_tvm.importer.graph import Graph


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    needed = {graph.output}
    live = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            live.append(node)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    modified = len(live) < len(graph.nodes) or len(constants) < len(graph.constants)
    graph.nodes, graph.constants = live[::-1], constants
    return modified
