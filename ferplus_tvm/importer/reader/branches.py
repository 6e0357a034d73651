"""Branches of one value that meet again: those that only mix its channels, and what others are.

Grey from RGB, numbers for each channel written one by one, and channels that are split and joined
are sums of the channels at each pixel.  `read_branches` runs such operators on maps that are 1 in
one channel, which gives the sums' factors, and on random ones, which tell whether it is so.  Then
a convolution of 1x1 stands in their place.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.evaluate import run_nodes
from ferplus_tvm.importer.graph import Node
from ferplus_tvm.importer.reader.state import State
from ferplus_tvm.importer.view import View

_LINEAR = (
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Neg", "Slice", "Split", "Squeeze",
    "Sub", "Sum", "Unsqueeze",
)  # fmt: skip
_BY_VALUE = (
    "Abs", "Add", "And", "Cast", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid",
    "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Transpose",
    "Where",
)  # fmt: skip
# Nodes are sorted by depth, so branches that meet soon stand together.
_MAX_NODES = 64
_MAX_NUMBERS = 1 << 22


def read_branches(state: State) -> Node | None:
    """Read the branches of the chain's value, if all that they do is to mix its channels.

    Returns
    -------
    Node or None
        The node in which they meet; None if they do anything else, and nothing was done.
    """
    nodes = _meeting(state, _LINEAR) if state.view.batched else []
    maps = state.view.maps() if nodes else None
    if maps is None:
        return None
    axis, count = maps[0], len(maps[1])
    height, width = state.view.base[1:]
    if (count + 3) * count * height * width > _MAX_NUMBERS:
        return None
    # Faces of zeros, of ones in one channel, and two of random numbers.
    probes = np.zeros((count + 3, count, height, width))
    probes[range(1, count + 1), range(count)] = 1
    probes[-2:] = np.random.default_rng(0).normal(0, 2, probes[-2:].shape)
    given = {state.value: np.moveaxis(probes, 1, axis + 1)}
    values = run_nodes(nodes, state.graph.constants, given, _MAX_NUMBERS)
    found = None if values is None else values[nodes[-1].outputs[0]]
    if found is None or found.dtype != np.float64 or found.shape[:1] != probes.shape[:1]:
        return None
    # One channel may have lost its axis.
    full = found[:, None] if found.ndim == 3 else found
    for at in (0, 2) if full.ndim == 4 else ():
        mixed = _sums(probes, np.moveaxis(full, at + 1, 1))
        if mixed is not None and state.pointwise(nodes[-1].name, *mixed):
            made = View.of(state.chain.steps[-1].shape)
            state.view = made.at(np.moveaxis(made.positions, 0, at)).reshaped(found.shape[1:])
            return nodes[-1]
    return None


def _sums(
    probes: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return weight [outputs, channels] and bias [outputs] of what was found; None if not so."""
    count = probes.shape[1]
    if found.shape[2:] != probes.shape[2:]:
        return None
    bias = found[0, :, 0, 0]
    weight = (found[1 : count + 1, :, 0, 0] - bias).T
    expected = np.einsum("oc,nchw->nohw", weight, probes) + bias[:, None, None]
    return (weight, bias) if np.allclose(found, expected, rtol=1e-9, atol=1e-9) else None


def _meeting(state: State, operators: Collection[str]) -> list[Node]:
    """Return the nodes from the chain's value to where its branches meet, none if they do not.

    They are of ``operators`` only, and read nothing but the value and what is stored.
    """
    graph = state.graph
    known = {state.value}
    inside: list[Node] = []
    readers = state.readers.get(state.value, [])
    first = min((graph.nodes.index(node) for node in readers), default=len(graph.nodes))
    for node in graph.nodes[first : first + _MAX_NODES]:
        given = [name for name in node.inputs if name and name not in graph.constants]
        if node.op not in operators or not given or not known.issuperset(given):
            continue
        inside.append(node)
        known.update(node.outputs)
        waiting = known - set(node.outputs)
        if len(inside) > 1 and graph.output not in waiting and all(
            reader in inside for name in waiting for reader in state.readers.get(name, [])
        ):  # fmt: skip
            return inside
    return []


def activation_of(state: State) -> list[str]:
    """Return the operators that are one activation written out, none if the branches are not."""
    return list(dict.fromkeys(node.op for node in _meeting(state, _BY_VALUE)))


def mean_of(readers: list[Node]) -> Node | None:
    """Return the node that takes the mean of what is then normalised by it, if there is one."""
    means = [node for node in readers if node.op == "ReduceMean"]
    return means[0] if means and any(node.op == "Sub" for node in readers) else None
