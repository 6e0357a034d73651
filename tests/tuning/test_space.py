"""What may be tried: it fits the kernels, and whatever it is gives the right answer."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferplus_tvm import targets
from ferplus_tvm.kernels.backend import WINOGRAD, Algorithm
from ferplus_tvm.kernels.cpu import direct, winograd
from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.tuning.space import Space
from ferplus_tvm.tuning.task import LayerTask
from tests.kernels.support import run_kernel

NATIVE = targets.resolve("native")
UNITS = {name: targets.resolve(name).vector_unit for name in ("x86-64-v2", "x86-64-v3", "znver4")}
UNITS["aarch64"] = targets.resolve("aarch64").vector_unit
WINDOW = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))


def conv(size: int, inputs: int, outputs: int, batch: int = 1, pool: bool = False) -> Conv:
    return Conv(batch, size, size, inputs, outputs, *WINDOW, True, None, pool)


FERPLUS: list[Conv | Dense] = [
    layer
    for batch in (1, 8, 32)
    for layer in (
        conv(64, 1, 64, batch),
        conv(64, 64, 64, batch, pool=True),
        conv(16, 128, 256, batch),
        conv(8, 256, 256, batch, pool=True),
        Dense(batch, 4096, 1024, 1024, True, True),
        Dense(batch, 1024, 16, 8, False, True),
    )
]


@pytest.mark.parametrize("unit", UNITS.values(), ids=list(UNITS))
@pytest.mark.parametrize("workload", FERPLUS, ids=lambda workload: workload.name)
def test_presets_their_neighbours_and_random_ones_are_of_the_space(
    workload: Conv | Dense, unit: targets.VectorUnit
) -> None:
    space = Space(workload, CpuBackend(unit))
    for preset in space.presets:
        assert preset in space
        beside = list(space.neighbours(preset))
        assert beside and preset not in beside
        assert all(each in space for each in beside)
        assert {each.algorithm for each in beside} == {preset.algorithm}
    rng = random.Random(0)
    algorithms = {preset.algorithm for preset in space.presets}
    assert all(space.sample(rng, algorithms) in space for _ in range(8))


def test_every_algorithm_is_in_the_space_of_a_3x3_convolution_and_only_there() -> None:
    backend = CpuBackend(UNITS["znver4"])
    wide, first = (Space(conv(64, inputs, 64), backend) for inputs in (64, 1))
    assert {preset.algorithm for preset in wide.presets} == {Algorithm.DIRECT, *WINOGRAD}
    assert {preset.algorithm for preset in first.presets} == {Algorithm.DIRECT}
    rng, some = random.Random(0), {Algorithm.WINOGRAD_F2, Algorithm.WINOGRAD_F6}
    assert {wide.sample(rng, some).algorithm for _ in range(40)} == some


@pytest.mark.parametrize(
    "change", [{"rows": 40}, {"vectors": 3}, {"lanes": 8}, {"tile": 5}, {"block": 10**6}]
)
def test_what_does_not_fit_is_not_of_the_space(change: dict[str, int]) -> None:
    space = Space(conv(64, 64, 64), CpuBackend(UNITS["znver4"]))
    (preset,) = (each for each in space.presets if each.algorithm is Algorithm.WINOGRAD_F4)
    assert replace(preset, **change) not in space  # type: ignore[type-var]


def test_the_register_tile_and_its_operands_fit_the_registers() -> None:
    for unit in UNITS.values():
        for config in CpuBackend(unit).candidates(conv(16, 64, 64, batch=4)):
            rows = config.width if isinstance(config, direct.Config) else config.rows
            assert (rows + 1) * config.vectors < unit.registers + (unit.registers == 16)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(1, 1 << 30), pool=st.booleans(), batch=st.integers(1, 3))
def test_any_configuration_of_a_convolution_gives_the_right_answer(
    seed: int, pool: bool, batch: int
) -> None:
    unit = NATIVE.vector_unit
    layer = conv(10, 2 * unit.lanes, 4 * unit.lanes, batch, pool)
    assert_right(LayerTask(layer, CpuBackend(unit)), seed)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(1, 1 << 30), batch=st.integers(1, 9), half=st.booleans())
def test_any_configuration_of_a_dense_layer_gives_the_right_answer(
    seed: int, batch: int, half: bool
) -> None:
    unit = NATIVE.vector_unit
    layer = Dense(batch, 96, 4 * unit.lanes, 3 * unit.lanes + 1, True, half and unit.fp16)
    assert_right(LayerTask(layer, CpuBackend(unit)), seed)


@pytest.mark.parametrize("seed", range(1, 4))
def test_any_configuration_of_the_first_layer_gives_the_right_answer(seed: int) -> None:
    unit = NATIVE.vector_unit
    layer = Conv(2, 12, 12, 1, 2 * unit.lanes, *WINDOW, True, (3.0, 0.5))
    assert_right(LayerTask(layer, CpuBackend(unit), first=True), seed)


def assert_right(task: LayerTask, seed: int) -> None:
    space = Space(task.workload, task.backend)
    config = space.sample(random.Random(seed), {preset.algorithm for preset in space.presets})
    carried: dict[int, np.ndarray] = {}
    answer = np.empty(0)
    for function, arrays in zip(task.define(config), task.operands(config), strict=True):
        inputs = [carried.get(id(array), array) for array in arrays[:-1]]
        answer = run_kernel(function, NATIVE, arrays[-1].shape, *inputs)
        carried[id(arrays[-1])] = answer
    expected = task.expected()
    np.testing.assert_allclose(
        answer, expected, rtol=0, atol=task.backend.tolerance * np.abs(expected).max()
    )


def test_a_task_computes_what_the_specification_says() -> None:
    """The reference of a task beside that of numpy for one output, by hand."""
    unit = NATIVE.vector_unit
    layer = Conv(1, 6, 6, unit.lanes, unit.lanes, *WINDOW, True, None, True)
    task = LayerTask(layer, CpuBackend(unit))
    config = winograd.Config.preset(layer, unit, tile=2)
    ((x, _, bias, _),) = task.operands(config)
    halo = winograd.halo(layer, config)
    assert halo.top == halo.left == 1
    _, weight, _ = task.values
    window = x[0, 0:4, 0:4].astype(np.float64)  # of the four outputs of one pooled value
    sums = [
        (window[i : i + 3, j : j + 3] * weight[5].transpose(1, 2, 0)).sum() + bias[5]
        for i in range(2)
        for j in range(2)
    ]
    np.testing.assert_allclose(task.expected()[0, 0, 0, 5], max(0.0, *sums))
