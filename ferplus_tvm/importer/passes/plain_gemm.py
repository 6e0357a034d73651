"""Rule: write Gemm with A (N, K), B [K, O] and C [O], and nothing else.

1. With transB=1 the stored B is transposed.
2. alpha is multiplied into B, and beta into C, in float64.
3. C is spread to [O] from a single number or from [1, O]; where it is missing it is zero.
4. A Gemm with transA=1, or with a B or C that is computed or has one row per face, is left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.graph import Graph, Node, float32

PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    return any([_plain(graph, node) for node in graph.nodes if node.op == "Gemm"])


def _plain(graph: Graph, node: Node) -> bool:
    """Rewrite one Gemm; return whether it changed."""
    weights = graph.constants.get(node.inputs[1])
    given = PLAIN | node.attributes
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32 or given["transA"]:
        return False
    matrix = weights.T if given["transB"] else weights
    outputs = matrix.shape[1]
    bias_name = node.inputs[2] if len(node.inputs) > 2 else ""
    bias = graph.constants.get(bias_name) if bias_name else np.zeros(outputs, np.float32)
    if bias is None or bias.dtype != np.float32 or bias.size not in (1, outputs):
        return False
    if bias.ndim > 2 or (bias.size == outputs and bias.shape[-1:] != (outputs,) and outputs > 1):
        return False
    if node.attributes == PLAIN and bias_name and bias.shape == (outputs,):
        return False
    if given["transB"] or given["alpha"] != 1:
        product = matrix.astype(np.float64) * given["alpha"]
        node.inputs[1] = graph.add_constant(f"{node.name}_weight", float32(product))
    if not bias_name or bias.shape != (outputs,) or given["beta"] != 1:
        spread = np.broadcast_to(bias.reshape(-1), (outputs,)).astype(np.float64) * given["beta"]
        node.inputs[2:] = [graph.add_constant(f"{node.name}_bias", float32(spread))]
    node.attributes = dict(PLAIN)
    return True
