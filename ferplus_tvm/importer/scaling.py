"""What the caller states of the pixels that a file wants, as the first nodes of its graph."""

from __future__ import annotations

import numpy as np

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.importer.graph import Graph, Node, float32


def insert(graph: Graph, scaling: Scaling) -> None:
    """Put Sub and Mul between the input, which then takes raw pixels 0..255, and its readers.

    The rules fold them with what the graph does itself to its input, in float64.
    """
    readers = graph.consumers(graph.input)
    value = graph.input
    for at, (op, numbers) in enumerate(zip(("Sub", "Mul"), scaling.affine(), strict=True)):
        array = np.reshape(numbers, () if len(numbers) == 1 else (-1, 1, 1))
        stored = graph.add_constant(f"{graph.input}_{op.lower()}", float32(array))
        output = graph.free_value_name(f"{stored}_output")
        name = graph.free_node_name(f"{op}_{graph.input}")
        graph.nodes.insert(at, Node(op, name, [value, stored], [output]))
        value = output
    for node in readers:
        node.inputs = [value if name == graph.input else name for name in node.inputs]
