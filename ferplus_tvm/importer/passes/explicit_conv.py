"""Rule: write every convolution with all of its attributes and a bias.

1. auto_pad becomes pads, worked out for the size of the feature map.
2. kernel_shape, strides, dilations and group are written where they were left to their defaults.
3. A convolution without a bias gets one of zeros.
4. A convolution whose weights are computed, or whose input has no known shape, is left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.shapes import value_shapes
from ferplus_tvm.importer.window import window_of


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    shapes = value_shapes(graph)
    modified = False
    for node in graph.nodes:
        if node.op != "Conv" or node.outputs[0] not in shapes:
            continue
        weights = graph.constants[node.inputs[1]]
        _, height, width = shapes[node.inputs[0]]
        window = window_of(node, (weights.shape[2], weights.shape[3]), (height, width))
        explicit = {**window.attributes(), "group": node.attributes.get("group", 1)}
        has_bias = len(node.inputs) > 2 and node.inputs[2] != ""
        if node.attributes == explicit and has_bias:
            continue
        node.attributes = explicit
        if not has_bias:
            zeros = np.zeros(weights.shape[0], np.float32)
            node.inputs[2:] = [graph.add_constant(f"{node.name}_bias", zeros)]
        modified = True
    return modified
