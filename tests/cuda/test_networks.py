"""Whole networks of any size and channels on the GPU's kernels, emulated, beside float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ferplus_tvm.compiler.reference import scores
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.cuda.launch import Launch
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import PlannedLayer, plan
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.targets import GPUS, TOLERANCE, Precision
from tests.chains import Chain, faces
from tests.cuda.conftest import RunEmulated
from tests.cuda.emulator import Program

BATCH = 2


@dataclass(frozen=True)
class Case:
    """A network at a precision."""

    chain: Chain
    channels: int
    size: int
    precision: Precision

    @property
    def backend(self) -> CudaBackend:
        return CudaBackend(GPUS["sm_90"], self.precision)

    def plan(self) -> list[PlannedLayer]:
        return plan(layers_of(self.chain.model()), BATCH, self.backend, lambda workload: None)

    def launches(self, planned: PlannedLayer, last: bool) -> list[Launch]:
        return self.backend.launches(planned.workload, planned.config, last)


CASES = {
    "rgb, clipped, global average": Case(
        Chain(3, 33).sub([1, 2, 3]).mul([1, 0.5, 2]).conv("a", 12, strides=(2, 2))
        .clip("b", "Max", "Min").pool("p").conv("c", 20).leaky("l", 0.25).average("g").flatten()
        .dense("d", 9).clip("e", "Max", "Min").dense("f", 3),
        3, 33, "float16",
    ),
    "average first": Case(
        Chain(3, 32).mul(2).average("g", (2, 2), (2, 2)).conv("a", 5, kernel=(1, 1), pads=[0] * 4)
        .pool("p", (3, 3), (3, 3)).flatten().dense("d", 10).leaky("l", 0.5).dense("e", 4),
        3, 32, "float16",
    ),
    "dense first": Case(
        Chain(1, 33).sub(2).flatten().dense("d", 10).relu("r").dense("e", 2), 1, 33, "float32"
    ),
}  # fmt: skip
PROGRAM = Program(
    case.launches(planned, at == len(layers) - 1)
    for case in CASES.values()
    for layers in [case.plan()]
    for at, planned in enumerate(layers)
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_networks(case: Case, run_emulated: RunEmulated) -> None:
    x = faces(BATCH, 0, case.channels, case.size)
    model = case.chain.model()
    lowered = lower(layers_of(model), [BATCH], case.backend, lambda workload: None)
    names = list(lowered.arguments[BATCH])
    planned = case.plan()
    y: NDArray[Any] = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    for at, layer in enumerate(planned):
        launches = case.launches(layer, at == len(planned) - 1)
        weights = {}
        if any("weight" in launch.inputs for launch in launches):
            weights = {kind: lowered.weights[names.pop(0)] for kind in ("weight", "bias")}
        y = run_emulated(PROGRAM, launches, x=y, **weights)
    expected = scores(model, x)
    assert (
        abs(y.reshape(expected.shape) - expected).max()
        <= TOLERANCE[case.precision] * abs(expected).max()
    )
