"""Rule: take out operators that hand their input on at inference.

1. Identity.
2. Dropout, whose mask nobody reads.
3. Cast to float32 of a value that is float32 already.
4. Dropout in training mode or with its mask in use, and a Cast to another type, are left alone.
"""

from __future__ import annotations

from onnx import TensorProto

from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.shapes import Shape, value_shapes


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    shapes = value_shapes(graph)
    found = [node for node in graph.nodes if _hands_on(graph, node, shapes)]
    for node in found:
        graph.remove(node)
    return bool(found)


def _hands_on(graph: Graph, node: Node, shapes: dict[str, Shape]) -> bool:
    """Tell whether the first output of ``node`` is its first input."""
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        mask_unused = all(not graph.consumers(name) for name in node.outputs[1:] if name)
        training = node.inputs[2] if len(node.inputs) > 2 else ""
        inference = not training or (
            training in graph.constants and not graph.constants[training].any()
        )
        return mask_unused and inference
    # Values with a known shape are those computed in float32 from the faces.
    return (
        node.op == "Cast"
        and node.attributes.get("to") == TensorProto.FLOAT
        and node.inputs[0] in shapes
    )
