"""The way along the chain, from the faces to the scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.interface import Layout
from ferplus_tvm.importer.reader import activations, affine, layers, layouts, pooling, selections
from ferplus_tvm.importer.reader.branches import activation_of, mean_of, read_branches
from ferplus_tvm.importer.reader.moves import read_moves
from ferplus_tvm.importer.reader.state import SUPPORTED, State
from ferplus_tvm.importer.steps import Chain, Shape
from ferplus_tvm.importer.tail import read_tail
from ferplus_tvm.importer.view import View

_OPERATORS: dict[str, Callable[[State, Node], None]] = {
    **activations.OPERATORS,
    **affine.OPERATORS,
    **layers.OPERATORS,
    **layouts.OPERATORS,
    **pooling.OPERATORS,
    **selections.OPERATORS,
}
_ACTIVATIONS = (
    "the activations that are supported are Relu, LeakyRelu, PRelu with a slope per channel, and "
    "Clip, so train or export the network with one of these"
)


def start(graph: Graph, shape: Shape, layout: Layout) -> State:
    """Return the place before the first operator of ``graph``, for faces of one shape.

    Parameters
    ----------
    graph
        A graph in which everything constant is a stored array, and nothing is dead.
    shape
        (channels, height, width) of a face.
    layout
        How the file's input holds it.
    """
    return State(graph, shape, _input_view(shape, layout))


def read_chain(state: State) -> Chain:
    """Return the steps that a graph computes.

    Parameters
    ----------
    state
        What `start` returned; where an error is raised, it says how far the reader came.

    Raises
    ------
    ModelShapeError
        If the layers do not fit together, or do not end in one row of scores.
    UnsupportedModelError
        If it is no chain of layers that are supported; the message names the node.
    """
    graph, seen = state.graph, 0
    while state.value != graph.output or state.value in state.readers:
        try:
            node = _next(state)
            _OPERATORS[node.op](state, node)
        except UnsupportedModelError:
            # What stands behind the last layer is told by what it computes, not by its operators,
            # and so are branches, and operators that make sense together only.
            if read_tail(state):
                break
            last = read_moves(state) or read_branches(state)
            if last is None:
                raise
            node = last
        state.advance(node)
        seen += 1
        if seen > len(graph.nodes):
            raise UnsupportedModelError(f"{node} depends on its own output: export the model again")
    _end(state)
    return state.chain


def _input_view(shape: Shape, layout: Layout) -> View:
    """Return how the file's input lies on a face (C, H, W)."""
    view = View.of(shape)
    channels, height, width = shape
    match layout:
        case Layout.NCHW:
            return view
        case Layout.NHWC:
            return view.at(view.positions.transpose(1, 2, 0))
        case Layout.NHW:
            return view.reshaped((height, width))
        case Layout.ROWS:
            return view.reshaped((channels * height * width,))


def _next(state: State) -> Node:
    """Return the one reader of the chain's value, or say what stands in its place."""
    value, every = state.value, state.readers.get(state.value, [])
    # Shape only looks at a value; the node that makes use of the shape is the one to name.
    readers = [node for node in every if node.op != "Shape"]
    branches = len(readers) > 1
    if branches and (operators := activation_of(state)):
        raise UnsupportedModelError(
            f"{', '.join(operators)} behind the value {value!r} are an activation that is not "
            f"supported: {_ACTIVATIONS}"
        )
    if branches and (mean := mean_of(readers)):
        raise UnsupportedModelError(
            f"{mean} takes the mean of the value {value!r} to normalise it, and only stored "
            "numbers may do that, as in batch normalization at inference: export the model for "
            "inference, without instance or layer normalization"
        )
    for node in readers or every:
        if node.op in activations.OTHERS:
            raise UnsupportedModelError(f"{node} is not supported: {_ACTIVATIONS}")
        if node.op in ("Softmax", "LogSoftmax"):
            raise UnsupportedModelError(
                f"{node} is supported only over the classes at the end of the model, where the "
                "runtime applies it itself: export the network with its raw scores (logits) as "
                "the output"
            )
        if node.op not in _OPERATORS:
            raise UnsupportedModelError(
                f"{node} is not supported: {SUPPORTED}, so export such a network"
            )
    if len(readers) != 1 or value == state.graph.output:
        names = " and ".join(str(node) for node in readers) or "no operator"
        raise UnsupportedModelError(
            f"the value {value!r} is read by {names}, and only one chain of layers is supported: "
            "export the network without branches"
        )
    return readers[0]


def _end(state: State) -> None:
    """See that the chain ends in one row of scores, and select them in the file's order."""
    view = state.view
    if max(view.shape, default=1) != math.prod(view.shape):
        raise ModelShapeError(
            f"the model's output {state.graph.output!r} has the shape {view.shape} per face, and "
            "(K,) is expected, one score for each class: export the network that ends in the "
            "scores of one face"
        )
    if view.moved is not None:
        scores = math.prod(view.shape)
        state.dense("scores", np.eye(scores), np.zeros(scores), (scores,))
