"""Rule: write every maximum pooling with all of its attributes and one output.

1. auto_pad becomes pads, worked out for the size of the feature map.
2. strides, pads, dilations, ceil_mode and storage_order are written where they were left out.
3. ceil_mode=1 becomes 0 where both give a feature map of the same size.
4. The second output (indices) goes where nobody reads it, and storage_order, which only concerns
   it, becomes 0.
5. Pooling with dilations, with indices in use, or with a ceil_mode that matters, is left alone.
"""

from __future__ import annotations

from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.shapes import value_shapes
from ferplus_tvm.importer.window import window_of


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    shapes = value_shapes(graph)
    modified = False
    for node in graph.nodes:
        if node.op != "MaxPool" or node.outputs[0] not in shapes:
            continue
        if any(graph.consumers(name) for name in node.outputs[1:] if name):
            continue
        _, height, width = shapes[node.inputs[0]]
        kernel = node.attributes["kernel_shape"]
        window = window_of(node, (kernel[0], kernel[1]), (height, width))
        floored = Node(node.op, node.name, [], [], {**node.attributes, "ceil_mode": 0})
        same_size = window_of(floored, (kernel[0], kernel[1]), (height, width)) == window
        if window.dilations != (1, 1) or not same_size:
            continue
        explicit = {**window.attributes(), "ceil_mode": 0, "storage_order": 0}
        if node.attributes != explicit or len(node.outputs) > 1:
            node.attributes, node.outputs = explicit, node.outputs[:1]
            modified = True
    return modified
