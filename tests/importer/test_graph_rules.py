"""The rules on the graph before it is read, by the numbers of their docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import Layout
from ferplus_tvm.importer.passes import (
    CHAIN_RULES,
    GRAPH_RULES,
    fold_constants,
    join_activations,
    merge_steps,
    own_layers,
    remove_dead,
)
from ferplus_tvm.importer.reader import read_chain, start
from tests.importer.networks import around
from tests.importer.support import assert_left_alone, assert_rewrites, graph, ops
from tests.models import make_weights, official

RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((4, 1, 3, 3), np.float32)


class TestFoldConstants:
    def test_1_constant_node(self) -> None:
        tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [2.0])
        made = graph(("Constant", "", "c", {"value": tensor}), ("Mul", "x c", "y"))
        made.nodes[0].inputs = []
        assert_rewrites(fold_constants.apply, made, 4)
        assert ops(made) == ["Mul"]
        assert made.constants["c"].tolist() == [2.0]

    def test_1_constant_node_with_a_list(self) -> None:
        made = graph(("Constant", "", "c", {"value_floats": [2.0, 3.0]}), ("Mul", "x c", "y"))
        made.nodes[0].inputs = []
        assert fold_constants.apply(made)
        assert made.constants["c"].tolist() == [2.0, 3.0]
        assert made.constants["c"].dtype == np.float32

    def test_2_computed_weights(self) -> None:
        half = CONV.astype(np.float16).T
        made = graph(
            ("Transpose", "h", "t"),
            ("Cast", "t", "w", {"to": TensorProto.FLOAT}),
            ("Conv", "x w", "y"),
            h=half,
        )
        assert_rewrites(fold_constants.apply, made, 4)
        assert ops(made) == ["Conv"]
        assert np.array_equal(made.constants["w"], half.T.astype(np.float32))

    def test_2_a_result_out_of_proportion_is_refused(self) -> None:
        made = graph(
            ("ConstantOfShape", "s", "c"), ("Mul", "x c", "y"), s=np.array([1 << 20, 1 << 20])
        )
        with pytest.raises(UnsupportedModelError, match=r"ConstantOfShape.*elements"):
            fold_constants.apply(made)

    def test_3_what_depends_on_faces_or_on_nothing(self) -> None:
        made = graph(("RandomNormal", "", "r", {"shape": [1]}), ("Mul", "x r", "y"))
        made.nodes[0].inputs = []
        assert_left_alone(fold_constants.apply, made)


class TestRemoveDead:
    def test_1_node(self) -> None:
        made = graph(("Relu", "x", "y"), ("Sqrt", "x", "z"))
        assert_rewrites(remove_dead.apply, made, 4)
        assert ops(made) == ["Relu"]

    def test_2_constant(self) -> None:
        made = graph(("Relu", "x", "y"), c=1.0)
        assert_rewrites(remove_dead.apply, made, 4)
        assert made.constants == {}

    def test_3_what_the_output_needs(self) -> None:
        assert_left_alone(remove_dead.apply, graph(("Add", "x c", "y"), c=1.0))


def around_zero(*nodes: Any, **constants: Any) -> Graph:
    """Make a graph that subtracts 100 from the pixels, so that some are negative."""
    return graph(("Sub", "x hundred", "v"), *nodes, hundred=100.0, **constants)


KERAS = [("Relu", "v", "a"), ("Neg", "v", "b"), ("Relu", "b", "c"), ("Mul", "c s", "d"),
         ("Add", "a d", "y")]  # fmt: skip


class TestJoinActivations:
    @pytest.mark.parametrize(
        "nodes",
        [
            [("Greater", "v zero", "m"), ("Where", "m v zero", "y")],
            [("Less", "v zero", "m"), ("Not", "m", "n"), ("Where", "n v zero", "y")],
            [("Neg", "v", "a"), ("Relu", "a", "b"), ("Add", "v b", "y")],
        ],
    )
    def test_1_relu(self, nodes: list[Any]) -> None:
        made = around_zero(*nodes, zero=0.0)
        assert_rewrites(join_activations.apply, made, 4)
        assert ops(made) == ["Sub", "Relu"]

    @pytest.mark.parametrize("slope", [-0.25, np.float32([[[-0.25]]])])
    def test_1_prelu(self, slope: Any) -> None:
        made = around_zero(*KERAS, s=slope)
        assert_rewrites(join_activations.apply, made, 4)
        assert ops(made) == ["Sub", "PRelu"]
        assert made.constants[made.nodes[1].inputs[1]].ravel().tolist() == [0.25]

    def test_2_a_multiple_of_the_positive_side(self) -> None:
        made = around_zero(("Relu", "v", "a"), ("Add", "a v", "b"), ("Div", "b three", "y"),
                           three=3.0)  # fmt: skip
        assert_rewrites(join_activations.apply, made, 4)
        assert ops(made) == ["Sub", "PRelu", "Mul", "Div"]

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Relu", "v", "a"), ("Sqrt", "v", "b"), ("Add", "a b", "y")],
            [("Add", "v one", "a"), ("Max", "a v", "y")],
            [("Greater", "v one", "m"), ("Where", "m v one", "y")],
            [("Relu", "v", "a"), ("Sub", "a v", "b"), ("Neg", "b", "y")],
            [*KERAS[:-1], ("Add", "a d", "e"), ("Mul", "a e", "y")],
        ],
    )
    def test_3_other_branches(self, nodes: list[Any]) -> None:
        assert_left_alone(join_activations.apply, around_zero(*nodes, one=1.0, s=0.5))


def test_every_rule_leaves_a_tidy_graph_alone() -> None:
    forms = [
        official(make_weights()),
        around(lambda n, x: n.norm(n.add("LeakyRelu", x, alpha=0.1), 4)),
        around(lambda n, x: n.norm(n.add("PRelu", x, n.store(n.draw(4, 1, 1))), 4)),
        around(lambda n, x: n.norm(n.pool(n.norm(n.add("Relu", x), 4)), 4), 256),
        around(lambda n, x: n.add("Relu", n.pool(x, "AveragePool")), 256),
    ]
    for form in forms:
        made = Graph.from_model(load_model(form.SerializeToString()).proto)
        for rule in GRAPH_RULES:
            assert_left_alone(rule, made)
        chain = read_chain(start(made, made.input_shape, Layout.NCHW))
        merge_steps.apply(chain)  # the scaling of the input, which is two nodes
        before = list(chain.steps)
        assert not any(rule(chain) for rule in (*CHAIN_RULES, own_layers.apply))
        assert chain.steps == before
