"""What a file does to its scores at the end: the probabilities and the ranking stay the file's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from ferplus_tvm.errors import ModelError, ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported, pixels
from tests.importer.support import run

Tail = Callable[[Net, str], str]


def network(tail: Tail, classes: int = 8, head: str = "dense", **options: Any) -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.conv(net.scale("faces"), 1, 4, strides=[4, 4]))
    if head == "dense":
        x = net.add("Relu", net.dense(net.add("Flatten", net.pool(x), axis=1), 256, 16))
        x = net.dense(x, 16, classes)
    return net.model(tail(net, x), **options)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def exponentials(net: Net, x: str, *, peak: bool, axes: str) -> str:
    """Write a softmax out, as converters do for frameworks that have none."""
    if peak:
        x = net.add("Sub", x, net.add("ReduceMax", x, axes=[1], keepdims=1))
    powers = net.add("Exp", x)
    if axes == "input":
        return net.add("Div", powers, net.add("ReduceSum", powers, net.ints(-1), keepdims=1))
    return net.add("Div", powers, net.add("ReduceSum", powers, axes=[1], keepdims=1))


def log_sum(net: Net, x: str) -> str:
    return net.add("Exp", net.add("Sub", x, net.add("ReduceLogSumExp", x, axes=[1], keepdims=1)))


def reshaped(net: Net, x: str, *shape: int) -> str:
    return net.add("Reshape", x, net.ints(*shape))


def shape_kept(net: Net, x: str) -> str:
    """Write a softmax as converters from channels-last frameworks do, by way of rows."""
    return net.add("Reshape", net.add("Softmax", reshaped(net, x, -1, 8), axis=1),
                   net.add("Shape", x))  # fmt: skip


SOFTMAX: dict[str, tuple[Tail, dict[str, Any]]] = {
    "softmax": (lambda n, x: n.add("Softmax", x, axis=1), {}),
    "softmax-opset-11": (lambda n, x: n.add("Softmax", x), {"opset": 11}),
    "softmax-newest": (lambda n, x: n.add("Softmax", x), {"opset": 23}),
    "softmax-identity": (lambda n, x: n.add("Softmax", n.add("Identity", x), axis=-1), {}),
    "softmax-flatten": (lambda n, x: n.add("Flatten", n.add("Softmax", x, axis=1)), {}),
    "softmax-cast": (
        lambda n, x: n.add("Cast", n.add("Softmax", x, axis=1), to=TensorProto.FLOAT), {}
    ),
    "softmax-shape": (shape_kept, {}),
    "softmax-of-rank-3": (
        lambda n, x: n.add("Squeeze", n.add("Softmax", n.add("Unsqueeze", x, n.ints(1)), axis=-1),
                           n.ints(1)), {}
    ),
    "softmax-of-rank-4-opset-11": (
        lambda n, x: n.add("Softmax", n.add("Unsqueeze", x, axes=[2, 3]), axis=1), {"opset": 11}
    ),
    "softmax-of-rank-4": (
        lambda n, x: n.add("Softmax", n.add("Unsqueeze", x, n.ints(2, 3)), axis=1), {}
    ),
    "softmax-squeezed": (
        lambda n, x: n.add("Softmax", n.add("Squeeze", x, n.ints(0)), axis=0),
        {"shape": (1, 1, 64, 64)},
    ),
    "softmax-squeezed-with-an-open-batch": (
        lambda n, x: n.add("Softmax", n.add("Squeeze", x, n.ints(0)), axis=-1), {}
    ),
    "temperature-div": (
        lambda n, x: n.add("Softmax", n.add("Div", x, n.store(2.5)), axis=1), {}
    ),
    "temperature-mul-behind-reshape": (
        lambda n, x: n.add("Softmax", n.add("Mul", n.store([[[0.3]]]),
                                            reshaped(n, x, 0, 1, 8)), axis=2), {}
    ),
    "calibration": (
        lambda n, x: n.add("Softmax", n.add("Add", n.add("Mul", x, n.store(n.draw(8))),
                                            n.store(n.draw(8))), axis=1), {}
    ),
    "classes-in-another-order": (
        lambda n, x: n.add("Gather", n.add("Softmax", x, axis=1),
                           n.ints(7, 0, 3, 1, 2, 6, 5, 4), axis=1), {}
    ),
    "written-out": (lambda n, x: exponentials(n, x, peak=True, axes="input"), {}),
    "written-out-opset-11": (
        lambda n, x: exponentials(n, x, peak=True, axes="attribute"), {"opset": 11}
    ),
    "written-out-without-maximum": (lambda n, x: exponentials(n, x, peak=False, axes="input"), {}),
    "written-out-logarithm": (log_sum, {}),
    "written-out-norm": (lambda n, x: n.add("LpNormalization", n.add("Exp", x), axis=1, p=1), {}),
    "written-out-power": (
        lambda n, x: n.add("LpNormalization", n.add("Pow", n.store(3.0), x), axis=1, p=1), {}
    ),
    "dropout-behind": (lambda n, x: n.add("Dropout", n.add("Softmax", x, axis=1)), {}),
    "exp-of-logsoftmax": (lambda n, x: n.add("Exp", n.add("LogSoftmax", x, axis=1)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SOFTMAX)
def test_probabilities_are_those_of_the_file(name: str) -> None:
    tail, options = SOFTMAX[name]
    model = network(tail, **options)
    imported = load_model(model.SerializeToString())
    faces = pixels(1 if "squeezed" in name else 3)
    expected = run(model, faces).reshape(len(faces), -1)
    scores = run(imported.proto, faces)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(softmax(scores), expected, rtol=0, atol=2e-6)
    assert np.array_equal(np.argsort(scores), np.argsort(expected))
    assert imported.proto.graph.node[-1].op_type == "Gemm"
    assert [note for note in imported.notes if "softmax" in note and "logits" in note]


@pytest.mark.parametrize(
    "tail",
    [lambda n, x: n.add("LogSoftmax", x, axis=1),
     lambda n, x: n.add("Log", n.add("Softmax", x, axis=1))],
)  # fmt: skip
def test_the_softmax_of_log_probabilities_is_the_files(tail: Tail) -> None:
    model = network(tail)
    imported = load_model(model.SerializeToString())
    expected = np.exp(run(model, pixels(3)).astype(np.float64))
    np.testing.assert_allclose(softmax(run(imported.proto, pixels(3))), expected, atol=2e-6)
    assert "logits" in " ".join(imported.notes)


def test_softmax_of_two_classes() -> None:
    model = network(lambda n, x: n.add("Softmax", x, axis=1), classes=2)
    scores = run(load_model(model.SerializeToString()).proto, pixels(3))
    np.testing.assert_allclose(softmax(scores), run(model, pixels(3)), atol=2e-6)


def test_the_scores_are_the_numbers_before_the_softmax() -> None:
    raw = load_model(network(lambda n, x: x).SerializeToString()).proto
    found = load_model(network(lambda n, x: n.add("Softmax", x)).SerializeToString()).proto
    assert np.array_equal(run(found, pixels(2)), run(raw, pixels(2)))


SCORES: dict[str, tuple[Tail, dict[str, Any]]] = {
    "squeezed-to-one-row": (
        lambda n, x: n.add("Squeeze", x, n.ints(0)), {"shape": (1, 1, 64, 64)}
    ),
    "rank-4": (lambda n, x: n.add("Unsqueeze", x, n.ints(2, 3)), {}),
    "reshape-to-one-row": (lambda n, x: reshaped(n, x, 1, 8), {"shape": (1, 1, 64, 64)}),
    "turned-with-a-batch-of-one": (
        lambda n, x: n.add("Transpose", x, perm=[1, 0]), {"shape": (1, 1, 64, 64)}
    ),
    "dimensions-turned": (
        lambda n, x: n.add("Transpose", reshaped(n, x, 0, 8, 1, 1), perm=[0, 2, 3, 1]), {}
    ),
    "temperature": (lambda n, x: n.add("Div", x, n.store(2.0)), {}),
    "gather": (lambda n, x: n.add("Gather", x, n.ints(3, 2, 0, 1, 4, 7, 6, 5), axis=1), {}),
    "slice-of-ten": (
        lambda n, x: n.add("Slice", x, n.ints(1), n.ints(9), n.ints(1)), {"classes": 10}
    ),
    "slice-of-the-first-of-ten": (
        lambda n, x: n.add("Slice", x, n.ints(0), n.ints(8), n.ints(1)), {"classes": 10}
    ),
    "slice-opset-9": (
        lambda n, x: n.add("Slice", x, starts=[2], ends=[10], axes=[1]),
        {"classes": 10, "opset": 9},
    ),
    "fixed-batch": (
        lambda n, x: reshaped(n, n.add("Gather", x, n.ints(1, 0), axis=1), 3, 2, 1),
        {"shape": (3, 1, 64, 64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_the_file(name: str) -> None:
    tail, options = SCORES[name]
    batch = options.get("shape", (3,))[0]
    imported = assert_imported(network(tail, **options), batch=batch)
    assert imported.proto.graph.node[-1].op_type == "Gemm"
    assert not imported.notes


def test_split_and_joined_in_another_order() -> None:
    def swap(net: Net, x: str) -> str:
        first = net.add("Split", x, net.ints(3, 5), outputs=2, axis=1)
        return net.add("Concat", f"{first}_1", first, axis=1)

    assert_imported(network(swap))


REFUSED: dict[str, tuple[Tail, dict[str, Any], str]] = {
    "sigmoid": (lambda n, x: n.add("Sigmoid", x), {}, "ends in Sigmoid.*softmax.*raw scores"),
    "argmax": (
        lambda n, x: n.add("ArgMax", x, axis=1), {}, "ArgMax.*the chosen class.*'gemm_.*as"
    ),
    "topk": (
        lambda n, x: n.add("TopK", x, n.ints(3), outputs=2), {}, "TopK.*the chosen.*'gemm_.*as"
    ),
    "hardmax": (lambda n, x: n.add("Hardmax", x), {}, "Hardmax.*the chosen class"),
    "softmax-over-the-faces": (lambda n, x: n.add("Softmax", x, axis=0), {}, "not a softmax over"),
    "softmax-over-one-face": (
        lambda n, x: n.add("Softmax", x, axis=0), {"shape": (1, 1, 64, 64)}, "not a softmax over"
    ),
    "softmax-over-other-dimensions": (
        lambda n, x: n.add("Softmax", reshaped(n, x, 0, 8, 1), axis=2), {}, "not a softmax over"
    ),
    "softmax-twice": (
        lambda n, x: n.add("Softmax", n.add("Softmax", x)), {}, "not a softmax over"
    ),
    "softmax-of-groups": (
        lambda n, x: reshaped(n, n.add("Softmax", reshaped(n, x, 0, 2, 4), axis=2), 0, 8), {},
        "not a softmax over",
    ),
    "percent": (
        lambda n, x: n.add("Mul", n.add("Softmax", x), n.store(100.0)), {}, "goes on|not a softmax"
    ),
    "a-part-of-the-probabilities": (
        lambda n, x: n.add("Slice", n.add("Softmax", x), n.ints(0), n.ints(4), n.ints(1)), {},
        "not a softmax over",
    ),
    "turned-with-an-open-batch": (
        lambda n, x: n.add("Transpose", n.add("Softmax", x)), {}, "not a softmax over"
    ),
    "turned": (
        lambda n, x: n.add("Transpose", x, perm=[1, 0]), {"shape": (8, 1, 64, 64)},
        "Transpose.*neither",
    ),
    "two-rows-for-a-face": (lambda n, x: reshaped(n, x, -1, 4), {}, "Reshape.*neither|per face"),
    "whole-numbers": (
        lambda n, x: n.add("Cast", x, to=TensorProto.INT64), {}, "Cast"
    ),
    "rounded-probabilities": (
        lambda n, x: n.add("Cast", n.add("Cast", n.add("Softmax", x), to=TensorProto.INT32),
                           to=TensorProto.FLOAT), {}, "not a softmax over"
    ),
    "dropout-in-training": (
        lambda n, x: n.add("Dropout", n.add("Softmax", x), n.store(0.5), n.store(True, np.bool_)),
        {}, "not a softmax over",
    ),
    "tanh": (lambda n, x: n.add("Tanh", x), {}, "Tanh.*neither"),
    "exp": (lambda n, x: n.add("Exp", x), {}, "Exp.*neither"),
    "mean-of-the-batch": (
        lambda n, x: n.add("Sub", x, n.add("ReduceMean", x, axes=[0], keepdims=1)), {}, "neither"
    ),
    "softmax-and-a-threshold": (
        lambda n, x: n.add("Clip", n.add("Softmax", x), n.store(0.1), n.store(1.0)), {}, "Softmax"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    tail, options, message = REFUSED[name]
    with pytest.raises((UnsupportedModelError, ModelShapeError), match=message) as caught:
        load_model(network(tail, **options).SerializeToString())
    assert "export" in str(caught.value)


def test_softmax_in_the_middle() -> None:
    model = network(lambda n, x: n.dense(n.add("Softmax", x, axis=1), 8, 8))
    with pytest.raises(UnsupportedModelError, match=r"Softmax node .* only .* at the end"):
        load_model(model.SerializeToString())


def test_a_huge_batch_over_a_tail_takes_no_memory() -> None:
    tail: Tail = lambda n, x: n.add("Softmax", reshaped(n, x, 1 << 40, 8))  # noqa: E731
    with pytest.raises(ModelError):
        load_model(network(tail, shape=(1 << 40, 1, 64, 64)).SerializeToString())


def test_a_tail_that_swells_takes_no_memory() -> None:
    def swell(net: Net, x: str) -> str:
        for _ in range(6):
            x = net.add("Concat", *[x] * 40, axis=0)
        return net.add("Softmax", x, axis=1)

    with pytest.raises(UnsupportedModelError):
        load_model(network(swell).SerializeToString())
