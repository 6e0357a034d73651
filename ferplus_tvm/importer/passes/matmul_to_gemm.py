"""Rule: write a dense layer as Gemm.

1. MatMul of rows (N, K) with a stored matrix [K, O] becomes Gemm with these inputs.
2. A MatMul of two computed values, with the stored matrix first, or on feature maps, is left
   alone.
"""

from __future__ import annotations

from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.shapes import value_shapes


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    shapes = value_shapes(graph)
    modified = False
    for node in graph.nodes:
        # The output has a known shape only if rows meet a stored matrix.
        if node.op == "MatMul" and node.outputs[0] in shapes:
            node.op = "Gemm"
            modified = True
    return modified
