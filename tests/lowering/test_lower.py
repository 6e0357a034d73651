"""Choosing kernels and laying out weights; whole networks run in tests/compiler/test_lower.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import relax

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.kernels.backend import NO_HALO
from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.kernels.winograd_matrices import MATRICES
from ferplus_tvm.lowering import writer
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, LayeredModel, PoolLayer
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.lowering.writer import LoweredModel, lower
from ferplus_tvm.targets import VectorUnit

AVX2 = VectorUnit(lanes=8, registers=16)
AVX512 = VectorUnit(lanes=16, registers=32)
NEON = VectorUnit(lanes=4, registers=32)
HALVES = PoolLayer("pool", (2, 2), (2, 2), (0, 0, 0, 0))


def conv(
    name: str, inputs: int, outputs: int, kernel: int = 3, pad: int | None = None
) -> ConvLayer:
    pad = kernel // 2 if pad is None else pad
    random = np.random.default_rng(len(name))
    weight = random.standard_normal((outputs, inputs, kernel, kernel), np.float32)
    bias = random.standard_normal(outputs, np.float32)
    return ConvLayer(name, weight, bias, (1, 1), (pad,) * 4, (1, 1), True, None)


def dense(name: str, inputs: int, outputs: int) -> DenseLayer:
    random = np.random.default_rng(len(name))
    weight = random.standard_normal((inputs, outputs), np.float32)
    return DenseLayer(name, weight, random.standard_normal(outputs, np.float32), False)


def grey(layers: list[Layer]) -> LayeredModel:
    return LayeredModel((1, 64, 64), tuple(layers))


def untuned(layers: list[Layer], batches: list[int], unit: VectorUnit) -> LoweredModel:
    return lower(grey(layers), batches, CpuBackend(unit), lambda workload: None)


NETWORK = [
    conv("a", 1, 5),
    HALVES,
    conv("b", 5, 17, kernel=5),
    dense("c", 17 * 32 * 32, 9),
    dense("d", 9, 8),
]


@pytest.mark.parametrize("unit", [NEON, AVX2, AVX512])
def test_batch_sizes_share_one_copy_of_each_weight(unit: VectorUnit) -> None:
    one = untuned(NETWORK, [1], unit)
    three = untuned(NETWORK, [1, 3, 32], unit)
    assert set(three.weights) == set(one.weights)
    assert len(three.weights) == 8
    assert three.arguments[1] == three.arguments[3] == three.arguments[32] == one.arguments[1]
    assert three.functions == {1: "main_batch1", 3: "main_batch3", 32: "main_batch32"}


@pytest.mark.parametrize("unit", [NEON, AVX2, AVX512])
def test_weights_are_stored_for_whole_vectors_and_zero_beyond_the_model(unit: VectorUnit) -> None:
    lowered = untuned(NETWORK, [1], unit)
    lanes = unit.lanes
    for layer, name in zip(
        [NETWORK[0], NETWORK[2], NETWORK[3], NETWORK[4]],
        ["a", "b", "c", "d"],
        strict=True,
    ):
        assert not isinstance(layer, PoolLayer)
        bias = lowered.weights[f"{name}.bias"]
        assert bias.size == -(-layer.bias.size // lanes) * lanes
        np.testing.assert_array_equal(bias[: layer.bias.size], layer.bias)
        assert not bias[layer.bias.size :].any()
        (packed,) = (w for n, w in lowered.weights.items() if n.startswith(f"{name}.weight"))
        if isinstance(layer, DenseLayer):
            assert packed.shape[0] * 16 >= bias.size > packed.shape[0] * 16 - 16
        else:
            assert packed.size % bias.size == 0
        # The same numbers, in another order and between zeros.
        np.testing.assert_array_equal(
            np.sort(packed[packed != 0]), np.sort(layer.weight[layer.weight != 0])
        )
    assert all(weight.dtype == np.float32 for weight in lowered.weights.values())
    assert all(weight.flags.c_contiguous for weight in lowered.weights.values())


def test_vector_units_share_one_copy_of_the_weights_of_an_algorithm() -> None:
    layers = [conv("a", 1, 16), conv("bb", 16, 48), HALVES, dense("c", 48 * 1024, 48)]
    layers.append(dense("dd", 48, 8))
    one, two, three = (untuned(layers, [1, 8], unit).weights for unit in (NEON, AVX2, AVX512))
    shared = set(one) & set(two) & set(three)
    assert {"c.weight.dense", "dd.weight.dense"} < shared
    assert any(name.startswith("bb.weight.winograd") for name in shared)
    for name in shared:
        if ".weight." in name:
            np.testing.assert_array_equal(one[name], two[name])
            np.testing.assert_array_equal(two[name], three[name])


def test_every_layer_has_a_choice_per_batch() -> None:
    lowered = untuned(NETWORK, [1, 3], AVX2)
    assert [(choice.layer, choice.batch) for choice in lowered.kernels] == [
        (name, batch) for batch in (1, 3) for name in ["a", "pool", "b", "c", "d"]
    ]
    assert {choice.algorithm for choice in lowered.kernels} == {
        "direct convolution", "max pool", "GEMM"
    }  # fmt: skip
    assert not any(choice.tuned for choice in lowered.kernels)
    assert lowered.kernels[0].kernel == "conv3x3_64x64_1to8_batch1"
    assert lowered.kernels[0].tiling.startswith("lanes=8 vectors=1 width=")


def test_what_is_looked_up_says_nothing_of_how_it_is_computed() -> None:
    seen: list[Any] = []
    for unit in (NEON, AVX2):
        layers = [conv("a", 1, 16), dense("b", 16 * 4096, 8)]
        lower(grey(layers), [1], CpuBackend(unit), seen.append)
    assert len(seen) == 4
    assert seen[0] == seen[2]
    assert not {"lanes", "algorithm"} & set(seen[0].key)


@pytest.mark.parametrize(("exact", "dtype"), [(True, "float16"), (False, "float32")])
@pytest.mark.parametrize("half", [True, False])
def test_dense_weights_are_halves_where_that_is_exact_and_the_target_reads_them(
    exact: bool, dtype: str, half: bool
) -> None:
    layer = dense("a", 4096, 8)
    if exact:
        layer = replace(layer, weight=layer.weight.astype(np.float16).astype(np.float32))
    lowered = untuned([layer], [1, 2], replace(AVX2, fp16=half))
    (weight,) = (w for name, w in lowered.weights.items() if "weight" in name)
    assert weight.dtype == (dtype if half else "float32")
    assert {float(value) for value in weight.ravel()} >= {float(v) for v in layer.weight.ravel()}


def test_an_activation_comes_in_the_halo_that_its_reader_wants() -> None:
    layers = [conv("a", 1, 16), conv("b", 16, 64), HALVES, dense("c", 64 * 1024, 8)]
    backend = CpuBackend(AVX512)
    first, second, last = plan(grey(layers), 1, backend, lambda workload: None)
    halo = backend.in_halo(second.workload, second.config)
    assert min(halo) == 1
    (call,) = first.calls
    assert call.output.shape == (1, 64 + 1 + halo.bottom, 65 + halo.right, 16)
    (call,) = second.calls
    assert call.output.shape == (1, 32, 32, 64)
    assert backend.in_halo(last.workload, last.config) == NO_HALO


@pytest.mark.parametrize("batch", [1, 3])
def test_a_function_takes_faces_and_weights_and_gives_scores(batch: int) -> None:
    lowered = untuned(NETWORK, [batch], AVX2)
    function = lowered.module[f"main_batch{batch}"]
    shapes = [[int(size) for size in list(p.ty.shape)] for p in function.params]
    assert shapes == [
        [batch, 1, 64, 64],
        *(list(lowered.weights[name].shape) for name in lowered.arguments[batch]),
    ]
    assert [int(size) for size in list(function.ret_ty.shape)] == [batch, 8]
    assert isinstance(function, relax.Function)


def test_equal_layers_share_one_kernel() -> None:
    layers = [conv("a", 1, 8), *(conv(n, 8, 8) for n in "bcd"), dense("e", 8 * 4096, 8)]
    kernels = [
        variable.name_hint
        for variable in untuned(layers, [1], AVX2).module.get_global_vars()
        if variable.name_hint.startswith("conv")
    ]
    # The last one writes without a halo, for the dense layer.
    assert sorted(kernels) == [
        "conv3x3_64x64_1to8_batch1_border1x1x1x1",
        "conv3x3_64x64_8to8_batch1",
        "conv3x3_64x64_8to8_batch1_border1x1x1x1",
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [conv("a", 3, 8)],
            "the layer 'a' takes 3 channels, but 1 reach it: expected a model for 64x64 faces",
        ),
        (
            [conv("a", 1, 5), conv("b", 8, 8)],
            "the layer 'b' takes 8 channels, but 5 reach it",
        ),
        (
            [conv("a", 1, 5), dense("b", 5 * 32 * 32, 8)],
            "the layer 'b' takes 5120 features, but 20480 reach it",
        ),
        (
            [dense("a", 4096, 9), dense("b", 16, 8)],
            "the layer 'b' takes 16 features, but 9 reach it",
        ),
        (
            [dense("a", 4096, 8), conv("b", 8, 8)],
            "the layer 'b' takes a map, but a vector of 8 features reaches it",
        ),
        (
            [dense("a", 4096, 8), HALVES],
            "the layer 'pool' takes a map, but a vector of 8 features reaches it",
        ),
        (
            [conv("a", 1, 8, kernel=67, pad=1)],
            "the layer 'a' has a 67x67 window that does not fit the 64x64 map that reaches it",
        ),
        (
            [HALVES, PoolLayer("b", (2, 33), (1, 1), (0, 0, 0, 0))],
            "the layer 'b' has a 2x33 window that does not fit the 32x32 map that reaches it",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(layers: list[Layer], message: str) -> None:
    with pytest.raises(ModelShapeError) as caught:
        untuned(layers, [1], AVX2)
    assert str(caught.value).startswith(message)
    assert ": expected " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_batch_whose_maps_cannot_be_indexed_is_refused_by_its_layer() -> None:
    with pytest.raises(ModelShapeError, match=r"^the layer 'a' makes 1\d{9} values at batch 4096"):
        untuned([conv("a", 1, 90), HALVES, dense("c", 90 * 1024, 8)], [4096], AVX512)


def test_weights_that_cannot_be_indexed_are_refused_by_their_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "MOST_VALUES", 4096 * 16)
    untuned([dense("a", 4096, 8)], [1], AVX512)
    with pytest.raises(ModelShapeError, match=r"^the layer 'a' has \d+ weights .*: expected at"):
        untuned([dense("a", 4096, 17)], [1], AVX512)


def test_a_convolution_of_many_channels_is_winograd_with_its_pooling() -> None:
    layers = [conv("a", 1, 16), conv("b", 16, 64), HALVES, dense("c", 64 * 1024, 8)]
    lowered = untuned(layers, [1, 3], AVX512)
    _, b, _ = lowered.kernels[:3]
    assert (b.layer, b.fused) == ("b", "pool")
    tile = int(b.algorithm.removeprefix("Winograd F(")[0])
    assert "direct" in b.why and "F(2,3)" in b.why
    assert b.milliseconds > 0
    (name,) = (name for name in lowered.weights if name.startswith("b.weight"))
    u = MATRICES[tile].transform_filter(layers[1].weight)
    np.testing.assert_array_equal(
        np.sort(lowered.weights[name].ravel()), np.sort(u.ravel().astype(np.float32))
    )


def test_a_pooling_of_another_kind_stays_by_itself() -> None:
    overlapping = PoolLayer("pool", (3, 3), (2, 2), (1, 1, 1, 1))
    layers = [conv("a", 1, 16), conv("b", 16, 64), overlapping, dense("c", 64 * 1024, 8)]
    _, b, pool, _ = untuned(layers, [1], AVX512).kernels
    assert b.algorithm.startswith("Winograd")
    assert b.fused is None
    assert pool.algorithm == "max pool"
