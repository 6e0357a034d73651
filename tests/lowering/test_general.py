"""Graphs with branches, through TVM's operators and the general schedule, beside onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ferplus_tvm.compiler import build
from ferplus_tvm.errors import ModelError, ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer.general import general_graph
from ferplus_tvm.importer.general_relax import to_relax
from ferplus_tvm.lowering.general import lower_general
from ferplus_tvm.runtime.session_cpu import aligned
from ferplus_tvm.targets import resolve
from tests.artifacts import assert_sentence
from tests.branches import network

TINY = 1e-5  # of the largest value


def computed(model: onnx.ModelProto, output: str, x: np.ndarray[Any, Any]) -> Any:
    """Return what a model's compiled output is of ``x``."""
    import tvm
    import tvm_ffi
    from tvm import relax

    target = resolve("native")
    function = to_relax(general_graph(model, output), "branches")
    module = lower_general(function.module, "branches", target)
    machine = relax.VirtualMachine(build.executable(module, target), tvm.cpu())
    arguments = []
    for value in (x, *function.weights.values()):
        own = aligned(value.shape)
        own[...] = value
        arguments.append(tvm_ffi.from_dlpack(own))
    return np.from_dlpack(machine["branches"](*arguments))


def expected(model: onnx.ModelProto, output: str, x: np.ndarray[Any, Any]) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], {"x": x})[0]


# Maps of whole vectors, of a few values, and of odd widths, which have no vectors at all.
@pytest.mark.parametrize(
    ("height", "width", "output"), [(64, 128, "y"), (20, 44, "wide"), (8, 12, "y")]
)
def test_branches_give_what_onnxruntime_gives(height: int, width: int, output: str) -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, height, width)).astype(np.float32)

    made = computed(network(height, width), output, x)

    wanted = expected(network(height, width), output, x)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=TINY * np.abs(wanted).max())


def test_a_resize_that_repeats_pixels_is_one_however_it_is_said() -> None:
    changed = {
        "nearest_mode": "round_prefer_ceil",
        "coordinate_transformation_mode": "half_pixel",
    }
    x = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)

    made = computed(network(16, 16, larger=changed), "y", x)

    wanted = expected(network(16, 16, larger=changed), "y", x)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=TINY * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nearest_mode": "ceil"}, "resizes in another way"),
        ({"mode": "linear"}, "resizes in another way"),
        ({"nearest_mode": "floor", "coordinate_transformation_mode": "half_pixel"}, "resizes"),
    ],
)
def test_another_resize_is_refused(changed: dict[str, str], said: str) -> None:
    graph = general_graph(network(16, 16, larger=changed), "y")
    with pytest.raises(UnsupportedModelError) as caught:
        to_relax(graph, "branches")
    assert_sentence(str(caught.value), "Resize node 'larger'", said)


def test_an_operator_that_is_not_known_is_named() -> None:
    model = network(16, 16)
    model.graph.node[1].op_type = "Tanh"
    with pytest.raises(UnsupportedModelError) as caught:
        to_relax(general_graph(model, "y"), "branches")
    assert_sentence(str(caught.value), "Tanh node 'lit'", "Conv, Relu, Sigmoid")


@pytest.mark.parametrize(
    ("node", "changed", "said"),
    [
        ("turned", {"perm": [0, 2, 1]}, "does not fit what it reads"),
        ("depth", {"group": 4}, "does not fit what it reads"),
        ("depth", {"pads": [0, 0, 0, 0]}, "does not fit what it reads"),
        ("pooled", {"pads": [0, 0, 1]}, "four numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    node: str, changed: dict[str, Any], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        to_relax(general_graph(network(16, 16, **{node: changed}), "y"), "branches")
    assert_sentence(str(caught.value), said)
    assert capfd.readouterr().err == ""  # TVM says so where its blocks are left open


@pytest.mark.parametrize("size", [None, 1 << 40])
def test_an_open_or_huge_input_is_refused(size: int | None) -> None:
    model = network(16, 16)
    dim = model.graph.input[0].type.tensor_type.shape.dim[2]
    dim.Clear()
    if size:
        dim.dim_value = size
    with pytest.raises(ModelShapeError) as caught:
        general_graph(model, "y")
    assert_sentence(str(caught.value), "'x'", "all fixed")


def test_weights_are_parameters_that_sizes_share() -> None:
    small, large = (
        to_relax(general_graph(network(size, size), "y"), "branches").weights for size in (16, 32)
    )
    assert list(small) == list(large)
    assert len(small) == 5  # the wide head is not among them
    assert all(np.array_equal(small[name], large[name]) for name in small)
