"""What the reader knows at one place of the chain, and how it says what it cannot read."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.steps import Chain, Conv, Dense, Flatten, Floats, Shape, Step
from ferplus_tvm.importer.view import View
from ferplus_tvm.importer.window import Window

# The largest map of a network for 224x224 faces has 3 M values; this is 20 times as many.
MAX_VALUES = 1 << 26
SUPPORTED = (
    "one chain of convolutions, pooling and dense layers, with ReLU, LeakyReLU or Clip as "
    "activations and scales and shifts per channel, is"
)
_MOVING = ("Concat", "Expand", "Gather", "Slice", "Tile", "Transpose")


def refuse(node: Node, what: str) -> NoReturn:
    """Raise UnsupportedModelError: what of this operator is supported, which this is not."""
    raise UnsupportedModelError(
        f"{node} is not supported here ({what}): export the model for inference with such layers"
    )


class State:
    """The steps so far, and how the file's value lies on what the last one made.

    Attributes
    ----------
    graph
        The graph that is read.
    batch
        The batch that the file fixed, None if it fixed none.
    value
        The name of the value that the chain has come to.
    view
        The value's `View`.
    shapes
        The views of all values so far, which Shape may ask for.
    chain
        The steps so far.
    flatten_name
        The name of the node that made rows of maps, "" if there was none since the last layer.
    moved_by
        The last node that moved values or left some out, "" if there was none.
    readers
        The nodes that read each value.
    """

    def __init__(self, graph: Graph, input_shape: Shape, view: View) -> None:
        self.graph = graph
        self.batch = graph.batch
        self.value = graph.input
        self.view = view
        self.shapes: dict[str, View] = {graph.input: view}
        self.chain = Chain(input_shape, [])
        self.flatten_name = ""
        self.moved_by = ""
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def advance(self, node: Node) -> None:
        """Go on behind a node."""
        if node.op in _MOVING:
            self.moved_by = str(node)
        self.value = node.outputs[0]
        self.shapes[self.value] = self.view

    def add(self, step: Step) -> None:
        """Append a step, and look at its value as it is."""
        if math.prod(step.shape) > MAX_VALUES:
            raise UnsupportedModelError(
                f"the layer {step.name!r} makes {step.shape} values per face, and at most "
                f"{MAX_VALUES} are supported: check that it is the right file"
            )
        self.chain.steps.append(step)
        self.view = View.of(step.shape)
        self.flatten_name = ""

    def add_in_place(self, step: Step) -> None:
        """Append a step that leaves each value where it is."""
        self.chain.steps.append(step)

    def flatten(self, name: str) -> None:
        """Go from maps to rows; the file's value lies on the rows as it did on the maps."""
        if len(self.view.base) == 3:
            rows = (math.prod(self.view.base),)
            self.add_in_place(Flatten(self.flatten_name or f"{name}_flatten", rows))
            self.view = View(rows, self.view.shape, self.view.moved, self.view.batched)

    def dense(self, name: str, matrix: Floats, bias: Floats, shape: Shape) -> None:
        """Append a dense layer on all values of the view, in their order; ``shape`` is its result.

        The order becomes one of the matrix's rows.
        """
        batched = self.view.batched
        self.flatten(name)
        moved, rows = self.view.moved, self.view.base[0]
        if moved is not None:
            places = moved.reshape(-1)
            spread = np.zeros((rows, matrix.shape[1]), matrix.dtype)
            if np.unique(places).size == places.size:
                spread[places] = matrix
            else:
                np.add.at(spread, places, matrix)
            matrix = spread
        elif matrix.shape[0] != rows:
            raise AssertionError(f"{name}: a view in order has all {rows} values")
        self.add(Dense(name, (matrix.shape[1],), matrix, bias))
        self.view = self.view.reshaped(shape, batched=batched)

    def pointwise(self, name: str, weight: Floats, bias: Floats) -> bool:
        """Append a convolution of 1x1 on the channels of the view, whether first or last.

        Parameters
        ----------
        name
            The name of the node.
        weight, bias
            [outputs, channels of the view] and [outputs].

        Returns
        -------
        bool
            Whether the view has so many channels on whole maps; otherwise nothing was done.
        """
        maps = self.view.maps()
        if maps is None or len(maps[1]) != weight.shape[1]:
            return False
        axis, channels = maps
        inputs, height, width = self.view.base
        spread = np.zeros((inputs, weight.shape[0]), weight.dtype)
        np.add.at(spread, channels, weight.T)
        window = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (height, width))
        shape = (weight.shape[0], height, width)
        self.add(
            Conv(name, shape, spread.T.reshape(*weight.shape[:1], inputs, 1, 1), bias, window, 1)
        )
        if axis:
            self.view = self.view.at(np.moveaxis(self.view.positions, 0, axis))
        return True

    # --- what a node is given --------------------------------------------------------------

    def constant(self, node: Node, index: int, what: str) -> NDArray[Any] | None:
        """Return a stored input, None if it is left out; ``what`` is supported otherwise."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name and name not in self.graph.constants:
            refuse(node, what)
        return self.graph.constants.get(name)

    def weights(self, node: Node, index: int, what: str) -> NDArray[np.float32]:
        """Return a stored float32 input."""
        array = self.constant(node, index, what)
        if array is None:
            refuse(node, what)
        self.check_float32(node.inputs[index], array)
        return array

    def check_float32(self, name: str, array: NDArray[Any]) -> None:
        """Raise UnsupportedModelError for numbers of another type."""
        if array.dtype != np.float32:
            raise UnsupportedModelError(
                f"the stored tensor {name!r} is {array.dtype}, and only float32 weights are "
                "supported: export the model in float32"
            )

    def first(self, node: Node, what: str) -> None:
        """See that the chain's value is the node's first input and no other."""
        if node.inputs[0] != self.value or self.value in node.inputs[1:]:
            refuse(node, what)

    def channels(self, node: Node) -> list[int]:
        """Return which channel of the layer before each one that a node gets is."""
        channels = self.view.channels()
        if channels is None:
            what = "only on maps whose rows and columns are those of the layer before"
            cause = f", and {self.moved_by} changes them" if self.view.moved is not None else ""
            refuse(node, f"{what}{cause or f', and it gets {self.view.shape} per face'}")
        return channels

    def axis(self, node: Node, axis: int, rank: int | None = None) -> int:
        """Return the dimension of one face that an axis of the file is; -1 for the batch."""
        rank = self.view.rank if rank is None else rank
        if not -rank <= axis < rank:
            refuse(node, f"only along one of its {rank} dimensions, and not along {axis}")
        return axis % rank - self.view.batched
