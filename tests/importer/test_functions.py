"""Model-local functions are put in place of their calls, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ferplus_tvm.errors import ModelError, ModelFileError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported, pixels
from tests.importer.support import run

DOMAIN = "pkg.torch.tests"
STANDARD = helper.make_opsetid("", 17)


def function(
    name: str, nodes: Sequence[NodeProto], opset: int = 17, attributes: Sequence[str] = ()
) -> FunctionProto:
    """Make a function from a to b."""
    sets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_function(DOMAIN, name, ["a"], ["b"], nodes, sets, attributes)


def calling(*functions: FunctionProto, call: str = "F", **attributes: float) -> ModelProto:
    """Make a network that calls a function behind its first convolution."""
    net = Net()
    x = net.conv(net.scale("faces"), 1, 4, strides=[4, 4])
    x = net.add(call, x, domain=DOMAIN, **attributes)
    made = net.model(net.dense(net.add("Flatten", net.pool(x), axis=1), 256, 8))
    return with_functions(made, *functions)


def with_functions(made: ModelProto, *functions: FunctionProto) -> ModelProto:
    made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    made.functions.extend(functions)
    return made


def node(op: str, source: str, target: str, **attributes: float) -> NodeProto:
    domain = "" if op == "Relu" else DOMAIN
    return helper.make_node(op, [source], [target], domain=domain, **attributes)


RELU = function("F", [node("Relu", "a", "b")])


def test_a_function_is_put_in_place() -> None:
    imported = assert_imported(calling(RELU))
    assert [n.op_type for n in imported.proto.graph.node][2:4] == ["Conv", "Relu"]


def test_functions_of_functions_called_twice() -> None:
    outer = function("G", [node("F", "a", "m"), helper.make_node("Identity", ["m"], ["b"])])
    net = Net()
    x = net.conv(net.add("G", net.conv("faces", 1, 4, strides=[4, 4]), domain=DOMAIN), 4, 4)
    x = net.add("Flatten", net.pool(net.add("G", x, domain=DOMAIN)), axis=1)
    assert_imported(with_functions(net.model(net.dense(x, 256, 8)), RELU, outer))


def test_attributes_and_constants_of_a_function() -> None:
    """As PyTorch's exporter writes them: an attribute of the call in a Constant, and CastLike."""
    slope = helper.make_node("Constant", [], ["slope"])
    slope.attribute.append(onnx.AttributeProto(name="value_float", ref_attr_name="factor",
                                               type=onnx.AttributeProto.FLOAT))  # fmt: skip
    low = numpy_helper.from_array(np.array(0, np.int64))
    nodes = [slope, helper.make_node("Constant", [], ["zero"], value=low),
             helper.make_node("CastLike", ["zero", "a"], ["low"]),
             helper.make_node("CastLike", ["slope", "a"], ["s"]),
             helper.make_node("Sub", ["s", "s"], ["nothing"]),
             helper.make_node("Add", ["a", "nothing"], ["m"]),
             helper.make_node("Clip", ["m", "low"], ["b"])]  # fmt: skip
    imported = assert_imported(calling(function("F", nodes, attributes=["factor"]), factor=2.0))
    assert [n.op_type for n in imported.proto.graph.node][2:4] == ["Conv", "Relu"]


@pytest.mark.parametrize("opset", [13, 16, 18])
def test_a_function_that_names_another_operator_set(opset: int) -> None:
    relu = helper.make_node("Relu", ["a"], ["b"])
    assert_imported(calling(function("F", [relu], opset=opset)))


def test_a_function_whose_operators_are_others_in_the_model() -> None:
    clip = helper.make_node("Clip", ["a"], ["b"], min=0.0)
    inner, outer = function("H", [clip], opset=9), function("F", [node("H", "a", "b")])
    # onnxruntime reads the function in the model's operator set; a Clip from 0 is Relu.
    found = run(load_model(calling(inner, outer).SerializeToString()).proto, pixels(2))
    np.testing.assert_allclose(found, run(calling(RELU), pixels(2)), rtol=1e-5, atol=1e-5)


def test_a_function_that_nobody_calls_does_not_matter() -> None:
    made = calling(RELU, function("G", [node("G", "a", "b")]))
    assert (
        load_model(made.SerializeToString()).proto
        == load_model(calling(RELU).SerializeToString()).proto
    )


def test_a_function_that_calls_itself() -> None:
    first = function("F", [node("G", "a", "b")])
    second = function("G", [node("F", "a", "b")])
    with pytest.raises(UnsupportedModelError, match=r"calls itself.*without functions"):
        load_model(calling(first, second).SerializeToString())


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(UnsupportedModelError, match=r"pkg.torch.tests.F node .*standard"):
        load_model(calling().SerializeToString())


def test_functions_cannot_multiply_without_bound() -> None:
    """Thirty functions that each call the next one twice are a billion operators."""
    chain = [
        function(f"F{i}", [node(f"F{i + 1}", "a", "m"), node(f"F{i + 1}", "m", "b")])
        for i in range(30)
    ]
    last = function("F30", [node("Relu", "a", "b")])
    with pytest.raises(UnsupportedModelError, match=r"107374183. operators .* at most 5000"):
        load_model(calling(*chain, last, call="F0").SerializeToString())


def test_functions_cannot_be_nested_without_bound() -> None:
    chain = [function(f"F{i}", [node(f"F{i + 1}", "a", "b")]) for i in range(3000)]
    with pytest.raises(UnsupportedModelError, match="nested too deeply"):
        load_model(calling(*chain, call="F0").SerializeToString())


def test_weights_in_functions_cannot_multiply_without_bound() -> None:
    heavy = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(
        np.zeros(1 << 16, np.float32)))  # fmt: skip
    inner = function("H", [heavy, node("Relu", "a", "b")])
    names = ["a", *(f"m{i}" for i in range(1199)), "b"]
    calls = [node("H", x, y) for x, y in pairwise(names)]
    made = calling(function("F", calls), inner)
    with pytest.raises(UnsupportedModelError, match=r"operators of 300 MiB"):
        load_model(made.SerializeToString())


def test_a_tensor_in_a_function_that_claims_too_much() -> None:
    lie = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40], raw_data=b"1234")
    nodes = [helper.make_node("Constant", [], ["w"], value=lie), node("Relu", "a", "b")]
    with pytest.raises(ModelFileError, match="'w' with dimensions"):
        load_model(calling(function("F", nodes)).SerializeToString())


@pytest.mark.parametrize("inputs", [[], ["faces"] * 3, [""]])
def test_a_call_that_does_not_fit_its_function(inputs: list[str]) -> None:
    made = calling(RELU)
    call = next(n for n in made.graph.node if n.domain == DOMAIN)
    call.input[:] = inputs
    with pytest.raises(ModelError):
        load_model(made.SerializeToString())
