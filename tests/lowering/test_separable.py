"""Which graphs are networks of separable convolutions, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
        leave_out("Relu"),
        leave_out("Cast"),
        leave_out("Sigmoid"),
        exchange("Relu", "Sigmoid"),
        exchange("MaxPool", "AveragePool"),
        twice_the_last_sigmoids,
        a_sum_of_other_maps,
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
