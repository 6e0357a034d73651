"""The rules for convolutions, pooling and dense layers, by the numbers of their docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ferplus_tvm.importer.passes import (
    explicit_conv,
    explicit_pool,
    fold_batchnorm,
    matmul_to_gemm,
    merge_bias,
    plain_gemm,
)
from tests.importer.support import assert_left_alone, assert_rewrites, graph, ops

RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((4, 1, 3, 3), np.float32)
MATRIX = RNG.standard_normal((4096, 8), np.float32) / np.float32(4096)
VECTOR = RNG.standard_normal(8, np.float32)
SAME = {"pads": [1, 1, 1, 1]}
FLAT = {"axis": 1}
TO_ROWS = ("Flatten", "x", "rows", FLAT)


def plain(**attributes: Any) -> dict[str, Any]:
    return {**plain_gemm.PLAIN, **attributes}


class TestMatmulToGemm:
    def test_1_rows_times_matrix(self) -> None:
        made = graph(TO_ROWS, ("MatMul", "rows w", "y"), w=MATRIX)
        assert_rewrites(matmul_to_gemm.apply, made, 2)
        assert ops(made) == ["Flatten", "Gemm"]

    @pytest.mark.parametrize("inputs", ["rows rows", "w rows", "x v"])
    def test_2_other_products(self, inputs: str) -> None:
        made = graph(TO_ROWS, ("MatMul", inputs, "y"), w=MATRIX, v=np.ones((64, 2), np.float32))
        assert_left_alone(matmul_to_gemm.apply, made)


class TestPlainGemm:
    def test_1_transposed(self) -> None:
        made = graph(TO_ROWS, ("Gemm", "rows w c", "y", {"transB": 1}), w=MATRIX.T, c=VECTOR)
        assert_rewrites(plain_gemm.apply, made, 2)
        assert np.array_equal(made.constants[made.nodes[1].inputs[1]], MATRIX)

    def test_2_factors(self) -> None:
        made = graph(TO_ROWS, ("Gemm", "rows w c", "y", {"alpha": 0.3, "beta": -2.0}), w=MATRIX,
                     c=VECTOR)  # fmt: skip
        assert_rewrites(plain_gemm.apply, made, 2)
        assert np.array_equal(made.constants[made.nodes[1].inputs[2]], -2 * VECTOR)
        assert made.nodes[1].attributes == plain_gemm.PLAIN

    @pytest.mark.parametrize("shape", [None, (), (1,), (1, 8), (1, 1)])
    def test_3_bias(self, shape: tuple[int, ...] | None) -> None:
        inputs = "rows w" if shape is None else "rows w c"
        bias = np.resize(VECTOR, shape or ())
        made = graph(TO_ROWS, ("Gemm", inputs, "y"), w=MATRIX, c=bias)
        assert_rewrites(plain_gemm.apply, made, 2)
        assert made.constants[made.nodes[1].inputs[2]].shape == (8,)

    @pytest.mark.parametrize(
        ("inputs", "attributes"),
        [("w2 rows", {"transA": 1}), ("rows rows", {"transB": 1}), ("rows w two", {})],
    )
    def test_4_other_gemms(self, inputs: str, attributes: dict[str, int]) -> None:
        made = graph(TO_ROWS, ("Gemm", inputs, "y", attributes), w=MATRIX, w2=MATRIX,
                     two=np.ones((2, 8), np.float32))  # fmt: skip
        assert_left_alone(plain_gemm.apply, made)


class TestMergeBias:
    @pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (), (1,)])
    @pytest.mark.parametrize("first", [False, True])
    def test_1_convolution(self, shape: tuple[int, ...], first: bool) -> None:
        made = graph(("Conv", "x w", "a"), ("Add", "b a" if first else "a b", "y"), w=CONV,
                     b=np.resize(VECTOR, shape))  # fmt: skip
        assert_rewrites(merge_bias.apply, made, 4)
        assert ops(made) == ["Conv"]
        assert made.constants[made.nodes[0].inputs[2]].shape == (4,)

    @pytest.mark.parametrize("shape", [(8,), (1, 8), ()])
    def test_2_dense(self, shape: tuple[int, ...]) -> None:
        made = graph(TO_ROWS, ("Gemm", "rows w", "a"), ("Add", "a b", "y"), w=MATRIX,
                     b=np.resize(VECTOR, shape))  # fmt: skip
        assert_rewrites(merge_bias.apply, made, 2)
        assert ops(made) == ["Flatten", "Gemm"]

    def test_3_two_biases(self) -> None:
        made = graph(("Conv", "x w b", "a"), ("Add", "a c", "y"), w=CONV, b=VECTOR[:4],
                     c=VECTOR[4:].reshape(4, 1, 1))  # fmt: skip
        assert_rewrites(merge_bias.apply, made, 4)
        expected = (VECTOR[:4].astype(float) + VECTOR[4:]).astype(np.float32)
        assert np.array_equal(made.constants[made.nodes[0].inputs[2]], expected)

    def test_3_not_into_a_bias_that_beta_scales(self) -> None:
        made = graph(TO_ROWS, ("Gemm", "rows w b", "a", {"beta": 2.0}), ("Add", "a b", "y"),
                     w=MATRIX, b=VECTOR)  # fmt: skip
        assert_left_alone(merge_bias.apply, made)

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Conv", "x w", "a", SAME), ("Add", "a columns", "y")],
            [("Conv", "x w", "a", SAME), ("Add", "a four", "y")],
            [("Conv", "x w", "a", SAME), ("Relu", "a", "b"), ("Add", "a b", "y")],
            [("Conv", "x w", "a", SAME), ("Add", "a c", "b"), ("Mul", "a b", "y")],
            [("Conv", "x w", "a", SAME), ("Add", "a deep", "y")],
        ],
    )
    def test_4_other_sums(self, nodes: list[Any]) -> None:
        made = graph(*nodes, w=CONV, columns=np.ones(64, np.float32), four=VECTOR[:4],
                     c=1.0, deep=np.ones((1,) * 5, np.float32))  # fmt: skip
        assert_left_alone(merge_bias.apply, made)


def norm(channels: int) -> dict[str, Any]:
    rng = np.random.default_rng(channels)
    draws = {"s": (0.5, 2), "t": (-1, 1), "m": (-1, 1), "v": (0.1, 2)}
    return {k: rng.uniform(*r, channels).astype(np.float32) for k, r in draws.items()}


class TestFoldBatchnorm:
    @pytest.mark.parametrize("inputs", ["x w", "x w b"])
    def test_1_convolution(self, inputs: str) -> None:
        made = graph(("Conv", inputs, "a"),
                     ("BatchNormalization", "a s t m v", "y", {"epsilon": 0.01}),
                     w=CONV, b=VECTOR[:4], **norm(4))  # fmt: skip
        factor = norm(4)["s"] / np.sqrt(norm(4)["v"].astype(float) + 0.01)
        assert_rewrites(fold_batchnorm.apply, made, 4)
        assert ops(made) == ["Conv"]
        folded = made.constants[made.nodes[0].inputs[1]]
        np.testing.assert_allclose(folded, CONV * factor[:, None, None, None], rtol=1e-6)

    def test_2_dense(self) -> None:
        made = graph(TO_ROWS, ("Gemm", "rows w b", "a", plain()),
                     ("BatchNormalization", "a s t m v", "y"), w=MATRIX, b=VECTOR,
                     **norm(8))  # fmt: skip
        assert_rewrites(fold_batchnorm.apply, made, 2)
        assert ops(made) == ["Flatten", "Gemm"]

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Conv", "x w", "a"), ("BatchNormalization", "a s t m v", "y", {"training_mode": 1})],
            [("Conv", "x w", "a"), ("Relu", "a", "r"), ("BatchNormalization", "r s t m v", "y")],
            [("Conv", "x w", "a"), ("BatchNormalization", "a s t m v", "n"), ("Add", "a n", "y")],
            [("Conv", "x w", "a"), ("ReduceMean", "x", "c"),
             ("BatchNormalization", "a c t m v", "y")],
        ],
    )  # fmt: skip
    def test_3_other_places(self, nodes: list[Any]) -> None:
        assert_left_alone(fold_batchnorm.apply, graph(*nodes, w=CONV, **norm(4)))


class TestExplicitConv:
    @pytest.mark.parametrize("kernel", [2, 3, 5])
    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
    def test_1_auto_pad(self, auto_pad: str, stride: int, kernel: int) -> None:
        weights = RNG.standard_normal((2, 1, kernel, kernel), np.float32)
        made = graph(("Conv", "x w", "y", {"auto_pad": auto_pad, "strides": [stride, stride]}),
                     w=weights)  # fmt: skip
        assert_rewrites(explicit_conv.apply, made, 4)
        assert "auto_pad" not in made.nodes[0].attributes

    def test_2_defaults(self) -> None:
        made = graph(("Conv", "x w b", "y"), w=CONV, b=VECTOR[:4])
        assert_rewrites(explicit_conv.apply, made, 4)
        assert made.nodes[0].attributes == {
            "kernel_shape": [3, 3], "strides": [1, 1], "pads": [0, 0, 0, 0],
            "dilations": [1, 1], "group": 1,
        }  # fmt: skip

    def test_3_bias(self) -> None:
        made = graph(("Conv", "x w", "y"), w=CONV)
        assert_rewrites(explicit_conv.apply, made, 4)
        assert made.constants[made.nodes[0].inputs[2]].tolist() == [0.0] * 4

    @pytest.mark.parametrize("inputs", ["x x", "a w"])
    def test_4_computed_weights_or_unknown_input(self, inputs: str) -> None:
        made = graph(("Sqrt", "x", "a"), ("Conv", inputs, "y"), w=CONV)
        assert_left_alone(explicit_conv.apply, made)


POOL = {"kernel_shape": [3, 3]}


class TestExplicitPool:
    @pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
    def test_1_auto_pad(self, auto_pad: str) -> None:
        made = graph(("MaxPool", "x", "y", {**POOL, "strides": [2, 2], "auto_pad": auto_pad}))
        assert_rewrites(explicit_pool.apply, made, 4)
        assert "auto_pad" not in made.nodes[0].attributes

    def test_2_defaults(self) -> None:
        made = graph(("MaxPool", "x", "y", POOL))
        assert_rewrites(explicit_pool.apply, made, 4)
        assert made.nodes[0].attributes == {
            **POOL, "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "ceil_mode": 0,
            "storage_order": 0,
        }  # fmt: skip

    def test_3_rounding_up_without_effect(self) -> None:
        half = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
        made = graph(("MaxPool", "x", "y", half))
        assert_rewrites(explicit_pool.apply, made, 4)
        assert made.nodes[0].attributes["ceil_mode"] == 0

    def test_4_indices_that_nobody_reads(self) -> None:
        made = graph(("MaxPool", "x", "y indices", {**POOL, "storage_order": 1}))
        assert_rewrites(explicit_pool.apply, made, 4)
        assert made.nodes[0].outputs == ["y"]

    @pytest.mark.parametrize(
        "nodes",
        [
            [("MaxPool", "x", "y", {**POOL, "dilations": [2, 2]})],
            [("MaxPool", "x", "y", {**POOL, "strides": [2, 2], "ceil_mode": 1})],
            [("MaxPool", "x", "a i", POOL), ("Cast", "i", "f", {"to": 1}), ("Add", "a f", "y")],
        ],
    )
    def test_5_other_pooling(self, nodes: list[Any]) -> None:
        assert_left_alone(explicit_pool.apply, graph(*nodes))
