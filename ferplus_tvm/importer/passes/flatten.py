"""Rule: write the step from feature maps to rows of values as Flatten.

1. A Reshape of (N, C, H, W) to (N, C*H*W) becomes Flatten with axis 1.  In its target 0 and -1
   may stand for dimensions, and the batch may be a number: the one that the file fixed, or 1.
2. The same for a target that is computed from Shape of some value.
3. A Flatten of the same meaning gets axis 1 written out.
4. A Reshape that keeps the shape, and a Flatten of rows, are taken out.
5. A Reshape or Flatten to anything else, such as one that merges faces, is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.evaluate import evaluate
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.shapes import Shape, value_shapes

# Two batch sizes that a target has to be right for; what fits both fits any.
_TRIAL_BATCHES = (2, 3)


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    for node in graph.nodes:
        if node.op not in ("Reshape", "Flatten"):
            continue
        shapes = value_shapes(graph)
        if node.inputs[0] not in shapes:
            continue
        shape = shapes[node.inputs[0]]
        rows = (math.prod(shape),)
        result = _result_of(graph, node, shapes)
        if result == shape:
            graph.remove(node)
            return True
        if result == rows and (node.op, node.attributes) != ("Flatten", {"axis": 1}):
            node.op, node.inputs, node.attributes = "Flatten", node.inputs[:1], {"axis": 1}
            return True
    return False


def _result_of(graph: Graph, node: Node, shapes: dict[str, Shape]) -> Shape | None:
    """Return the shape per face that the node gives, None if it does not keep faces apart."""
    shape = shapes[node.inputs[0]]
    if node.op == "Flatten":
        return shapes.get(node.outputs[0])
    target = node.inputs[1]
    if target in graph.constants:
        trials: Iterable[tuple[int, Any]] = [(graph.batch or 1, graph.constants[target])]
    else:
        trials = [(batch, _computed(graph, target, shapes, batch)) for batch in _TRIAL_BATCHES]
    results = set()
    for batch, values in trials:
        full = _resolve(values, (batch, *shape), bool(node.attributes.get("allowzero", 0)))
        results.add(full[1:] if full is not None and full[0] == batch else None)
    return results.pop() if len(results) == 1 else None


def _computed(
    graph: Graph, target: str, shapes: dict[str, Shape], batch: int
) -> NDArray[Any] | None:
    """Return the value of ``target`` at a batch size; None if it is not made of shapes alone."""
    needed: set[str] = {target}
    path: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            path.append(node)
            needed.update(() if node.op == "Shape" else node.inputs)
    values: dict[str, NDArray[Any]] = dict(graph.constants)
    for node in reversed(path):
        if node.op == "Shape" and node.inputs[0] in shapes:
            start, end = (node.attributes.get(key) for key in ("start", "end"))
            full = np.array([batch, *shapes[node.inputs[0]]], np.int64)
            values[node.outputs[0]] = full[start:end]
        elif all(name in values for name in node.inputs if name):
            results = evaluate(node, [values.get(name) for name in node.inputs])
            values.update(zip(node.outputs, results, strict=True))
        else:
            return None
    return values.get(target)


def _resolve(
    target: NDArray[Any] | None, shape: tuple[int, ...], allowzero: bool
) -> tuple[int, ...] | None:
    """Return the shape that Reshape gives, None if the target does not fit ``shape``."""
    if target is None or target.ndim != 1 or target.dtype.kind != "i":
        return None
    dims = [int(dim) for dim in target]
    for axis, dim in enumerate(dims):
        if dim == 0 and not allowzero and axis < len(shape):
            dims[axis] = shape[axis]
    if dims.count(-1) == 1:
        known = -math.prod(dims)
        if known > 0 and math.prod(shape) % known == 0:
            dims[dims.index(-1)] = math.prod(shape) // known
    if any(dim < 1 for dim in dims) or math.prod(dims) != math.prod(shape):
        return None
    return tuple(dims)
