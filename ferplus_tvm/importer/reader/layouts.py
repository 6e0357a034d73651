"""Operators that hand all values on, in another shape or order: they change the view alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ferplus_tvm.importer.evaluate import evaluate
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.state import State, refuse
from ferplus_tvm.importer.steps import Shape

APART = "only where each face stays apart from the others"
_DROPOUT = (
    "only at inference and without its mask, so call model.eval() before the export, or in Keras "
    "export what is called with training=False"
)
_CAST = "only of stored weights, or to float32"
STORED = "only with stored numbers, and where each face stays apart from the others"
# Two batch sizes that a target has to be right for; what fits both fits any.
TRIAL_BATCHES = (2, 3)


def _identity(state: State, node: Node) -> None:
    state.first(node, APART)


def _dropout(state: State, node: Node) -> None:
    state.first(node, _DROPOUT)
    training = node.inputs[2] if len(node.inputs) > 2 else ""
    stored = state.graph.constants.get(training)
    if any(state.readers.get(name) for name in node.outputs[1:] if name):
        refuse(node, _DROPOUT)
    if training and (stored is None or stored.any()) and not _ratio_is_zero(state, node):
        refuse(node, _DROPOUT)


def _ratio_is_zero(state: State, node: Node) -> bool:
    ratio = state.graph.constants.get(node.inputs[1])
    return ratio is not None and not ratio.any()


def _cast(state: State, node: Node) -> None:
    state.first(node, _CAST)
    if node.attributes.get("to") != TensorProto.FLOAT:
        refuse(node, _CAST)


def _transpose(state: State, node: Node) -> None:
    rank = state.view.rank
    order = [int(axis) for axis in node.attributes.get("perm", range(rank)[::-1])]
    if sorted(order) != list(range(rank)) or (state.view.batched and order[0] != 0):
        refuse(node, APART)
    if state.view.batched:
        order = [axis - 1 for axis in order[1:]]
    state.view = state.view.at(state.view.positions.transpose(order))


def _reshape(state: State, node: Node) -> None:
    state.first(node, APART)
    if _merges_pixels(state, node):
        return
    result = _reshaped(state, node)
    if result is None:
        refuse(node, f"{APART}, and it gets {state.view.shape} per face")
    shape, batched = result
    if len(shape) == 1:
        state.flatten_name = node.name
    state.view = state.view.reshaped(shape, batched=batched)


def _reshaped(state: State, node: Node) -> tuple[Shape, bool] | None:
    """Return what a Reshape makes of one face, and whether a batch is before that.

    None if that depends on the number of faces.
    """
    view = state.view
    results: set[tuple[Shape, bool] | None] = set()
    allowzero = bool(node.attributes.get("allowzero", 0))
    for batch, target in targets(state, node.inputs[1]):
        before = (batch, *view.shape) if view.batched else view.shape
        full = _resolve(target, before, allowzero)
        if full is not None and full[:1] == (batch,) and math.prod(full[1:]) == view_size(state):
            results.add((full[1:], True))
        elif full is not None and state.batch == 1:
            results.add((full, False))
        else:
            results.add(None)
    return results.pop() if len(results) == 1 else None


def _merges_pixels(state: State, node: Node) -> bool:
    """Tell whether faces and pixels become one dimension only for a matrix product of the last.

    So TensorFlow writes a tensordot: a Reshape to rows of channels, the product, and a Reshape
    back.  The product is the same without the two, so this one is passed over.
    """
    view = state.view
    pixels = math.prod(view.shape[:-1])
    if not view.batched or pixels == 1:
        return False
    for batch, target in targets(state, node.inputs[1]):
        full = _resolve(target, (batch, *view.shape), allowzero=False)
        if full != (batch * pixels, view.shape[-1]):
            return False
    between, products = node, 0
    while len(readers := state.readers.get(between.outputs[0], [])) == 1:
        between = readers[0]
        if between.op not in ("MatMul", "Gemm", "Add", "Relu", "Identity"):
            return between.op == "Reshape" and products > 0
        products += between.op in ("MatMul", "Gemm")
    return False


def view_size(state: State) -> int:
    """Return how many values one face has."""
    return math.prod(state.view.shape)


def targets(state: State, name: str) -> Iterable[tuple[int, NDArray[Any] | None]]:
    """Return the target of a Reshape or its like, for each batch that it has to be right for."""
    if name in state.graph.constants:
        return [(state.batch or 1, state.graph.constants[name])]
    batches = [state.batch] if state.batch else TRIAL_BATCHES
    return [(batch, computed(state, name, batch)) for batch in batches]


def computed(state: State, target: str, batch: int) -> NDArray[Any] | None:
    """Return the value of ``target`` at a batch size; None if it is not made of shapes alone."""
    graph = state.graph
    needed: set[str] = {target}
    path: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            path.append(node)
            needed.update(() if node.op == "Shape" else node.inputs)
    values: dict[str, NDArray[Any]] = dict(graph.constants)
    for node in reversed(path):
        if node.op == "Shape" and node.inputs[0] in state.shapes:
            view = state.shapes[node.inputs[0]]
            start, end = (node.attributes.get(key) for key in ("start", "end"))
            full = [batch, *view.shape] if view.batched else list(view.shape)
            values[node.outputs[0]] = np.array(full, np.int64)[start:end]
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


def _flatten(state: State, node: Node) -> None:
    axis = int(node.attributes.get("axis", 1)) % (state.view.rank or 1)
    size = view_size(state)
    one_face = state.batch == 1 or not state.view.batched
    # Rows before the axis, columns after it: one row per face, or all of one face.
    if not (state.view.batched and (axis == 1 or (math.prod(state.view.shape[: axis - 1]) == 1
                                    and axis > 0))) and not (axis == 0 and one_face):  # fmt: skip
        refuse(node, APART)
    state.flatten_name = node.name
    state.view = state.view.reshaped((size,))


def _squeeze(state: State, node: Node) -> None:
    axes = state.constant(node, 1, STORED)
    view = state.view
    full = (state.batch or 0, *view.shape) if view.batched else view.shape
    if axes is None:
        gone = {at for at, size in enumerate(full) if size == 1}
    else:
        gone = {int(axis) % len(full) for axis in axes.reshape(-1)}
    # A batch that the file leaves open may be one face too, which is what it then squeezes.
    if any(full[at] not in (0, 1) for at in gone):
        refuse(node, APART)
    offset = int(view.batched)
    shape = tuple(size for at, size in enumerate(view.shape) if at + offset not in gone)
    state.view = view.reshaped(shape, batched=view.batched and 0 not in gone)


def _unsqueeze(state: State, node: Node) -> None:
    axes = state.constant(node, 1, STORED)
    view = state.view
    if axes is None:
        refuse(node, STORED)
    rank = view.rank + axes.size
    new = {int(axis) % rank for axis in axes.reshape(-1)}
    if view.batched and 0 in new:
        refuse(node, APART)
    sizes = iter((0, *view.shape) if view.batched else view.shape)
    full = [1 if at in new else next(sizes) for at in range(rank)]
    batched = view.batched or 0 in new
    state.view = view.reshaped(tuple(full[1:] if batched else full), batched=batched)


OPERATORS = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
