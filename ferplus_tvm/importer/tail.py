"""What a model does to its scores behind its last layer, told by what it computes.

Tools write a softmax, a temperature or a choice of classes in many forms, with the shapes between
them changed at will.  All of them give, for the numbers z of the last layer,

    scores = z @ matrix + shift,    or their softmax,    or their log-softmax,

and so do they all after the runtime's own softmax.  `read_tail` runs these operators on zeros,
on unit vectors, which give shift and matrix, and on random numbers, which tell whether the
formula holds.  Then the matrix goes into the last layer in their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.evaluate import run_nodes
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.reader.state import State
from ferplus_tvm.importer.steps import Dense
from ferplus_tvm.importer.view import View

# Smooth functions, and those that only move numbers.  One that has a threshold, such as Clip,
# could agree with the formula on some numbers and not on others.
_MOVES = (
    "Cast", "Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_SMOOTH = (
    "Add", "Div", "Exp", "Log", "LogSoftmax", "LpNormalization", "Mul", "Neg", "Pow", "Reciprocal",
    "ReduceL1", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceSum", "Sigmoid", "Softmax",
    "Sub", "Sum", "Tanh",
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
    view
        How it lies on what the last layer made.
    shapes
        The views of the values before, which Shape may ask for.
    """

    nodes: list[Node]
    source: str
    view: View
    shapes: Mapping[str, View]

    @property
    def count(self) -> int:
        """The number of values that they start from, for each face."""
        return math.prod(self.view.shape)


def read_tail(state: State) -> bool:
    """Read everything behind the place that the reader has come to, if the formula above holds.

    Returns
    -------
    bool
        Whether the model ends there; otherwise nothing was done.

    Raises
    ------
    UnsupportedModelError
        If the model ends there, in something else.
    """
    tail = _find(state)
    if tail is None:
        return False
    found = _formula(state.graph, tail)
    if found is None:
        raise _refusal(tail)
    if not np.array_equal(found.matrix, np.eye(tail.count)) or found.shift.any():
        _fold(state, tail, found)
    if found.softmax:
        state.chain.notes.append(
            "the model ends in a softmax, which the runtime applies itself: the scores are the "
            "numbers before it (logits)"
        )
    state.value = state.graph.output
    return True


def _fold(state: State, tail: _Tail, found: _Formula) -> None:
    """Put matrix and shift into the last layer, or make them one."""
    last = state.chain.steps[-1] if state.chain.steps else None
    outputs = found.matrix.shape[1]
    if isinstance(last, Dense) and state.view.moved is None:
        last.weight = last.weight.astype(np.float64) @ found.matrix
        last.bias = last.bias.astype(np.float64) @ found.matrix + found.shift
        last.shape = (outputs,)
        state.view = View.of(last.shape)
    else:
        state.dense(tail.nodes[-1].name, found.matrix, found.shift, (outputs,))


def _refusal(tail: _Tail) -> UnsupportedModelError:
    """Say what the operators at the end are, for which no formula holds."""
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
    return UnsupportedModelError(f"{reason}: {_EXPORT}")


def _find(state: State) -> _Tail | None:
    """Return what stands behind the chain's value; None if that is more than a tail."""
    graph, view = state.graph, state.view
    count = math.prod(view.shape)
    scores = max(view.base) == math.prod(view.base)
    if not state.chain.steps or not view.shape or not scores or count > _MAX_SCORES:
        return None
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    behind: list[Node] = []
    waiting, seen = [graph.output], {graph.output, state.value, *graph.constants}
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op not in (*_MOVES, *_SMOOTH):
            return None
        if node in behind:
            continue
        behind.append(node)
        if node.op == "Shape" and node.inputs[0] in state.shapes:
            continue
        waiting += [value for value in node.inputs if value and value not in seen]
        seen.update(node.inputs)
    if len(behind) > _MAX_NODES or not any(state.value in node.inputs for node in behind):
        return None
    order = {id(node): at for at, node in enumerate(graph.nodes)}
    behind.sort(key=lambda node: order[id(node)])
    return _Tail(behind, state.value, view, state.shapes)


@dataclass(frozen=True)
class _Formula:
    """scores = z @ matrix + shift, and whether the file gives their softmax or log-softmax."""

    matrix: _Array
    shift: _Array
    softmax: bool


def _formula(graph: Graph, tail: _Tail) -> _Formula | None:
    """Return the formula that holds for the tail, None if there is none."""
    count = tail.count
    random = np.random.default_rng(0).normal(0, 2, (_RANDOM_ROWS, count))
    rows = np.concatenate([np.zeros((1, count)), np.eye(count), random])
    # A file may fix the batch in its shapes whatever it declares, and then mostly to one.
    for batch in (graph.batch,) if graph.batch else (len(rows), 1):
        results = _run(graph, tail, rows, batch)
        if results is not None:
            break
    else:
        return None
    # In other company, so that what one face is given may not depend on the others.
    few = graph.batch or min(batch, 5)
    again = _run(graph, tail, rows[-5:], few)
    result = _one_row_each(results, batch, len(rows))
    if result is None or again is None:
        return None
    other = _one_row_each(again, few, 5)
    if other is None or not np.allclose(other, result[-5:], rtol=1e-9, atol=1e-12):
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


def _run(graph: Graph, tail: _Tail, rows: _Array, batch: int) -> list[_Array] | None:
    """Run the tail on rows of numbers for z, ``batch`` at a time; None if it cannot be run so."""
    if batch * rows.shape[1] > _MAX_NUMBERS or (batch > 1 and not tail.view.batched):
        return None
    results = []
    for start in range(0, len(rows), batch):
        part = np.zeros((batch, rows.shape[1]))
        given = rows[start : start + batch]
        part[: len(given)] = given
        result = _run_once(graph, tail, part)
        if result is None:
            return None
        results.append(result)
    return results


def _one_row_each(results: list[_Array], batch: int, count: int) -> _Array | None:
    """Return one row for each of ``count`` faces, None if the tail does not give that.

    Dimensions of one are free, and so is the batch if it is one.
    """
    for result in results:
        wide = [size for size in result.shape if size != 1]
        if wide[:-1] != ([batch] if batch > 1 else []):
            return None
    return np.concatenate([result.reshape(batch, -1) for result in results])[:count]


def _run_once(graph: Graph, tail: _Tail, scores: _Array) -> _Array | None:
    """Run the tail in float64 on ``scores``; None if an operator cannot be run."""
    batch = [len(scores)] if tail.view.batched else []
    given: dict[str, NDArray[Any]] = {tail.source: scores.reshape(*batch, *tail.view.shape)}
    for node in tail.nodes:
        if node.op == "Shape" and node.inputs[0] in tail.shapes and node.inputs[0] != tail.source:
            view = tail.shapes[node.inputs[0]]
            given[node.inputs[0]] = np.empty([len(scores)][: view.batched] + list(view.shape))
    values = run_nodes(tail.nodes, graph.constants, given, _MAX_NUMBERS)
    if values is None:
        return None
    result = values[graph.output]
    usable = result.dtype == np.float64 and result.ndim > 0 and np.isfinite(result).all()
    return result if usable else None
