"""The dense layer against its numpy reference, and the reference by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferplus_tvm import targets
from ferplus_tvm.kernels.cpu import dense
from ferplus_tvm.kernels.cpu.dense import Config
from ferplus_tvm.kernels.workloads import Dense, exact_in_fp16
from ferplus_tvm.targets import ResolvedTarget, VectorUnit
from tests.kernels.support import ACTIVATIONS, UNITS, compile_kernel, run_kernel


def draw(w: Dense, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
    """Draw x (N,K), weight (K,O) and bias (O)."""
    random = np.random.default_rng(seed)
    bias = w.bias_shape(w.out_features)
    shapes = (w.batch, w.in_features), (w.in_features, w.out_features), bias
    return tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)


def check(w: Dense, target: ResolvedTarget, config: Config | None = None) -> None:
    """Compare one layer, element by element.

    A float32 sum of n products in any order is off by at most n * eps of the sum of the products'
    magnitudes; one more rounding is the bias's.
    """
    x, weight, bias = draw(w)
    if w.bounded:
        bias[1:].sort(axis=0)
    if w.fp16_weights:
        weight = weight.astype(np.float16).astype(np.float32)
    config = config or Config.preset(w, target.vector_unit)
    packed = dense.pack_weight(w, weight)
    found = run_kernel(dense.define(w, config), target, (w.batch, w.outputs), x, packed, bias)
    plain = replace(w, relu=False, bounded=False)
    magnitude = plain.reference(abs(x), abs(weight), abs(bias[0] if w.bounded else bias))
    magnitude *= max(1, w.slope)
    error = abs(found - w.reference(x, weight, bias))
    assert (error <= (w.in_features + 1) * np.finfo(np.float32).eps * magnitude).all()


@pytest.mark.parametrize(("vectors", "batch"), [(1, 1), (3, 3), (4, 7), (5, 8)])
def test_any_number_of_vectors_and_rows(target: ResolvedTarget, vectors: int, batch: int) -> None:
    outputs = vectors * target.vector_unit.lanes
    check(Dense(batch, 5, outputs, outputs, relu=True), target)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(target: ResolvedTarget, activation: dict[str, Any]) -> None:
    outputs = 2 * target.vector_unit.lanes
    check(Dense(3, 5, outputs, outputs, **activation), target)


@pytest.mark.parametrize("outputs", [1, 7, 8, 15, 17, 33])
def test_only_the_wanted_scores_are_written(target: ResolvedTarget, outputs: int) -> None:
    lanes = target.vector_unit.lanes
    stored = -(-outputs // lanes) * lanes
    check(Dense(3, 17, stored, outputs, relu=False), target)


@pytest.mark.parametrize(("vectors", "rows"), [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("prefetch", [0, 128])
def test_any_tiling_gives_the_same_answer(
    target: ResolvedTarget, vectors: int, rows: int, prefetch: int
) -> None:
    lanes = target.vector_unit.lanes
    w = Dense(5, 9, 4 * lanes, 4 * lanes, relu=False)
    check(w, target, Config(lanes, vectors, rows, prefetch))


@pytest.mark.parametrize("half", [False, True])
def test_a_tile_may_begin_within_a_cache_line(target: ResolvedTarget, half: bool) -> None:
    lanes = target.vector_unit.lanes
    w = Dense(3, 70, 12 * lanes, 12 * lanes, relu=True, fp16_weights=half)
    check(w, target, Config(lanes, vectors=3, rows=2, prefetch=256))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("outputs", [8, 48])
def test_weights_stored_in_half_precision_lose_nothing(
    target: ResolvedTarget, batch: int, outputs: int
) -> None:
    check(Dense(batch, 33, 48, outputs, relu=True, fp16_weights=True), target)


@pytest.mark.parametrize(
    ("weights", "exact"),
    [
        ([0.5, -1.25, 0, 65504, 2**-24], True),
        ([0.1], False),
        ([65536], False),
        ([2**-25], False),
        ([float("inf")], True),
    ],
)
def test_only_numbers_that_half_precision_has_are_exact_in_it(
    weights: list[float], exact: bool
) -> None:
    assert exact_in_fp16(np.array(weights, np.float32)) is exact


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_layer(target: ResolvedTarget, data: st.DataObject) -> None:
    stored = data.draw(st.integers(1, 6)) * target.vector_unit.lanes
    w = Dense(
        batch=data.draw(st.integers(1, 9)),
        in_features=data.draw(st.integers(1, 300)),
        out_features=stored,
        outputs=data.draw(st.integers(1, stored)),
        relu=data.draw(st.booleans()),
    )
    check(w, target)


def test_the_reference_is_a_product_a_sum_and_a_clip() -> None:
    w = Dense(1, 2, 3, 2, relu=True)
    x, weight, bias = np.array([[1, 2]]), np.array([[1, 2, 3], [4, -5, 6]]), np.array([1, 1, 1])
    np.testing.assert_array_equal(w.reference(x, weight, bias), [[10, 0]])
    unclipped = replace(w, relu=False, outputs=3).reference(x, weight, bias)
    np.testing.assert_array_equal(unclipped, [[10, -7, 16]])


def test_the_preset_fits_the_registers() -> None:
    shapes = itertools.product((1, 2, 3, 4, 5, 64), (1, 2, 5, 32), (False, True))
    for (vectors, batch, half), unit in itertools.product(shapes, UNITS):
        stored = vectors * unit.lanes
        w = Dense(batch, 7, stored, stored, relu=True, fp16_weights=half)
        config = Config.preset(w, unit)
        assert stored % config.panel == 0, (w, unit)
        assert 1 <= config.rows <= batch, (w, unit)
        # accumulators, weights, and one broadcast input value
        needed = config.rows * config.vectors + config.vectors + 1
        assert needed <= unit.registers, (w, unit)


def test_for_one_face_no_line_of_half_precision_weights_is_read_by_two_tasks() -> None:
    unit = VectorUnit(4, 32, fp16=True)
    preset = Config.preset(Dense(1, 4096, 1024, 1024, relu=True, fp16_weights=True), unit)
    assert preset.panel % 32 == 0


@pytest.mark.parametrize("name", ["aarch64", "cortex-a76", "neoverse-v2"])
@pytest.mark.parametrize("half", [False, True])
def test_an_arm_object_comes_out_of_any_machine(tmp_path: Any, name: str, half: bool) -> None:
    target = targets.resolve(name)
    path = tmp_path / "dense.o"
    w = Dense(1, 64, 8, 8, relu=False, fp16_weights=half)
    kernel = dense.define(w, Config.preset(w, target.vector_unit))
    compile_kernel(kernel, target).mod.write_to_file(str(path), "o")
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64
