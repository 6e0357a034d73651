"""The rules for constants, scaling and reshaping, by the numbers of their docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.passes import (
    RULES,
    clip_to_relu,
    flatten,
    fold_constants,
    plain_gemm,
    remove_dead,
    remove_identities,
    scale_input,
)
from tests.importer.support import assert_left_alone, assert_rewrites, graph, ops, values

RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((4, 1, 3, 3), np.float32)
MATRIX = RNG.standard_normal((4096, 8), np.float32) / np.float32(4096)
VECTOR = RNG.standard_normal(8, np.float32)
SAME = {"pads": [1, 1, 1, 1]}
FLAT = {"axis": 1}
TO_ROWS = ("Flatten", "x", "rows", FLAT)


def plain(**attributes: Any) -> dict[str, Any]:
    return {**plain_gemm.PLAIN, **attributes}


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


class TestRemoveIdentities:
    def test_1_identity_also_at_both_ends(self) -> None:
        made = graph(("Identity", "x", "a"), ("Relu", "a", "b"), ("Identity", "b", "y"))
        assert_rewrites(remove_identities.apply, made, 4)
        assert ops(made) == ["Relu"]
        assert (made.nodes[0].inputs, made.nodes[0].outputs) == (["x"], ["y"])

    @pytest.mark.parametrize("outputs", ["a", "a mask"])
    def test_2_dropout(self, outputs: str) -> None:
        made = graph(("Dropout", "x", outputs), ("Relu", "a", "y"))
        assert_rewrites(remove_identities.apply, made, 4)
        assert ops(made) == ["Relu"]

    def test_3_cast_to_float32(self) -> None:
        made = graph(("Cast", "x", "a", {"to": TensorProto.FLOAT}), ("Relu", "a", "y"))
        assert_rewrites(remove_identities.apply, made, 4)
        assert ops(made) == ["Relu"]

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Dropout", "x r t", "y")],
            [("Dropout", "x", "a m"), ("Where", "m a x", "y")],
            [("Cast", "x", "y", {"to": TensorProto.FLOAT16})],
            [("Shape", "x", "s"), ("Cast", "s", "y", {"to": TensorProto.FLOAT})],
        ],
    )
    def test_4_training_masks_and_other_casts(self, nodes: list[Any]) -> None:
        assert_left_alone(remove_identities.apply, graph(*nodes, r=0.5, t=np.array(True)))


class TestClipToRelu:
    @pytest.mark.parametrize("bounds", ["low", "low big", "low inf"])
    def test_1_no_upper_bound(self, bounds: str) -> None:
        numbers = {"low": 0.0, "big": float(np.finfo(np.float32).max), "inf": np.inf, "h": -100.0}
        made = graph(("Add", "x h", "a"), ("Clip", f"a {bounds}", "y"), **numbers)
        assert_rewrites(clip_to_relu.apply, made, 4)
        assert ops(made) == ["Add", "Relu"]
        assert made.nodes[1].inputs == ["a"]

    @pytest.mark.parametrize("inputs", ["x low six", "x one", "x", "x computed"])
    def test_2_other_bounds(self, inputs: str) -> None:
        made = graph(("ReduceMin", "x", "computed"), ("Clip", inputs, "y"), low=0.0, six=6.0,
                     one=1.0)  # fmt: skip
        assert_left_alone(clip_to_relu.apply, made)


class TestScaleInput:
    @pytest.mark.parametrize(
        ("steps", "offset", "factor"),
        [
            ([("Sub", 127.5), ("Mul", 0.3)], 127.5, 0.3),
            ([("Sub", 127.3), ("Div", 127.5)], 127.3, 1 / 127.5),
            ([("Div", 255.0), ("Sub", 0.5), ("Div", 0.5)], 127.5, 1 / 127.5),
            ([("Mul", 2.0), ("Add", -1.0)], 0.5, 2.0),
            ([("Add", 3.0)], -3.0, 1.0),
        ],
    )
    def test_1_a_chain_of_numbers(
        self, steps: list[tuple[str, float]], offset: float, factor: float
    ) -> None:
        names = ["x", *(f"v{i}" for i in range(len(steps) - 1)), "y"]
        made = graph(
            *((op, f"{names[i]} c{i}", names[i + 1]) for i, (op, _) in enumerate(steps)),
            **{f"c{i}": np.full((1, 1, 1, 1), number, np.float32)
               for i, (_, number) in enumerate(steps)},
        )  # fmt: skip
        assert_rewrites(scale_input.apply, made, 4)
        assert ops(made) == ["Sub", "Mul"][: 2 if factor != 1 else 1]
        sub = made.constants[made.nodes[0].inputs[1]]
        assert sub == np.float32(offset) and sub.shape == ()
        if factor != 1:
            mul = made.constants[made.nodes[1].inputs[1]]
            np.testing.assert_allclose(mul, np.float32(factor), rtol=1e-7)

    def test_1_a_number_minus_the_input(self) -> None:
        made = graph(("Sub", "c x", "y"), c=255.0)
        assert_rewrites(scale_input.apply, made, 4)
        assert ops(made) == ["Sub", "Mul"]
        assert made.constants[made.nodes[1].inputs[1]] == -1

    def test_2_numbers_become_scalars(self) -> None:
        made = graph(("Sub", "x c", "y"), c=np.ones((1, 1), np.float32))
        assert_rewrites(scale_input.apply, made, 4)
        assert made.constants[made.nodes[0].inputs[1]].shape == ()

    def test_3_nothing_to_scale(self) -> None:
        made = graph(("Sub", "x zero", "a"), ("Mul", "a one", "b"), ("Relu", "b", "y"), zero=0.0,
                     one=1.0)  # fmt: skip
        assert_rewrites(scale_input.apply, made, 4)
        assert ops(made) == ["Relu"]

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Div", "c x", "y")],
            [("Sub", "x mean", "y")],
            [("Mul", "x zero", "y")],
            [("Sub", "x c", "a"), ("Relu", "x", "b"), ("Add", "a b", "y")],
            [("Sub", "x deep", "y")],
        ],
    )
    def test_4_what_is_not_affine_in_one_number(self, nodes: list[Any]) -> None:
        made = graph(*nodes, c=2.0, zero=0.0, mean=np.ones((1, 64, 64), np.float32),
                     deep=np.full((1,) * 5, 3, np.float32))  # fmt: skip
        assert_left_alone(scale_input.apply, made)


class TestFlatten:
    @pytest.mark.parametrize("target", [[0, -1], [-1, 4096], [1, 4096], [1, -1], [0, 4096]])
    def test_1_constant_target(self, target: list[int]) -> None:
        made = graph(("Reshape", "x s", "y"), s=np.array(target))
        before = values(made, 2, batch=1)
        assert flatten.apply(made)
        assert (ops(made), made.nodes[0].attributes) == (["Flatten"], FLAT)
        assert np.array_equal(values(made, 2, batch=1), before)
        assert values(made, 2, batch=3).shape == (3, 4096)
        assert not flatten.apply(made)

    def test_1_the_batch_that_the_file_fixed(self) -> None:
        made = graph(("Reshape", "x s", "y"), batch=8, s=np.array([8, -1]))
        assert flatten.apply(made)
        assert ops(made) == ["Flatten"]

    def test_2_computed_target(self) -> None:
        made = graph(
            ("Relu", "x", "a"), ("Shape", "a", "shape", {"start": 0, "end": 1}),
            ("Concat", "shape rest", "s", {"axis": 0}), ("Reshape", "a s", "y"),
            rest=np.array([-1]),
        )  # fmt: skip
        assert_rewrites(flatten.apply, made, 2)
        assert made.nodes[-1].op == "Flatten"

    def test_3_flatten_with_another_axis_of_the_same_meaning(self) -> None:
        made = graph(("Flatten", "x", "y", {"axis": -3}))
        assert_rewrites(flatten.apply, made, 2)
        assert made.nodes[0].attributes == FLAT

    def test_4_nothing_to_do(self) -> None:
        made = graph(
            ("Reshape", "x same", "a"), TO_ROWS, ("Flatten", "rows", "again"),
            ("Relu", "again", "y"), same=np.array([0, 1, 64, -1]),
        )  # fmt: skip
        made.nodes[1].inputs = ["a"]
        before = values(made, 2)
        while flatten.apply(made):
            pass
        assert ops(made) == ["Flatten", "Relu"]
        assert np.array_equal(values(made, 2), before)

    @pytest.mark.parametrize(
        ("target", "batch"),
        [([-1, 64], None), ([1, -1], 8), ([4, 1024], None), ([0, 4, 1024], None), ([-1], None)],
    )
    def test_5_another_target(self, target: list[int], batch: int | None) -> None:
        made = graph(("Reshape", "x s", "y"), batch=batch, s=np.array(target))
        assert_left_alone(flatten.apply, made)

    def test_5_a_computed_target_that_merges_faces(self) -> None:
        made = graph(("Shape", "x", "s"), ("Gather", "s first", "n", {"axis": 0}),
                     ("Concat", "rest n", "t", {"axis": 0}), ("Reshape", "x t", "y"),
                     first=np.array([0]), rest=np.array([-1]))  # fmt: skip
        assert_left_alone(flatten.apply, made)


def test_every_rule_leaves_a_tidy_graph_alone() -> None:
    from ferplus_tvm.importer import load_model
    from ferplus_tvm.importer.graph import Graph
    from tests.models import make_weights, official

    proto = load_model(official(make_weights()).SerializeToString()).proto
    for rule in RULES:
        assert_left_alone(rule, Graph.from_model(proto, None))
