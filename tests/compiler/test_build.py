"""Whole small networks, lowered, lowered and run, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax

from ferplus_tvm import targets
from ferplus_tvm.compiler import build
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.writer import LoweredModel, lower
from ferplus_tvm.targets import ResolvedTarget
from tests.chains import Chain, faces
from tests.importer.support import run

BATCHES = (1, 3)


@pytest.fixture(params=["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"])
def target(request: pytest.FixtureRequest) -> ResolvedTarget:
    resolved = targets.resolve(request.param)
    if not resolved.runs_here:
        pytest.skip(f"this CPU cannot run code for {request.param}")
    return resolved


def lowered_for(
    model: onnx.ModelProto, target: ResolvedTarget, batches: Sequence[int] = BATCHES
) -> LoweredModel:
    return lower(layers_of(model), batches, backend_of(target), lambda workload: None)


def check(chain: Chain, target: ResolvedTarget, batches: Sequence[int] = BATCHES) -> None:
    """Compare scores; 1e-4 of the largest is what a library may be off when it is compiled."""
    model = chain.model()
    channels, size, _ = Graph.from_model(model).input_shape
    lowered = lowered_for(model, target, batches)
    machine = relax.VirtualMachine(build.executable(lowered.module, target), tvm.cpu())
    for batch in batches:
        x = faces(batch, batch, channels, size)
        weights = [tvm.runtime.tensor(lowered.weights[name]) for name in lowered.arguments[batch]]
        given = x if channels == 1 else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        found = machine[lowered.functions[batch]](tvm.runtime.tensor(given), *weights).numpy()
        expected = run(model, x)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [(1, 3, 7), (15, 16, 17), (33, 5, 2)], ids=str)
def test_any_number_of_channels(target: ResolvedTarget, channels: Sequence[int]) -> None:
    chain = Chain().sub(0.5).mul(2)
    for index, count in enumerate(channels):
        chain.conv(f"conv{index}", count).relu(f"relu{index}").pool(f"pool{index}")
    chain.flatten().dense("one", channels[0] + channels[1]).relu("relu").dense("two")
    check(chain, target)


@pytest.mark.parametrize(
    "chain",
    [
        Chain().flatten().dense("only"),
        Chain().pool("first", (3, 3), (2, 2), (1, 1, 1, 1)).conv("a", 3).flatten().dense("d"),
        Chain().conv("a", 3, strides=(2, 3), kernel=(5, 2)).conv("b", 9).flatten().dense("d"),
        Chain().conv("a", 3, dilations=(2, 3), pads=(4, 0, 1, 6)).flatten().dense("d"),
        Chain().conv("a", 6).conv("b", 9, group=3).conv("c", 9, group=9).flatten().dense("d"),
        Chain().conv("a", 2, kernel=(64, 64), pads=[0] * 4).flatten().dense("d", 3).dense("e"),
    ],
    ids=["dense", "pool first", "strides", "dilations", "groups", "whole map"],
)
def test_any_chain_of_layers(chain: Chain) -> None:
    check(chain, targets.resolve("native"))


RGB = ([123.7, 116.3, 103.5], [1 / 58.4, 1 / 57.1, 1 / 57.4])


@pytest.mark.parametrize(
    "chain",
    [
        Chain(1, 48).sub(0.5).conv("a", 16).relu("r").pool("p").pool("q").conv("b", 32)
        .pool("s").pool("t").flatten().dense("d", 64).relu("u").dense("e", 7),
        Chain(1, 45).conv("a", 16).leaky("l", 0.25).pool("p").conv("b", 32).leaky("m", 0.25)
        .pool("q").flatten().dense("d", 9).leaky("n", 0.5).dense("e", 2),
        Chain(3, 33).sub(RGB[0]).mul(RGB[1]).conv("a", 16, strides=(2, 2)).clip("b", "Max", "Min")
        .conv("c", 32).clip("e", "Max", "Min").average("f").flatten().dense("g", 64),
        Chain(3, 32).conv("a", 24).clip("b", "Min").conv("e", 24, group=24).pool("p")
        .conv("c", 20, kernel=(1, 1), pads=[0] * 4).average("f", (2, 2), (2, 2)).conv("h", 16)
        .flatten().dense("i", 10).clip("j", "Max").dense("k", 5),
        Chain(3, 32).sub(2).mul([1, 2, -3]).pool("p", (3, 3), (2, 2)).flatten().dense("d", 3),
        Chain(3, 32).average("f", (2, 2), (2, 2)).conv("a", 5).flatten().dense("d", 3),
        Chain(3, 35).sub([1, 2, 3]).mul(0.5).flatten().dense("d", 10).relu("r").dense("e", 4),
    ],
    ids=["48", "45 leaky", "rgb clip global", "rgb groups", "pool first", "mean first", "dense"],
)  # fmt: skip
def test_any_size_channels_activation_and_pooling(chain: Chain) -> None:
    check(chain, targets.resolve("native"), [2])


def test_layers_that_differ_only_in_their_windows_stay_apart() -> None:
    chain = Chain().conv("a", 16)
    chain.conv("even", 16).conv("low", 16, pads=(2, 2, 0, 0)).conv("high", 16, pads=(0, 0, 2, 2))
    chain.conv("wide", 16, dilations=(2, 2), pads=(2, 2, 2, 2)).relu("r")
    chain.conv("clipped", 16).relu("s")
    chain.conv("leaky", 16).leaky("t", 0.25).conv("leakier", 16).leaky("u", 0.5)
    chain.conv("bounded", 16).clip("v", "Max", "Min")
    chain.pool("p", (3, 3), (1, 1), (1, 1, 1, 1)).pool("q", (3, 3), (1, 1), (0, 0, 2, 2))
    check(chain.pool("r2").flatten().dense("d"), targets.resolve("native"))


@pytest.mark.parametrize(("name", "machine"), [("x86-64-v3", 62), ("neoverse-v1", 183)])
def test_objects_are_made_for_the_target_on_any_machine(
    tmp_path: Path, name: str, machine: int
) -> None:
    target = targets.resolve(name)
    model = Chain().conv("a", 5).relu("r").pool("p").flatten().dense("d").model()
    executable = build.executable(lowered_for(model, target).module, target)
    machines = []

    def read(output: str, objects: Sequence[str]) -> None:
        Path(output).touch()
        for path in objects:
            header = Path(path).read_bytes()[:20]
            machines.append((header[:4], int.from_bytes(header[18:20], "little")))

    executable.export_library(str(tmp_path / "out.so"), fcompile=read, workspace_dir=str(tmp_path))
    assert machines
    assert set(machines) == {(b"\x7fELF", machine)}  # e_machine of the ELF header
