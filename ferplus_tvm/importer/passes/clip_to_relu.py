"""Rule: write Clip as Relu where it is one.

1. Clip with the lower bound 0 and no upper bound, or one that float32 cannot exceed, is Relu.
2. Any other Clip (Relu6, bounds that are not constant) is left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.graph import Graph, Node


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    found = [node for node in graph.nodes if node.op == "Clip" and _is_relu(graph, node)]
    for node in found:
        node.op, node.inputs = "Relu", node.inputs[:1]
    return bool(found)


def _is_relu(graph: Graph, node: Node) -> bool:
    """Tell whether the bounds are 0 and nothing."""
    low, high = ([*node.inputs, "", ""])[1:3]
    if low not in graph.constants or graph.constants[low].size != 1:
        return False
    if high and (high not in graph.constants or graph.constants[high].size != 1):
        return False
    largest = float(np.finfo(np.float32).max)
    unbounded = not high or float(graph.constants[high].item()) >= largest
    return float(graph.constants[low].item()) == 0 and unbounded
