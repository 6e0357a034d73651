"""Recognise a network of separable convolutions: from its graph to what its kernels compute.

A detector of the YuNet family is such a network: blocks of a pointwise and a depthwise convolution
and a ReLU, the first one behind a 3x3 convolution of the picture, with poolings by two between
them and sums with a map of half the size; at its end several heads of such blocks without a ReLU,
whose values are put side by side for each place, some of them through a sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.general_relax import whole_factors
from ferplus_tvm.importer.graph import Graph, Node, float32
from ferplus_tvm.importer.window import window_of
from ferplus_tvm.kernels.cpu.separable import CHANNELS, SIGMOIDS, Separable

Shape = tuple[int, int, int]
"""(height, width, channels)."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """One workload in its place.

    Attributes
    ----------
    name
        That of its depthwise convolution, or of the node that puts a head's parts together: no
        other block has it.
    workload
        What it computes.
    inputs
        The names of the values that it reads.
    outputs
        The names of what it writes: its map, or the 2x2 maxima of that, or these and the map.
    weights
        As ONNX has them, see `Separable.weights`.
    """

    name: str
    workload: Separable
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, Floats]


@dataclass(frozen=True)
class SeparableNetwork:
    """The blocks of a network in the order of computation, and its heads, one for each grid."""

    input: str
    input_shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    heads: tuple[Block, ...]


def match_separable(graph: Graph) -> SeparableNetwork | None:
    """Return the network that a graph is, or None if it is another one.

    The input is a picture, uint8 (1, H, W, 3); the output (1, places, values).
    """
    try:
        return _Matcher(graph).network()
    except (_Other, UnsupportedModelError):
        return None


class _Other(Exception):
    """The graph is no such network."""


def _expect(condition: object) -> None:
    if not condition:
        raise _Other


class _Matcher:
    """Follows a graph from its output to its input."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._makers = {node.outputs[0]: node for node in graph.nodes}
        self._shapes: dict[str, Shape] = {}
        self._blocks: dict[str, Block] = {}  # by the value behind the ReLU
        self._pooled: dict[str, str] = {}  # from such a value to its 2x2 maxima

    def network(self) -> SeparableNetwork:
        grids = self._parts(self._graph.output, axis=1)
        _expect(len(set(grids)) == len(grids))
        heads = [self._head(grid) for grid in grids]
        _expect(len({head.workload.out_channels for head in heads}) == 1)
        read = {name for block in (*self._blocks.values(), *heads) for name in block.inputs}
        blocks = []
        for value, block in self._blocks.items():
            pooled = self._pooled.get(value)
            if pooled is not None:
                whole = value in read
                workload = replace(block.workload, pool=True, whole=whole)
                outputs = (pooled, value) if whole else (pooled,)
                blocks.append(replace(block, workload=workload, outputs=outputs))
            else:
                blocks.append(block)
        shape = (1, *self._graph.input_shape)
        return SeparableNetwork(self._graph.input, shape, tuple(blocks), tuple(heads))

    def _maker(self, value: str, op: str) -> Node:
        node = self._makers.get(value)
        if node is None or node.op != op:
            raise _Other
        return node

    def _parts(self, value: str, axis: int) -> list[str]:
        node = self._maker(value, "Concat")
        _expect(node.attributes["axis"] == axis)
        return node.inputs

    def _head(self, grid: str) -> Block:
        """Match the heads of a grid, which are one block with their channels side by side."""
        parts: list[Block] = []
        sigmoids: list[bool] = []
        for value in self._parts(grid, axis=2):
            node = self._makers.get(value)
            squashed = node is not None and node.op == "Sigmoid"
            part = self._rows(node.inputs[0] if node is not None and squashed else value)
            parts.append(part)
            sigmoids += [squashed] * part.workload.out_channels
        channels = len(sigmoids)
        _expect(len({part.inputs for part in parts}) == 1)
        _expect(sigmoids == [at < SIGMOIDS for at in range(channels)])
        _expect(channels % CHANNELS == 0)
        weights = {
            name: np.concatenate([part.weights[name] for part in parts])
            for name in parts[0].weights
        }
        workload = replace(parts[0].workload, out_channels=channels, activation="sigmoid")
        name = self._makers[grid].name
        return Block(name, workload, parts[0].inputs, (grid,), weights)

    def _rows(self, value: str) -> Block:
        """Match a block whose map becomes rows (1, places, channels)."""
        reshape = self._maker(value, "Reshape")
        transpose = self._maker(reshape.inputs[0], "Transpose")
        _expect(transpose.attributes["perm"] == [0, 2, 3, 1])
        block = self._block(transpose.inputs[0])
        w = block.workload
        _expect(w.source == "map")
        wanted = self._graph.constants.get(reshape.inputs[1])
        rows = w.height * w.width
        _expect(wanted is not None and wanted.tolist() in (
            [1, rows, w.out_channels], [1, -1, w.out_channels], [1, rows, -1],
        ))  # fmt: skip
        return block

    def _map(self, value: str) -> Shape:
        """Match a map that a kernel writes, and return its shape."""
        if value not in self._shapes:
            maker = self._makers.get(value)
            if maker is not None and maker.op == "MaxPool":
                self._shapes[value] = self._pool(maker)
            else:
                relu = self._maker(value, "Relu")
                block = self._block(relu.inputs[0])
                w = block.workload
                _expect(w.out_channels % CHANNELS == 0)
                self._shapes[value] = (w.height, w.width, w.out_channels)
                self._blocks[value] = replace(block, outputs=(value,))
        return self._shapes[value]

    def _pool(self, node: Node) -> Shape:
        source, value = node.inputs[0], node.outputs[0]
        height, width, channels = self._map(source)
        window = window_of(node, tuple(node.attributes["kernel_shape"]), (height, width))
        _expect(window.kernel == window.strides == (2, 2))
        _expect(window.dilations == (1, 1) and not any(window.pads))
        _expect(height % 2 == width % 2 == 0 and source in self._blocks)
        _expect(self._pooled.setdefault(source, value) == value)
        return height // 2, width // 2, channels

    def _block(self, value: str) -> Block:
        """Match a depthwise convolution of a pointwise one."""
        depthwise = self._maker(value, "Conv")
        pointwise = self._maker(depthwise.inputs[0], "Conv")
        source, inputs, shape, weights = self._source(pointwise.inputs[0])
        height, width, channels = shape
        weights |= self._convolution(pointwise, "pointwise", shape, kernel=1)
        out_channels = len(weights["pointwise"])
        inner = (height, width, out_channels)
        weights |= self._convolution(depthwise, "depthwise", inner, kernel=3, groups=out_channels)
        _expect(channels % CHANNELS == 0)
        workload = Separable(height, width, channels, out_channels, source, "relu")
        _expect({name: each.shape for name, each in weights.items()} == workload.weights)
        return Block(depthwise.name, workload, inputs, (value,), weights)

    def _source(
        self, value: str
    ) -> tuple[Literal["map", "sum", "picture"], tuple[str, ...], Shape, dict[str, Floats]]:
        """Match what a pointwise convolution reads."""
        maker = self._makers.get(value)
        if maker is not None and maker.op == "Add" and len(maker.inputs) == 2:
            for here, other in (maker.inputs, maker.inputs[::-1]):
                half = self._makers.get(other)
                if half is not None and half.op == "Resize":
                    height, width, channels = shape = self._map(here)
                    small = self._map(half.inputs[0])
                    _expect(small == (height // 2, width // 2, channels))
                    _expect(height % 2 == width % 2 == 0)
                    factors = whole_factors(self._graph, half, (1, channels, *small[:2]))
                    _expect(factors == (2, 2))
                    return "sum", (here, half.inputs[0]), shape, {}
            raise _Other
        if maker is not None and maker.op == "Relu":
            first = self._makers.get(maker.inputs[0])
            if first is not None and first.op == "Conv" and self._is_picture(first.inputs[0]):
                return self._picture(first)
        return "map", (value,), self._map(value), {}

    def _is_picture(self, value: str) -> bool:
        transpose = self._makers.get(value)
        if transpose is None or transpose.op != "Transpose":
            return False
        cast_ = self._makers.get(transpose.inputs[0])
        return (
            transpose.attributes["perm"] == [0, 3, 1, 2]
            and cast_ is not None
            and cast_.op == "Cast"
            and cast_.attributes["to"] == TensorProto.FLOAT
            and cast_.inputs[0] == self._graph.input
        )

    def _picture(
        self, node: Node
    ) -> tuple[Literal["picture"], tuple[str, ...], Shape, dict[str, Floats]]:
        shape = cast(Shape, self._graph.input_shape)
        height, width, colours = shape
        _expect(colours == 3 and height % 2 == width % 16 == 0)
        weights = self._convolution(node, "picture", shape, kernel=3, stride=2)
        out = (height // 2, width // 2, len(weights["picture"]))
        return "picture", (self._graph.input,), out, weights

    def _convolution(
        self, node: Node, name: str, shape: Shape, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> dict[str, Floats]:
        """Match a convolution that keeps a map's size but for the stride; return its weights."""
        height, width, _ = shape
        weight = self._stored(node, 1)
        _expect(weight is not None)
        window = window_of(node, (kernel, kernel), (height, width))
        _expect(window.strides == (stride, stride) and window.dilations == (1, 1))
        _expect(window.pads[:2] == (kernel // 2, kernel // 2))
        _expect(window.output == (height // stride, width // stride))
        _expect(node.attributes.get("group", 1) == groups)
        assert weight is not None
        bias = self._stored(node, 2)
        stored = np.zeros(len(weight), np.float32) if bias is None else float32(bias).reshape(-1)
        return {name: float32(weight), f"{name}_bias": stored}

    def _stored(self, node: Node, at: int) -> NDArray[Any] | None:
        if len(node.inputs) <= at or not node.inputs[at]:
            return None
        _expect(node.inputs[at] in self._graph.constants)
        return self._graph.constants[node.inputs[at]]
