"""Operators that only move values, and only together keep each face apart from the others.

PyTorch and tf2onnx turn the batch to another place to select channels, or put a one before it, and
turn it back.  `read_moves` runs such operators on the numbers of the places, for two batch sizes.
"""

from __future__ import annotations

import math

import numpy as np

from ferplus_tvm.importer.evaluate import run_nodes
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.layouts import TRIAL_BATCHES, computed
from ferplus_tvm.importer.reader.state import State
from ferplus_tvm.importer.view import Positions

_MOVING = (
    "Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_MAX_NODES = 8
_MAX_NUMBERS = 1 << 22


def read_moves(state: State) -> Node | None:
    """Read the fewest operators that together move values within each face.

    Returns
    -------
    Node or None
        The last of them; None if there are none, and nothing was done.
    """
    nodes: list[Node] = []
    value = state.value
    if not state.view.batched:
        return None
    while value != state.graph.output and len(nodes) < _MAX_NODES:
        readers = state.readers.get(value, [])
        if len(readers) != 1 or readers[0].op not in _MOVING or readers[0].inputs[0] != value:
            return None
        nodes.append(readers[0])
        value = readers[0].outputs[0]
        places = _places(state, nodes) if len(nodes) > 1 else None
        if places is not None:
            state.view = state.view.at(state.view.positions.reshape(-1)[places])
            state.moved_by = str(nodes[0])
            return nodes[-1]
    return None


def _places(state: State, nodes: list[Node]) -> Positions | None:
    """Return where the values of one face come from; None if that depends on the others."""
    view, graph = state.view, state.graph
    size = math.prod(view.shape)
    found: list[Positions] = []
    for batch in [state.batch] if state.batch else TRIAL_BATCHES:
        if batch * size > _MAX_NUMBERS:
            return None
        given = {state.value: np.arange(batch * size).reshape(batch, *view.shape)}
        for node in nodes:
            for name in node.inputs[1:]:
                if name and name not in graph.constants:
                    shape = computed(state, name, batch)
                    if shape is None:
                        return None
                    given[name] = shape
        values = run_nodes(nodes, graph.constants, given, _MAX_NUMBERS)
        result = None if values is None else values[nodes[-1].outputs[0]]
        if result is None or result.shape[:1] != (batch,) or not result.size:
            return None
        of_face = result - size * np.arange(batch).reshape(-1, *[1] * (result.ndim - 1))
        if (of_face != of_face[:1]).any() or of_face.min() < 0 or of_face.max() >= size:
            return None
        found.append(of_face[0])
    return found[0] if all(np.array_equal(each, found[0]) for each in found) else None
