"""Which graphs are networks of separable convolutions, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from ferplus_tvm.importer.detector import load_detector
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.lowering.separable_match import match_separable
from ferplus_tvm.zoo import DETECTOR, verify

SIZE = (96, 64)


@pytest.fixture
def graph() -> Graph:
    return load_detector(verify(DETECTOR)).graph(*SIZE)


def first(graph: Graph, op: str) -> Node:
    return next(node for node in graph.nodes if node.op == op)


def test_the_bundled_detector_is_one(graph: Graph) -> None:
    network = match_separable(graph)

    assert network is not None
    assert [head.workload.height for head in network.heads] == [12, 6, 3]
    read = {value for block in (*network.blocks, *network.heads) for value in block.inputs}
    written = {value for block in network.blocks for value in block.outputs}
    assert read == written | {graph.input}
    # All that multiplies is in its blocks.
    convolutions = sum(node.op == "Conv" for node in graph.nodes)
    heads = 3 * 4 * 2  # of which four are one block
    assert convolutions == 2 * len(network.blocks) + 1 + heads


def set_attribute(op: str, name: str, value: object) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        first(graph, op).attributes[name] = value

    return change


def leave_out(op: str) -> Callable[[Graph], None]:
    """Return a change after which the readers of the first such node read its input."""

    def change(graph: Graph) -> None:
        node = first(graph, op)
        for other in graph.nodes:
            other.inputs = [node.inputs[0] if x == node.outputs[0] else x for x in other.inputs]
        graph.nodes.remove(node)

    return change


def exchange(one: str, other: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        first(graph, one).op = other

    return change


def twice_the_last_sigmoids(graph: Graph) -> None:
    """Have the points go through a sigmoid too."""
    concat = first(graph, "Concat")
    graph.nodes.insert(
        graph.nodes.index(concat), Node("Sigmoid", "more", [concat.inputs[-1]], ["more"])
    )
    concat.inputs[-1] = "more"


def a_sum_of_other_maps(graph: Graph) -> None:
    add = first(graph, "Add")
    add.inputs[0] = add.inputs[1]


def the_same_grid_twice(graph: Graph) -> None:
    join = next(node for node in graph.nodes if node.outputs == [graph.output])
    join.inputs[1] = join.inputs[0]


def a_bias_of_another_length(graph: Graph) -> None:
    conv = first(graph, "Conv")
    graph.constants["short"] = graph.constants[conv.inputs[2]][:1]
    conv.inputs[2] = "short"


@pytest.mark.parametrize(
    "change",
    [
        set_attribute("Conv", "strides", [1, 1]),
        set_attribute("Conv", "pads", [0, 0, 2, 2]),
        set_attribute("Conv", "dilations", [2, 2]),
        set_attribute("MaxPool", "kernel_shape", [3, 3]),
        set_attribute("MaxPool", "strides", [1, 1]),
        set_attribute("Resize", "mode", "linear"),
        set_attribute("Transpose", "perm", [0, 3, 2, 1]),
        set_attribute("Concat", "axis", 1),
        set_attribute("Cast", "to", TensorProto.INT32),
        leave_out("Relu"),
        leave_out("Cast"),
        leave_out("Sigmoid"),
        exchange("Relu", "Sigmoid"),
        exchange("MaxPool", "AveragePool"),
        twice_the_last_sigmoids,
        a_sum_of_other_maps,
        the_same_grid_twice,
        a_bias_of_another_length,
    ],
)
def test_a_graph_that_differs_in_one_node_is_none(
    graph: Graph, change: Callable[[Graph], None]
) -> None:
    change(graph)

    assert match_separable(graph) is None


def test_weights_that_are_computed_make_it_another_graph(graph: Graph) -> None:
    conv = first(graph, "Conv")
    conv.inputs[1] = graph.input

    assert match_separable(graph) is None


def test_blocks_that_share_a_convolution_are_told_apart(graph: Graph) -> None:
    """Of two depthwise convolutions of one pointwise convolution each keeps its weights."""
    add = first(graph, "Add")
    relu = next(node for node in graph.nodes if node.outputs[0] == add.inputs[0])
    conv = next(node for node in graph.nodes if node.outputs[0] == relu.inputs[0])
    graph.constants["other"] = -graph.constants[conv.inputs[1]]
    graph.nodes += [
        Node("Conv", "twin", [conv.inputs[0], "other", *conv.inputs[2:]], ["t"], conv.attributes),
        Node("Relu", "twin_relu", ["t"], ["t_relu"]),
    ]
    add.inputs[0] = "t_relu"

    network = match_separable(graph)

    assert network is not None
    twins = [
        block
        for block in network.blocks
        if np.array_equal(abs(block.weights["depthwise"]), abs(graph.constants["other"]))
    ]
    assert len(twins) == len({block.name for block in twins}) == 2
