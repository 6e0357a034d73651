"""What is refused is named by its cause, and not by the operator at which reading ended."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto, helper

from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, around


def hard_swish(net: Net, x: str) -> str:
    gate = net.add("Clip", net.add("Add", x, net.store(3.0)), net.store(0.0), net.store(6.0))
    return net.add("Mul", x, gate)


def gelu(net: Net, x: str) -> str:
    half = net.add("Erf", net.add("Div", x, net.store(1.414)))
    return net.add("Mul", x, net.add("Add", half, net.store(1.0)))


def standardise(net: Net, x: str) -> str:
    return net.add("Sub", x, net.add("ReduceMean", x, axes=[1, 2, 3]))


CAUSES: dict[str, tuple[Callable[[Net, str], str], str]] = {
    "HardSwish written out": (hard_swish, "Add, Clip, Mul behind .* are an activation"),
    "GELU written out": (gelu, "Div, Erf, Add, Mul behind .* are an activation"),
    "SiLU": (lambda n, x: n.add("Mul", x, n.add("Sigmoid", x)), "Sigmoid, Mul behind .*activation"),
    "normalisation by the values": (standardise, "ReduceMean node .* to normalise it"),
    "a residual connection": (
        lambda n, x: n.add("Add", x, n.conv(x, 4, 4)), "Conv node.*without branches"
    ),
    "an operator of a framework": (
        lambda n, x: n.add("Erfc", x), "Erfc node .* is not an operator of ONNX opset 17"
    ),
    "a variance of zero": (
        lambda n, x: n.add("BatchNormalization", x, *(n.store([1.0] * 4) for _ in range(3)),
                           n.store([0.0] * 4), epsilon=0.0),
        "BatchNormalization node .* NaN or infinite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_cause(name: str) -> None:
    middle, message = CAUSES[name]
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(around(middle).SerializeToString())


def test_numbers_that_the_exporter_left_as_an_input() -> None:
    """So tf2onnx exports a Keras Normalization layer."""
    made: onnx.ModelProto = around(lambda n, x: n.add("Sub", x, "layer/mean"))
    mean = helper.make_tensor_value_info("layer/mean", TensorProto.FLOAT, [1, 1, 1, 1])
    made.graph.input.append(mean)
    with pytest.raises(ModelShapeError, match=r"reads 'layer/mean' .* beside its faces, 'faces'"):
        load_model(made.SerializeToString())
