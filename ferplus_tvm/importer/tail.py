"""What a model does to its scores behind its last layer, told by what it computes.

Tools write a softmax, a temperature or a choice of classes in many forms, with the shapes between
them changed at will.  All of them give, for the numbers z of the last layer,

    scores = z @ matrix + shift,    or their softmax,    or their log-softmax,

and so do they all after the runtime's own softmax.  `strip_tail` runs these operators on zeros,
on unit vectors, which give shift and matrix, and on random numbers, which tell whether the
formula holds.  Then it puts the matrix into the last layer and drops the operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.evaluate import evaluate
from ferplus_tvm.importer.graph import Graph, Node, float32
from ferplus_tvm.importer.passes.plain_gemm import PLAIN
from ferplus_tvm.importer.shapes import Shape, value_shapes

# Smooth functions, and those that only move numbers.  One that has a threshold, such as Clip,
# could agree with the formula on some numbers and not on others.
_MOVES = (
    "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_SMOOTH = (
    "Add", "Div", "Exp", "Log", "LogSoftmax", "Mul", "Neg", "Reciprocal", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceSum", "Sigmoid", "Softmax", "Sub", "Tanh",
)  # fmt: skip
_MAX_NODES = 64
_MAX_SCORES = 1024
_MAX_NUMBERS = 1 << 22
_RANDOM_ROWS = 24
_Array = NDArray[np.float64]
_EXPORT = "export the network with its raw scores (logits), one row per face, as the output"


@dataclass(frozen=True)
class _Tail:
    """The operators behind the last layer.

    Attributes
    ----------
    nodes
        In topological order; none of them reads a face, but for its shape.
    source
        The value that they start from.
    shape
        Its shape without the batch, (K,) or (K, 1, 1).
    """

    nodes: list[Node]
    source: str
    shape: Shape


def strip_tail(graph: Graph, notes: list[str]) -> bool:
    """Drop the operators behind the last layer, if the formula above holds for them.

    Parameters
    ----------
    graph
        A graph on which every rule is silent; it is changed in place.
    notes
        A sentence is appended if there was a softmax.

    Returns
    -------
    bool
        Whether the graph was changed.
    """
    tail = _find(graph)
    if tail is None or _is_plain_flatten(tail):
        return False
    layer = graph.producer(tail.source)
    found = _formula(graph, tail)
    if layer is None or found is None or not _fold(graph, layer, found):
        return False
    end = graph.producer(graph.output)
    graph.nodes = [node for node in graph.nodes if node is not end]
    last = layer
    if len(tail.shape) > 1:
        name = graph.free_node_name(f"{layer.name}_rows")
        last = Node("Flatten", name, [tail.source], [""], {"axis": 1})
        graph.nodes.insert(graph.nodes.index(layer) + 1, last)
    for node in graph.nodes:
        node.inputs = [graph.output if name == tail.source else name for name in node.inputs]
    if last is not layer:
        last.inputs = [tail.source]
    last.outputs[0] = graph.output
    if found.softmax:
        notes.append(
            "the model ends in a softmax, which the runtime applies itself: the scores are the "
            "numbers before it (logits)"
        )
    return True


def check_tail(graph: Graph) -> None:
    """Refuse operators behind the last layer that `strip_tail` had to leave.

    Raises
    ------
    UnsupportedModelError
        If there are any.
    """
    tail = _find(graph)
    if tail is None or _is_plain_flatten(tail):
        return
    kinds = [node.op for node in tail.nodes if node.op in _SMOOTH]
    names = ", ".join(dict.fromkeys(node.op for node in tail.nodes))
    if "Sigmoid" in kinds:
        node = next(node for node in tail.nodes if node.op == "Sigmoid")
        reason = (
            f"the model ends in {node}, which gives a probability for each class by itself, and "
            "the runtime gives those of one class out of all (softmax)"
        )
    elif "Softmax" in kinds or "LogSoftmax" in kinds:
        node = next(node for node in tail.nodes if node.op in ("Softmax", "LogSoftmax"))
        reason = (
            f"{node} is not a softmax over the classes of one face with which the model ends, the "
            f"only one that is supported (the operators at the end are {names})"
        )
    else:
        reason = (
            f"the operators at the end of the model ({names}) are neither a softmax of its scores, "
            "nor a choice, an order or a scaling of them"
        )
    raise UnsupportedModelError(f"{reason}: {_EXPORT}")


def _is_plain_flatten(tail: _Tail) -> bool:
    """Tell whether the tail is what `strip_tail` itself leaves of one behind feature maps."""
    node = tail.nodes[-1]
    return len(tail.nodes) == 1 and node.op == "Flatten" and node.attributes == {"axis": 1}


def _find(graph: Graph) -> _Tail | None:
    """Return what stands behind the last layer; None if that is nothing, or not understood."""
    shapes = value_shapes(graph)
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    behind: list[Node] = []
    sources: set[str] = set()
    waiting, seen = [graph.output], {graph.output, *graph.constants}
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or node.op not in (*_MOVES, *_SMOOTH):
            sources.add(name)
        elif node not in behind:
            behind.append(node)
            if node.op == "Shape" and node.inputs[0] in shapes:
                continue
            waiting += [value for value in node.inputs if value and value not in seen]
            seen.update(node.inputs)
    if not behind or len(behind) > _MAX_NODES or len(sources) != 1:
        return None
    (source,) = sources
    shape = shapes.get(source, ())
    if source == graph.input or not shape or shape != (shape[0], 1, 1)[: len(shape)]:
        return None
    order = {id(node): at for at, node in enumerate(graph.nodes)}
    return _Tail(sorted(behind, key=lambda node: order[id(node)]), source, shape)


@dataclass(frozen=True)
class _Formula:
    """scores = z @ matrix + shift, and whether the file gives their softmax or log-softmax."""

    matrix: _Array
    shift: _Array
    softmax: bool


def _formula(graph: Graph, tail: _Tail) -> _Formula | None:
    """Return the formula that holds for the tail, None if there is none."""
    count = tail.shape[0]
    if count > _MAX_SCORES:
        return None
    random = np.random.default_rng(0).normal(0, 2, (_RANDOM_ROWS, count))
    rows = np.concatenate([np.zeros((1, count)), np.eye(count), random])
    # A file may fix the batch in its shapes whatever it declares, and then mostly to one.
    for batch in (graph.batch,) if graph.batch else (len(rows), 1):
        result = _run(graph, tail, rows, batch)
        if result is not None:
            break
    else:
        return None
    # In other company, so that what one face is given may not depend on the others.
    again = _run(graph, tail, rows[-5:], graph.batch or min(batch, 5))
    if again is None or not np.allclose(again, result[-5:], rtol=1e-9, atol=1e-12):
        return None
    return _solve(rows, result)


def _solve(rows: _Array, result: _Array) -> _Formula | None:
    """Find matrix and shift from the first rows, and try them on all."""
    probabilities = bool((result > 0).all() and np.allclose(result.sum(axis=1), 1, atol=1e-6))
    values = np.log(result) if probabilities else result
    count = rows.shape[1]
    for centred in (True,) if probabilities else (False, True):
        # A softmax is the same for scores that differ by one number in each row.
        wanted = values - values.mean(axis=1, keepdims=True) if centred else values
        shift, matrix = wanted[0], wanted[1 : count + 1] - wanted[0]
        if np.allclose(rows @ matrix + shift, wanted, rtol=1e-7, atol=1e-7):
            if np.allclose(matrix, matrix[:, :1], atol=1e-6):
                return None  # all classes are given the same, such as 1 by a softmax of one number
            if centred:
                matrix = matrix - matrix.min(axis=1, keepdims=True)
            return _Formula(_snapped(matrix), _snapped(shift), centred)
    return None


def _snapped(array: _Array) -> _Array:
    """Take the rounding of the probe off zeros and ones."""
    return np.where(np.abs(array - np.round(array)) < 1e-9, np.round(array), array)


def _run(graph: Graph, tail: _Tail, rows: _Array, batch: int) -> _Array | None:
    """Run the tail on rows of numbers for z, ``batch`` at a time; None if it cannot be run so."""
    if batch * rows.shape[1] > _MAX_NUMBERS:
        return None
    results = []
    for start in range(0, len(rows), batch):
        part = np.zeros((batch, rows.shape[1]))
        given = rows[start : start + batch]
        part[: len(given)] = given
        result = _run_once(graph, tail, part.reshape(batch, *tail.shape))
        # One row for each face: dimensions of one are free, and so is the batch if it is one.
        wide = [size for size in (result.shape if result is not None else ()) if size != 1]
        if result is None or wide[:-1] != ([batch] if batch > 1 else []):
            return None
        results.append(result.reshape(batch, -1)[: len(given)])
    return np.concatenate(results)


def _run_once(graph: Graph, tail: _Tail, scores: _Array) -> _Array | None:
    """Run the tail in float64 on ``scores``; None if an operator cannot be run."""
    shapes = value_shapes(graph)
    values: dict[str, NDArray[Any]] = {tail.source: scores}
    for node in tail.nodes:
        for name in node.inputs:
            if name in graph.constants and name not in values:
                array = graph.constants[name]
                values[name] = array.astype(np.float64) if array.dtype.kind == "f" else array
        if node.op == "Shape" and node.inputs[0] not in values:
            values[node.inputs[0]] = np.empty((len(scores), *shapes[node.inputs[0]]))
        inputs = [values[name] if name else None for name in node.inputs]
        try:
            # Values are float64 here, whatever float type a Cast asks for.
            results = inputs[:1] if node.op == "Cast" else evaluate(node, inputs)
        except UnsupportedModelError:
            return None
        for name, made in zip(node.outputs, results, strict=True):
            if made is None or made.size > _MAX_NUMBERS:
                return None
            values[name] = made
    result = values[graph.output]
    usable = result.dtype == np.float64 and result.ndim > 0 and np.isfinite(result).all()
    return result if usable else None


def _fold(graph: Graph, layer: Node, found: _Formula) -> bool:
    """Put matrix and shift into the last layer; return whether that could be done."""
    if np.array_equal(found.matrix, np.eye(len(found.matrix))) and not found.shift.any():
        return True
    weights, bias = (graph.constants.get(name) for name in (*layer.inputs[1:], "", "")[:2])
    if weights is None or bias is None or bias.ndim != 1:
        return False
    if layer.op == "Gemm" and layer.attributes == PLAIN:
        folded = weights.astype(np.float64) @ found.matrix
    elif layer.op == "Conv" and layer.attributes.get("group", 1) == 1:
        folded = np.tensordot(found.matrix.T, weights.astype(np.float64), 1)
    else:
        return False
    shift = bias.astype(np.float64) @ found.matrix + found.shift
    layer.inputs[1:] = [
        graph.add_constant(f"{layer.name}_weight", float32(folded)),
        graph.add_constant(f"{layer.name}_bias", float32(shift)),
    ]
    return True
