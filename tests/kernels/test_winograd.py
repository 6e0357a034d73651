"""Winograd convolution against the direct reference in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ferplus_tvm.kernels.cpu import winograd, winograd_kernel
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO, Halo
from ferplus_tvm.kernels.cpu.winograd import Config
from ferplus_tvm.kernels.winograd import applies
from ferplus_tvm.kernels.winograd_matrices import MATRICES
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels.support import ACTIVATIONS, UNITS, inside, run_kernel, with_halos

PLAIN = Conv(1, 8, 8, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), True)

tiles = pytest.mark.parametrize("tile", MATRICES)


def check(
    w: Conv,
    target: ResolvedTarget,
    config: Config,
    scale: float = 1,
    out_halo: Halo = NO_HALO,
) -> None:
    """Compare with the reference; the error allowed is the one that the matrices promise."""
    random = np.random.default_rng(0)
    x = random.standard_normal((w.batch, w.height, w.width, w.in_channels)).astype(np.float32)
    weight = random.standard_normal((w.out_channels, w.in_channels, 3, 3)).astype(np.float32)
    bias = random.standard_normal(w.bias_shape(w.out_channels)).astype(np.float32)
    if w.bounded:
        bias[1:].sort(axis=0)
    # Awkward weights: of very different size by channel.
    weight *= scale ** random.uniform(-1, 1, (w.out_channels, w.in_channels, 1, 1))
    y = w.reference(x, weight, bias)
    found = run_kernel(
        winograd_kernel.define(w, config, out_halo),
        target,
        out_halo.around(*y.shape),
        with_halos(x, winograd.halo(w, config)),
        winograd.pack_weight(weight, config.tile),
        bias,
    )
    plain = replace(w, relu=False, bounded=False)
    largest = abs(plain.reference(x, weight, bias[0] if w.bounded else bias)).max()
    largest *= max(1, w.slope)
    assert abs(inside(found, out_halo) - y).max() <= MATRICES[config.tile].error * largest


@pytest.mark.spread
@pytest.mark.parametrize(
    ("tile", "size"),
    [
        (tile, size)
        for tile in MATRICES
        for size in sorted({1, 2, tile - 1, tile, tile + 1, 2 * tile, 2 * tile + 1})
    ],
)
def test_any_size_of_map_around_the_tile(target: ResolvedTarget, tile: int, size: int) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, height=3, width=size, in_channels=lanes, out_channels=lanes)
    check(w, target, Config.preset(w, target.vector_unit, tile))


@tiles
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (3, 2), (2, 5)])
def test_any_number_of_vectors_of_channels(
    target: ResolvedTarget, tile: int, inputs: int, outputs: int
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, in_channels=inputs * lanes, out_channels=outputs * lanes)
    check(w, target, Config.preset(w, target.vector_unit, tile))


@pytest.mark.spread
@tiles
@pytest.mark.parametrize(
    ("height", "width", "relu"), [(8, 8, True), (7, 9, False), (2, 3, True), (4, 13, False)]
)
def test_the_pooling_is_taken_in(
    target: ResolvedTarget, tile: int, height: int, width: int, relu: bool
) -> None:
    lanes = target.vector_unit.lanes
    w = Conv(2, height, width, lanes, lanes, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), relu, pool=True)
    check(w, target, Config.preset(w, target.vector_unit, tile))


@pytest.mark.spread
@pytest.mark.parametrize(
    ("activation", "pool", "tile"), [*zip(ACTIVATIONS, (False, True, True), (2, 2, 4), strict=True)]
)
def test_activations(
    target: ResolvedTarget, activation: dict[str, Any], pool: bool, tile: int
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, in_channels=lanes, out_channels=lanes, pool=pool, **activation)
    check(w, target, Config.preset(w, target.vector_unit, tile))


@pytest.mark.spread
@tiles
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 0, 1, 2), (0, 3, 2, 0)])
def test_any_border(target: ResolvedTarget, tile: int, padding: tuple[int, int, int, int]) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, padding=padding, in_channels=lanes, out_channels=lanes)
    check(w, target, Config.preset(w, target.vector_unit, tile))


@pytest.mark.spread
@tiles
@pytest.mark.parametrize(
    ("block", "rows", "prefetch"),
    [(0, 1, 0), (0, 3, 64), (1, 1, 64), (3, 2, 0), (4, 4, 0), (7, 3, 64)],
)
def test_strips_and_blocks_of_any_size_give_the_answer(
    target: ResolvedTarget, tile: int, block: int, rows: int, prefetch: int
) -> None:
    # Eight tiles: a last block that is not full, and tiles of rows that are not.
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, batch=2, height=2 * tile, width=2 * tile, in_channels=lanes)
    w = replace(w, out_channels=2 * lanes)
    check(w, target, Config(lanes, tile, 1, rows, block, prefetch))


@pytest.mark.parametrize(("vectors", "block"), [(1, 0), (3, 0), (3, 3)])
def test_a_tile_may_begin_within_a_cache_line(
    target: ResolvedTarget, vectors: int, block: int
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, batch=2, height=8, width=4, in_channels=lanes, out_channels=12 * lanes)
    check(w, target, Config(lanes, 4, vectors, 3, block, 256))


@pytest.mark.spread
@tiles
@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize(
    ("halo", "size"), [((1, 1, 1, 1), (9, 5)), ((0, 2, 3, 0), (2, 7)), ((2, 0, 0, 1), (9, 5))]
)
def test_the_map_is_written_into_the_border_that_its_reader_wants(
    target: ResolvedTarget, tile: int, block: int, halo: Any, size: tuple[int, int]
) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, batch=3, height=size[0], width=size[1], in_channels=lanes)
    w = replace(w, out_channels=2 * lanes, pool=tile == 4)
    check(w, target, Config(lanes, tile, 1, 2, block), out_halo=Halo(*halo))


@tiles
def test_weights_of_very_different_size(target: ResolvedTarget, tile: int) -> None:
    lanes = target.vector_unit.lanes
    w = replace(PLAIN, in_channels=2 * lanes, out_channels=2 * lanes)
    check(w, target, Config.preset(w, target.vector_unit, tile), scale=1000)


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_convolution(target: ResolvedTarget, data: st.DataObject) -> None:
    lanes = target.vector_unit.lanes
    w = Conv(
        batch=data.draw(st.sampled_from([1, 3, 8])),
        height=data.draw(st.integers(1, 18)),
        width=data.draw(st.integers(1, 18)),
        in_channels=data.draw(st.integers(1, 3)) * lanes,
        out_channels=data.draw(st.integers(1, 4)) * lanes,
        kernel=(3, 3),
        stride=(1, 1),
        padding=data.draw(st.tuples(*[st.integers(0, 2)] * 4)),
        dilation=(1, 1),
        relu=data.draw(st.booleans()),
        pool=data.draw(st.booleans()),
    )
    assume(w.out_height > 1 and w.out_width > 1)
    tile = data.draw(st.sampled_from(sorted(MATRICES)))
    check(w, target, Config.preset(w, target.vector_unit, tile))


@tiles
def test_the_matrices_compute_a_convolution_in_exact_arithmetic(tile: int) -> None:
    algorithm = MATRICES[tile]
    random = np.random.default_rng(tile)
    d = random.standard_normal((tile + 2, tile + 2))
    g = random.standard_normal((1, 1, 3, 3))
    u = algorithm.transform_filter(g.astype(np.float32))[:, :, 0, 0]
    into, out = np.asarray(algorithm.input), np.asarray(algorithm.output)
    y = out @ (u * (into @ d @ into.T)) @ out.T
    windows = np.lib.stride_tricks.sliding_window_view(d, (3, 3))
    direct = (windows * g[0, 0].astype(np.float32)).sum(axis=(2, 3))
    np.testing.assert_allclose(y, direct, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": (5, 5)},
        {"stride": (2, 1)},
        {"dilation": (1, 2)},
        {"affine": (127.5, 0.01)},
        {"in_channels": 1},
        {"in_channels": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_it_does_not_compute_is_left_to_the_direct_convolution(change: Any) -> None:
    assert applies(PLAIN)
    assert not applies(replace(PLAIN, **change))


def test_the_preset_fits_the_registers_and_divides_the_work() -> None:
    shapes = itertools.product((1, 2, 3, 4, 7, 16), (1, 2, 7, 8, 13, 64), (1, 7, 32))
    for (channels, width, batch), unit, tile in itertools.product(shapes, UNITS, MATRICES):
        w = replace(PLAIN, batch=batch, width=width, out_channels=channels * unit.lanes)
        config = Config.preset(w, unit, tile)
        assert w.out_channels % config.panel == 0, (w, unit, tile)
        # accumulators, weights, and one broadcast input value
        needed = config.rows * config.vectors + config.vectors + 1
        assert needed <= unit.registers, (w, unit, tile)
