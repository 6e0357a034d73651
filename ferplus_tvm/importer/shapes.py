"""Shapes of the values of a tidy graph, without the batch dimension."""

from __future__ import annotations

import math

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.steps import Shape
from ferplus_tvm.importer.window import window_of

_EXPORT = "export the network again"


def value_shapes(graph: Graph) -> dict[str, Shape]:
    """Return the shape of each value, (C, H, W) or (K,), of a graph whose nodes are tidy.

    Raises
    ------
    ModelShapeError
        If the layers do not fit together.
    """
    shapes: dict[str, Shape] = {graph.input: graph.input_shape}
    for node in graph.nodes:
        shapes[node.outputs[0]] = _shape_of(graph, node, shapes[node.inputs[0]])
    return shapes


def _shape_of(graph: Graph, node: Node, shape: Shape) -> Shape:
    """Return the shape that ``node`` makes of a value of another shape."""
    if node.op == "Flatten":
        return (math.prod(shape),)
    if node.op == "Gemm":
        weights = graph.constants[node.inputs[1]]
        if weights.shape[:1] != shape:
            raise ModelShapeError(
                f"{node} has weights for {weights.shape[0]} values per face and gets {shape}: "
                f"{_EXPORT}"
            )
        return (weights.shape[1],)
    if node.op not in ("Conv", "MaxPool", "AveragePool"):
        return shape
    if len(shape) != 3:
        raise ModelShapeError(f"{node} needs feature maps, and gets {shape} per face: {_EXPORT}")
    channels, (height, width) = shape[0], node.attributes["kernel_shape"]
    if node.op == "Conv":
        weights = graph.constants[node.inputs[1]]
        group = int(node.attributes["group"])
        fits = weights.shape[1] * group == channels and weights.shape[2:] == (height, width)
        if not fits or group < 1 or weights.shape[0] % group or 0 in weights.shape:
            raise ModelShapeError(
                f"{node} has weights of shape {weights.shape} in {group} groups for {channels} "
                f"channels, which do not fit together: {_EXPORT}"
            )
        channels = weights.shape[0]
    window = window_of(node, (height, width), (shape[1], shape[2]))
    if window.output is None:
        raise ModelShapeError(
            f"{node} has a window larger than the {shape[1]}x{shape[2]} feature map it gets: "
            f"{_EXPORT}"
        )
    return (channels, *window.output)
