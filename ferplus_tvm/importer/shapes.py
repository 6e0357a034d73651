"""Shapes of the values that depend on the faces, without the batch dimension."""

from __future__ import annotations

import numpy as np

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.window import window_of

Shape = tuple[int, ...]
_SAME = ("BatchNormalization", "Cast", "Clip", "Dropout", "Identity", "LeakyRelu", "Relu")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
_EXPORT = "export the network again"


def value_shapes(graph: Graph) -> dict[str, Shape]:
    """Return the shape of each value that is known to be float32 with the batch in front.

    A shape is (C, H, W) or (K,).  A value after an operator that is not known here is missing:
    the rules then leave its readers alone.

    Raises
    ------
    ModelShapeError
        If the layers do not fit together.
    """
    shapes: dict[str, Shape] = {graph.input: graph.input_shape}
    for node in graph.nodes:
        shape = _shape_of(graph, node, shapes)
        if shape is not None:
            shapes[node.outputs[0]] = shape
    return shapes


def _shape_of(graph: Graph, node: Node, shapes: dict[str, Shape]) -> Shape | None:
    """Return the shape of the first output of ``node``, None if it is not known."""
    if node.op in _BINARY:
        parts = graph.split(node)
        if parts is None or parts[0] not in shapes:
            return None
        shape, constant = shapes[parts[0]], parts[1]
        # A constant that adds dimensions, or a batch of its own, is no bias or scale.
        if constant.ndim > len(shape) + 1 or (
            constant.ndim == len(shape) + 1 and constant.shape[0] != 1
        ):
            return None
        fits = all(
            n in (1, wanted) for n, wanted in zip(constant.shape[::-1], shape[::-1], strict=False)
        )
        return shape if fits else None
    if not node.inputs or node.inputs[0] not in shapes:
        return None
    shape = shapes[node.inputs[0]]
    if node.op in _SAME:
        return shape
    if node.op == "Flatten":
        rank = len(shape) + 1
        axis = int(node.attributes.get("axis", 1))
        return (int(np.prod(shape)),) if axis in (1, 1 - rank) else None
    if node.op in ("Conv", "MaxPool", "AveragePool"):
        return _windowed(graph, node, shape)
    if node.op in ("Gemm", "MatMul"):
        return _dense(graph, node, shape)
    return None


def _windowed(graph: Graph, node: Node, shape: Shape) -> Shape | None:
    """Return the shape after a convolution or a pooling."""
    if len(shape) != 3:
        raise ModelShapeError(f"{node} needs feature maps, and gets {shape} per face: {_EXPORT}")
    channels = shape[0]
    if node.op == "Conv":
        weights = graph.constants.get(node.inputs[1])
        if weights is None:
            return None
        group = int(node.attributes.get("group", 1))
        wanted = (weights.shape[1] * group) if weights.ndim == 4 else None
        stated = node.attributes.get("kernel_shape", list(weights.shape[2:]))
        if wanted != channels or group < 1 or weights.shape[0] % group or 0 in weights.shape:
            raise ModelShapeError(
                f"{node} has weights of shape {weights.shape} in {group} groups for {channels} "
                f"channels, which do not fit together: {_EXPORT}"
            )
        if stated != list(weights.shape[2:]):
            raise ModelShapeError(
                f"{node} states a kernel of {stated} and has weights of shape {weights.shape}: "
                f"{_EXPORT}"
            )
        channels = weights.shape[0]
        kernel = weights.shape[2:]
    else:
        kernel = tuple(int(k) for k in node.attributes["kernel_shape"])
        if len(kernel) != 2:
            raise ModelShapeError(f"{node} has a kernel of {kernel}, not of two sizes: {_EXPORT}")
    window = window_of(node, (kernel[0], kernel[1]), (shape[1], shape[2]))
    if window.output is None:
        raise ModelShapeError(
            f"{node} has a window larger than the {shape[1]}x{shape[2]} feature map it gets: "
            f"{_EXPORT}"
        )
    return (channels, *window.output)


def _dense(graph: Graph, node: Node, shape: Shape) -> Shape | None:
    """Return the shape after a dense layer."""
    weights = graph.constants.get(node.inputs[1])
    if weights is None or weights.ndim != 2 or len(shape) != 1:
        return None
    if node.attributes.get("transA", 0):
        return None
    if node.attributes.get("transB", 0):
        weights = weights.T
    if weights.shape[0] != shape[0] or 0 in weights.shape:
        raise ModelShapeError(
            f"{node} has weights for {weights.shape[0]} values per face and gets {shape[0]}: "
            f"{_EXPORT}"
        )
    return (int(weights.shape[1]),)
