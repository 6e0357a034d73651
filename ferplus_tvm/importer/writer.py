"""A chain of steps as a tidy graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node, float32
from ferplus_tvm.importer.steps import (
    Affine,
    Chain,
    Clip,
    Conv,
    Dense,
    Flatten,
    Leaky,
    Pad,
    Pool,
    Shape,
    Step,
)

PLAIN_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
_LARGEST = float(np.finfo(np.float32).max)


def write_graph(chain: Chain, graph: Graph) -> Graph:
    """Return the steps as a graph with the ends of ``graph``, the file's own.

    Raises
    ------
    UnsupportedModelError
        For a step that no rule could fold, and that a tidy graph does not have.
    """
    made = Graph([], {}, graph.input, graph.output, chain.input_shape, None, graph.name)
    writer = _Writer(made)
    for index, step in enumerate(chain.steps):
        writer.write(step, chain.shape_before(index))
    if made.nodes:
        made.nodes[-1].outputs[0] = graph.output
    return made


class _Writer:
    """Appends nodes to a graph, each reading what the one before it made."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._value = graph.input

    def write(self, step: Step, before: Shape) -> None:
        """Append the nodes of one step on a value of the shape ``before``."""
        match step:
            case Affine():
                self._scaling(step)
            case Clip() if step.is_relu:
                self._add("Relu", step.name)
            case Clip():
                self._clip(step)
            case Leaky():
                assert step.is_plain
                self._add("LeakyRelu", step.name, alpha=float(step.slope[0]))
            case Conv():
                attributes = {**step.window.attributes(), "group": step.group}
                self._add("Conv", step.name, weight=step.weight, bias=step.bias, **attributes)
            case Dense():
                self._add("Gemm", step.name, weight=step.weight, bias=step.bias, **PLAIN_GEMM)
            case Pool(op="MaxPool"):
                extra = {"ceil_mode": 0, "storage_order": 0}
                self._add("MaxPool", step.name, **step.window.attributes(), **extra)
            case Pool():
                window = step.window.attributes()
                del window["dilations"]
                self._add("AveragePool", step.name, **window)
            case Flatten():
                self._add("Flatten", step.name, axis=1)
            case Pad():
                raise UnsupportedModelError(
                    f"node {step.name!r} puts a border of {step.value:g} around the {before} maps, "
                    "which is supported right before a convolution or pooling whose window is "
                    "wider, of zeros, or before a maximum of what no value is below: export the "
                    "network with such borders"
                )

    def _scaling(self, step: Affine) -> None:
        """Write the scaling of the input as Sub and Mul, of one number where all are the same."""
        numbers = {"Sub": float32(-step.shift / step.scale), "Mul": float32(step.scale)}
        names = {
            "Sub": step.shifted_by or f"{step.scaled_by}_offset",
            "Mul": step.scaled_by or f"{step.shifted_by}_factor",
        }
        for op, array in numbers.items():
            if (array == (0 if op == "Sub" else 1)).all():
                continue
            shape = () if np.unique(array).size == 1 else (-1, 1, 1)
            array = array[:1] if shape == () else array
            self._add(op, names[op], number=array.reshape(shape))

    def _clip(self, step: Clip) -> None:
        """Write bounds as Max and Min; among others a missing one is the largest number."""
        after = (1,) * (len(step.shape) - 1)
        low, high = (np.clip(bound, -_LARGEST, _LARGEST) for bound in (step.low, step.high))
        if not np.isneginf(step.low).all():
            self._add("Max", step.name, low=low.reshape(-1, *after))
        if not np.isposinf(step.high).all():
            self._add("Min", f"{step.name}_high", high=high.reshape(-1, *after))

    def _add(self, op: str, name: str, **given: Any) -> None:
        """Append a node; arrays among what is given are stored, the rest are attributes."""
        graph = self._graph
        name = graph.free_node_name(name)
        stored: dict[str, NDArray[Any]] = {
            key: array for key, array in given.items() if isinstance(array, np.ndarray)
        }
        attributes = {key: value for key, value in given.items() if key not in stored}
        inputs = [self._value]
        inputs += [graph.add_constant(f"{name}_{key}", float32(a)) for key, a in stored.items()]
        taken = {graph.input, graph.output, *graph.constants}
        self._value = f"{name}_output"
        while self._value in taken:
            self._value += "_"
        graph.nodes.append(Node(op, name, inputs, [self._value], attributes))
